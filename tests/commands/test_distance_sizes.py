"""The command `distance`: upright sizes, grey and colour, too few images."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from jaxvision.commands import distance
from jaxvision.commands.distance import compare_folders
from jaxvision.errors import UserError

_ORIENTATION = 0x0112  # EXIF tag
DIMENSIONS = 12


class _Extractor(SimpleNamespace):
  """Features of an image: the means of its quarters, of each channel."""

  def __init__(self, image_shape):
    super().__init__(
      image_shape=image_shape,
      name='mean',
      weights='none',
      resizer='',
      class_names=None,
      seen=[],
    )

  def batches(self, batches):
    for batch in batches:
      self.seen += list(batch)
      quarters = batch.reshape(len(batch), 2, batch.shape[1] // 2, 2, -1, 3)
      features = quarters.mean((2, 4)).reshape(len(batch), -1).astype(np.float32)
      yield features, np.ones((len(batch), 1), np.float32)


@pytest.fixture
def extractor(monkeypatch):
  """Small features in the place of Inception's."""
  made = _Extractor(None)
  monkeypatch.setattr(distance, 'find_extractor', lambda *_: made)
  return made


def _save(pixels, path, orientation=1):
  path.parent.mkdir(exist_ok=True)
  exif = Image.Exif()
  exif[_ORIENTATION] = orientation
  Image.fromarray(pixels).save(path, exif=exif)


def _pictures(folder, count, shape=(8, 4, 3), seed=0):
  random = np.random.default_rng(seed)
  for i in range(count):
    _save(random.integers(0, 256, shape, np.uint8), folder / f'{i:02}.png')


def test_sizes_are_those_of_upright_images(extractor, tmp_path):
  _pictures(tmp_path / 'real', 20)
  _pictures(tmp_path / 'fake', 19)
  # A photo of a phone: stored on its side, with the turn that makes it upright.
  upright = np.random.default_rng(5).integers(0, 256, (8, 4, 3), np.uint8)
  _save(np.rot90(upright), tmp_path / 'fake' / 'photo.png', orientation=6)
  compare_folders(tmp_path / 'fake', tmp_path / 'real')
  np.testing.assert_array_equal(extractor.seen[19], upright)
  # One whose stored size is that of the others, but which lies on its side.
  _save(upright, tmp_path / 'fake' / 'lying.png', orientation=6)
  with pytest.raises(UserError, match=r'lying.png is 4x8 and the first image 8x4'):
    compare_folders(tmp_path / 'fake', tmp_path / 'real')


@pytest.mark.parametrize('first', ['grey', 'colour'])
def test_one_grey_image_takes_no_colour_from_others(first, extractor, tmp_path):
  _pictures(tmp_path / 'grey', 20, (8, 4))
  _pictures(tmp_path / 'colour', 20)
  second = {'grey': 'colour', 'colour': 'grey'}[first]
  compare_folders(tmp_path / first, tmp_path / second)
  assert {image.shape for image in extractor.seen} == {(8, 4, 3)}
  with Image.open(tmp_path / 'colour' / '00.png') as picture:
    pixels = np.asarray(picture)
  np.testing.assert_array_equal(extractor.seen[20 if first == 'grey' else 0], pixels)


@pytest.mark.parametrize(('count', 'warned'), [(DIMENSIONS, 1), (DIMENSIONS + 1, 0)])
def test_fewer_images_than_features_are_warned_of_once(
  count, warned, extractor, tmp_path, caplog
):
  _pictures(tmp_path / 'fake', count)
  _pictures(tmp_path / 'real', 20, seed=1)
  compare_folders(tmp_path / 'fake', tmp_path / 'real')
  assert caplog.text.count('12 images are too few') == warned
  assert caplog.text.count('12 features') == warned


def test_folders_of_the_home_and_elsewhere(extractor, tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  _pictures(tmp_path / 'a', 20)
  assert compare_folders('~/a', '~/a').value == pytest.approx(0, abs=1e-3)
  with pytest.raises(UserError, match='^distance: gs://bucket/a is a URL'):
    compare_folders('~/a', 'gs://bucket/a')
