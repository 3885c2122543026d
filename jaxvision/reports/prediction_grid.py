"""A few images and what a classifier makes of them, drawn in milliseconds.

For those who watch a run: matplotlib would hold up training for a second at each
evaluation.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_COLUMNS = 6
_TILE, _GAP, _LINE = 112, 10, 16  # pixels
_PAPER, _INK, _RIGHT, _WRONG = '#161a20', '#e8ebef', '#56b4e9', '#ff9350'


def predictions(
  images: Sequence[np.ndarray],
  labels: np.ndarray,
  probabilities: np.ndarray,
  class_names: Sequence[str],
) -> np.ndarray:
  """Draws images six to a row, under each the prediction, and the truth if other.

  Args:
    images: n at least 1, uint8 [H, W, C] of any sizes, C 1 (grey) or 3 (RGB).
    labels: integer [n].
    probabilities: float [n, K].
    class_names: K names.

  Returns:
    uint8 [h, w, 3].
  """
  columns = min(_COLUMNS, len(images))
  rows = -(-len(images) // columns)
  step = _TILE + _GAP, _TILE + 2 * _LINE + _GAP + 4
  size = columns * step[0] + _GAP, rows * step[1] + _GAP
  picture = Image.new('RGB', size, _PAPER)
  draw, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
  for place, (image, label, shares) in enumerate(zip(images, labels, probabilities)):
    row, column = divmod(place, columns)
    left, top = _GAP + column * step[0], _GAP + row * step[1]
    picture.paste(_tile(image), (left, top))
    predicted = int(shares.argmax())
    right = predicted == int(label)
    color = _RIGHT if right else _WRONG
    below = top + _TILE
    draw.rectangle((left, below, left + _TILE - 1, below + 3), fill=color)
    share = f' {shares[predicted]:.0%}'
    room = _TILE - font.getlength(share)
    name = _fitted(class_names[predicted], font, room)
    draw.text((left, below + 5), name + share, fill=color, font=font)
    if not right:
      truth = _fitted(f'true: {class_names[int(label)]}', font, _TILE)
      draw.text((left, below + 5 + _LINE), truth, fill=_INK, font=font)
  return np.asarray(picture)


def _tile(image: np.ndarray) -> Image.Image:
  """Returns an image as a square: its middle, enlarged without smoothing if small."""
  height, width = image.shape[:2]
  side = min(height, width)
  top, left = (height - side) // 2, (width - side) // 2
  square = image[top : top + side, left : left + side]
  picture = Image.fromarray(square[..., 0] if image.shape[-1] == 1 else square)
  small = side <= _TILE
  way = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
  return picture.convert('RGB').resize((_TILE, _TILE), way)


def _fitted(
  text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, room: float
) -> str:
  """Returns a line of text, cut so that it is `room` pixels wide at most."""
  line = ' '.join(text.split())
  if font.getlength(line) <= room:
    return line
  while line and font.getlength(f'{line}...') > room:
    line = line[:-1]
  return f'{line}...'
