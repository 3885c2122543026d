"""Charts of a comparison, each a function from its groups of runs to a figure."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

from jaxvision.reports import style
from jaxvision.reports.comparison.groups import Measure, RunGroup
from jaxvision.reports.run.plots import series, step_axis
from jaxvision.reports.style import NORMAL, SMALL
from jaxvision.reports.theme import LIGHT, Theme, short_name

DRAWN = 12  # groups that colour, line and marker distinguish
_DASHES = ('-', (0, (4, 2)), (0, (1, 1.5)))
_MARKERS = 'osD^vP'


def line_style(index: int, theme: Theme) -> dict:
  """Returns colour, dashes and marker of the group at a rank."""
  colors = (theme.train, theme.test, theme.validation, theme.other)
  return {
    'color': colors[index % len(colors)],
    'linestyle': _DASHES[index // len(colors) % len(_DASHES)],
    'marker': _MARKERS[index % len(_MARKERS)],
  }


def curves(
  groups: Sequence[RunGroup],
  measure: Measure,
  theme: Theme = LIGHT,
  by_epoch: bool = False,
) -> Figure:
  """Draws the measure over the steps: mean over seeds, and the range as a band.

  Only the steps that all seeds of a group have are drawn.

  Args:
    groups: the best first; the first `DRAWN` with a log are drawn.
    measure: what they are ranked by.
    theme: colours.
    by_epoch: draw over epochs, for runs with several batch sizes.
  """
  figure = style.new_figure(6.8, 3.9, theme)
  axes = figure.subplots()
  style.tidy(axes, theme)
  last = 1.0
  for index, group in enumerate(groups[:DRAWN]):
    logs = [series(run.history, measure.split, measure.logged) for run in group.runs]
    logs = [dict(zip(steps.tolist(), values.tolist())) for steps, values in logs]
    steps = sorted(set(logs[0]).intersection(*logs[1:]))
    if not steps:
      continue
    values = np.array([[log[step] for step in steps] for log in logs])
    shown = line_style(index, theme)
    if by_epoch:
      summary = group.runs[0].summary
      steps = [step * summary['epochs'] / summary['steps'] for step in steps]
    axes.plot(
      steps,
      values.mean(0),
      linewidth=1.5,
      markersize=4 if len(steps) <= 40 else 0,
      markeredgecolor=theme.background,
      label=short_name(group.label, 44),
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
  groups: Sequence[RunGroup],
  costs: Sequence[float | None],
  label: str,
  measure: Measure,
  theme: Theme = LIGHT,
) -> Figure:
  """Draws the measure against a cost, with error bars (standard deviation over seeds).

  A line joins the Pareto front: the groups that no cheaper group beats.

  Args:
    groups: the best first; those with both numbers are drawn.
    costs: cost of each group, greater than 0.
    label: label of the cost, with its unit.
    measure: what they are ranked by.
    theme: colours.
  """
  figure = style.new_figure(5.4, 3.9, theme)
  axes = figure.subplots()
  style.tidy(axes, theme)
  points = [
    (index, group, cost)
    for index, (group, cost) in enumerate(zip(groups[:DRAWN], costs))
    if cost and group.mean is not None
  ]
  front: list[tuple[float, float]] = []
  for _, group, cost in sorted(points, key=lambda p: (p[2], -measure.sign * p[1].mean)):
    if not front or measure.sign * (group.mean - front[-1][1]) > 0:
      front.append((cost, group.mean))
  axes.plot(*zip(*front), color=theme.muted, linewidth=1, zorder=1)
  for index, group, cost in points:
    shown = line_style(index, theme)
    axes.errorbar(
      cost,
      group.mean,
      yerr=group.deviation,
      color=shown['color'],
      marker=shown['marker'],
      markersize=6,
      markeredgecolor=theme.background,
      capsize=3,
      linestyle='',
      elinewidth=1.2,
      label=short_name(group.label, 44),
    )
  axes.margins(x=0.1, y=0.1)
  cost_axis(axes, label, [cost for *_, cost in points], theme)
  measured_axis(axes, measure, 'y', theme)
  style.legend(axes, theme, loc='best')
  return figure


def bars(groups: Sequence[RunGroup], measure: Measure, theme: Theme = LIGHT) -> Figure:
  """Draws the mean of each group, its seeds as small points; incomparable ones grey.

  Args:
    groups: the best first; those with a value are drawn.
    measure: what they are ranked by.
    theme: colours.
  """
  shown = [group for group in groups if group.values]
  figure = style.new_figure(6.8, 0.9 + 0.3 * len(shown), theme)
  axes = figure.subplots()
  style.tidy(axes, theme, grid='x')
  for place, group in enumerate(shown):
    axes.plot(
      group.values,
      [place] * len(group.values),
      'o',
      color=theme.ramp[2],
      markersize=4,
      zorder=2,
    )
    axes.errorbar(
      group.mean,
      place,
      xerr=group.deviation,
      color=theme.muted if group.incomparable_because else theme.train,
      marker='D',
      markersize=5,
      capsize=3,
      linewidth=1.2,
      zorder=3,
    )
  names = [short_name(group.label, 44) for group in shown]
  axes.set_yticks(range(len(shown)), names, **style.class_text())
  axes.tick_params(axis='y', labelsize=SMALL, labelcolor=theme.ink)
  axes.set_ylim(len(shown) - 0.5, -0.5)
  measured_axis(axes, measure, 'x', theme)
  return figure


def measured_axis(axes: Axes, measure: Measure, which: str, theme: Theme) -> None:
  """Labels the 'x' or the 'y' axis with the measure."""
  axis = axes.yaxis if which == 'y' else axes.xaxis
  axis.set_label_text(measure.label, color=theme.ink, fontsize=NORMAL)
  if measure.percent:
    axis.set_major_formatter(PercentFormatter(1.0, decimals=None))


def cost_axis(axes: Axes, label: str, costs: Sequence[float], theme: Theme) -> None:
  """Labels the x axis, which is logarithmic if the costs span a factor of 2 or more."""
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
