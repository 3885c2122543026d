"""Grids pixel by pixel, and an animation that shows all of a run and weighs little."""

import io
import itertools
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageSequence

from jaxvision.reports import image_grid, theme


def _numbered(count, height=3, width=4, channels=1):
  """Images of one colour each, 10, 20, 30 and so on."""
  values = 10 * np.arange(1, count + 1, dtype=np.uint8)
  return np.broadcast_to(
    values[:, None, None, None], (count, height, width, channels)
  ).copy()


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize(('scale', 'gap'), [(1, 2), (3, 0), (2, 5)])
def test_each_pixel_is_where_it_belongs(scale, gap, channels):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (5, 3, 4, channels), np.uint8)
  picture = image_grid.grid(images, columns=3, scale=scale, gap=gap)
  height, width = 3 * scale + gap, 4 * scale + gap
  assert picture.shape == (2 * height - gap, 3 * width - gap, 3)
  assert picture.dtype == np.uint8
  covered = np.zeros(picture.shape[:2], bool)
  for index, image in enumerate(images):
    top, left = (index // 3) * height, (index % 3) * width
    for y in range(3 * scale):
      for x in range(4 * scale):
        expected = np.broadcast_to(image[y // scale, x // scale], 3)
        assert picture[top + y, left + x].tolist() == expected.tolist()
        covered[top + y, left + x] = True
  rest = picture[~covered]  # the gaps, and the place of a sixth image
  assert len(rest) >= 12 * scale**2
  assert len(np.unique(rest)) == 1


@pytest.mark.parametrize(('count', 'columns'), [(1, 1), (2, 2), (5, 3), (16, 4)])
def test_a_grid_is_about_square(count, columns):
  picture = image_grid.grid(_numbered(count), gap=0)
  assert picture.shape == (-(-count // columns) * 3, columns * 4, 3)


@pytest.mark.parametrize(
  ('images', 'scale'),
  [
    (np.zeros((0, 3, 3, 1), np.uint8), 1),
    (np.zeros((2, 3, 3), np.uint8), 1),
    (np.zeros((2, 3, 3, 2), np.uint8), 1),
    (np.zeros((2, 3, 3, 3), np.float32), 1),
    (np.zeros((2, 3, 3, 3), np.uint8), 0),
  ],
  ids=['none', 'no channels', 'two channels', 'floats', 'no scale'],
)
def test_what_is_no_image_is_refused(images, scale):
  with pytest.raises(ValueError):
    image_grid.grid(images, scale=scale)


def test_frames_come_back_by_step(tmp_path):
  images = {step: np.full((4, 6, 3), step % 251, np.uint8) for step in (500, 90, 12000)}
  for step, image in images.items():
    image_grid.save_png(tmp_path / image_grid.frame_name(step), image)
  whole = (tmp_path / image_grid.frame_name(500)).read_bytes()
  (tmp_path / image_grid.frame_name(700)).write_bytes(whole[: len(whole) // 2])
  (tmp_path / image_grid.frame_name(800)).write_bytes(b'')
  (tmp_path / 'step_last.png').write_bytes(whole)
  (tmp_path / '.step_00000900.png.1.tmp').write_bytes(whole)
  frames = image_grid.read_frames(tmp_path)
  assert [step for step, _ in frames] == [90, 500, 12000]
  for step, image in frames:
    np.testing.assert_array_equal(image, images[step])
  assert image_grid.read_frames(tmp_path / 'nowhere') == []


def test_frames_are_thinned_evenly_to_the_last(tmp_path):
  for step in range(1, 24):
    image_grid.save_png(
      tmp_path / image_grid.frame_name(step), np.zeros((2, 2, 3), np.uint8)
    )
  steps = [step for step, _ in image_grid.read_frames(tmp_path, most=5)]
  assert len(steps) == 5
  assert (steps[0], steps[-1]) == (1, 23)
  assert set(np.diff(steps)) <= {5, 6}


def _frames(count, noise=0):
  """Frames that grow from black to white, under noise."""
  rng = np.random.default_rng(0)
  levels = np.linspace(0, 255, count)
  return [
    (
      100 * (i + 1),
      np.clip(rng.normal(level, noise, (40, 60, 3)), 0, 255).astype(np.uint8),
    )
    for i, level in enumerate(levels)
  ]


def _opened(encoded):
  picture = Image.open(io.BytesIO(encoded))
  shown = [
    (np.asarray(frame.convert('RGB')).astype(int), frame.info['duration'])
    for frame in ImageSequence.Iterator(picture)
  ]
  return picture, [image for image, _ in shown], [time for _, time in shown]


def test_animation_shows_every_step_and_rests_on_the_last():
  frames = _frames(7)
  picture, shown, times = _opened(image_grid.animation(frames, milliseconds=50))
  assert picture.n_frames == 7
  assert picture.info['loop'] == 0  # for ever
  assert len(set(times[:-1])) == 1
  assert times[-1] == 10 * times[0]
  scale = image_grid.fitting_scale(60)
  assert shown[0].shape[1] == 60 * scale
  assert shown[0].shape[0] > 40 * scale  # and the band below
  for image, (_, expected) in zip(shown, frames):
    assert np.abs(image[: 40 * scale].mean() - expected.mean()) < 4
  bands = [image[40 * scale + 8 :] for image in shown]
  for band in bands:
    assert np.ptp(band) > 100  # there are letters in it
  assert all(np.abs(a - b).max() > 60 for a, b in itertools.pairwise(bands))
  # The bar below the picture is full at the end, a seventh of it at first.
  lit = [np.mean(image[40 * scale + 1, :, 2] > 150) for image in shown]
  assert lit[0] == pytest.approx(1 / 7, abs=0.05)
  assert lit[-1] > 0.95


def test_animation_is_bounded_in_frames_and_bytes():
  frames = _frames(150)
  picture, shown, _ = _opened(image_grid.animation(frames))
  assert picture.n_frames == image_grid.FRAMES
  assert shown[-1][:40].mean() > 250
  noisy = _frames(30, noise=60)
  whole = image_grid.animation(noisy)
  small = image_grid.animation(noisy, limit=len(whole) // 3)
  assert len(small) <= len(whole) // 3
  picture, shown, _ = _opened(small)
  assert 5 <= picture.n_frames < 12
  assert shown[-1][:40].mean() > 190  # the last is in
  assert shown[0][:40].mean() < 60  # and the first


def test_frames_of_another_size_are_left_out():
  other = (50, np.zeros((10, 10, 3), np.uint8))
  assert _opened(image_grid.animation([other, *_frames(3)]))[0].n_frames == 3
  with pytest.raises(ValueError):
    image_grid.animation([])


@pytest.mark.parametrize('shape', [(8, 8, 1), (32, 24, 3), (300, 400, 3)])
def test_captioned_images_are_shown_whole_in_their_aspect_ratio(shape):
  image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
  item = image_grid.CaptionedImage(image, ('a caption',))
  picture = image_grid.captioned_grid([item], scale=2)
  height, width = (round(side * 224 / max(shape)) for side in shape[:2])
  top, left = 20 + (224 - height) // 2, 20 + (224 - width) // 2
  shown = picture[top : top + height, left : left + width]
  if max(shape) <= 224:  # enlarged without smoothing: no colour that was not there
    assert len(np.unique(shown)) <= len(np.unique(image))
  assert abs(shown.mean() - image.mean()) < 6
  around = picture[20:244, 20:244].astype(int).copy()
  around[top - 20 : top - 20 + height, left - 20 : left - 20 + width] = 255
  assert (around == 255).all()


def test_captions_have_the_colour_of_correct_and_wrong():
  image = np.zeros((8, 8, 1), np.uint8)
  names = ['cat', 'dog' * 40]
  right, wrong = (
    image_grid.captioned_prediction(image, label, np.array([0.99999, 1e-5]), names)
    for label in (0, 1)
  )
  assert right.lines == ('✓ cat', '>99.9%')
  assert wrong.lines == ('✗ cat', '>99.9%', 'true: ' + names[1])
  for colors in (theme.LIGHT, theme.DARK):
    picture = image_grid.captioned_grid([right] * 7 + [wrong], colors)
    found = {'#' + bytes(pixel).hex() for pixel in picture.reshape(-1, 3)}
    assert {colors.right, colors.wrong, colors.background} <= found
    last = picture[picture.shape[0] // 2 :, picture.shape[1] // 3 :]
    assert (last == last[0, 0]).all()  # two images in the second row, and no text


def test_grids_are_drawn_without_matplotlib():
  code = (
    'import sys, numpy as np\n'
    'from jaxvision.reports import image_grid\n'
    'image_grid.prediction_grid([np.zeros((4, 4, 1), np.uint8)], [0], np.eye(2), "ab")\n'
    'assert "matplotlib" not in sys.modules'
  )
  subprocess.run([sys.executable, '-c', code], check=True)
