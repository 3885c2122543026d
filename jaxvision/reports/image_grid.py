"""Grids of images as pictures, and the animation of how generated images came about.

All of it is drawn by Pillow in milliseconds: grids are drawn at each evaluation, and
matplotlib would hold up training for a second.
"""

import dataclasses
import functools
import importlib.util
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxvision.io import write_whole
from jaxvision.reports.theme import DARK, LIGHT, Theme, short_name, text_width

FRAMES = 60  # of an animation, at most
_WIDTH = 480  # pixels that an animation is enlarged to, about
_GREY = 136  # of gaps
_TILE, _GAP, _LINE, _LETTERS = 112, 10, 16, 12  # pixels of captioned images
_CAPTIONED_COLUMNS = 6
# Fonts with East Asian characters, by the names of their files on common systems.
_WIDE_FONTS = (
  'NotoSansCJK-Regular.ttc',
  'msyh.ttc',
  'PingFang.ttc',
  'Arial Unicode.ttf',
)

Frame = tuple[int, np.ndarray]  # a step, and uint8 [h, w, 3]


@dataclasses.dataclass(frozen=True, eq=False)
class CaptionedImage:
  """An image with the lines of text that stand under it.

  Attributes:
    image: uint8 [H, W, C], C 1 (grey) or 3 (RGB).
    lines: the caption; the first line has the colour of `correct`.
    correct: whether the prediction is correct; None where there is none.
    index: position of the example in its split; None where it has none.
    name: file of the image, '' where it has none.
  """

  image: np.ndarray
  lines: tuple[str, ...]
  correct: bool | None = None
  index: int | None = 0
  name: str = ''

  def color(self, theme: Theme) -> str:
    """Returns the colour of the first line and of the bar above it."""
    if self.correct is None:
      return theme.ink
    return theme.right if self.correct else theme.wrong


def confidence_text(confidence: float) -> str:
  """Formats a confidence without rounding a doubt away.

  >>> confidence_text(0.98765), confidence_text(0.9999), confidence_text(1.0)
  ('98.8%', '>99.9%', '100%')
  """
  if confidence == 1:
    return '100%'
  return '>99.9%' if confidence >= 0.9995 else f'{confidence:.1%}'


def captioned_prediction(
  image: np.ndarray,
  label: int,
  probabilities: np.ndarray,
  class_names: Sequence[str],
  index: int = 0,
) -> CaptionedImage:
  """Captions an image with the predicted class, and the true class if they differ.

  Args:
    image: uint8 [H, W, C].
    label: the true class.
    probabilities: float [K].
    class_names: K names.
    index: position of the example in its split.
  """
  predicted = int(probabilities.argmax())
  correct = predicted == int(label)
  lines = (
    f'{"✓" if correct else "✗"} {class_names[predicted]}',
    confidence_text(float(probabilities[predicted])),
  )
  if not correct:
    lines += (f'true: {class_names[int(label)]}',)
  return CaptionedImage(np.asarray(image), lines, correct, index)


def captioned_grid(
  images: Sequence[CaptionedImage], theme: Theme = LIGHT, scale: int = 2
) -> np.ndarray:
  """Draws images six to a row with their captions.

  Args:
    images: at least one, of any sizes; small ones are enlarged without smoothing.
    theme: colours.
    scale: 1 draws images in squares of 112 pixels, 2 of 224.

  Returns:
    uint8 [h, w, 3].
  """
  tile, gap, line = (scale * size for size in (_TILE, _GAP, _LINE))
  columns = min(_CAPTIONED_COLUMNS, len(images))
  step = tile + gap, tile + gap + 4 * scale + line * max(len(i.lines) for i in images)
  rows = -(-len(images) // columns)
  size = columns * step[0] + gap, rows * step[1] + gap
  picture = Image.new('RGB', size, theme.background)
  draw = ImageDraw.Draw(picture)
  for place, item in enumerate(images):
    row, column = divmod(place, columns)
    left, top = gap + column * step[0], gap + row * step[1]
    fitted = _fitted_image(item.image, tile)
    inset = (tile - fitted.width) // 2, (tile - fitted.height) // 2
    picture.paste(fitted, (left + inset[0], top + inset[1]))
    bar = left, top + tile, left + tile - 1, top + tile + 3 * scale
    draw.rectangle(bar, fill=item.color(theme))
    for number, text in enumerate(item.lines):
      font = _font(_LETTERS * scale, text_width(text) > len(text))
      color = item.color(theme) if number == 0 else theme.ink
      below = top + tile + 4 * scale + number * line
      draw.text((left, below), _fitted_text(text, font, tile), fill=color, font=font)
  return np.asarray(picture)


def prediction_grid(
  images: Sequence[np.ndarray],
  labels: np.ndarray,
  probabilities: np.ndarray,
  class_names: Sequence[str],
) -> np.ndarray:
  """Draws predictions for n images on a dark ground, as training logs them.

  The arguments are those of `captioned_prediction`, of n images each.
  """
  examples = zip(images, labels, probabilities)
  captioned = [captioned_prediction(*example, class_names) for example in examples]
  return captioned_grid(captioned, DARK, scale=1)


def _fitted_image(image: np.ndarray, side: int) -> Image.Image:
  """Returns an image scaled to fit a square, whole and with its aspect ratio."""
  picture = _as_picture(image).convert('RGB')
  longest = max(picture.size)
  size = tuple(max(1, round(length * side / longest)) for length in picture.size)
  enlarged = longest <= side
  way = Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS
  return picture.resize(size, way)


def _fitted_text(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
  """Returns a text in one line, its middle left out where it is wider than `width`."""
  columns = 60
  while font.getlength(line := short_name(text, columns)) > width and columns > 1:
    columns -= 1
  return line


@functools.cache
def _font(size: int, wide: bool = False) -> ImageFont.FreeTypeFont:
  """Returns DejaVu Sans, which comes with matplotlib, or a font with wide characters."""
  found = importlib.util.find_spec('matplotlib')  # does not import it
  folders = found.submodule_search_locations if found else None
  own = [f'{folder}/mpl-data/fonts/ttf/DejaVuSans.ttf' for folder in folders or ()]
  for name in (*(_WIDE_FONTS if wide else ()), *own):
    try:
      return ImageFont.truetype(name, size)
    except OSError:
      continue
  return ImageFont.load_default(size)


def grid(
  images: np.ndarray, columns: int = 0, scale: int = 1, gap: int | None = None
) -> np.ndarray:
  """Lays images of one size out row by row.

  Args:
    images: uint8 [n, H, W, C], n at least 1, C 1 (grey) or 3 (RGB).
    columns: images in a row; 0 makes about as many columns as rows.
    scale: pixels of the result for a pixel of an image, in each direction.
    gap: pixels of the result between two images; None: 2, or 1 between images below
      16 pixels. Gaps and empty places are grey: visible beside black and white images.

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
    result[top : top + height, left : left + width] = enlarged(image, scale)
  return result


def enlarged(image: np.ndarray, scale: int) -> np.ndarray:
  """Repeats each pixel of an image [h, w, C] `scale` times in both directions."""
  return image.repeat(scale, axis=0).repeat(scale, axis=1)


def fitting_scale(width: int, target: int = _WIDTH) -> int:
  """Returns the whole number by which `width` pixels come nearest to `target`.

  >>> fitting_scale(270), fitting_scale(78), fitting_scale(1000)
  (2, 6, 1)
  """
  return max(1, round(target / width))


def _as_picture(image: np.ndarray) -> Image.Image:
  return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def png(image: np.ndarray) -> bytes:
  """Encodes uint8 [h, w, C] as PNG, C 1 or 3."""
  buffer = io.BytesIO()
  _as_picture(image).save(buffer, 'PNG', optimize=True)
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
      with Image.open(path, formats=['PNG']) as picture:
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
  """Shows a run as an animated WebP in a loop, each frame with its step.

  GIF has 256 colours to a frame and takes four times the bytes: 60 grids of 64 images
  of 32x32 pixels come to 4.6 MB as GIF and 1.3 MB as WebP of the same size. Images are
  enlarged first, as lossy WebP keeps colour at half the resolution.

  Args:
    frames: at least one, by step. Those of another size than the last, which another
      config left, are passed over.
    milliseconds: duration of a frame; the last stays ten times as long.
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
      duration=[milliseconds] * (len(drawn) - 1) + [10 * milliseconds],
      loop=0,
      quality=60,  # artefacts are smaller than the enlarged pixels
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
  # A dark band below the picture suits a light page and a dark one.
  picture = Image.new('RGB', (width, height + 36), DARK.background)
  picture.paste(Image.fromarray(enlarged(image, scale)), (0, 0))
  draw = ImageDraw.Draw(picture)
  share = step / last_step if last_step else 1.0
  draw.rectangle((0, height, width, height + 3), fill=DARK.grid)
  draw.rectangle((0, height, round(share * width), height + 3), fill=DARK.train)
  draw.text((8, height + 9), f'step {step:,}', fill=DARK.ink, font=_font(18))
  return picture
