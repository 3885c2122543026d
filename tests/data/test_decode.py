"""One decoder for training and prediction: modes, orientation, sizes, damage."""

import io
import os
import struct
import warnings
import zlib

import chex
import numpy as np
import pytest
from PIL import Image

from jaxvision.data import decode
from jaxvision.data.decode import UnreadableImage, decode_image, fit_image, image_header
from jaxvision.errors import UserError

RGB = np.random.default_rng(0).integers(0, 256, (6, 4, 3), np.uint8)


def _png(image, **options):
  buffer = io.BytesIO()
  image.save(buffer, 'PNG', **options)
  return buffer.getvalue()


def test_pixels_of_the_asked_size_are_kept_to_the_bit(tmp_path):
  Image.fromarray(RGB).save(tmp_path / 'a.png')
  for given in (
    tmp_path / 'a.png',
    str(tmp_path / 'a.png'),
    _png(Image.fromarray(RGB)),
  ):
    chex.assert_trees_all_equal(decode_image(given, (6, 4, 3)), RGB)


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'I;16'])
@pytest.mark.parametrize('channels', [1, 3])
def test_every_mode_becomes_eight_bit(mode, channels):
  if mode == 'I;16':
    image = Image.fromarray(RGB[..., 0].astype(np.uint16) * 257)
  else:
    image = Image.fromarray(RGB).convert(mode)
  pixels = decode_image(_png(image), (6, 4, channels))
  chex.assert_shape(pixels, (6, 4, channels))
  assert pixels.dtype == np.uint8
  if mode in ('RGB', 'RGBA') and channels == 3:
    chex.assert_trees_all_equal(pixels, RGB)
  if mode == 'I;16':
    chex.assert_trees_all_equal(pixels[..., -1], RGB[..., 0])


def test_grey_is_repeated_and_colour_is_weighted():
  grey = RGB[..., 0]
  pixels = decode_image(_png(Image.fromarray(grey)), (6, 4, 3))
  chex.assert_trees_all_equal(pixels, np.repeat(grey[..., None], 3, -1))
  luma = decode_image(_png(Image.fromarray(RGB)), (6, 4, 1))[..., 0]
  assert np.abs(luma - RGB @ [0.299, 0.587, 0.114]).max() <= 1


def test_transparent_pixels_are_white():
  rgba = np.dstack([RGB, np.zeros((6, 4), np.uint8)])
  assert (decode_image(_png(Image.fromarray(rgba)), (6, 4, 3)) == 255).all()
  palette = Image.fromarray(np.zeros((6, 4), np.uint8), 'P')
  palette.putpalette([10, 20, 30])
  assert (decode_image(_png(palette, transparency=0), (6, 4, 3)) == 255).all()


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'WEBP'])
def test_exif_orientation_is_applied(kind, tmp_path):
  half = np.zeros((16, 8, 3), np.uint8)
  half[:8] = 255  # white above black; orientation 6 turns it by 90 degrees clockwise
  exif = Image.Exif()
  exif[0x0112] = 6
  path = tmp_path / f'a.{kind.lower()}'
  Image.fromarray(half).save(path, kind, exif=exif)
  assert image_header(path)[:2] == (8, 16)
  pixels = decode_image(path, (8, 16, 3))
  assert pixels[:, 12:].min() > 200
  assert pixels[:, :4].max() < 50


def test_other_sizes_are_the_centre_of_the_whole_picture_scaled():
  wide = np.random.default_rng(2).integers(0, 256, (10, 30, 3), np.uint8)
  whole = Image.fromarray(wide).resize((15, 5), Image.Resampling.BILINEAR)
  chex.assert_trees_all_equal(fit_image(wide, (5, 5, 3)), np.asarray(whole)[:, 5:10])
  tall = wide.transpose(1, 0, 2)
  chex.assert_trees_all_equal(fit_image(tall, (10, 10, 3)), tall[10:20])


def test_downscaling_is_antialiased():
  checker = np.indices((32, 32)).sum(0) % 2 * 255
  small = fit_image(checker.astype(np.uint8), (4, 4, 1))
  assert np.abs(small.astype(int) - 127).max() <= 2


def test_decoded_bytes_and_fitted_pixels_agree():
  big = np.random.default_rng(1).integers(0, 256, (21, 34, 3), np.uint8)
  decoded = decode_image(_png(Image.fromarray(big)), (8, 8, 1))
  chex.assert_trees_all_equal(decoded, fit_image(big, (8, 8, 1)))


def test_a_long_thin_picture_is_cheap():
  assert fit_image(np.zeros((1, 60000, 3), np.uint8), (64, 64, 3)).shape == (64, 64, 3)


def test_unreadable_files_are_named_in_one_line(tmp_path):
  good = _png(Image.fromarray(np.repeat(RGB, 20, 0)))
  for name, content in {
    'text.png': b'no image',
    'empty.jpg': b'',
    'cut.png': good[: len(good) // 2],
  }.items():
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableImage, match=name) as caught:
      decode_image(tmp_path / name, (6, 4, 3))
    assert '\n' not in str(caught.value)
  with pytest.raises(UnreadableImage, match=r'gone\.png is not there'):
    decode_image(tmp_path / 'gone.png', (6, 4, 3))
  with pytest.raises(UnreadableImage, match='image data'):
    decode_image(b'no image', (6, 4, 3))


def test_header_tells_size_and_greyness(tmp_path):
  Image.fromarray(RGB).save(tmp_path / 'a.png')
  Image.fromarray(RGB[..., 0]).save(tmp_path / 'b.jpg')
  assert image_header(tmp_path / 'a.png') == (6, 4, False)
  assert image_header(tmp_path / 'b.jpg') == (6, 4, True)


@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
@pytest.mark.parametrize('turned', [False, True])
def test_evaluation_is_a_resize_and_a_centre_crop_in_one(interpolation, turned):
  coarse = np.random.default_rng(4).integers(0, 256, (20, 30, 3), np.uint8)
  smooth = Image.fromarray(coarse).resize((150, 100), Image.Resampling.BICUBIC)
  pixels = np.asarray(smooth)
  whole, corner = (96, 64), (20, 4)  # width, height; left, top
  if turned:
    pixels, whole, corner = pixels.transpose(1, 0, 2), whole[::-1], corner[::-1]
  method = Image.Resampling[interpolation.upper()]
  resized = np.asarray(Image.fromarray(pixels).resize(whole, method)).astype(int)
  left, top = corner
  expected = resized[top : top + 56, left : left + 56]
  given = _png(Image.fromarray(pixels))
  for got in (
    decode_image(given, (56, 56, 3), 0.875, interpolation),
    fit_image(pixels, (56, 56, 3), 0.875, interpolation),
  ):
    # Pillow rounds between its passes, and chooses which of the two comes first.
    assert np.abs(got - expected).max() <= 2
    assert np.abs(got - expected).mean() < 0.3


def test_a_fraction_enlarges_even_an_image_of_the_size():
  assert not np.array_equal(fit_image(RGB, (6, 4, 3), 0.5), RGB)
  chex.assert_trees_all_equal(fit_image(RGB, (6, 4, 3), 1.0, 'bicubic'), RGB)


@pytest.mark.parametrize('kind', ['PNG', 'JPEG'])
def test_a_box_is_in_pixels_of_the_upright_picture(kind, tmp_path):
  left_half = np.zeros((64, 96, 3), np.uint8)
  left_half[:, :48] = 255
  exif = Image.Exif()
  exif[0x0112] = 6  # shown a quarter turn clockwise: white above black, 96 high
  path = tmp_path / f'a.{kind.lower()}'
  Image.fromarray(left_half).save(path, kind, exif=exif)
  sizes = []

  def box(height, width):
    sizes.append((height, width))
    return 8, 0, 80, 64

  for side in (16, 80):  # the smaller is decoded at a quarter
    shown = decode_image(path, (side, side, 3), box=box)
    assert shown[: side // 2 - 2].min() > 200
    assert shown[side // 2 + 2 :].max() < 50
  assert sizes == [(96, 64)] * 2


def test_a_large_crop_of_a_jpeg_is_decoded_smaller_and_looks_the_same(tmp_path):
  coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
  picture = Image.fromarray(coarse).resize((403, 301), Image.Resampling.BICUBIC)
  for name in ('a.jpg', 'a.bmp'):
    picture.save(tmp_path / name, **({'quality': 95} if name == 'a.jpg' else {}))
  box = lambda height, width: (20, 31, 250, 300)  # noqa: E731
  small = decode_image(tmp_path / 'a.jpg', (60, 60, 3), box=box)
  exact = decode_image(tmp_path / 'a.bmp', (60, 60, 3), box=box)
  assert np.abs(small.astype(int) - exact).mean() < 1.5
  with Image.open(tmp_path / 'a.jpg') as whole:
    full = whole.resize((60, 60), Image.Resampling.BILINEAR, (31, 20, 331, 270))
  assert not np.array_equal(small, np.asarray(full))  # it took the other way
  # Never where the crop would have less than the image's resolution.
  near = decode_image(tmp_path / 'a.jpg', (126, 126, 3), box=box)
  with Image.open(tmp_path / 'a.jpg') as whole:
    full = whole.resize((126, 126), Image.Resampling.BILINEAR, (31, 20, 331, 270))
  assert np.abs(near.astype(int) - np.asarray(full)).max() <= 1  # of rounding


def test_impossible_settings_are_the_users_mistake():
  with pytest.raises(UserError, match='crop_fraction must be above 0 .* got 0'):
    fit_image(RGB, (6, 4, 3), 0)
  with pytest.raises(UserError, match='did you mean "bicubic"'):
    decode_image(_png(Image.fromarray(RGB)), (6, 4, 3), 1.0, 'bicubik')


_WRITTEN = {
  'PNG': 'png',
  'JPEG': 'jfif',
  'GIF': 'gif',
  'BMP': 'bmp',
  'PPM': 'ppm',
  'WEBP': 'webp',
  'TIFF': 'tif',
  'AVIF': 'avif',
}


@pytest.mark.parametrize('kind', decode.FORMATS)
def test_every_named_format_is_read_from_files_and_bytes(kind, tmp_path):
  Image.init()
  if kind not in Image.SAVE:
    pytest.skip(f'this Pillow writes no {kind}')
  flat = Image.new('RGB', (32, 24), (200, 100, 50))
  path = tmp_path / f'a.{_WRITTEN[kind]}'
  flat.save(path, kind)
  assert image_header(path)[:2] == (24, 32)
  for given in (path, path.read_bytes()):
    pixels = decode_image(given, (24, 32, 3)).astype(int)
    assert np.abs(pixels - [200, 100, 50]).max() <= 8


def test_other_formats_of_pillow_are_not_opened(tmp_path, monkeypatch):
  def opened(*args, **options):
    raise AssertionError('another program would have been started')

  monkeypatch.setattr('PIL.EpsImagePlugin.Ghostscript', opened)
  monkeypatch.setattr('PIL.EpsImagePlugin.EpsImageFile._open', opened)
  for name in ('a.png', 'a.eps'):
    Image.new('RGB', (4, 4)).save(tmp_path / name, 'EPS')
    with pytest.raises(UnreadableImage, match='not an image of a known format'):
      decode_image(tmp_path / name, (4, 4, 3))
    with pytest.raises(UnreadableImage, match='not an image of a known format'):
      image_header(tmp_path / name)


def _header_of_png(width, height):
  """A PNG of so many pixels, of which there are none."""
  chunk = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
  chunks = [chunk, b'IDAT', b'IEND']
  return b'\x89PNG\r\n\x1a\n' + b''.join(
    struct.pack('>I', len(c) - 4) + c + struct.pack('>I', zlib.crc32(c)) for c in chunks
  )


def test_a_picture_of_too_many_pixels_is_refused_by_its_header(tmp_path):
  path = tmp_path / 'bomb.png'
  for side in (13_000, 60_000):
    path.write_bytes(_header_of_png(side, side))
    for read in (image_header, lambda p: decode_image(p, (8, 8, 3))):
      with pytest.raises(
        UnreadableImage, match=rf'bomb\.png .*{side}x{side} pixels.* 120 megapixels'
      ):
        read(path)
  with pytest.raises(UnreadableImage, match='13000x13000'):
    decode_image(_header_of_png(13_000, 13_000), (8, 8, 3))


def test_a_large_scan_is_read_without_a_warning(tmp_path, monkeypatch):
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 4)  # Pillow warns above, then raises
  Image.fromarray(RGB).save(tmp_path / 'a.png')
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    chex.assert_trees_all_equal(decode_image(tmp_path / 'a.png', (6, 4, 3)), RGB)


@pytest.mark.parametrize('link', [False, True])
def test_only_regular_files_are_opened(tmp_path, link):
  fifo, file = tmp_path / 'a.png', tmp_path / 'b.png'
  os.mkfifo(fifo)
  Image.fromarray(RGB).save(file)
  if link:
    (tmp_path / 'c.png').symlink_to(fifo)
    (tmp_path / 'd.png').symlink_to(file)
    fifo, file = tmp_path / 'c.png', tmp_path / 'd.png'
  for read in (image_header, lambda p: decode_image(p, (6, 4, 3))):
    with pytest.raises(UnreadableImage, match='not a regular file'):
      read(fifo)  # opening it would wait for a writer, for ever
    read(file)
  with pytest.raises(UnreadableImage, match='it is a folder'):
    image_header(tmp_path)


def test_pictures_of_pillow_are_taken_as_files_are():
  exif = Image.Exif()
  exif[0x0112] = 6
  turned = Image.fromarray(RGB)
  turned.getexif()[0x0112] = 6
  data = _png(Image.fromarray(RGB), exif=exif)
  expected = decode_image(data, (4, 6, 3))
  chex.assert_trees_all_equal(
    decode_image(Image.open(io.BytesIO(data)), (4, 6, 3)), expected
  )
  chex.assert_trees_all_equal(decode_image(turned, (4, 6, 3)), expected)
  with pytest.raises(UnreadableImage, match='floating-point'):
    decode_image(Image.new('F', (4, 4)), (4, 4, 1))


@pytest.mark.parametrize('size', [(29, 34), (34, 29), (92, 107)])
def test_sizes_whose_crop_rounds_below_zero_are_read(size):
  # (29 - 28 * (29 / 28)) / 2 is -1.8e-15, which Pillow refuses as an offset.
  pixels = decode.decode_image(Image.new('L', size, 9), (28, 28, 1))
  assert pixels.shape == (28, 28, 1)
  assert set(pixels.ravel()) == {9}
