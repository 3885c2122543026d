"""Statistics and sources."""

import pickle

import chex
import numpy as np
import pytest

from jaxvision.data.dataset import (
  ArraySource,
  Dataset,
  SubsetSource,
  mean_std,
  moments,
  read_many,
)


def _noise(n, shape=(4, 3, 2), seed=0):
  return np.random.default_rng(seed).integers(0, 256, (n, *shape), np.uint8)


def _source(n=20):
  return ArraySource(_noise(n), np.arange(n, dtype=np.int32) % 3)


LABELS = {
  'class': np.arange(20, dtype=np.int32) % 3,
  'multilabel': np.eye(4, dtype=np.uint8)[np.arange(20) % 4],
  'regression': np.linspace(0, 1, 20, dtype=np.float32),
  'several outputs': np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32),
}


@pytest.mark.parametrize('kind', LABELS)
def test_labels_of_any_kind_are_read_and_taken(kind):
  labels = LABELS[kind]
  source = ArraySource(_noise(20), labels)
  taken, subset = source.take(np.array([3, 5])), SubsetSource(source, np.array([3, 5]))
  for part in (taken, subset):
    assert part.labels.dtype == labels.dtype
    chex.assert_trees_all_equal(part.labels, labels[[3, 5]])
    chex.assert_trees_all_equal(np.asarray(part[1][1]), labels[5])
  dataset = Dataset(
    'x', {'train': source}, ('a',), (4, 3, 2), (0.0,), (1.0,), 'resident'
  )
  assert dataset.label_shape == labels.shape[1:]


def test_mean_and_std_match_numpy_exactly_enough():
  images = _noise(50)
  mean, std = mean_std(moments(images), 12)
  unit = images.astype(np.float64) / 255
  np.testing.assert_allclose(mean, unit.mean((0, 1, 2)), rtol=1e-14)
  np.testing.assert_allclose(std, unit.std((0, 1, 2)), rtol=1e-12)


def test_moments_of_white_do_not_overflow():
  white = np.full((1, 40, 40, 1), 255, np.uint8)
  assert moments(white).tolist() == [[[255 * 1600], [255 * 255 * 1600]]]


def test_std_of_a_constant_channel_is_one():
  assert mean_std(moments(np.full((2, 3, 3, 1), 51, np.uint8)), 9) == ((0.2,), (1.0,))


def test_subset_reads_and_labels_alike():
  source = _source()
  subset = SubsetSource(source, np.array([4, 2, 9]))
  assert len(subset) == 3
  for i, (image, label) in enumerate(read_many(subset, [0, 1, 2])):
    chex.assert_trees_all_equal(image, subset[i][0], source.images[[4, 2, 9][i]])
    assert label == subset[i][1] == subset.labels[i]


def test_take_from_a_mapped_file_is_a_copy(tmp_path):
  images = _noise(9000, (2, 2, 1))
  np.save(tmp_path / 'images.npy', images)
  mapped = np.load(tmp_path / 'images.npy', mmap_mode='r')
  indices = np.flatnonzero(np.random.default_rng(0).random(9000) < 0.3)
  taken = ArraySource(mapped, np.arange(9000, dtype=np.int32)).take(indices)
  assert not isinstance(taken.images, np.memmap)
  chex.assert_trees_all_equal(taken.images, images[indices])
  chex.assert_trees_all_equal(taken.labels, indices.astype(np.int32))


def test_pickling_a_mapped_source_takes_its_path_along_and_not_its_pixels(tmp_path):
  images = _noise(2000)
  np.save(tmp_path / 'images.npy', images)
  mapped = np.load(tmp_path / 'images.npy', mmap_mode='r')
  source = ArraySource(mapped, np.zeros(2000, np.int32))
  sent = pickle.dumps(source)
  assert len(sent) < images.nbytes / 4
  chex.assert_trees_all_equal(pickle.loads(sent).images, images)


def test_pickling_a_slice_of_a_mapped_source_keeps_the_slice(tmp_path):
  images = _noise(20)
  np.save(tmp_path / 'images.npy', images)
  part = np.load(tmp_path / 'images.npy', mmap_mode='r')[5:9]
  again = pickle.loads(pickle.dumps(ArraySource(part, np.zeros(4, np.int32))))
  chex.assert_trees_all_equal(again.images, images[5:9])
