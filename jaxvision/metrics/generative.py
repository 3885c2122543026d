"""Metrics of generated images against real ones, together with how they were measured.

Moments are accumulated over all images. KID, precision, recall, density and coverage use
at most `KEPT` images of either set, which bounds memory.
"""

import dataclasses
import hashlib
import io
import os
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxvision.data.dataset import Source
from jaxvision.errors import UserError
from jaxvision.io import write_whole
from jaxvision.metrics.distances import (
  Moments,
  RunningMoments,
  density_coverage,
  frechet_distance,
  inception_score,
  kernel_distance,
  precision_recall,
)
from jaxvision.metrics.feature_extractors import FeatureExtractor
from jaxvision.placement import everywhere

KEPT = 10_000
_SUBSET = 1000  # images in a subset of KID, as its authors have it
_CHUNK = 500  # images of a split at a time


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureStatistics:
  """Statistics of the features of a set of images.

  Attributes:
    name: name of the set with its size, such as 'test (10,000 images)'.
    moments: moments of the features of all images.
    features: float32 [m, D], features of at most `KEPT` images, evenly spaced.
    probabilities: float32 [n, K] of all images; None if they were not kept.
  """

  name: str
  moments: Moments
  features: np.ndarray
  probabilities: np.ndarray | None = None


def compute_statistics(
  extractor: FeatureExtractor, batches: Iterable[np.ndarray], count: int, name: str
) -> FeatureStatistics:
  """Extracts features of images and computes their statistics.

  Args:
    extractor: the network.
    batches: uint8 [B, H, W, C] each.
    count: number of images in all batches.
    name: name of the set.

  Raises:
    UserError: there are no images.
  """
  kept, probabilities, moments, first = [], [], None, 0
  wanted = np.unique(np.linspace(0, count - 1, min(count, KEPT)).astype(np.int64))
  for features, shares in extractor.batches(batches):
    moments = moments or RunningMoments(features.shape[1])
    moments.add(features)
    here = wanted[(wanted >= first) & (wanted < first + len(features))] - first
    kept.append(features[here])
    probabilities.append(shares)
    first += len(features)
  if moments is None:
    raise UserError(f'there are no images to measure: {name} is empty')
  return FeatureStatistics(
    name, moments.result(), np.concatenate(kept), np.concatenate(probabilities)
  )


def images_of(source: Source) -> Iterator[np.ndarray]:
  """Yields the images of a split in order, uint8 [B, H, W, C]."""
  images = getattr(source, 'images', None)
  for start in range(0, len(source), _CHUNK):
    end = min(start + _CHUNK, len(source))
    if images is not None:
      yield np.asarray(images[start:end])
    else:
      yield np.stack([source[i][0] for i in range(start, end)])


def split_statistics(
  extractor: FeatureExtractor, source: Source, split: str, cache: Path
) -> FeatureStatistics:
  """Computes the statistics of a split, or reads them from the cache.

  Args:
    extractor: the network.
    source: the split; one that is decoded while it is read is not cached.
    split: name of the split.
    cache: directory of cached statistics.
  """
  name = f'{split} ({len(source):,} images)'
  file = None
  if getattr(source, 'images', None) is not None:
    digest = hashlib.sha256(f'{extractor.identity} {KEPT} '.encode())
    for batch in images_of(source):
      digest.update(np.ascontiguousarray(batch))
    file = cache / f'{digest.hexdigest()[:32]}.npz'
    known = _read(file)
    if everywhere(known is not None):
      assert known
      return dataclasses.replace(known, name=name)
  statistics = compute_statistics(extractor, images_of(source), len(source), name)
  statistics = dataclasses.replace(statistics, probabilities=None)
  if file:
    _write(file, statistics)
  return statistics


def _read(file: Path) -> FeatureStatistics | None:
  try:
    with np.load(file, allow_pickle=False) as arrays:
      moments = Moments(int(arrays['count']), arrays['mean'], arrays['covariance'])
      return FeatureStatistics('', moments, arrays['features'])
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
    return None  # missing or damaged: computed again


def _write(file: Path, statistics: FeatureStatistics) -> None:
  moments, buffer = statistics.moments, io.BytesIO()
  np.savez(
    buffer,
    count=moments.count,
    mean=moments.mean,
    covariance=moments.covariance,
    features=statistics.features,
  )
  try:
    os.makedirs(file.parent, exist_ok=True)
    write_whole(file, buffer.getvalue())
  except OSError:
    return  # the disk is full or read-only: computed again next time


@dataclasses.dataclass(frozen=True)
class Scores:
  """Metrics of generated images, and how they were measured.

  Attributes:
    name: 'FID' or 'FD-<run>', the name of `value`.
    value: Fréchet distance of the features, lower is better.
    floor: Fréchet distance of the training split to the test split; None if it was not
      measured.
    samples: number of generated images.
    reference: the real images, such as 'test (10,000 images)'.
    weights, resizer: see `FeatureExtractor`.
    kid, kid_std: kernel distance and its standard deviation over subsets; None with
      fewer than two images.
    precision, recall, density, coverage: None if they were not measured.
    inception_score, inception_score_std: None unless the features are Inception's.
  """

  name: str
  value: float
  floor: float | None
  samples: int
  reference: str
  weights: str
  resizer: str
  kid: float | None = None
  kid_std: float | None = None
  precision: float | None = None
  recall: float | None = None
  density: float | None = None
  coverage: float | None = None
  inception_score: float | None = None
  inception_score_std: float | None = None

  @property
  def protocol(self) -> str:
    """Describes how the metrics were measured; without it they cannot be compared."""
    resized = f', {self.resizer} resizing' if self.resizer else ''
    return f'{self.samples:,} samples against {self.reference}, {self.weights}{resized}'

  def as_json(self) -> dict[str, Any]:
    """Returns the metrics and the protocol."""
    return {**dataclasses.asdict(self), 'protocol': self.protocol}

  def line(self) -> str:
    """Formats the metrics as a line for the terminal."""
    floor = f', floor {self.floor:.2f}' if self.floor is not None else ''
    more = [
      f'{label} {value:{form}}'
      for label, value, form in (
        ('KID', self.kid, '.4f'),
        ('IS', self.inception_score, '.2f'),
        ('precision', self.precision, '.3f'),
        ('recall', self.recall, '.3f'),
        ('density', self.density, '.3f'),
        ('coverage', self.coverage, '.3f'),
      )
      if value is not None
    ]
    text = '  '.join([f'{self.name} {self.value:.2f}{floor}', *more])
    return f'{text}  ({self.protocol})'


def compute_scores(
  extractor: FeatureExtractor,
  fake: FeatureStatistics,
  real: FeatureStatistics,
  *,
  floor: float | None = None,
  manifolds: bool = True,
) -> Scores:
  """Computes the metrics of generated images against real ones.

  Args:
    extractor: the network that `fake` and `real` come from.
    fake, real: statistics of the generated and of the real images.
    floor: see `Scores`.
    manifolds: whether to compute precision, recall, density and coverage, which take
      seconds.

  Raises:
    UserError: too few images, or features that are not finite.
  """
  fewest = min(len(fake.features), len(real.features))
  more: dict[str, float] = {}
  if fewest >= 2:
    size = min(_SUBSET, fewest)
    more['kid'], more['kid_std'] = kernel_distance(
      real.features, fake.features, subset_size=size
    )
  if manifolds and fewest > 5:
    pair = precision_recall(real.features, fake.features)
    more['precision'], more['recall'] = pair
    pair = density_coverage(real.features, fake.features)
    more['density'], more['coverage'] = pair
  if extractor.class_names is None and fake.probabilities is not None and fewest >= 10:
    pair = inception_score(fake.probabilities)
    more['inception_score'], more['inception_score_std'] = pair
  return Scores(
    name=extractor.name,
    value=frechet_distance(fake.moments, real.moments),
    floor=floor,
    samples=fake.moments.count,
    reference=real.name,
    weights=extractor.weights,
    resizer=extractor.resizer,
    **{key: float(value) for key, value in more.items()},
  )


def nearest(
  samples: np.ndarray, source: Source, count: int
) -> tuple[np.ndarray, np.ndarray]:
  """Finds the nearest training images of samples, by the distance of their pixels.

  Args:
    samples: uint8 [n, H, W, C].
    source: the training images.
    count: number of neighbours of each sample.

  Returns:
    (indices int64 [n, count], nearest first; distances float32 [n, count]: root mean
    square over pixels, in grey levels).
  """
  flat = samples.reshape(len(samples), -1).astype(np.float32)
  count = min(count, len(source))
  best = np.full((len(flat), 0), 0.0, np.float32)
  where = np.zeros((len(flat), 0), np.int64)
  first = 0
  for batch in images_of(source):
    other = batch.reshape(len(batch), -1).astype(np.float32)
    squared = (
      (flat**2).sum(1)[:, None] - 2 * flat @ other.T + (other**2).sum(1)[None, :]
    )
    best = np.concatenate([best, squared], axis=1)
    numbers = np.broadcast_to(np.arange(first, first + len(batch)), squared.shape)
    where = np.concatenate([where, numbers], axis=1)
    order = np.argsort(best, axis=1, kind='stable')[:, :count]
    best = np.take_along_axis(best, order, 1)
    where = np.take_along_axis(where, order, 1)
    first += len(batch)
  return where, np.sqrt(np.maximum(best, 0) / flat.shape[1])


def diversity(images: np.ndarray) -> float:
  """Computes the mean distance between two images of a set, in grey levels.

  Args:
    images: uint8 [n, H, W, C], n at least 2.

  Returns:
    Mean over all pairs of the root mean square difference of their pixels.

  >>> diversity(np.array([0, 10], np.uint8).reshape(2, 1, 1, 1))
  10.0
  """
  flat = images.reshape(len(images), -1).astype(np.float64)
  distances = [
    np.sqrt(np.mean(np.square(flat[i + 1 :] - flat[i]), axis=1))
    for i in range(len(flat) - 1)
  ]
  return float(np.concatenate(distances).mean())
