"""Grids of labelled pictures: the worst mistakes, and a sample of predictions."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxvision.reports import style
from jaxvision.reports.style import LIGHT, PIXELS_PER_INCH, SMALL, Theme

COLUMNS = 6
TILE, GAP, PAD, LINE = 1.25, 0.16, 0.06, 0.155  # inches


@dataclasses.dataclass(frozen=True)
class Picture:
  """One image with what the model made of it.

  Attributes:
    image: uint8 [H, W, C], C 1 (grey) or 3 (RGB).
    true, predicted: class names.
    confidence: probability given to `predicted`.
    right: whether the prediction is correct.
    index: position of the example in the split.
  """

  image: np.ndarray
  true: str
  predicted: str
  confidence: float
  right: bool
  index: int


def confidence_text(confidence: float) -> str:
  """Writes a confidence without rounding a doubt away.

  >>> confidence_text(0.98765), confidence_text(0.9999), confidence_text(1.0)
  ('98.8%', '>99.9%', '100%')
  """
  if confidence == 1:
    return '100%'
  return '>99.9%' if confidence >= 0.9995 else f'{confidence:.1%}'


def picture_grid(pictures: Sequence[Picture], theme: Theme = LIGHT) -> Figure:
  """Draws pictures six to a row; under each its prediction, and the truth if other.

  Right predictions carry a tick and one colour, wrong ones a cross and another.
  Small images are enlarged without smoothing, large ones reduced with it.

  Args:
    pictures: at least one, of any sizes.
    theme: colours.
  """
  columns = min(COLUMNS, len(pictures))
  rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
  captions = [
    LINE * (2 if all(picture.right for picture in row) else 3) for row in rows
  ]
  width = columns * (TILE + GAP) + GAP
  height = sum(captions) + len(rows) * (TILE + PAD + GAP) + GAP
  figure = style.new_figure(width, height, theme)
  figure.set_layout_engine('none')
  top = height - GAP
  for row, caption in zip(rows, captions):
    for column, picture in enumerate(row):
      left = GAP + column * (TILE + GAP)
      axes = figure.add_axes(
        (left / width, (top - TILE) / height, TILE / width, TILE / height)
      )
      color = theme.right if picture.right else theme.wrong
      _show(axes, picture.image, color)
      for line, (text, ink) in enumerate(_caption(picture, color, theme)):
        figure.text(
          left / width,
          (top - TILE - PAD - LINE * line) / height,
          text,
          va='top',
          size=SMALL,
          color=ink,
          **style.class_text(),
        )
    top -= TILE + PAD + caption + GAP
  return figure


def _caption(picture: Picture, color: str, theme: Theme) -> list[tuple[str, str]]:
  """Lists the lines under a picture, each with its colour."""
  mark = '✓' if picture.right else '✗'
  lines = [
    (f'{mark} {style.short_name(picture.predicted, 16)}', color),
    (confidence_text(picture.confidence), theme.muted),
  ]
  if not picture.right:
    lines.append((f'true: {style.short_name(picture.true, 13)}', theme.ink))
  return lines


def _show(axes: Axes, image: np.ndarray, color: str) -> None:
  """Fills axes with an image and frames it."""
  axes.set_xticks([])
  axes.set_yticks([])
  for spine in axes.spines.values():
    spine.set_color(color)
    spine.set_linewidth(1.6)
  grey = image.shape[-1] == 1
  enlarged = max(image.shape[:2]) <= TILE * PIXELS_PER_INCH
  axes.imshow(
    image[..., 0] if grey else image,
    cmap='gray' if grey else None,
    vmin=0,
    vmax=255,
    interpolation='nearest' if enlarged else 'antialiased',
  )
