"""One way from an image file to a uint8 array, for training and for prediction."""

import contextlib
import io
import os
import stat
import struct
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple

import numpy as np

from jaxvision.data import jpeg_crops
from jaxvision.errors import UserError, closest, printable

INTERPOLATIONS = ('bilinear', 'bicubic')

# What is opened, by Pillow's names, and the endings by which a folder's images are known.
# Nothing else is: of the other formats of Pillow, EPS starts another program.
FORMATS = {
  'PNG': ('.png',),
  'JPEG': ('.jpg', '.jpeg', '.jfif'),
  'GIF': ('.gif',),
  'BMP': ('.bmp',),
  'PPM': ('.ppm', '.pgm', '.pbm', '.pnm'),
  'WEBP': ('.webp',),
  'TIFF': ('.tif', '.tiff'),
  'AVIF': ('.avif',),
}
MAX_PIXELS = 120_000_000  # of a file; a photo of 108 megapixels takes a gigabyte

# From (height, width) of an upright picture to (top, left, height, width) of a part of
# it, in its pixels.
BoxOf = Callable[[int, int], tuple[int, int, int, int]]

_ORIENTATION = 0x0112  # EXIF tag
_ALPHA = ('RGBA', 'LA', 'PA', 'La', 'RGBa')
_SIXTEEN_BIT = ('I', 'I;16', 'I;16L', 'I;16B', 'I;16N')


class UnreadableImage(UserError):
  """A file that is no image, or a damaged one; the message names it."""


class Resizing(NamedTuple):
  """How pictures of any size become images of one, in evaluation.

  Attributes:
    crop_fraction: side of the centre crop over the shorter side of the scaled picture.
    interpolation: one of INTERPOLATIONS, antialiased.
  """

  crop_fraction: float = 1.0
  interpolation: str = 'bilinear'

  @property
  def key(self) -> str:
    """Part of a cache's name: empty for the defaults.

    >>> Resizing().key, Resizing(0.875, 'bicubic').key
    ('', '-crop0.875-bicubic')
    """
    key = f'-crop{self.crop_fraction!r}' if self.crop_fraction != 1 else ''
    return key + (f'-{self.interpolation}' if self.interpolation != 'bilinear' else '')


PLAIN = Resizing()


def decode_image(
  image: Any,
  image_shape: tuple[int, int, int],
  crop_fraction: float = 1.0,
  interpolation: str = 'bilinear',
  box: BoxOf | None = None,
  *,
  max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
  """Decodes an image file to `image_shape`, as the pipelines do.

  Files of FORMATS are read, of at most `max_pixels` pixels.

  The EXIF orientation is applied; transparent pixels are laid over white; palettes,
  CMYK and 16 bits become 8-bit RGB or grey (grey <-> RGB by ITU-R 601 luma or by
  repetition). Another size is scaled until its shorter side fits, or is a little longer
  (`crop_fraction`), and cropped about the centre, by a filter whose support grows with
  the scale (antialiased); with a fraction of 1 an image that has the size keeps its
  pixels to the bit.

  Args:
    image: path of a file, its bytes, or a `PIL.Image.Image`.
    image_shape: (height, width, channels), channels 1 or 3.
    crop_fraction: side of the centre crop over the shorter side of the scaled picture,
      above 0 and at most 1, as `crop_pct` of timm: 0.875 for 224 out of 256 pixels.
    interpolation: 'bilinear' or 'bicubic'.
    box: cut out this part of the picture, which is then all of the image, in place of
      the centre: a training crop. A JPEG is decoded at 1/2, 1/4 or 1/8 of its size
      where the part has the resolution of the image even so, and by libraries that are
      faster than Pillow (`jpeg_crops`), with the same pixels but for rounding.
    max_pixels: of the picture, by its header; a larger one is not decoded.

  Returns:
    uint8 [height, width, channels].

  Raises:
    UnreadableImage: it is no image or is damaged; one line that names the file.
    UserError: no such interpolation or fraction.
  """
  _check(crop_fraction, interpolation)
  try:
    if box:
      pixels = _cropped(image, box, image_shape, interpolation, max_pixels)
    else:
      with _opened(image, max_pixels) as opened:
        picture = _upright(opened)
        pixels = _fitted(picture, image_shape, crop_fraction, interpolation)
  # Decoders of some twenty formats raise whatever they meet in a damaged file
  # (OSError, SyntaxError, struct.error, zlib.error, ValueError, ...).
  except Exception as error:
    raise UnreadableImage(_complaint(image, error)) from error
  return pixels


def fit_image(
  image: np.ndarray,
  image_shape: tuple[int, int, int],
  crop_fraction: float = 1.0,
  interpolation: str = 'bilinear',
  box: BoxOf | None = None,
) -> np.ndarray:
  """Brings pixels to `image_shape`, by the conversions of `decode_image`.

  Args:
    image: uint8 [h, w], [h, w, 1], [h, w, 3] or, with alpha, [h, w, 4].
    image_shape: (height, width, channels), channels 1 or 3.
    crop_fraction, interpolation, box: as in `decode_image`.

  Returns:
    uint8 [height, width, channels]; `image` itself where it has that shape and nothing
    is cut off.

  Raises:
    UserError: no such interpolation or fraction.

  >>> fit_image(np.full((4, 8, 1), 7, np.uint8), (2, 2, 3)).shape
  (2, 2, 3)
  >>> ramp = np.arange(4, dtype=np.uint8).reshape(1, 4, 1)
  >>> fit_image(ramp, (1, 2, 1), box=lambda height, width: (0, 2, 1, 2)).ravel()
  array([2, 3], dtype=uint8)
  """
  _check(crop_fraction, interpolation)
  if image.shape == image_shape and crop_fraction == 1 and box is None:
    return image
  from PIL import Image

  part = box(*image.shape[:2]) if box else None
  if image.ndim == 3 and image.shape[-1] == 1:
    image = image[..., 0]
  picture = Image.fromarray(image)
  return _fitted(picture, image_shape, crop_fraction, interpolation, part)


def _check(crop_fraction: float, interpolation: str) -> None:
  if not 0 < crop_fraction <= 1:
    raise UserError(f'crop_fraction must be above 0 and at most 1, got {crop_fraction}')
  if interpolation not in INTERPOLATIONS:
    raise UserError(
      f'interpolation must be one of {", ".join(INTERPOLATIONS)}, got "{interpolation}"'
      + closest(interpolation, INTERPOLATIONS)
    )


def image_header(image: str | os.PathLike) -> tuple[int, int, bool]:
  """Returns (height, width, whether grey) of an image file, without its pixels.

  Raises:
    UnreadableImage: its header is not that of an image.
  """
  try:
    with _opened(image) as opened:
      height, width = _upright_size(opened)
      grey = opened.mode in ('1', 'L', 'LA', 'La', *_SIXTEEN_BIT)
  except Exception as error:  # as in decode_image
    raise UnreadableImage(_complaint(image, error)) from error
  return height, width, grey


@contextlib.contextmanager
def _opened(image: Any, max_pixels: int = MAX_PIXELS) -> Iterator[Any]:
  """Opens an image of one of FORMATS and at most `max_pixels`, by its header."""
  from PIL import Image

  if isinstance(image, Image.Image):
    yield _limited(image, max_pixels)
    return
  opened = io.BytesIO(image) if isinstance(image, bytes) else _regular_file(image)
  with opened as file, _limited(_identified(file), max_pixels) as picture:
    yield picture


def _limited(picture: Any, max_pixels: int) -> Any:
  width, height = picture.size
  if width * height > max_pixels:
    raise ValueError(
      f'it has {width}x{height} pixels, more than the limit of '
      f'{max_pixels / 10**6:g} megapixels: scale it down first'
    )
  return picture


def _regular_file(path: str | os.PathLike) -> IO[bytes]:
  """Opens a file; a pipe, whose opening would wait for a writer, or a device raises."""
  mode = os.stat(path).st_mode
  if stat.S_ISDIR(mode):
    raise ValueError('it is a folder')
  if not stat.S_ISREG(mode):
    raise ValueError('it is not a regular file')
  return open(path, 'rb')


def _identified(file: IO[bytes]) -> Any:
  """Returns the picture in a file, of which the header is read.

  It is `Image.open` but for the check of the size, which warns of large scans and whose
  limit is one for the whole process.
  """
  from PIL import Image

  prefix = file.read(16)
  for name in FORMATS:
    if name not in Image.OPEN:
      Image.init()  # knows all formats; at first Pillow has loaded none
    if name not in Image.OPEN:  # this Pillow was built without it
      continue
    factory, accept = Image.OPEN[name]
    with contextlib.suppress(SyntaxError, IndexError, TypeError, struct.error):
      # What accepts a format that was left out at build time returns a complaint.
      if not accept or accept(prefix) is True:
        file.seek(0)
        return factory(file, '')
  raise ValueError('it is not an image of a known format')


def _orientation(picture: Any) -> int:
  # A PNG without this entry would be decoded whole in search of one.
  tagged = picture.format != 'PNG' or 'exif' in picture.info
  return picture.getexif().get(_ORIENTATION, 1) if tagged else 1


def _upright_size(picture: Any) -> tuple[int, int]:
  """Returns (height, width) of the upright picture, from its header."""
  width, height = picture.size
  # From 5 on, the orientation is one with a quarter turn.
  return (width, height) if _orientation(picture) >= 5 else (height, width)


def _upright(picture: Any) -> Any:
  if picture.getexif().get(_ORIENTATION, 1) == 1:
    return picture
  from PIL import ImageOps

  return ImageOps.exif_transpose(picture)


def _cropped(
  image: Any,
  box: BoxOf,
  image_shape: tuple[int, int, int],
  interpolation: str,
  max_pixels: int,
) -> np.ndarray:
  """Resizes a part of a picture, of which no more is decoded than need be."""
  if jpeg_crops.available():
    data = _jpeg(image)
    pixels = jpeg_crops.crop(data, box, image_shape, interpolation, max_pixels)
    if pixels is not None:
      return pixels
  with _opened(image, max_pixels) as opened:
    part = box(*_upright_size(opened))
    shrunk = _draft(opened, jpeg_crops.shrink(part, image_shape))
    picture = _upright(opened)
    return _fitted(picture, image_shape, 1.0, interpolation, part, shrunk)


def _jpeg(image: Any) -> bytes:
  """Returns the content of a JPEG file; nothing for anything else."""
  if isinstance(image, bytes):
    return image
  if not isinstance(image, str | os.PathLike):
    return b''
  with _regular_file(image) as file:
    start = file.read(len(jpeg_crops.START))
    return start + file.read() if start == jpeg_crops.START else b''


def _draft(picture: Any, shrink: int) -> int:
  """Has a JPEG decoded `shrink` times smaller; returns how much smaller it will be."""
  if shrink == 1 or picture.format != 'JPEG':
    return 1
  width, height = picture.size
  picture.draft(picture.mode, (width // shrink, height // shrink))
  return 1 if picture.size == (width, height) else shrink


def _fitted(
  picture: Any,
  image_shape: tuple[int, int, int],
  crop_fraction: float,
  interpolation: str,
  part: tuple[int, int, int, int] | None = None,
  shrunk: int = 1,
) -> np.ndarray:
  """Converts and resizes; `part` is in pixels of a picture `shrunk` times larger."""
  from PIL import Image

  height, width, channels = image_shape
  picture = _eight_bit(picture, 'L' if channels == 1 else 'RGB')
  if part or crop_fraction != 1 or picture.size != (width, height):
    if part:
      top, left, high, wide = (value / shrunk for value in part)
      box = (left, top, left + wide, top + high)
    else:
      box = _centre(picture.size, (width, height), crop_fraction)
    # A box in source pixels, so that a long thin picture is never blown up first.
    method = Image.Resampling[interpolation.upper()]
    picture = picture.resize((width, height), method, box=box)
  return np.asarray(picture).reshape(image_shape)


def _eight_bit(picture: Any, mode: str) -> Any:
  """Converts any mode to `mode` ('L' or 'RGB')."""
  from PIL import Image

  if picture.mode in _SIXTEEN_BIT:
    high = np.asarray(picture) >> 8
    picture = Image.fromarray(high.clip(0, 255).astype(np.uint8))
  elif picture.mode == 'F':
    raise ValueError('it holds floating-point pixels, not 8-bit colours')
  if picture.mode in _ALPHA or 'transparency' in picture.info:
    rgba = picture.convert('RGBA')
    white = Image.new('RGBA', rgba.size, (255, 255, 255, 255))
    picture = Image.alpha_composite(white, rgba).convert('RGB')
  return picture if picture.mode == mode else picture.convert(mode)


def _centre(
  picture: tuple[int, int], image: tuple[int, int], fraction: float
) -> tuple[float, float, float, float]:
  """Returns the largest box of the image's shape about the centre, times `fraction`.

  Args:
    picture, image: (width, height).
  """
  (have_wide, have_high), (width, height) = picture, image
  scale = min(have_wide / width, have_high / height) * fraction
  # Where nothing is cut off, rounding leaves a number just below 0, which Pillow refuses.
  left = max(0.0, (have_wide - width * scale) / 2)
  top = max(0.0, (have_high - height * scale) / 2)
  return left, top, left + width * scale, top + height * scale


def _complaint(image: Any, error: Exception) -> str:
  file = isinstance(image, str | os.PathLike)
  what = f'image {os.fspath(image)}' if file else 'image data'
  if isinstance(error, FileNotFoundError):
    return printable(f'{what} is not there')
  reason = error.strerror if isinstance(error, OSError) else None
  reason = reason or ' '.join(str(error).split()) or type(error).__name__
  return printable(f'{what} cannot be read: {reason}')


def readable_suffixes() -> tuple[str, ...]:
  """Returns the endings of the files that the installed Pillow reads, in lower case."""
  from PIL import Image

  Image.init()
  return tuple(
    suffix for name in FORMATS if name in Image.OPEN for suffix in FORMATS[name]
  )
