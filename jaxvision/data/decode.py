"""One way from an image file to a uint8 array, for training and for prediction."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from jaxvision.errors import UserError

_ORIENTATION = 0x0112  # EXIF tag
_ALPHA = ('RGBA', 'LA', 'PA', 'La', 'RGBa')
_SIXTEEN_BIT = ('I', 'I;16', 'I;16L', 'I;16B', 'I;16N')


class UnreadableImage(UserError):
  """A file that is no image, or a damaged one; the message names it."""


def decode_image(
  image: str | os.PathLike | bytes, image_shape: tuple[int, int, int]
) -> np.ndarray:
  """Decodes an image file to `image_shape`, as the training pipelines do.

  The EXIF orientation is applied; transparent pixels are laid over white; palettes,
  CMYK and 16 bits become 8-bit RGB or grey (grey <-> RGB by ITU-R 601 luma or by
  repetition). Another size is scaled until its shorter side fits and cropped about
  the centre, by a bilinear filter whose support grows with the scale (antialiased);
  an image that has the size keeps its pixels to the bit.

  Args:
    image: path of a file, or its bytes.
    image_shape: (height, width, channels), channels 1 or 3.

  Returns:
    uint8 [height, width, channels].

  Raises:
    UnreadableImage: it is no image or is damaged; one line that names the file.
  """
  try:
    with _opened(image) as opened:
      pixels = _fitted(_upright(opened), image_shape)
  # Decoders of some twenty formats raise whatever they meet in a damaged file
  # (OSError, SyntaxError, struct.error, zlib.error, ValueError, ...).
  except Exception as error:
    raise UnreadableImage(_complaint(image, error)) from error
  return pixels


def fit_image(image: np.ndarray, image_shape: tuple[int, int, int]) -> np.ndarray:
  """Brings pixels to `image_shape`, by the conversions of `decode_image`.

  Args:
    image: uint8 [h, w], [h, w, 1], [h, w, 3] or, with alpha, [h, w, 4].
    image_shape: (height, width, channels), channels 1 or 3.

  Returns:
    uint8 [height, width, channels]; `image` itself where it has that shape.

  >>> fit_image(np.full((4, 8, 1), 7, np.uint8), (2, 2, 3)).shape
  (2, 2, 3)
  """
  if image.shape == image_shape:
    return image
  from PIL import Image

  if image.ndim == 3 and image.shape[-1] == 1:
    image = image[..., 0]
  return _fitted(Image.fromarray(image), image_shape)


def image_header(image: str | os.PathLike) -> tuple[int, int, bool]:
  """Returns (height, width, whether grey) of an image file, without its pixels.

  Raises:
    UnreadableImage: its header is not that of an image.
  """
  try:
    with _opened(image) as opened:
      width, height = opened.size
      # A PNG without this entry would be decoded whole in search of one.
      tagged = opened.format != 'PNG' or 'exif' in opened.info
      if tagged and opened.getexif().get(_ORIENTATION, 1) >= 5:  # a quarter turn
        width, height = height, width
      grey = opened.mode in ('1', 'L', 'LA', 'La', *_SIXTEEN_BIT)
  except Exception as error:  # as in decode_image
    raise UnreadableImage(_complaint(image, error)) from error
  return height, width, grey


def _opened(image: str | os.PathLike | bytes) -> Any:
  from PIL import Image

  return Image.open(io.BytesIO(image) if isinstance(image, bytes) else image)


def _upright(picture: Any) -> Any:
  if picture.getexif().get(_ORIENTATION, 1) == 1:
    return picture
  from PIL import ImageOps

  return ImageOps.exif_transpose(picture)


def _fitted(picture: Any, image_shape: tuple[int, int, int]) -> np.ndarray:
  height, width, channels = image_shape
  picture = _eight_bit(picture, 'L' if channels == 1 else 'RGB')
  if picture.size != (width, height):
    picture = _cover(picture, width, height)
  return np.asarray(picture).reshape(image_shape)


def _eight_bit(picture: Any, mode: str) -> Any:
  """Converts any mode to `mode` ('L' or 'RGB')."""
  from PIL import Image

  if picture.mode in _SIXTEEN_BIT:
    high = np.asarray(picture).astype(np.int64) >> 8
    picture = Image.fromarray(high.clip(0, 255).astype(np.uint8))
  elif picture.mode == 'F':
    raise ValueError('it holds floating-point pixels, not 8-bit colours')
  if picture.mode in _ALPHA or 'transparency' in picture.info:
    rgba = picture.convert('RGBA')
    white = Image.new('RGBA', rgba.size, (255, 255, 255, 255))
    picture = Image.alpha_composite(white, rgba).convert('RGB')
  return picture if picture.mode == mode else picture.convert(mode)


def _cover(picture: Any, width: int, height: int) -> Any:
  """Scales so that (width, height) is just covered, and crops about the centre.

  The crop is a box in source pixels, so a long thin picture is never blown up first.
  """
  from PIL import Image

  scale = min(picture.width / width, picture.height / height)
  left = (picture.width - width * scale) / 2
  top = (picture.height - height * scale) / 2
  box = (left, top, left + width * scale, top + height * scale)
  return picture.resize((width, height), Image.Resampling.BILINEAR, box=box)


def _complaint(image: str | os.PathLike | bytes, error: Exception) -> str:
  what = 'image data' if isinstance(image, bytes) else f'image {Path(image)}'
  if isinstance(error, FileNotFoundError):
    return f'{what} is not there'
  from PIL import UnidentifiedImageError

  if isinstance(error, UnidentifiedImageError):
    return f'{what} cannot be read: it is not an image of a known format'
  reason = ' '.join(str(error).split()) or type(error).__name__
  return f'{what} cannot be read: {reason}'
