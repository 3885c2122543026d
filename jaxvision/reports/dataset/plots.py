"""Charts of an exploration, each a function from numbers to a figure."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from jaxvision.data.sources.image_headers import Headers
from jaxvision.reports import style
from jaxvision.reports.dataset.exploration import LEVELS, Split
from jaxvision.reports.image_grid import enlarged
from jaxvision.reports.run.plots import BAR_CLASSES, ROWS, class_bars
from jaxvision.reports.style import NORMAL, PIXELS_PER_INCH, SMALL
from jaxvision.reports.theme import LIGHT, Theme, short_name, text_width

_MARKERS = {'test': 'o', 'validation': 's'}
_GAP = 0.12  # inches around pictures


def classes(
  splits: Sequence[Split], class_names: Sequence[str], theme: Theme = LIGHT
) -> Figure:
  """Draws the share of each class: training as bars, other splits as points.

  Classes keep their order, so that charts of two sets can be compared. Above 150 classes
  the 50 most and the 50 least frequent are drawn by their frequency.

  Args:
    splits: train first.
    class_names: K names.
    theme: colours.
  """
  train, *others = splits
  number = len(class_names)
  shares = [split.counts / max(split.examples, 1) for split in splits]
  order = np.arange(number)
  if number > BAR_CLASSES:
    order = np.argsort(-shares[0], kind='stable')
  end = 1.08 * max(float(share.max()) for share in shares)
  texts = [
    (f'{count:,}', theme.ink) if count else ('none', theme.wrong)
    for count in train.counts.tolist()
  ]
  figure = class_bars(
    shares[0],
    texts,
    class_names,
    order,
    BAR_CLASSES,
    (f'the {ROWS} most frequent of {number}', f'the {ROWS} least frequent'),
    1 / number,
    end,
    6.0,
    theme,
  )
  columns = [order[:ROWS], order[-ROWS:]]
  if number <= BAR_CLASSES:
    columns = np.array_split(order, math.ceil(number / ROWS))
  for axes, members in zip(figure.axes, columns):
    axes.containers[0].set_label(train.name)
    axes.lines[0].set_color(theme.ink)  # visible behind the points
    for split, share in zip(others, shares[1:]):
      axes.plot(
        share[members],
        np.arange(len(members)),
        _MARKERS.get(split.name, 'D'),
        color=theme.split(split.name),
        markeredgecolor=theme.background,
        markersize=4 if number > 25 else 6,
        label=split.name,
        clip_on=False,
      )
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axes.set_xlabel('share of the split')
  if others:
    first = figure.axes[0]
    handles, names = first.get_legend_handles_labels()
    order = sorted(range(len(names)), key=lambda i: names[i] != train.name)
    style.legend(
      first,
      theme,
      handles=[handles[i] for i in order],
      labels=[names[i] for i in order],
      loc='lower left',
      bbox_to_anchor=(0, 1),
      ncols=3,
    )
  return figure


def intensities(splits: Sequence[Split], theme: Theme = LIGHT) -> Figure:
  """Draws the histogram of each channel over 256 levels, a panel for each split.

  Args:
    splits: splits with the same number of channels.
    theme: colours.
  """
  figure = style.new_figure(6.8, 0.5 + 1.75 * len(splits), theme)
  column = figure.subplots(len(splits), 1, sharex=True, sharey=True, squeeze=False)
  colors = (theme.wrong, theme.validation, theme.train)
  names = ('red', 'green', 'blue')
  uneven = False
  for axes, split in zip(column[:, 0], splits):
    style.tidy(axes, theme)
    share = split.histogram / split.histogram.sum(1, keepdims=True)
    some = share[share > 0]
    uneven |= bool(share.max() > 30 * np.median(some))
    grey = len(share) == 1
    for channel, values in enumerate(share):
      axes.stairs(
        np.where(values > 0, values, np.nan),
        np.arange(LEVELS + 1) - 0.5,
        color=theme.ink if grey else colors[channel % 3],
        linewidth=1.3,
        label='grey' if grey else names[channel % 3],
      )
    axes.set_ylabel('share of pixels', fontsize=SMALL, color=theme.ink)
    axes.set_title(split.name, loc='left', fontsize=NORMAL, color=theme.ink)
    axes.set_xlim(-4, LEVELS + 3)
    axes.set_xticks([0, 64, 128, 192, 255])
  if uneven:
    column[0, 0].set_yscale('log')
  for axes in column[:, 0]:
    style.tidy(axes, theme)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f'{100 * v:g}%'))
  column[-1, 0].set_xlabel('level', color=theme.ink, fontsize=NORMAL)
  style.legend(
    column[0, 0], theme, loc='lower right', bbox_to_anchor=(1, 1), ncols=3, borderpad=0
  )
  return figure


def sizes(headers: Headers, theme: Theme = LIGHT) -> Figure:
  """Draws histograms of width, height and aspect ratio of image files.

  Args:
    headers: headers of one file or more.
    theme: colours.
  """
  figure = style.new_figure(7.4, 2.7, theme)
  ratios = headers.widths / headers.heights
  bound = max(1.05, float(np.max(np.maximum(ratios, 1 / ratios))))
  for axes, (values, label, bins) in zip(
    figure.subplots(1, 3),
    (
      (headers.widths, 'width, pixels', _bins(headers.widths)),
      (headers.heights, 'height, pixels', _bins(headers.heights)),
      (ratios, 'width / height', np.geomspace(1 / bound, bound, 26)),
    ),
  ):
    style.tidy(axes, theme, grid='y')
    axes.hist(values, bins, color=theme.ramp[3], edgecolor=theme.background, lw=0.5)
    axes.set_xlabel(label, color=theme.ink, fontsize=NORMAL)
    axes.yaxis.get_major_locator().set_params(integer=True)
  axes.set_xscale('log')
  low, high = axes.get_xlim()
  ticks = [t for t in (0.125, 0.25, 0.5, 0.75, 1, 4 / 3, 2, 4, 8) if low <= t <= high]
  axes.set_xticks(ticks, [f'{tick:.2f}'.rstrip('0').rstrip('.') for tick in ticks])
  axes.minorticks_off()
  figure.axes[0].set_ylabel('files', color=theme.ink, fontsize=NORMAL)
  return figure


def _bins(values: np.ndarray) -> np.ndarray:
  low, high = int(values.min()), int(values.max())
  return np.linspace(low - 0.5, high + 0.5, min(30, high - low + 1) + 1)


def labelled_rows(
  rows: Sequence[tuple[str, np.ndarray]], columns: int, theme: Theme = LIGHT
) -> Figure:
  """Draws strips of images with a name before each.

  Small images are enlarged by a whole number.

  Args:
    rows: (name, strip uint8 [h, w, 3]) each, all strips of one height.
    columns: number of columns that the rows fill from top to bottom.
    theme: colours.
  """
  height = rows[0][1].shape[0]
  width = max(picture.shape[1] for _, picture in rows)
  scale = max(1, round(64 / height))
  high, wide = (scale * side / PIXELS_PER_INCH for side in (height, width))
  high_row = max(high, 0.15) + 0.03
  names = [short_name(name, 22) for name, _ in rows]
  left = max(map(text_width, names)) * SMALL * 0.62 / 72 + 0.1
  columns = min(columns, len(rows))
  per_column = math.ceil(len(rows) / columns)
  total = columns * (left + wide + _GAP) + _GAP
  figure = style.new_figure(total, per_column * high_row + 2 * _GAP, theme)
  figure.set_layout_engine('none')
  _, bottom = figure.get_size_inches()
  for index, (name, (_, picture)) in enumerate(zip(names, rows)):
    column, row = divmod(index, per_column)
    start = _GAP + column * (left + wide + _GAP)
    top = bottom - _GAP - row * high_row
    figure.text(
      (start + left - 0.07) / total,
      (top - high / 2) / bottom,
      name,
      ha='right',
      va='center',
      size=SMALL,
      color=theme.ink,
      **style.class_text(),
    )
    figure.figimage(
      enlarged(picture, scale),
      round((start + left) * PIXELS_PER_INCH),
      round((top - high) * PIXELS_PER_INCH),
      origin='upper',
    )
  return figure
