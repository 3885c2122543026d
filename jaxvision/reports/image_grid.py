"""Grids of generated images, and the animation of how they came about."""

import functools
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxvision.io import write_whole

FRAMES = 60  # of an animation, at most
_WIDTH = 480  # pixels that an animation is enlarged to, about
_QUALITY = 60  # of lossy WebP; artefacts are below what enlarged pixels show
_LAST = 10  # times as long as the others the last frame stays
_GREY = 136  # of gaps
# Of the band with the step: dark, which suits a light page and a dark one.
_INK, _PAPER, _LINE, _DONE = '#e8ebef', '#161a20', '#3a434f', '#56b4e9'

Frame = tuple[int, np.ndarray]  # a step, and uint8 [h, w, 3]


def grid(
  images: np.ndarray,
  columns: int = 0,
  scale: int = 1,
  gap: int | None = None,
) -> np.ndarray:
  """Lays images out row by row.

  Args:
    images: uint8 [n, H, W, C], n at least 1, C 1 (grey) or 3 (RGB).
    columns: images in a row; 0: about as many as there are rows.
    scale: pixels of the result for a pixel of an image, in each direction.
    gap: pixels of the result between two images, there are none around the whole;
      None: 2, or 1 between images below 16 pixels. Gaps and places that stay empty are
      a grey that sets off black images and white ones, on light pages and on dark.

  Returns:
    uint8 [h, w, 3].

  Raises:
    ValueError: the images are not of that shape and type, or scale is below 1.

  >>> grid(np.zeros((5, 8, 8, 1), np.uint8), scale=2).shape
  (34, 52, 3)
  """
  if images.ndim != 4 or images.dtype != np.uint8 or images.shape[-1] not in (1, 3):
    raise ValueError(
      f'images must be uint8 [n, H, W, 1 or 3], not {images.dtype} {images.shape}'
    )
  if not len(images) or scale < 1:
    raise ValueError(f'at least one image and scale 1, not {len(images)} and {scale}')
  columns = columns or int(np.ceil(np.sqrt(len(images))))
  rows = -(-len(images) // columns)
  height, width = images.shape[1] * scale, images.shape[2] * scale
  if gap is None:
    gap = 1 if height < 16 else 2
  shape = rows * (height + gap) - gap, columns * (width + gap) - gap, 3
  result = np.full(shape, _GREY, np.uint8)
  for index, image in enumerate(images):
    row, column = divmod(index, columns)
    top, left = row * (height + gap), column * (width + gap)
    enlarged = image.repeat(scale, axis=0).repeat(scale, axis=1)
    result[top : top + height, left : left + width] = enlarged
  return result


def fitting_scale(width: int, target: int = _WIDTH) -> int:
  """Returns the whole number by which `width` pixels come nearest to `target`.

  >>> fitting_scale(270), fitting_scale(78), fitting_scale(1000)
  (2, 6, 1)
  """
  return max(1, round(target / width))


def png(image: np.ndarray) -> bytes:
  """Encodes uint8 [h, w, C] as PNG, C 1 or 3."""
  buffer = io.BytesIO()
  picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
  picture.save(buffer, 'PNG', optimize=True)
  return buffer.getvalue()


def save_png(path: str | Path, image: np.ndarray) -> None:
  """Writes uint8 [h, w, C] as PNG, whole or not at all.

  Raises:
    OSError: the file cannot be written.
  """
  write_whole(Path(path), png(image))


def frame_name(step: int) -> str:
  """Returns the file name of the grid of a step, which sorts as steps do.

  >>> frame_name(500)
  'step_00000500.png'
  """
  return f'step_{step:08}.png'


def read_frames(directory: str | Path, most: int = FRAMES) -> list[Frame]:
  """Reads the grids that training left, by step; damaged files are passed over.

  Args:
    directory: of files called as `frame_name` does; it need not exist.
    most: how many, evenly over the run, the last always in.
  """
  found = [
    (int(match[1]), path)
    for path in Path(directory).glob('step_*.png')
    if (match := re.fullmatch(r'step_(\d+)\.png', path.name))
  ]
  frames = []
  for step, path in _thinned(sorted(found), most):
    try:
      with Image.open(path) as picture:
        frames.append((step, np.asarray(picture.convert('RGB'))))
    except (OSError, SyntaxError):  # the second is what a broken chunk raises
      continue
  return frames


def _thinned(items: Sequence, most: int) -> list:
  """Returns at most `most` of the items, evenly spread, the last always in."""
  if len(items) <= most:
    return list(items)
  places = len(items) - 1 - np.linspace(0, len(items) - 1, most).round().astype(int)
  return [items[place] for place in places[::-1]]


def animation(
  frames: Sequence[Frame], milliseconds: int = 200, limit: int = 700_000
) -> bytes:
  """Shows a run as a loop, each frame with its step.

  It is animated WebP, which browsers and GitHub show. GIF has 256 colours to a frame,
  which grids of photographs need more of, and takes four times the bytes: 60 grids of
  64 images of 32x32 pixels came to 4.6 MB as GIF, 1.3 MB as WebP of the same size.
  Images are enlarged first, as lossy WebP keeps colour at half the resolution.

  Args:
    frames: (step, uint8 [h, w, 3]), rising, at least one. Those of other sizes than
      the last (of a run with another config in the same place) are left out.
    milliseconds: that a frame stays; the last stays ten times as long.
    limit: bytes; frames are thinned evenly to stay below it, and to `FRAMES` at most.

  Raises:
    ValueError: there are no frames.
  """
  if not frames:
    raise ValueError('an animation needs a frame')
  last_step, last = frames[-1]
  kept = _thinned([f for f in frames if f[1].shape == last.shape], FRAMES)
  drawn = [_drawn(step, image, last_step) for step, image in kept]
  while True:
    buffer = io.BytesIO()
    drawn[0].save(
      buffer,
      'WEBP',
      save_all=True,
      append_images=drawn[1:],
      duration=[milliseconds] * (len(drawn) - 1) + [_LAST * milliseconds],
      loop=0,
      quality=_QUALITY,
    )
    size = buffer.tell()
    if size <= limit or len(drawn) <= 2:
      return buffer.getvalue()
    fewer = int(0.95 * len(drawn) * limit / size)
    drawn = _thinned(drawn, max(2, min(fewer, len(drawn) - 1)))


def _drawn(step: int, image: np.ndarray, last_step: int) -> Image.Image:
  """Enlarges a grid and writes its step below, with a bar of how far the run was."""
  scale = fitting_scale(image.shape[1])
  height, width = image.shape[0] * scale, image.shape[1] * scale
  band, size = 36, 18  # pixels: below the picture, and of the letters
  picture = Image.new('RGB', (width, height + band), _PAPER)
  enlarged = image.repeat(scale, axis=0).repeat(scale, axis=1)
  picture.paste(Image.fromarray(enlarged), (0, 0))
  draw = ImageDraw.Draw(picture)
  share = step / last_step if last_step else 1.0
  draw.rectangle((0, height, width, height + 3), fill=_LINE)
  draw.rectangle((0, height, round(share * width), height + 3), fill=_DONE)
  draw.text((8, height + 9), f'step {step:,}', fill=_INK, font=_font(size))
  return picture


@functools.cache
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
  return ImageFont.load_default(size)
