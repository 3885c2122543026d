"""Crops of JPEG files by libraries faster than Pillow: what Pillow makes of the same."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from jaxvision.data import decode, jpeg_crops
from jaxvision.data.decode import UnreadableImage, decode_image

# libjpeg-turbo decodes either way, to the same bits. The filters round differently between
# their two passes, and a bicubic one overshoots there.
TOLERANCE = {'bilinear': 1, 'bicubic': 6}

SIZES = [(375, 500), (301, 403), (61, 47), (17, 16), (500, 33)]


def photograph(height, width, mode='RGB', **options):
  """Returns a JPEG file with detail and noise."""
  rng = np.random.default_rng(height + width)
  coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), np.uint8)
  smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
  noisy = np.asarray(smooth) + rng.normal(0, 12, (height, width, 3))
  image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).convert(mode)
  file = io.BytesIO()
  image.save(file, 'JPEG', **{'quality': 92} | options)
  return file.getvalue()


def boxes(height, width, count):
  """Yields (top, left, height, width) of random parts, and of the whole."""
  rng = np.random.default_rng(0)
  for _ in range(count):
    top, left = rng.integers(0, height - 8), rng.integers(0, width - 8)
    high, wide = rng.integers(8, height - top + 1), rng.integers(8, width - left + 1)
    yield tuple(map(int, (top, left, high, wide)))
  yield 0, 0, height, width


def by_both(data, shape, box, interpolation='bilinear'):
  """Returns the crop as training takes it, and as Pillow alone does."""
  fast = decode_image(data, shape, 1.0, interpolation, lambda *size: box)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jpeg_crops, 'available', lambda: False)
    plain = decode_image(data, shape, 1.0, interpolation, lambda *size: box)
  return fast, plain


def test_the_libraries_are_installed_here():
  assert jpeg_crops.available()


@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
@pytest.mark.parametrize('mode', ['RGB', 'L'])
@pytest.mark.parametrize('size', SIZES)
def test_crops_are_those_of_pillow(size, mode, interpolation, monkeypatch):
  calls = []
  crop = jpeg_crops.crop_and_resize
  monkeypatch.setattr(
    jpeg_crops, 'crop_and_resize', lambda *a: calls.append(a) or crop(*a)
  )
  count = 0
  parts = [*boxes(*size, 2)]
  if size == (375, 500):
    parts.append((5, 7, 140, 100))  # at a half and a quarter
  for subsampling, progressive in itertools.product((0, 1, 2), (False, True)):
    data = photograph(*size, mode, subsampling=subsampling, progressive=progressive)
    for box in parts:
      for sides in ((24, 24), (64, 40)):
        shape = (*sides, 1 if mode == 'L' and sides[0] == 24 else 3)
        fast, plain = by_both(data, shape, box, interpolation)
        assert fast.dtype == np.uint8
        assert fast.shape == plain.shape == shape
        difference = np.abs(fast.astype(int) - plain)
        assert difference.max() <= TOLERANCE[interpolation]
        assert difference.mean() < 0.5
        count += 1
  assert len(calls) == count  # none was left to Pillow
  assert {call[-1] for call in calls} >= ({1, 2, 4, 8} if size == (375, 500) else {1})


@pytest.mark.parametrize('subsampling', [0, 1, 2])
def test_rows_below_the_crop_are_not_decoded_and_change_nothing(subsampling):
  data = photograph(200, 90, subsampling=subsampling, restart_marker_rows=4)
  header = jpeg_crops.read_header(data)
  assert header[:3] == (200, 90, False)
  whole = header._replace(height_at=0)
  for bottom in range(24, 200, 7):
    arguments = (bottom - 20, 5, 20, 60), (20, 60, 3), 'bilinear'
    ours = jpeg_crops.crop_and_resize(data, header, *arguments)
    np.testing.assert_array_equal(
      ours, jpeg_crops.crop_and_resize(data, whole, *arguments)
    )
  # That the rows below are not read shows where they are damaged.
  spoilt = data[:-400] + bytes(398) + data[-2:]
  ours = jpeg_crops.crop_and_resize(
    spoilt, header, (0, 0, 40, 60), (20, 60, 3), 'bicubic'
  )
  good = jpeg_crops.crop_and_resize(
    data, header, (0, 0, 40, 60), (20, 60, 3), 'bicubic'
  )
  np.testing.assert_array_equal(ours, good)


def _with_exif(orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  return photograph(60, 90, exif=exif)


def test_an_upright_picture_with_exif_data_is_no_exception():
  header = jpeg_crops.read_header(_with_exif(1))
  assert header[:3] == (60, 90, False)
  fast, plain = by_both(_with_exif(1), (20, 20, 3), (7, 9, 40, 50))
  assert np.abs(fast.astype(int) - plain).max() <= 1


XMP = (
  b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
  b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
  b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF>'
  b'</x:xmpmeta>'
)

PILLOWS = {
  'turned by EXIF': _with_exif(6),
  'turned by XMP': photograph(60, 90, xmp=XMP),
  'CMYK': photograph(60, 90, 'CMYK'),
  'followed by something': photograph(60, 90) + bytes(50),
  'several pictures': None,
  'PNG': None,
}
for name, kind in (('several pictures', 'MPO'), ('PNG', 'PNG')):
  file = io.BytesIO()
  first = Image.open(io.BytesIO(photograph(60, 90)))
  first.save(
    file,
    kind,
    **({'save_all': True, 'append_images': [first]} if kind == 'MPO' else {}),
  )
  PILLOWS[name] = file.getvalue()


@pytest.mark.parametrize('kind', PILLOWS)
def test_what_is_more_than_one_upright_jpeg_is_left_to_pillow(kind):
  assert jpeg_crops.read_header(PILLOWS[kind]) is None
  size = (40, 30, 3)
  fast, plain = by_both(PILLOWS[kind], size, (3, 4, 50, 40))
  np.testing.assert_array_equal(fast, plain)


def test_colour_becomes_grey_by_pillows_luma():
  fast, plain = by_both(photograph(60, 90), (20, 20, 1), (7, 9, 40, 50))
  np.testing.assert_array_equal(fast, plain)


def test_damaged_files_are_told_as_ever(tmp_path):
  data = photograph(120, 90)
  path = tmp_path / 'a.jpg'
  for damaged in (data[: len(data) // 2], data[:100], b'\xff\xd8\xff', data[:2]):
    path.write_bytes(damaged)
    for given, name in ((damaged, 'image data'), (path, str(path))):
      with pytest.raises(UnreadableImage, match=name):
        decode_image(given, (20, 20, 3), box=lambda *size: (0, 0, 100, 90))
  # What the decoder refuses although its header is whole has the same line as before.
  at = data.index(b'\xff\xc0') + 9
  path.write_bytes(data[: at + 2] + b'\x77' + data[at + 3 :])
  with pytest.raises(UnreadableImage, match='cannot be read'):
    decode_image(path, (20, 20, 3), box=lambda *size: (0, 0, 100, 90))


def test_a_picture_above_the_limit_is_not_decoded():
  with pytest.raises(UnreadableImage, match='megapixels'):
    decode_image(
      photograph(60, 90), (8, 8, 3), box=lambda *s: (0, 0, 9, 9), max_pixels=99
    )


def test_evaluation_is_pillows(monkeypatch):
  def never(*args):
    raise AssertionError('evaluation took the crops of training')

  data = photograph(375, 500)
  monkeypatch.setattr(jpeg_crops, 'read_header', never)
  monkeypatch.setattr(jpeg_crops, 'crop_and_resize', never)
  ours = decode_image(data, (56, 56, 3), 0.875, 'bicubic')
  box = decode._centre((500, 375), (56, 56), 0.875)
  with Image.open(io.BytesIO(data)) as picture:
    expected = picture.resize((56, 56), Image.Resampling.BICUBIC, box)
  np.testing.assert_array_equal(ours, np.asarray(expected))
