"""The charts of a comparison, each a function from its entries to a figure."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

from jaxvision.reports import style
from jaxvision.reports.comparison.groups import Entry, Measure
from jaxvision.reports.run.plots import series, step_axis
from jaxvision.reports.style import NORMAL, SMALL
from jaxvision.reports.theme import LIGHT, Theme, short_name

DRAWN = 12  # entries told apart by colour, line and marker
_DASHES = ('-', (0, (4, 2)), (0, (1, 1.5)))
_MARKERS = 'osD^vP'


def look(index: int, theme: Theme) -> dict:
  """Returns colour, dashes and marker of the entry at a place of the ranking."""
  colors = (theme.train, theme.test, theme.validation, theme.other)
  return {
    'color': colors[index % len(colors)],
    'linestyle': _DASHES[index // len(colors) % len(_DASHES)],
    'marker': _MARKERS[index % len(_MARKERS)],
  }


def curves(
  entries: Sequence[Entry],
  measure: Measure,
  theme: Theme = LIGHT,
  by_epoch: bool = False,
) -> Figure:
  """Draws the measure over the steps: a line through the mean of the seeds.

  Around it a band from the lowest to the highest of the seeds, at the steps that all of
  them have.

  Args:
    entries: the best first; the first `DRAWN` with a log are drawn.
    measure: what they are ranked by.
    theme: colours.
    by_epoch: draw over the epochs, which runs of several batch sizes have in common.
  """
  figure = style.new_figure(6.8, 3.9, theme)
  axes = figure.subplots()
  style.tidy(axes, theme)
  last = 1.0
  for index, entry in enumerate(entries[:DRAWN]):
    logs = [series(run.history, measure.split, measure.logged) for run in entry.runs]
    logs = [dict(zip(steps.tolist(), values.tolist())) for steps, values in logs]
    steps = sorted(set(logs[0]).intersection(*logs[1:]))
    if not steps:
      continue
    values = np.array([[log[step] for step in steps] for log in logs])
    shown = look(index, theme)
    if by_epoch:
      summary = entry.runs[0].summary
      steps = [step * summary['epochs'] / summary['steps'] for step in steps]
    axes.plot(
      steps,
      values.mean(0),
      linewidth=1.5,
      markersize=4 if len(steps) <= 40 else 0,
      markeredgecolor=theme.background,
      label=short_name(entry.label, 44),
      **shown,
    )
    if len(logs) > 1:
      axes.fill_between(
        steps, values.min(0), values.max(0), color=shown['color'], alpha=0.18, lw=0
      )
    last = max(last, steps[-1])
  measured_axis(axes, measure, 'y', theme)
  if measure.sign < 0:
    axes.set_yscale('log')
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
  step_axis(axes, last, theme)
  if by_epoch:
    axes.set_xlabel('epoch')
  style.legend(axes, theme, loc='best')
  return figure


def against(
  entries: Sequence[Entry],
  costs: Sequence[float | None],
  label: str,
  measure: Measure,
  theme: Theme = LIGHT,
) -> Figure:
  """Draws the measure against what it costs, with the deviation over seeds as bars.

  A line joins those that nothing cheaper beats.

  Args:
    entries: the best first; those with both numbers are drawn.
    costs: of each entry, greater than 0.
    label: of the costs, with their unit.
    measure: what they are ranked by.
    theme: colours.
  """
  figure = style.new_figure(5.4, 3.9, theme)
  axes = figure.subplots()
  style.tidy(axes, theme)
  points = [
    (index, entry, cost)
    for index, (entry, cost) in enumerate(zip(entries[:DRAWN], costs))
    if cost and entry.mean is not None
  ]
  front: list[tuple[float, float]] = []
  for _, entry, cost in sorted(points, key=lambda p: (p[2], -measure.sign * p[1].mean)):
    if not front or measure.sign * (entry.mean - front[-1][1]) > 0:
      front.append((cost, entry.mean))
  axes.plot(*zip(*front), color=theme.muted, linewidth=1, zorder=1)
  for index, entry, cost in points:
    shown = look(index, theme)
    axes.errorbar(
      cost,
      entry.mean,
      yerr=entry.deviation,
      color=shown['color'],
      marker=shown['marker'],
      markersize=6,
      markeredgecolor=theme.background,
      capsize=3,
      linestyle='',
      elinewidth=1.2,
      label=short_name(entry.label, 44),
    )
  axes.margins(x=0.1, y=0.1)
  cost_axis(axes, label, [cost for *_, cost in points], theme)
  measured_axis(axes, measure, 'y', theme)
  style.legend(axes, theme, loc='best')
  return figure


def bars(entries: Sequence[Entry], measure: Measure, theme: Theme = LIGHT) -> Figure:
  """Draws each entry as a point, its seeds as small ones, grey where it is marked.

  Args:
    entries: the best first; those with a value are drawn.
    measure: what they are ranked by.
    theme: colours.
  """
  shown = [entry for entry in entries if entry.values]
  figure = style.new_figure(6.8, 0.9 + 0.3 * len(shown), theme)
  axes = figure.subplots()
  style.tidy(axes, theme, grid='x')
  for place, entry in enumerate(shown):
    axes.plot(
      entry.values,
      [place] * len(entry.values),
      'o',
      color=theme.ramp[2],
      markersize=4,
      zorder=2,
    )
    axes.errorbar(
      entry.mean,
      place,
      xerr=entry.deviation,
      color=theme.muted if entry.marks else theme.train,
      marker='D',
      markersize=5,
      capsize=3,
      linewidth=1.2,
      zorder=3,
    )
  names = [short_name(entry.label, 44) for entry in shown]
  axes.set_yticks(range(len(shown)), names, **style.class_text())
  axes.tick_params(axis='y', labelsize=SMALL, labelcolor=theme.ink)
  axes.set_ylim(len(shown) - 0.5, -0.5)
  measured_axis(axes, measure, 'x', theme)
  return figure


def measured_axis(axes: Axes, measure: Measure, which: str, theme: Theme) -> None:
  axis = axes.yaxis if which == 'y' else axes.xaxis
  axis.set_label_text(measure.label, color=theme.ink, fontsize=NORMAL)
  if measure.percent:
    axis.set_major_formatter(PercentFormatter(1.0, decimals=None))


def cost_axis(axes: Axes, label: str, costs: Sequence[float], theme: Theme) -> None:
  """Labels the x axis, logarithmic where the costs differ by a factor of 2 or more."""
  span = max(costs, default=1.0) / min(costs, default=1.0)
  if span >= 2:
    axes.set_xscale('log')
    each = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0) if span < 20 else (1.0, 2.0, 5.0)
    ticks = LogLocator(subs=each if span < 1000 else (1.0,), numticks=99)
    axes.xaxis.set_major_locator(ticks)
    axes.xaxis.set_minor_locator(NullLocator())
    label += ', log scale'
  axes.xaxis.set_major_formatter(FuncFormatter(_short))
  axes.set_xlabel(label, color=theme.ink, fontsize=NORMAL)


def _short(value: float, _: int) -> str:
  """Formats a tick, with k, M and G.

  >>> _short(1_500_000, 0)
  '1.5M'
  """
  for unit, name in ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
    if value >= unit:
      return f'{value / unit:g}{name}'
  return f'{value:g}'
