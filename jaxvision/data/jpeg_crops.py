"""A training crop of a JPEG file, decoded and resized in half of Pillow's time.

The pixels are those that Pillow would make of the same crop, but for the rounding of the
last of them, by two libraries that do one thing each: `simplejpeg` has libjpeg-turbo
decode a file in one call, and `cykooz_resizer` is Pillow's antialiased resampling with
the vector instructions of the CPU. Both let go of the interpreter while they work.

They are for training alone. What a model evaluates and predicts goes through Pillow, whose
pixels the exported models and the web page reproduce.
"""

import functools
import importlib.util
import math
import struct
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

START = b'\xff\xd8\xff'  # of every JPEG file
_END = b'\xff\xd9'

# Half the width of a filter, in pixels of the image, or of the picture where that is
# enlarged.
_SUPPORT = {'bilinear': 1, 'bicubic': 2}

# Rows below a crop that are decoded with it: a row is made with chroma of its neighbours.
_ROWS_BELOW = 2

# Markers of segments. The frames, but for those that are no frames: sequential ones, whose
# first rows are the first bytes of the file, and a progressive one.
_TABLES, _FRAMES, _SCAN = (0xC4, 0xC8, 0xCC), range(0xC0, 0xD0), 0xDA
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1), 0xC2
_EXIF_OR_XMP, _ICC_OR_MPF = 0xE1, 0xE2

_MOST_KEPT = 2**26  # bytes, 22 megapixels

_ORIENTATION = 0x0112  # EXIF tag

_local = threading.local()


class Header(NamedTuple):
  """What a file says of its picture.

  Attributes:
    height, width: in pixels.
    grey: whether it has one channel; else three.
    height_at: place of the height in the file, where the decoder may be told to stop at
      another one; 0 where it may not.
  """

  height: int
  width: int
  grey: bool
  height_at: int


@functools.cache
def available() -> bool:
  """Returns whether both libraries are there; some platforms have no wheels of them."""
  return all(
    importlib.util.find_spec(name) for name in ('simplejpeg', 'cykooz_resizer')
  )


def read_header(data: bytes) -> Header | None:
  """Reads the header of a JPEG file that holds one upright picture and is whole.

  Returns:
    None for every other file, which is Pillow's: no JPEG, without its end, of 12 bits,
    CMYK, turned by its EXIF orientation, with more pictures than one.
  """
  if not (data.startswith(START) and data.endswith(_END)):
    return None
  place = 2
  while place + 10 <= len(data):
    mark, marker, length = struct.unpack_from('>BBH', data, place)
    if mark != 0xFF or marker == _SCAN:
      return None
    if marker in _FRAMES and marker not in _TABLES:
      bits, height, width, channels = struct.unpack_from('>BHHB', data, place + 4)
      sequential = marker in _SEQUENTIAL
      known = bits == 8 and channels in (1, 3) and height and width
      if not (known and (sequential or marker == _PROGRESSIVE)):
        return None
      return Header(height, width, channels == 1, place + 5 if sequential else 0)
    content = slice(place + 4, place + 2 + length)
    if marker == _EXIF_OR_XMP and _may_be_turned(data[content]):
      return None
    if marker == _ICC_OR_MPF and data[content].startswith(b'MPF\0'):
      return None
    place += 2 + length
  return None


def _may_be_turned(segment: bytes) -> bool:
  """Returns whether EXIF data or XMP may say that a picture is not upright."""
  if not segment.startswith(b'Exif\0\0'):
    return b'tiff:Orientation' in segment
  from PIL import Image

  exif = Image.Exif()
  try:
    exif.load(segment)
    return exif.get(_ORIENTATION, 1) != 1
  except Exception:  # of damaged EXIF data, of which Pillow makes what it can
    return True


def crop(
  data: bytes,
  box: Callable[[int, int], tuple[int, int, int, int]],
  image_shape: tuple[int, int, int],
  interpolation: str,
  max_pixels: int,
) -> np.ndarray | None:
  """Crops a file out as `decode_image` does.

  Args:
    data: a file of any kind.
    box, image_shape, interpolation, max_pixels: see `decode_image`.

  Returns:
    uint8 [height, width, channels]; None for a file that is Pillow's, see `read_header`,
    or too large, for one that the decoder refuses, and for grey out of colour.
  """
  header = read_header(data)
  if header is None or header.height * header.width > max_pixels:
    return None
  if image_shape[2] == 1 and not header.grey:
    return None
  part = box(header.height, header.width)
  smaller = shrink(part, image_shape)
  return crop_and_resize(data, header, part, image_shape, interpolation, smaller)


def shrink(part: tuple[int, int, int, int], image_shape: tuple[int, int, int]) -> int:
  """Returns how many times smaller a part may be decoded and still have an image's size.

  >>> shrink((10, 10, 500, 600), (224, 224, 3))
  2
  """
  most = min(part[2] // image_shape[0], part[3] // image_shape[1])
  return next((times for times in (8, 4, 2) if times <= most), 1)


def crop_and_resize(
  data: bytes,
  header: Header,
  part: tuple[int, int, int, int],
  image_shape: tuple[int, int, int],
  interpolation: str,
  smaller: int = 1,
) -> np.ndarray | None:
  """Decodes a part of a JPEG file and resizes it.

  Rows below the part are not decoded.

  Args:
    data: the file.
    header: of the file, by `read_header`.
    part: (top, left, height, width) of the part, in pixels of the picture.
    image_shape: (height, width, channels) of the result, channels 3, or 1 for a file
      that is grey.
    interpolation: 'bilinear' or 'bicubic', antialiased.
    smaller: 1, 2, 4 or 8: how many times smaller the picture is decoded.

  Returns:
    uint8 [height, width, channels]; None for a file that the decoder refuses.
  """
  import simplejpeg

  top, left, high, wide = (value / smaller for value in part)
  height, width, channels = image_shape
  support = _SUPPORT[interpolation]
  first_row, last_row = _reach(top, high, height, support)
  first, last = _reach(left, wide, width, support)
  rows = (last_row + _ROWS_BELOW) * smaller
  if header.height_at and rows < header.height:
    # The decoder stops where the file says that the picture ends.
    at = header.height_at
    data = data[:at] + struct.pack('>H', rows) + data[at + 2 :]
  else:
    rows = header.height
  decoded = -(-rows // smaller), -(-header.width // smaller)
  scale = {}
  if smaller > 1:  # of the scales that leave these sides, the smallest is taken
    scale = dict(zip(('min_height', 'min_width'), decoded), min_factor=smaller)
  try:
    pixels = simplejpeg.decode_jpeg(
      data,
      'GRAY' if channels == 1 else 'RGB',
      strict=False,  # Pillow, too, takes what libjpeg merely warns of
      buffer=_buffer(math.prod(decoded) * channels),
      **scale,
    )
  except ValueError:
    return None
  around = pixels[first_row:last_row, first:last]
  box = left - first, top - first_row, wide, high
  return _resize(around, box, image_shape, interpolation)


def _buffer(size: int) -> bytearray:
  """Returns memory of at least `size` bytes, the same at each call of a thread.

  Memory that is new each time costs the system a tenth of the time of the decoding. What
  a very large picture takes is not kept.
  """
  if size > _MOST_KEPT:
    return bytearray(size)
  if len(getattr(_local, 'buffer', b'')) < size:
    _local.buffer = bytearray(size)
  return _local.buffer


def _reach(start: float, length: float, size: int, support: int) -> tuple[int, int]:
  """Returns the first and the last + 1 of the pixels that a filter weighs, or more.

  Pillow's filters reach beyond the part that is resized; the last may be past the end.
  """
  reach = support * max(length / size, 1.0) + 1
  return max(0, math.floor(start - reach)), math.ceil(start + length + reach)


def _resize(
  pixels: np.ndarray,
  box: tuple[float, float, float, float],
  image_shape: tuple[int, int, int],
  interpolation: str,
) -> np.ndarray:
  """Resizes a part of some pixels.

  Args:
    pixels: uint8 [h, w, channels].
    box: (left, top, width, height), in pixels.
    image_shape: (height, width, channels) of the result.
    interpolation: see `crop_and_resize`.
  """
  import cykooz_resizer as cykooz

  if not hasattr(_local, 'resizer'):
    _local.resizer = cykooz.Resizer()
  height, width, channels = image_shape
  kind = cykooz.PixelType.U8 if channels == 1 else cykooz.PixelType.U8x3
  rows, columns, _ = pixels.shape
  source = cykooz.ImageData(columns, rows, kind, pixels.tobytes())
  result = cykooz.ImageData(width, height, kind)
  options = cykooz.ResizeOptions(
    resize_alg=_convolution(interpolation), crop_box=cykooz.CropBox(*box)
  )
  _local.resizer.resize(source, result, options)
  return np.frombuffer(result.get_buffer(), np.uint8).reshape(image_shape)


@functools.cache
def _convolution(interpolation: str) -> Any:
  """Returns the library's name for a filter of Pillow's."""
  from cykooz_resizer import FilterType, ResizeAlg

  names = {'bilinear': FilterType.bilinear, 'bicubic': FilterType.catmull_rom}
  return ResizeAlg.convolution(names[interpolation])
