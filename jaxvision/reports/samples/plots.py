"""Charts of the report of generated images, each a function from numbers to a figure."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
  FuncFormatter,
  LogLocator,
  MaxNLocator,
  NullFormatter,
  PercentFormatter,
)

from jaxvision.reports import style
from jaxvision.reports.run.plots import ROWS, class_bars, series, step_axis
from jaxvision.reports.style import SMALL
from jaxvision.reports.theme import LIGHT, Theme, short_name

_MANY = 60  # log points from which on a curve is drawn pale below a smoothed one
_PARTS = 20  # a smoothing window is a 20th of the curve
_ORDERED = 20  # up to this number of classes, bars keep the order of the classes

# The colour of real images and the discriminator, and of generated images.
_REAL, _FAKE = 'train', 'test'


def smoothed(values: np.ndarray) -> np.ndarray:
  """Smooths a curve by a moving median, against peaks, and then a moving mean.

  Both windows span a 20th of the curve and at least three points.

  Args:
    values: float [n], n at least 1.

  Returns:
    float64 [n].

  >>> smoothed(np.array([1.0, 1.0, 90.0, 1.0, 1.0])).tolist()
  [1.0, 1.0, 1.0, 1.0, 1.0]
  """
  half = max(1, len(values) // (2 * _PARTS))
  for mean in (np.median, np.mean):
    padded = np.pad(values, half, 'edge')
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    values = mean(windows, axis=-1)
  return values


def has(history: Sequence[Mapping], *keys: str) -> bool:
  """Returns whether training logged a number under any of the keys."""
  return any(series(history, 'train', key)[0].size for key in keys)


def has_evaluated(history: Sequence[Mapping], *keys: str) -> bool:
  """Returns whether an evaluation logged a number under any of the keys."""
  return any(evaluated(history, key)[0].size for key in keys)


def losses(history: Sequence[Mapping], theme: Theme = LIGHT) -> Figure:
  """Draws the losses of the generator and of the discriminator over steps.

  A discriminator that classifies has a third curve, the cross-entropy of the classes.
  Rare extreme peaks are cut off; a note in the figure says so.

  Args:
    history: the parsed metrics.jsonl.
    theme: colours.
  """
  figure, axes = _over_steps(theme, 'loss')
  _curve(axes, history, 'generator_loss', 'generator', theme.split(_FAKE))
  _curve(axes, history, 'discriminator_loss', 'discriminator', theme.split(_REAL))
  if any(point.get('class_loss') for point in history):
    _curve(axes, history, 'class_loss', 'class of real images', theme.muted)
  _cut_peaks(axes, theme)
  return _finished(figure, axes, theme)


def loss(history: Sequence[Mapping], theme: Theme = LIGHT) -> Figure:
  """Draws the loss of training and, where it was evaluated, of held-out images.

  Args:
    history: the parsed metrics.jsonl.
    theme: colours.
  """
  figure, axes = _over_steps(theme, 'loss')
  _curve(axes, history, 'loss', 'training', theme.split('train'))
  steps, values = evaluated(history, 'loss')
  if steps.size:
    marker = {'marker': 'o', 'markersize': 4.5 if steps.size <= 60 else 2.5}
    label = f'held out (last {values[-1]:.3g})'
    color = theme.split('test')
    axes.plot(steps, values, color=color, linewidth=1.4, label=label, **marker)
  _cut_peaks(axes, theme)
  return _finished(figure, axes, theme)


def probabilities(
  history: Sequence[Mapping], theme: Theme = LIGHT, line: float | None = 0.5
) -> Figure:
  """Draws the outputs of the discriminator for real and for generated images.

  Args:
    history: the parsed metrics.jsonl.
    theme: colours.
    line: output for images that it cannot distinguish; None if there is no such value.
  """
  label = 'output of the discriminator' if line is None else 'probability of real'
  figure, axes = _over_steps(theme, label)
  _curve(axes, history, 'd_real', 'D(x), real', theme.split(_REAL))
  _curve(axes, history, 'd_fake', 'D(G(z)), generated', theme.split(_FAKE))
  values = _values(axes)
  if line is not None:
    axes.axhline(line, color=theme.ink, linewidth=1, linestyle=(0, (4, 2)), zorder=5)
    if values.min() >= 0 and values.max() <= 1:
      axes.set_ylim(0, 1)
  return _finished(figure, axes, theme)


def gradient_norms(history: Sequence[Mapping], theme: Theme = LIGHT) -> Figure:
  """Draws the gradient norms of both networks on a logarithmic axis.

  Args:
    history: the parsed metrics.jsonl; zeros, which have no logarithm, are left out.
    theme: colours.
  """
  figure, axes = _over_steps(theme, 'gradient norm')
  for key, label, role in (
    ('generator_grad_norm', 'generator', _FAKE),
    ('discriminator_grad_norm', 'discriminator', _REAL),
  ):
    _curve(axes, history, key, label, theme.split(role), geometric=True)
  _logarithmic(axes)
  return _finished(figure, axes, theme)


def evaluated(history: Sequence[Mapping], key: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns a metric of the evaluations: steps int64 [m], values float64 [m]."""
  others = [
    {**record, 'split': ''} for record in history if record.get('split') != 'train'
  ]
  return series(others, '', key)


def distances(
  history: Sequence[Mapping],
  theme: Theme = LIGHT,
  name: str = 'Fréchet distance',
  floor: float | None = None,
  final: tuple[int, float, str] | None = None,
) -> Figure:
  """Draws the distance of samples to real images over steps, and KID below.

  Args:
    history: the parsed metrics.jsonl, with 'fd' in at least one evaluation.
    theme: colours.
    name: name of the distance.
    floor: distance of real images to real images.
    final: (step, distance, number of samples in words) of the final evaluation. More
      samples give a smaller distance.
  """
  steps, values = evaluated(history, 'fd')
  kernel_steps, kernel = evaluated(history, 'kid')
  rows = [2.6, 1.2] if kernel.size else [2.6]
  figure = style.new_figure(5.6, sum(rows) + 0.8, theme)
  column = figure.subplots(len(rows), 1, sharex=True, squeeze=False, height_ratios=rows)
  column = column[:, 0]
  counts = evaluated(history, 'samples')[1]
  counted = f', {counts[-1]:,.0f} samples' if counts.size else ''
  marked = {
    'marker': 'o',
    'markersize': 4.5 if steps.size <= 60 else 2.5,
    'markeredgecolor': theme.background,
    'markeredgewidth': 0.5,
    'linewidth': 1.4,
    'color': theme.split(_FAKE),
  }
  upper = column[0]
  label = f'while training{counted} (lowest {values.min():.4g})'
  upper.plot(steps, values, label=label, **marked)
  shown = [*values]
  if final is not None:
    step, value, what = final
    label = f'at the end, {what}: {value:.4g}'
    upper.plot([step], [value], '*', color=theme.ink, markersize=9, label=label)
    shown.append(value)
  if floor is not None:
    upper.axhline(
      floor,
      color=theme.split(_REAL),
      linewidth=1.2,
      linestyle=(0, (4, 2)),
      label=f'floor, real against real: {floor:.4g}',
    )
    shown.append(floor)
  if min(shown) > 0 and max(values) > 30 * min(values):
    _logarithmic(upper)
  else:
    upper.set_ylim(0, 1.08 * max(shown))
  upper.set_ylabel(short_name(name, 28), **style.class_text())
  if kernel.size:
    column[1].plot(kernel_steps, kernel, **marked)
    column[1].set_ylim(bottom=min(0.0, kernel.min()))
    column[1].set_ylabel('KID')
  for axes in column:
    style.tidy(axes, theme)
  last = max(steps[-1], final[0] if final else 0)
  _label_steps(column[-1], last, theme)
  style.legend(upper, theme, loc='lower left', bbox_to_anchor=(0, 1), ncols=1)
  figure.align_ylabels(column)
  return figure


def diversity(history: Sequence[Mapping], theme: Theme = LIGHT) -> Figure:
  """Draws the diversity of samples and the other shares of the evaluations.

  Args:
    history: the parsed metrics.jsonl, with 'diversity' (relative to real images),
      'confidence', 'precision' or 'recall' in at least one evaluation.
    theme: colours.
  """
  figure, axes = _over_steps(theme, 'share')
  for key, label, color in (
    ('diversity', 'diversity', theme.test),
    ('confidence', 'confidence', theme.train),
    ('precision', 'precision', theme.validation),
    ('recall', 'recall', theme.other),
  ):
    steps, values = evaluated(history, key)
    if steps.size:
      label = f'{label} (last {values[-1]:.2f})'
      marker = {'marker': 'o', 'markersize': 4.5 if steps.size <= 60 else 2.5}
      axes.plot(steps, values, color=color, linewidth=1.4, label=label, **marker)
  axes.set_ylim(0, max(1.02, 1.05 * _values(axes).max()))
  return _finished(figure, axes, theme)


def class_histogram(
  counts: np.ndarray, class_names: Sequence[str], theme: Theme = LIGHT
) -> Figure:
  """Draws the share of samples of each predicted class.

  Up to 20 classes keep their order, more are sorted by share, and above 100 the 50 most
  and the 50 least frequent are drawn. A dashed line marks equal shares.

  Args:
    counts: integer [K], not all 0.
    class_names: K names.
    theme: colours.
  """
  number = len(counts)
  shares = counts / counts.sum()
  order = np.arange(number)
  if number > _ORDERED:
    order = np.argsort(-counts, kind='stable')
  texts = [
    (f'{share:.1%}', theme.ink) if count else ('none', theme.wrong)
    for share, count in zip(shares, counts)
  ]
  figure = class_bars(
    shares,
    texts,
    class_names,
    order,
    2 * ROWS,
    (f'the {ROWS} most frequent of {number}', f'the {ROWS} least frequent'),
    1 / number,
    1.06 * max(shares.max(), 1 / number),
    5.4,
    theme,
  )
  for axes in figure.axes:
    axes.locator_params(axis='x', nbins=4)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f'{100 * x:g}%'))
    axes.set_xlabel(f'share of samples (dashed: {100 / number:.3g}% each)')
  return figure


def confidence_histogram(confidences: np.ndarray, theme: Theme = LIGHT) -> Figure:
  """Draws the confidence of a classifier in the samples.

  Args:
    confidences: float [n], largest probability of each sample.
    theme: colours.
  """
  figure = style.new_figure(5.4, 2.6, theme)
  axes = figure.subplots()
  style.tidy(axes, theme, grid='y')
  counts, edges = np.histogram(confidences, 20, (0, 1))
  axes.bar(
    edges[:-1],
    counts / counts.sum(),
    np.diff(edges),
    align='edge',
    color=theme.ramp[3],
    edgecolor=theme.background,
    linewidth=0.8,
  )
  mean = float(np.mean(confidences))
  axes.axvline(mean, color=theme.test, linewidth=1.2, linestyle=(0, (4, 2)))
  axes.set_xlim(0, 1)
  for axis in (axes.xaxis, axes.yaxis):
    axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
  axes.set_ylabel('samples')
  axes.set_xlabel(f'confidence (dashed: mean {mean:.1%})')
  return figure


def _over_steps(theme: Theme, label: str) -> tuple[Figure, Axes]:
  figure = style.new_figure(5.6, 2.9, theme)
  axes = figure.subplots()
  style.tidy(axes, theme)
  axes.set_ylabel(label)
  return figure, axes


def _finished(figure: Figure, axes: Axes, theme: Theme) -> Figure:
  """Adds the axis of steps and the legend."""
  _label_steps(axes, max(line.get_xdata()[-1] for line in axes.lines), theme)
  style.legend(axes, theme, loc='lower left', bbox_to_anchor=(0, 1), ncols=2)
  return figure


def _values(axes: Axes) -> np.ndarray:
  return np.concatenate([np.asarray(line.get_ydata()) for line in axes.lines])


def _curve(
  axes: Axes,
  history: Sequence[Mapping],
  key: str,
  label: str,
  color: str,
  geometric: bool = False,
) -> None:
  """Draws a curve of the training log, if there is one; long curves are smoothed."""
  steps, values = series(history, 'train', key)
  if geometric:
    steps, values = steps[values > 0], values[values > 0]
  if not steps.size:
    return
  label = f'{label} (last {values[-1]:.3g})'
  if steps.size < _MANY:
    marker = 'o' if steps.size == 1 else ''  # a curve of one point is invisible
    axes.plot(steps, values, color=color, linewidth=1.4, marker=marker, label=label)
    return
  axes.plot(steps, values, color=color, linewidth=0.7, alpha=0.35)
  mean = np.exp(smoothed(np.log(values))) if geometric else smoothed(values)
  axes.plot(steps, mean, color=color, linewidth=1.7, label=label, zorder=4)


def _cut_peaks(axes: Axes, theme: Theme) -> None:
  """Limits the axis to the bulk of the values if a few extreme ones dominate it."""
  values = _values(axes)
  low, high = np.percentile(values, [1, 99])
  margin = 0.35 * (high - low)
  bottom, top = low - margin, high + margin
  if high == low or np.ptp(values) < 2 * (top - bottom):
    return
  cut = []
  if values.min() < bottom:
    cut.append(f'{values.min():.3g}')
  else:
    bottom = min(0.0, values.min())
  if values.max() > top:
    cut.append(f'{values.max():.3g}')
  else:
    top = values.max() + margin
  axes.set_ylim(bottom, top)
  axes.text(
    1,
    1.045,
    f'cut off: peaks to {" and ".join(cut)}',
    transform=axes.transAxes,
    ha='right',
    size=SMALL,
    color=theme.muted,
  )


def _label_steps(axes: Axes, last: float, theme: Theme) -> None:
  step_axis(axes, last, theme)
  axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))


def _logarithmic(axes: Axes) -> None:
  """Makes the y axis logarithmic with plain numbers, also within a decade."""
  values = _values(axes)
  axes.set_yscale('log')
  if values.min() > 0 and values.max() < 100 * values.min():
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
  axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
  axes.yaxis.set_minor_formatter(NullFormatter())
