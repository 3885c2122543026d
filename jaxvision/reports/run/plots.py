"""Charts of a report, each a function from numbers to a matplotlib figure."""

import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from jaxvision.metrics import classification
from jaxvision.reports import style
from jaxvision.reports.style import NORMAL, SMALL
from jaxvision.reports.theme import LIGHT, Theme, short_name, text_width

COUNTED_CLASSES = 20  # up to this number, the confusion matrix shows its counts
BAR_CLASSES = 150  # above this number, only the best and the worst classes are drawn
ROWS = 50  # bars in one column
_NOT_MEASURES = ('step', 'split', 'epoch', 'images_per_second', 'learning_rate')


def series(
  history: Sequence[Mapping], split: str, key: str
) -> tuple[np.ndarray, np.ndarray]:
  """Extracts one curve from the log.

  Records without a finite number are skipped. Of two records for one step, which a
  resumed run may have logged, the later one counts.

  Args:
    history: log records, dicts with 'step', 'split' and metric names.
    split: split of the records.
    key: name of the metric.

  Returns:
    steps int64 [m], rising, and their values float64 [m].
  """
  points = {
    int(record['step']): float(record[key])
    for record in history
    if record.get('split') == split and isinstance(record.get(key), (int, float))
  }
  points = {step: value for step, value in points.items() if math.isfinite(value)}
  steps = np.array(sorted(points), np.int64)
  return steps, np.array([points[step] for step in steps.tolist()], np.float64)


def logged_measures(history: Sequence[Mapping]) -> list[str]:
  """Lists the measures in the log: loss, accuracy, then others as they come."""
  found = {
    key: None
    for split in _splits(history)
    for record in history
    for key in record
    if key not in _NOT_MEASURES and series(history, split, key)[0].size
  }
  first = [key for key in ('loss', 'accuracy') if key in found]
  return first + [key for key in found if key not in first]


def has_curves(
  history: Sequence[Mapping], measures: Sequence[str] | None = None
) -> bool:
  """Returns whether the log holds any measure, or any of those named."""
  found = logged_measures(history)
  return bool(found if measures is None else set(found) & set(measures))


def _splits(history: Sequence[Mapping]) -> list[str]:
  """Lists the splits in the log: train, validation, test, then any others."""
  known = ['train', 'validation', 'test']
  found = dict.fromkeys(record.get('split') for record in history)
  others = [name for name in found if name and name not in known]
  return [name for name in known if name in found] + others


def curves(
  history: Sequence[Mapping],
  theme: Theme = LIGHT,
  measures: Sequence[str] | None = None,
) -> Figure:
  """Draws measures and the learning rate over steps, epochs along the top.

  Training is a line through its log points; other splits have a marker at each
  evaluation. A measure that spans more than a factor of 30 has a logarithmic axis.

  Args:
    history: the parsed metrics.jsonl, which holds at least one of the measures.
    theme: colours.
    measures: names of those to draw, one panel each; None: all that were logged.
  """
  splits = _splits(history)
  found = logged_measures(history)
  if measures is not None:
    found = [key for key in measures if key in found]
  panels = [(key, 2.5 if len(found) <= 3 else 1.9) for key in found]
  if any(series(history, split, 'learning_rate')[0].size for split in splits):
    panels.append(('learning_rate', 0.8))
  figure = style.new_figure(6.8, 0.7 + sum(height for _, height in panels), theme)
  figure.get_layout_engine().set(h_pad=0.06)
  column = figure.subplots(
    len(panels),
    1,
    sharex=True,
    squeeze=False,
    height_ratios=[height for _, height in panels],
  )[:, 0]
  for axes, (key, _) in zip(column, panels):
    style.tidy(axes, theme)
    for split in splits:
      _draw_series(axes, history, split, key, theme)
    label = '\n'.join(textwrap.wrap(key.replace('_', ' '), 20)[:3])
    axes.set_ylabel(label, color=theme.ink, fontsize=NORMAL, parse_math=False)
    if 'accuracy' in key:
      axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    elif key != 'learning_rate' and _spans_decades(axes):
      axes.set_yscale('log')
      axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
      axes.tick_params(which='minor', labelleft=False)
    if key == 'learning_rate':
      axes.set_ylim(bottom=0)
      axes.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
      axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
    else:
      style.legend(axes, theme, loc='upper right' if _falls(axes) else 'lower right')
  last = max(max(line.get_xdata()[-1] for line in axes.lines) for axes in column)
  step_axis(column[-1], last, theme)
  _add_epochs(column[0], history, theme)
  figure.align_ylabels(column)
  return figure


def _falls(axes: Axes) -> bool:
  """Returns whether the longest curve ends lower than it begins."""
  values = max((line.get_ydata() for line in axes.lines), key=len)
  return bool(values[-1] < values[0])


def step_axis(axes: Axes, last: float, theme: Theme) -> None:
  """Labels an axis of training steps that ends at `last`."""
  axes.set_xlim(0, 1.02 * max(last, 1))
  axes.set_xlabel('step', color=theme.ink, fontsize=NORMAL)
  axes.xaxis.set_major_locator(MaxNLocator(4 if theme.narrow else 7, integer=True))
  axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f'{x:,.0f}'))


def _draw_series(
  axes: Axes, history: Sequence[Mapping], split: str, key: str, theme: Theme
) -> None:
  steps, values = series(history, split, key)
  if not steps.size:
    return
  last = f'{values[-1]:.2%}' if 'accuracy' in key else f'{values[-1]:#.4g}'
  evaluated = split != 'train'
  single = steps.size == 1
  axes.plot(
    steps,
    values,
    color=theme.muted if key == 'learning_rate' else theme.split(split),
    linewidth=1.4,
    # A curve of one point would be invisible without its marker.
    marker={'validation': 's', 'test': 'o'}.get(split, 'D' if evaluated else 'o')
    if evaluated or single
    else '',
    markersize=4.5 if steps.size <= 60 else 2.5,
    markeredgecolor=theme.background,
    markeredgewidth=0.5,
    label=f'{split} (last {last})',
    zorder=3 if evaluated else 2,
  )


def _spans_decades(axes: Axes) -> bool:
  values = np.concatenate([line.get_ydata() for line in axes.lines])
  return bool(values.min() > 0 and values.max() > 30 * values.min())


def _add_epochs(axes: Axes, history: Sequence[Mapping], theme: Theme) -> None:
  """Adds an axis of epochs at the top if the log has epochs."""
  steps, epochs = series(history, 'train', 'epoch')
  if not steps.size or not epochs[-1] > 0 or not steps[-1] > 0:
    return
  each = steps[-1] / epochs[-1]
  top = axes.secondary_xaxis(
    'top', functions=(lambda step: step / each, lambda epoch: epoch * each)
  )
  top.xaxis.set_major_locator(
    MaxNLocator(10, steps=[1, 2, 5, 10], integer=epochs[-1] >= 3)
  )
  top.tick_params(length=0, labelsize=SMALL, labelcolor=theme.muted)
  top.spines['top'].set_visible(False)
  top.patch.set_visible(False)
  top.set_xlabel('epoch', color=theme.ink, fontsize=NORMAL)


def confusion_matrix(
  confusion: np.ndarray, class_names: Sequence[str], theme: Theme = LIGHT
) -> Figure:
  """Draws a confusion matrix, coloured by the share of each true class.

  Up to 20 classes the cells show their counts. The colour scale is a square root, which
  makes mistakes of one per cent visible.

  Args:
    confusion: integer [K, K], rows are the true classes.
    class_names: K names.
    theme: colours.
  """
  number = len(confusion)
  counted = number <= COUNTED_CLASSES
  side = min(1.6 + 0.42 * number, 7.4) if counted else 7.4  # inches
  label_size = NORMAL if number <= 10 else SMALL if counted else 6.5
  # Names need 1.3 times their height; where they cannot all stand, every nth does.
  every = max(1, math.ceil(number * label_size * 1.3 / 72 / side))
  ticks = np.arange(0, number, every)
  names = [short_name(class_names[i]) for i in ticks]
  longest = max(map(text_width, names)) * label_size * 0.62 / 72  # inches
  if longest < 0.9 * side / number:
    turn = {'rotation': 0}
    below = 0.0
  elif number <= COUNTED_CLASSES:
    turn = {'rotation': 45, 'ha': 'right', 'rotation_mode': 'anchor'}
    below = 0.7 * longest
  else:
    turn = {'rotation': 90}
    below = longest
  support = confusion.sum(axis=1, keepdims=True)
  share = np.ma.masked_invalid(confusion / np.where(support, support, np.nan))

  figure = style.new_figure(side + longest + 1.3, side + below + 0.6, theme)
  axes = figure.subplots()
  image = axes.imshow(
    share,
    cmap=style.colormap(theme),
    norm=PowerNorm(0.5, 0, 1),
    interpolation='nearest' if number <= 400 else 'auto',
  )
  style.tidy(axes, theme, grid='none', frame=True)
  axes.set_xticks(ticks, names, **turn, **style.class_text())
  axes.set_yticks(ticks, names, **style.class_text())
  axes.tick_params(labelsize=label_size, labelcolor=theme.ink, pad=3)
  named = f' (every {_ordinal(every)} class is named)' if every > 1 else ''
  axes.set_xlabel(f'predicted{named}', fontsize=NORMAL)
  axes.set_ylabel('true' if support.all() else 'true (grey: no examples)')
  if counted:
    _write_counts(axes, confusion, image)

  bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=28, pad=0.02)
  bar.set_ticks([0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1])
  bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
  bar.ax.tick_params(length=0, labelsize=SMALL, labelcolor=theme.muted)
  bar.ax.minorticks_off()
  bar.set_label('share of the true class', color=theme.ink, fontsize=SMALL)
  bar.outline.set_visible(False)
  return figure


def _ordinal(number: int) -> str:
  return {2: '2nd', 3: '3rd'}.get(number, f'{number}th')


def _write_counts(axes: Axes, confusion: np.ndarray, image: AxesImage) -> None:
  digits = len(str(confusion.max()))
  size = min(11.0 if len(confusion) <= 5 else 9.0, 36 / (digits + 0.5))
  for (row, column), count in np.ndenumerate(confusion):
    if not count:
      continue
    red, green, blue, _ = image.to_rgba(count / confusion[row].sum())
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
    color = '#ffffff' if dark else '#10151b'
    axes.text(column, row, f'{count}', ha='center', va='center', size=size, color=color)


def f1_bars(
  scores: classification.ClassScores, class_names: Sequence[str], theme: Theme = LIGHT
) -> Figure:
  """Draws the F1 of each class as bars, the best first, and the macro average.

  Above 150 classes only the 50 best and the 50 worst are drawn.

  Args:
    scores: scores of K classes.
    class_names: K names.
    theme: colours.
  """
  macro = float(np.mean(scores.f1))
  texts = [
    (f'{f1:.3f}', theme.ink) if support else ('no examples', theme.muted)
    for f1, support in zip(scores.f1, scores.support)
  ]
  figure = class_bars(
    scores.f1,
    texts,
    class_names,
    np.argsort(-scores.f1, kind='stable'),
    BAR_CLASSES,
    (f'the {ROWS} best of {len(class_names)}', f'the {ROWS} worst'),
    macro,
    1.0,
    5.0,
    theme,
  )
  for axes in figure.axes:
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axes.set_xlabel(f'F1 (dashed: macro average {macro:.3f})')
  return figure


def class_bars(
  values: np.ndarray,
  texts: Sequence[tuple[str, str]],
  class_names: Sequence[str],
  order: np.ndarray,
  most: int,
  titles: tuple[str, str],
  line: float,
  end: float,
  width: float,
  theme: Theme,
) -> Figure:
  """Draws a value of each class as a bar, in one or more columns.

  Args:
    values: float [K].
    texts: (text, colour) beside each bar.
    class_names: K names.
    order: the classes from top to bottom.
    most: number of classes up to which all are drawn; above it, the first `ROWS` and the
      last `ROWS` are.
    titles: titles of the first and of the last classes, if not all are drawn.
    line: value of the dashed line.
    end: largest value of the axis.
    width: width of a figure with one column, in inches.
    theme: colours.
  """
  if len(class_names) > most:
    columns, heads = [order[:ROWS], order[-ROWS:]], list(titles)
  else:
    columns = np.array_split(order, math.ceil(len(class_names) / ROWS))
    heads = [''] * len(columns)
  rows = max(map(len, columns))
  dense = rows > 25
  size = 6.5 if dense else SMALL
  height = rows * (0.135 if dense else 0.26)
  width = width if len(columns) == 1 else 3.8 * len(columns)
  figure = style.new_figure(width, height + 0.8, theme)
  figure.get_layout_engine().set(w_pad=0.12)
  for axes, classes, title in zip(
    figure.subplots(1, len(columns), squeeze=False)[0], columns, heads
  ):
    style.tidy(axes, theme, grid='x')
    places = np.arange(len(classes))
    axes.barh(places, values[classes], height=0.72, color=theme.ramp[3])
    axes.axvline(line, color=theme.test, linewidth=1.2, linestyle=(0, (4, 2)))
    for place, index in zip(places.tolist(), classes.tolist()):
      # In a column of their own, so that neither bar nor line crosses them.
      text, color = texts[index]
      axes.text(1.02 * end, place, text, va='center', size=size, color=color)
    names = [short_name(class_names[i], 24) for i in classes]
    axes.set_yticks(places, names, **style.class_text())
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_xlim(0, end)
    axes.tick_params(axis='y', labelsize=size, labelcolor=theme.ink)
    axes.set_title(title, size=NORMAL, color=theme.ink, loc='left')
  return figure


def reliability_diagram(
  binned: classification.Reliability, error: float, theme: Theme = LIGHT
) -> Figure:
  """Draws accuracy against confidence, and the number of examples in each bin.

  Args:
    binned: from `classification.reliability`.
    error: expected calibration error.
    theme: colours.
  """
  figure = style.new_figure(5.4, 5.6, theme)
  upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
  some = binned.count > 0
  left, right = binned.edges[:-1][some], binned.edges[1:][some]
  share = binned.count[some] / binned.count.sum()
  bars = {'align': 'edge', 'edgecolor': theme.background, 'linewidth': 0.8}
  style.tidy(upper, theme)
  upper.bar(
    left,
    binned.accuracy[some],
    right - left,
    color=theme.ramp[3],
    label='accuracy',
    **bars,
  )
  upper.hlines(
    binned.confidence[some],
    left,
    right,
    color=theme.wrong,
    linewidth=2.5,
    label='mean confidence',
  )
  upper.plot([0, 1], [0, 1], color=theme.muted, linewidth=1, linestyle='--')
  upper.set_xlim(0, 1)
  upper.set_ylim(0, 1.005)
  upper.set_ylabel('accuracy')
  style.legend(upper, theme, loc='lower left', bbox_to_anchor=(0, 1), ncols=2)
  upper.set_title(f'ECE {error:.2%}', loc='right', size=NORMAL, color=theme.ink)
  style.tidy(lower, theme, grid='none')
  lower.bar(left, share, right - left, color=theme.muted, **bars)
  for middle, part, count in zip((left + right) / 2, share, binned.count[some]):
    text = f'{count}' if count < 10_000 else f'{count / 1000:.0f}k'
    lower.text(
      middle, part + 0.03, text, ha='center', va='bottom', size=6.5, color=theme.muted
    )
  lower.set_ylim(0, share.max() + 0.25)
  lower.set_yticks([])
  lower.set_ylabel('examples')
  lower.set_xlabel('confidence')
  for axis in (upper.xaxis, upper.yaxis):
    axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
  figure.align_ylabels([upper, lower])
  return figure
