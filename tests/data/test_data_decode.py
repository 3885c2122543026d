"""One decoder for training and prediction: modes, orientation, sizes, damage."""

import io

import chex
import numpy as np
import pytest
from PIL import Image

from jaxvision.data.decode import UnreadableImage, decode_image, fit_image, image_header

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
