"""Charts of a sweep, each a function from its results to a figure."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from jaxvision.reports import style
from jaxvision.reports.style import NORMAL, SMALL
from jaxvision.reports.sweep.results import Result, Results, place, ticks
from jaxvision.reports.theme import LIGHT, Theme


def short(path: str) -> str:
  """Returns the name of a field on an axis.

  >>> short('optimizer.learning_rate')
  'learning_rate'
  """
  return path.rsplit('.', 1)[-1]


def history(results: Results, theme: Theme = LIGHT) -> Figure:
  """Draws the measure of each trial by its number, and the best so far."""
  figure = style.new_figure(6.8, 3.4, theme)
  axes = figure.subplots()
  style.tidy(axes, theme)
  for end, marker, color, label in (
    ('done', 'o', theme.train, 'finished'),
    ('pruned', 'x', theme.muted, 'pruned'),
  ):
    shown = [t for t in results.trials if t.end == end and t.value is not None]
    if shown:
      axes.plot(
        [t.number for t in shown],
        [t.value for t in shown],
        marker,
        color=color,
        markersize=5,
        label=label,
      )
  best = results.best_so_far()
  if best:
    axes.step(
      *zip(*best),
      where='post',
      color=theme.test,
      linewidth=1.4,
      label='best so far',
      zorder=1,
    )
  axes.set_xlabel('trial', color=theme.ink, fontsize=NORMAL)
  axes.xaxis.set_major_locator(MaxNLocator(integer=True))
  _measured(axes.yaxis, results, theme)
  style.legend(axes, theme, loc='best')
  return figure


def importance(results: Results, theme: Theme = LIGHT) -> Figure:
  """Draws the share of the variance between trials that each field explains."""
  names, shares = list(results.importances), list(results.importances.values())
  figure = style.new_figure(6.8, 0.9 + 0.32 * len(names), theme)
  axes = figure.subplots()
  style.tidy(axes, theme, grid='x')
  axes.barh(range(len(names)), shares, height=0.62, color=theme.ramp[3])
  for at, share in enumerate(shares):
    axes.annotate(
      f'{share:.0%}',
      (share, at),
      xytext=(4, 0),
      textcoords='offset points',
      va='center',
      fontsize=SMALL,
      color=theme.ink,
    )
  axes.set_yticks(range(len(names)), [short(name) for name in names])
  axes.tick_params(axis='y', labelsize=SMALL, labelcolor=theme.ink)
  axes.set_ylim(len(names) - 0.5, -0.5)
  axes.set_xlim(0, max(0.05, max(shares)) * 1.12)
  axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
  axes.set_xlabel(
    f'share of the variance of {results.measure} explained',
    color=theme.ink,
    fontsize=NORMAL,
  )
  return figure


def parallel_coordinates(results: Results, theme: Theme = LIGHT) -> Figure:
  """Draws parallel coordinates: an axis for each field, and one for the measure.

  Finished trials are coloured by rank, the best on top. Pruned trials are thin, dashed and
  grey.
  """
  paths = list(results.space)
  figure = style.new_figure(max(6.8, 1.25 * (len(paths) + 1)), 3.9, theme)
  axes = figure.subplots()
  axes.set_facecolor(theme.background)
  for side in axes.spines.values():
    side.set_visible(False)
  axes.tick_params(length=0, labelleft=False)
  shown = [
    t for t in results.trials if t.value is not None and set(paths) <= set(t.values)
  ]
  done = [t.value for t in shown if t.end == 'done']
  low, high = (min(done), max(done)) if done else (0.0, 1.0)
  span = (high - low) or 1.0
  colormap = style.colormap(theme)
  order = [t.number for t in results.ranked() if t.end == 'done']
  ranks = {number: 1 - at / len(order) for at, number in enumerate(order)}
  for trial in reversed(results.ranked()):
    if trial not in shown:
      continue
    heights = [place(results.space[path], trial.values[path]) for path in paths]
    share = min(1.0, max(0.0, (trial.value - low) / span))
    goodness = ranks.get(trial.number, 0.0)
    finished = trial.end == 'done'
    axes.plot(
      range(len(paths) + 1),
      [*heights, share],
      color=colormap(0.25 + 0.75 * goodness) if finished else theme.muted,
      linewidth=1.6 if finished else 0.7,
      alpha=0.9 if finished else 0.5,
      linestyle='-' if finished else (0, (3, 3)),
      zorder=2 + goodness if finished else 1,
    )
  for at, path in enumerate(paths):
    _axis(axes, at, ticks(results.space[path]), theme)
  values = np.linspace(low, high, 5)
  texts = [f'{v:.1%}' if results.percent else f'{v:.3g}' for v in values]
  _axis(axes, len(paths), list(zip((values - low) / span, texts)), theme)
  axes.set_xticks(range(len(paths) + 1), [*map(short, paths), results.measure])
  axes.tick_params(axis='x', labelsize=SMALL, labelcolor=theme.ink, pad=8)
  axes.set_xlim(-0.15, len(paths) + 0.45)
  axes.set_ylim(-0.04, 1.04)
  return figure


def _axis(axes, at: int, named: list[tuple[float, str]], theme: Theme) -> None:
  axes.plot([at, at], [0, 1], color=theme.muted, linewidth=0.8, zorder=4)
  for height, text in named:
    axes.plot([at - 0.02, at + 0.02], [height] * 2, color=theme.muted, lw=0.8, zorder=4)
    axes.annotate(
      text,
      (at, height),
      xytext=(5, 0),
      textcoords='offset points',
      va='center',
      fontsize=SMALL,
      color=theme.ink,
      zorder=5,
      bbox={
        'facecolor': theme.background,
        'edgecolor': 'none',
        'pad': 0.6,
        'alpha': 0.8,
      },
      **style.class_text(),
    )


def slices(results: Results, theme: Theme = LIGHT) -> Figure:
  """Draws the measure against the values of each field, one panel per field."""
  paths = list(results.space)
  columns = 2 if len(paths) in (2, 4) else min(3, len(paths))
  rows = -(-len(paths) // columns)
  figure = style.new_figure(2.6 * columns + 0.4, 2.4 * rows + 0.2, theme)
  grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
  for index, axes in enumerate(grid.ravel()):
    if index >= len(paths):
      axes.set_visible(False)
      continue
    path = paths[index]
    style.tidy(axes, theme)
    for end, marker, color in (
      ('pruned', 'x', theme.muted),
      ('done', 'o', theme.train),
    ):
      shown: list[Result] = [
        t
        for t in results.trials
        if t.end == end and path in t.values and t.value is not None
      ]
      axes.plot(
        [place(results.space[path], t.values[path]) for t in shown],
        [t.value for t in shown],
        marker,
        color=color,
        markersize=4,
        alpha=0.85,
      )
    named = ticks(results.space[path])
    axes.set_xticks([at for at, _ in named], [text for _, text in named])
    axes.set_xlim(-0.06, 1.06)
    axes.tick_params(axis='x', labelsize=SMALL)
    axes.set_xlabel(short(path), color=theme.ink, fontsize=NORMAL)
    if index % columns == 0:
      _measured(axes.yaxis, results, theme)
  return figure


def curves(results: Results, theme: Theme = LIGHT) -> Figure:
  """Draws the measure of every trial over its steps; the best three are highlighted."""
  figure = style.new_figure(6.8, 3.4, theme)
  axes = figure.subplots()
  style.tidy(axes, theme)
  colors = (theme.train, theme.test, theme.validation)
  best = [t for t in results.ranked() if t.end == 'done'][:3]
  for trial in results.trials:
    if not trial.reports or trial in best:
      continue
    steps = sorted(trial.reports)
    axes.plot(
      steps,
      [trial.reports[s] for s in steps],
      color=theme.muted,
      linewidth=0.7,
      alpha=0.6,
    )
  for trial, color in zip(best, colors):
    steps = sorted(trial.reports)
    axes.plot(
      steps,
      [trial.reports[s] for s in steps],
      color=color,
      linewidth=1.6,
      marker='o',
      markersize=3,
      label=f'trial {trial.number}',
    )
  axes.set_xlabel('step', color=theme.ink, fontsize=NORMAL)
  _measured(axes.yaxis, results, theme)
  if best:
    style.legend(axes, theme, loc='best')
  return figure


def _measured(axis, results: Results, theme: Theme) -> None:
  axis.set_label_text(results.measure, color=theme.ink, fontsize=NORMAL)
  if results.percent:
    axis.set_major_formatter(PercentFormatter(1.0, decimals=None))
