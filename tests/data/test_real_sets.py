"""The real sets, where they are prepared: every image, the published statistics."""

import os
from pathlib import Path

import chex
import numpy as np
import pytest

from jaxvision.data import load
from jaxvision.data.dataset import read_many

# It decodes whole sets: not in `make test-fast`.
pytestmark = pytest.mark.long

DIRECTORY = os.environ.get('TFDS_DATA_DIR', '')

# Examples, shape, classes; mean and deviation as everybody quotes them.
PUBLISHED = {
  'mnist': (60_000, (28, 28, 1), 10, (0.1307,), (0.3081,)),
  'cifar10': (
    50_000,
    (32, 32, 3),
    10,
    (0.4914, 0.4822, 0.4465),
    (0.2470, 0.2435, 0.2616),
  ),
  'cifar100': (
    50_000,
    (32, 32, 3),
    100,
    (0.5071, 0.4865, 0.4409),
    (0.2673, 0.2564, 0.2762),
  ),
}


def _here(name):
  if not list(Path(DIRECTORY, name).glob('*/*array_record*')):
    pytest.skip(f'{name} is not prepared in $TFDS_DATA_DIR ({DIRECTORY or "not set"})')


@pytest.mark.parametrize('name', PUBLISHED)
def test_streamed_examples_are_those_that_tfds_decodes(name):
  _here(name)
  import tensorflow_datasets as tfds

  _, shape, classes, mean, _ = PUBLISHED[name]
  zeros = (0.0,) * len(mean)
  dataset = load(name, pipeline='streaming', resident_limit_mb=0, mean=zeros, std=mean)
  assert dataset.image_shape == shape
  assert dataset.num_classes == classes
  (folder,) = Path(DIRECTORY, name).glob('[0-9]*')
  theirs = tfds.builder_from_directory(str(folder)).as_data_source(split='test')
  indices = [0, 1, 4567, 9999]
  for i, (image, label) in zip(indices, read_many(dataset.splits['test'], indices)):
    chex.assert_trees_all_equal(image, theirs[i]['image'])
    assert label == theirs[i]['label']


@pytest.mark.slow
@pytest.mark.parametrize('name', PUBLISHED)
def test_whole_sets_have_the_published_statistics(name):
  _here(name)
  count, _, classes, mean, std = PUBLISHED[name]
  dataset = load(name)
  assert len(dataset.splits['train']) == count
  assert len(dataset.splits['test']) == 10_000
  np.testing.assert_allclose(dataset.mean, mean, atol=6e-5)
  np.testing.assert_allclose(dataset.std, std, atol=6e-5)
  if name != 'mnist':
    assert (
      np.bincount(dataset.splits['train'].labels).tolist()
      == [count // classes] * classes
    )
