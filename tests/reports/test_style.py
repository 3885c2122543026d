"""Charts as SVG: colours of the page, ids of their own, the same bytes again."""

import re

import numpy as np
import pytest

from jaxvision.reports import style
from jaxvision.reports.theme import DARK, LIGHT, VARIABLE, css_variables


def _bars(theme):
  figure = style.new_figure(4, 3, theme)
  axes = figure.subplots()
  style.tidy(axes, theme)
  axes.plot([0, 1], [1, 3], 'o-', color=theme.train, label='a')
  axes.fill_between([0, 1], [0, 1], color=theme.ramp[2], alpha=0.5)
  axes.set_xlabel('--> <script>', color=theme.ink)
  style.legend(axes, theme)
  return figure


def _heat_map(theme):
  figure = style.new_figure(4, 3, theme)
  figure.subplots().imshow(np.eye(3), cmap=style.colormap(theme))
  return figure


def test_svg_takes_its_colours_from_the_page():
  svg = style.svg(_bars(VARIABLE), 'bars')
  used = set(re.findall(r'var\((--[\w-]+)\)', svg))
  assert {'--chart-background', '--chart-train', '--chart-ramp-2'} <= used
  assert used <= css_variables(LIGHT).keys() == css_variables(DARK).keys()
  assert not re.search('#[0-9a-f]{6}', svg)
  assert '<script' not in svg
  assert '-->' not in svg
  assert svg.startswith('<svg viewBox="0 0 288 216" width="384" height="288"')


def test_svg_is_reproducible_and_its_ids_are_its_own():
  one, again = (style.svg(_bars(VARIABLE), 'one') for _ in range(2))
  assert one == again
  ids = re.findall(r' id="([^"]*)"', one)
  assert ids
  assert len(set(ids)) == len(ids)
  assert all(name.startswith('one-') for name in ids)
  assert {name[1:] for name in re.findall(r'#[\w-]+', one)} <= set(ids)


def test_a_scatter_of_many_points_is_no_larger_than_its_pngs():
  points = np.random.default_rng(0).uniform(size=(2, 5000))

  def scatter(theme):
    figure = style.new_figure(4, 3, theme)
    figure.subplots().scatter(*points, color=theme.train)
    return figure

  plot = style.draw('x.png', 'Points', scatter, narrow=True)
  assert not plot.svg
  assert not plot.narrow
  assert plot.dark


def test_images_and_colours_beside_the_theme_are_drawn_as_png_in_both_themes():
  assert style.svg(_heat_map(VARIABLE), 'x') is None
  assert style.svg(_bars(LIGHT), 'x') is None
  plot = style.draw('x.png', 'A heat map', _heat_map)
  assert not plot.svg
  assert plot.dark.startswith(b'\x89PNG')
  assert plot.dark != plot.light


@pytest.mark.parametrize('narrow', [False, True])
def test_a_chart_has_a_file_and_versions_for_screens_and_phones(narrow):
  plot = style.draw('x.png', 'Bars', _bars, narrow=narrow)
  assert plot.light.startswith(b'\x89PNG')
  assert plot.svg.startswith('<svg')
  assert not plot.dark
  assert bool(plot.narrow) == narrow
  assert f'width="{96 * style.PHONE:.0f}"' in plot.narrow or not narrow
