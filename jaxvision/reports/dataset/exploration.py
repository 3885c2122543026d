"""What a data set is made of: classes, channels, intensities, sizes, duplicates."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from jaxvision.data.dataset import Dataset, Source, mean_std, moments, read_many
from jaxvision.data.scan import in_order
from jaxvision.data.sources.image_headers import Headers
from jaxvision.reports.dataset import duplicates
from jaxvision.reports.dataset.augmented import Augmented
from jaxvision.reports.dataset.duplicates import Duplicates, Signatures

LEVELS = 256
SAMPLE, STREAMED_SAMPLE = 100_000, 20_000  # images looked at, over all splits

_CHUNK_BYTES = 4 << 20  # read per task, as `data.scan` does
_CHUNK_IMAGES = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class Pixels:
  """The pixels of m images, counted.

  Attributes:
    sums: int64 [m, 2, C], `moments` of each image.
    histogram: int64 [C, 256], pixels of each level.
    signatures: to find duplicates by.
  """

  sums: np.ndarray
  histogram: np.ndarray
  signatures: Signatures


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """One split of a data set, K classes and C channels.

  Attributes:
    name: 'train', 'test', ...
    labels: int32 [n], all of them.
    counts: int64 [K], examples of each class.
    looked: int64 [m], ascending: the examples whose pixels were looked at.
    mean, std: per channel over all their pixels, in units of [0, 1]; 0 is 0 here.
    histogram: int64 [C, 256].
  """

  name: str
  labels: np.ndarray
  counts: np.ndarray
  looked: np.ndarray
  mean: tuple[float, ...]
  std: tuple[float, ...]
  histogram: np.ndarray

  @property
  def examples(self) -> int:
    return len(self.labels)

  @property
  def imbalance(self) -> float:
    """Examples of the largest class to one of the smallest; infinite where one lacks.

    1 where all classes are as large.
    """
    least = int(self.counts.min())
    return int(self.counts.max()) / least if least else math.inf

  @property
  def missing(self) -> np.ndarray:
    """Classes without an example, int64."""
    return np.flatnonzero(self.counts == 0)


@dataclasses.dataclass(frozen=True, eq=False)
class Twins:
  """A pair of duplicates with what a reader wants to know of them.

  Attributes:
    splits, indices, labels: of both; indices are places in their splits.
    kind: one of `duplicates.KINDS`.
    evidence: infinite where identical.
  """

  splits: tuple[str, str]
  indices: tuple[int, int]
  labels: tuple[int, int]
  kind: str
  evidence: float

  @property
  def across(self) -> bool:
    """Whether they are in two splits: a leak."""
    return self.splits[0] != self.splits[1]

  @property
  def conflict(self) -> bool:
    """Whether they are of two classes."""
    return self.labels[0] != self.labels[1]


@dataclasses.dataclass(frozen=True, eq=False)
class Repeats:
  """The duplicates of a data set, over all splits.

  Attributes:
    pairs: by kind, then by place. See `Duplicates` for which of many alike.
    clusters: number of groups that the pairs make.
    images: images in them.
    conflicting: clusters with more than one class.
    leaked: split -> how many of its images are in a cluster with a training image.
  """

  pairs: tuple[Twins, ...]
  clusters: int
  images: int
  conflicting: int
  leaked: Mapping[str, int]

  def of(self, kind: str) -> list[Twins]:
    """Returns the pairs of a kind."""
    return [pair for pair in self.pairs if pair.kind == kind]


@dataclasses.dataclass(frozen=True, eq=False)
class Exploration:
  """A data set as one would want to know it before training.

  Attributes:
    config_name: of the config that names it.
    dataset: what was explored.
    splits: train first.
    sampled: whether not all images were looked at.
    samples: int64 [K, s], training images of each class, -1 where there are fewer.
    repeats: duplicates.
    headers: of the files of a folder set; None elsewhere.
    normalisation: mean and std that the run takes, each C numbers.
    augmented: training images before and after augmentation.
    files: split -> a name for each example; empty where they have none.
    notes: what a reader must know first.
  """

  config_name: str
  dataset: Dataset
  splits: tuple[Split, ...]
  sampled: bool
  samples: np.ndarray
  repeats: Repeats
  headers: Headers | None
  normalisation: tuple[tuple[float, ...], tuple[float, ...]]
  augmented: Augmented
  files: Mapping[str, Sequence[str]]
  notes: tuple[str, ...]

  @property
  def looked(self) -> int:
    """Images whose pixels were looked at."""
    return sum(len(split.looked) for split in self.splits)

  @property
  def examples(self) -> int:
    """Images there are."""
    return sum(split.examples for split in self.splits)


def draw(count: int, number: int, seed: int = 0) -> np.ndarray:
  """Draws `number` of `count` examples, or all of fewer.

  The raw output of PCG64, which NumPy promises never to change.

  Returns:
    int64, ascending.

  >>> draw(5, 9).tolist()
  [0, 1, 2, 3, 4]
  """
  if number >= count:
    return np.arange(count)
  draws = np.random.PCG64(seed).random_raw(count)
  return np.sort(np.argsort(draws, kind='stable')[:number])


def draw_from(sizes: Mapping[str, int], most: int) -> dict[str, np.ndarray]:
  """Draws at most `most` examples of all splits, the same share of each.

  Args:
    sizes: split -> examples.
    most: how many, at least one of each split.

  >>> {name: len(rows) for name, rows in draw_from({'a': 60, 'b': 20}, 40).items()}
  {'a': 30, 'b': 10}
  """
  share = min(1.0, most / sum(sizes.values()))
  return {
    name: draw(size, max(1, math.floor(size * share + 1e-9)), seed)
    for seed, (name, size) in enumerate(sizes.items())
  }


def look(
  source: Source,
  rows: np.ndarray,
  image_shape: tuple[int, int, int],
  chunk: int | None = None,
) -> Pixels:
  """Reads images once, in chunks, and counts their pixels.

  Args:
    source: of n images.
    rows: int64 [m], which.
    image_shape: (H, W, C) of each.
    chunk: images at a time; None: by their size. The results do not depend on it.
  """

  def count(part: range) -> Pixels:
    examples = read_many(source, rows[part.start : part.stop].tolist())
    images = np.stack([image for image, _ in examples])
    planes = np.moveaxis(images, -1, 0).reshape(image_shape[-1], -1)
    histogram = np.stack([np.bincount(plane, minlength=LEVELS) for plane in planes])
    return Pixels(moments(images), histogram, duplicates.signatures(images))

  size = chunk or max(1, min(_CHUNK_IMAGES, _CHUNK_BYTES // int(np.prod(image_shape))))
  chunks = [range(i, min(i + size, len(rows))) for i in range(0, len(rows), size)]
  parts = list(in_order(count, chunks))
  return Pixels(
    np.concatenate([part.sums for part in parts]),
    np.sum([part.histogram for part in parts], axis=0),
    Signatures.joined([part.signatures for part in parts]),
  )


def measure(
  name: str,
  labels: np.ndarray,
  looked: np.ndarray,
  pixels: Pixels,
  image_shape: tuple[int, int, int],
  num_classes: int,
) -> Split:
  """Returns what is to be known of a split.

  Args:
    name: of the split.
    labels: int32 [n].
    looked: int64 [m], which of them `pixels` is of.
    pixels: from `look`.
    image_shape: (H, W, C).
    num_classes: K.
  """
  mean, std = mean_std(pixels.sums, image_shape[0] * image_shape[1])
  levels = (pixels.histogram > 0).sum(1)
  std = tuple(0.0 if level == 1 else value for value, level in zip(std, levels))
  counts = np.bincount(labels, minlength=num_classes)
  return Split(name, labels, counts, looked, mean, std, pixels.histogram)


def repeats(splits: Sequence[Split], found: Duplicates) -> Repeats:
  """Names the duplicates that were found among the images of all splits.

  Args:
    splits: in the order in which their images were joined.
    found: among them.
  """
  home = np.repeat(np.arange(len(splits)), [len(split.looked) for split in splits])
  place = np.concatenate([split.looked for split in splits])
  labels = np.concatenate([split.labels[split.looked] for split in splits])

  def twins(first: int, second: int, kind: int, evidence: float) -> Twins:
    both = (first, second)
    return Twins(
      tuple(splits[home[i]].name for i in both),
      tuple(int(place[i]) for i in both),
      tuple(int(labels[i]) for i in both),
      duplicates.KINDS[kind],
      evidence,
    )

  columns = (found.first, found.second, found.kind, found.evidence)
  pairs = tuple(twins(*row) for row in zip(*(column.tolist() for column in columns)))
  clusters = found.clusters()
  train = next(i for i, split in enumerate(splits) if split.name == 'train')
  leaking = [group for group in clusters if (home[group] == train).any()]
  return Repeats(
    pairs=pairs,
    clusters=len(clusters),
    images=sum(map(len, clusters)),
    conflicting=sum(len(np.unique(labels[group])) > 1 for group in clusters),
    leaked={
      split.name: sum(int((home[group] == i).sum()) for group in leaking)
      for i, split in enumerate(splits)
      if i != train
    },
  )


def draw_samples(labels: np.ndarray, num_classes: int, count: int) -> np.ndarray:
  """Draws some examples of each class.

  Returns:
    int64 [K, count], ascending in each row; -1 where a class has fewer.

  >>> draw_samples(np.array([1, 1, 0]), 3, 2).tolist()
  [[2, -1], [0, 1], [-1, -1]]
  """
  chosen = np.full((num_classes, count), -1, np.int64)
  for label in range(num_classes):
    members = np.flatnonzero(labels == label)
    members = members[draw(len(members), count, label)]
    chosen[label, : len(members)] = members
  return chosen
