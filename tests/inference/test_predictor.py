"""What a trained run takes for images, in Python."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxvision
from jaxvision import data
from jaxvision.data.decode import UnreadableImage
from jaxvision.errors import UserError
from jaxvision.training import evaluation

TRAINED = Path(__file__).resolve().parents[1] / 'fixtures' / 'trained'


@pytest.fixture(scope='module')
def run():
  return jaxvision.load_run(TRAINED / 'digits_cnn')


@pytest.fixture(scope='module')
def images():
  return data.load('digits').splits['test'].images[:7]


def test_everything_that_holds_images_gives_the_same(run, images, tmp_path):
  expected = run.predict(images).probabilities
  pictures = [Image.fromarray(image[..., 0]) for image in images]
  paths = [tmp_path / f'{i}.png' for i in range(7)]
  for picture, path in zip(pictures, paths):
    picture.save(path)
  for given in (
    jnp.asarray(images),
    list(images),
    [jnp.asarray(image) for image in images],
    (image[..., 0] for image in images),
    paths,
    tuple(map(str, paths)),
    sorted(tmp_path.glob('*.png')),
    pictures,
    iter(pictures),
    [images[:2], str(paths[2]), pictures[3], images[4], images[5:]],
  ):
    found = run.predict(given).probabilities
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  for one in (images[0], images[0, ..., 0], paths[0], str(paths[0]), pictures[0]):
    found = run.predict(one).probabilities
    np.testing.assert_allclose(found, expected[:1], rtol=1e-5, atol=1e-6)
  for none in ([], images[:0], iter(())):
    assert run.predict(none).probabilities.shape == (0, 10)


def test_batches_do_not_change_a_prediction(run, images):
  expected = run.predict(images).probabilities
  for given in (images, iter(images), [images[:3], images[3:]]):
    found = run.predict(given, batch_size=2).probabilities
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
  assert run.features(iter(images), batch_size=4).shape[0] == 7


def test_batches_of_large_images_are_as_memory_allows(run, images, monkeypatch):
  expected = run.predict(images).probabilities
  monkeypatch.setattr(evaluation, '_SMALL', 1)
  monkeypatch.setattr(evaluation, '_HELD_BYTES', 1)  # one image at a time
  found = run.predict(images).probabilities
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  ('given', 'words'),
  [
    (None, 'not NoneType'),
    (3, 'not int'),
    (b'bytes', 'not bytes'),
    ({'a.png': 1}, 'not dict'),
    ({'a.png'}, 'not set'),
    ([None], 'not NoneType'),
    (np.zeros((2, 8, 8, 1)), r'uint8 images of shape \[n, 8, 8, 1\], not float64'),
    (np.zeros((2, 9, 9, 1), np.uint8), r'of shape \[2, 9, 9, 1\]'),
    ([np.zeros((9, 8, 1), np.uint8)], r'of shape \[9, 8, 1\]'),
    (np.array(['a.png']), 'not <U5'),
  ],
)
def test_anything_else_is_the_users_mistake(run, given, words):
  with pytest.raises(UserError, match=words):
    run.predict(given)


def test_a_file_that_is_no_image_is_named(run, tmp_path):
  (tmp_path / 'a.png').write_bytes(b'no image')
  for given in (tmp_path / 'a.png', [tmp_path], str(tmp_path / 'b.png')):
    with pytest.raises(UnreadableImage, match=str(tmp_path)):
      run.predict(given)
