"""Statistics of features, their cache, and the metrics computed from them."""

import chex
import numpy as np
import pytest

from jaxvision.data.dataset import ArraySource
from jaxvision.errors import UserError
from jaxvision.metrics import distances, generative
from jaxvision.metrics.feature_extractors import FeatureExtractor


class PixelFeatures:
  """Returns the pixels as features and counts the images that it was called with."""

  def __init__(self):
    self.shown = 0

  def __call__(self, images):
    self.shown += len(images)
    flat = images.reshape(len(images), -1).astype(np.float32) / 255
    return flat, np.full((len(images), 2), 0.5, np.float32)


def make_extractor(name='FD-pixels', class_names=('a', 'b')):
  extract = PixelFeatures()
  extractor = FeatureExtractor(
    name, 'no weights', '', 'pixels', class_names, extract, 7
  )
  return extract, extractor


def images_of(count, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (count, 2, 2, 1), np.uint8)


def test_streamed_features_are_those_of_the_whole(monkeypatch):
  monkeypatch.setattr(generative, 'KEPT', 10)
  extract, extractor = make_extractor()
  images = images_of(45)
  statistics = generative.compute_statistics(
    extractor, np.split(images, [1, 20, 21]), 45, 'some'
  )
  whole = distances.Moments.of(extract(images)[0])
  assert statistics.moments.count == 45
  chex.assert_trees_all_close(statistics.moments.mean, whole.mean, rtol=1e-9)
  chex.assert_trees_all_close(
    statistics.moments.covariance, whole.covariance, rtol=1e-9
  )
  assert statistics.probabilities.shape == (45, 2)
  # Ten of them, from the first to the last, whatever order the set has.
  kept = np.linspace(0, 44, 10).astype(int)
  chex.assert_trees_all_close(statistics.features, extract(images[kept])[0])


def test_statistics_of_a_split_are_computed_once_per_extractor(tmp_path):
  source = ArraySource(images_of(30), np.zeros(30, np.int32))
  extract, extractor = make_extractor()
  first = generative.split_statistics(extractor, source, 'test', tmp_path)
  again = generative.split_statistics(extractor, source, 'test', tmp_path)
  assert extract.shown == 30
  chex.assert_trees_all_equal(first.moments.covariance, again.moments.covariance)
  chex.assert_trees_all_equal(first.features, again.features)
  assert first.name == again.name == 'test (30 images)'
  # Other images or another extractor: computed again.
  other = ArraySource(images_of(30, seed=1), np.zeros(30, np.int32))
  generative.split_statistics(extractor, other, 'test', tmp_path)
  assert extract.shown == 60
  stranger = FeatureExtractor('FD-x', 'w', '', 'another', None, extract, 7)
  generative.split_statistics(stranger, source, 'test', tmp_path)
  assert extract.shown == 90
  # A damaged file is replaced.
  for file in tmp_path.iterdir():
    file.write_bytes(file.read_bytes()[:100])
  repaired = generative.split_statistics(extractor, source, 'test', tmp_path)
  assert extract.shown == 120
  chex.assert_trees_all_equal(first.moments.mean, repaired.moments.mean)


def test_scores_tell_how_they_were_measured():
  _, extractor = make_extractor()
  real = generative.compute_statistics(
    extractor, [images_of(60)], 60, 'test (60 images)'
  )
  fake = generative.compute_statistics(
    extractor, [images_of(50, seed=1)], 50, 'samples'
  )
  scores = generative.compute_scores(extractor, fake, real, floor=0.25)
  assert scores.value == distances.frechet_distance(fake.moments, real.moments)
  assert scores.protocol == '50 samples against test (60 images), no weights'
  assert scores.as_json()['protocol'] == scores.protocol
  assert scores.protocol in scores.line()
  assert 'FD-pixels' in scores.line()
  assert 'floor 0.25' in scores.line()
  pair = distances.precision_recall(real.features, fake.features)
  assert (scores.precision, scores.recall) == pytest.approx(pair)
  # Only Inception has an Inception Score.
  assert scores.inception_score is None
  quick = generative.compute_scores(extractor, fake, real, manifolds=False)
  assert quick.value == scores.value
  assert quick.precision is None


def test_inception_score_belongs_to_inception():
  _, extractor = make_extractor('FID', None)
  statistics = generative.compute_statistics(extractor, [images_of(60)], 60, 'x')
  assert generative.compute_scores(
    extractor, statistics, statistics
  ).inception_score == pytest.approx(1)


def test_too_few_images_are_told():
  _, extractor = make_extractor()
  real = generative.compute_statistics(
    extractor, [images_of(60)], 60, 'test (60 images)'
  )
  one = generative.compute_statistics(extractor, [images_of(1)], 1, 'samples')
  with pytest.raises(UserError, match='too few'):
    generative.compute_scores(extractor, one, real)
  with pytest.raises(UserError, match='no images'):
    generative.compute_statistics(extractor, [], 0, 'samples')


def test_nearest_training_images_are_found():
  source = ArraySource(images_of(1200), np.zeros(1200, np.int32))
  samples = np.stack([source.images[7], source.images[1101]])
  samples[0, 0, 0, 0] ^= 2
  where, far = generative.nearest(samples, source, 3)
  assert where[:, 0].tolist() == [7, 1101]
  assert far[:, 0] == pytest.approx([1.0, 0.0], abs=0.05)  # 2 grey levels in 1 of 4
  flat = source.images.reshape(1200, -1).astype(float)
  distance = np.sqrt(np.mean((flat - flat[1101]) ** 2, axis=1))
  assert set(where[1]) == set(np.argsort(distance, kind='stable')[:3])
  assert (np.diff(far, axis=1) >= 0).all()
