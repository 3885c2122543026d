"""Statistics of a data set: classes, channels, intensities, duplicates."""

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
# Images whose pixels are read, over all splits.
SAMPLE, STREAMED_SAMPLE = 100_000, 20_000

_CHUNK_BYTES = 4 << 20  # read per task, as `data.scan` does
_CHUNK_IMAGES = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class PixelStatistics:
  """Statistics of the pixels of m images.

  Attributes:
    sums: int64 [m, 2, C], `moments` of each image.
    histogram: int64 [C, 256], pixels of each level.
    signatures: what duplicates are found by.
  """

  sums: np.ndarray
  histogram: np.ndarray
  signatures: Signatures


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """One split of a data set, K classes and C channels.

  Attributes:
    name: 'train', 'test', ...
    labels: int32 [n], labels of all examples.
    counts: int64 [K], examples of each class.
    sample: int64 [m], rising, the examples whose pixels were read.
    mean, std: of each channel over the pixels of the sample, in units of [0, 1].
    histogram: int64 [C, 256], pixels of each level.
  """

  name: str
  labels: np.ndarray
  counts: np.ndarray
  sample: np.ndarray
  mean: tuple[float, ...]
  std: tuple[float, ...]
  histogram: np.ndarray

  @property
  def examples(self) -> int:
    return len(self.labels)

  @property
  def imbalance(self) -> float:
    """Examples of the largest class / examples of the smallest; may be infinite."""
    least = int(self.counts.min())
    return int(self.counts.max()) / least if least else math.inf

  @property
  def missing(self) -> np.ndarray:
    """Returns the classes without an example, int64."""
    return np.flatnonzero(self.counts == 0)


@dataclasses.dataclass(frozen=True, eq=False)
class DuplicatePair:
  """Two images that are duplicates.

  Attributes:
    splits, indices, labels: of both images; an index is a position in its split.
    kind: one of `duplicates.KINDS`.
    evidence: see `duplicates.evidence`; infinite for identical images.
  """

  splits: tuple[str, str]
  indices: tuple[int, int]
  labels: tuple[int, int]
  kind: str
  evidence: float

  @property
  def across(self) -> bool:
    """Whether the images are in two splits: a leak."""
    return self.splits[0] != self.splits[1]

  @property
  def conflict(self) -> bool:
    """Whether the images have two labels."""
    return self.labels[0] != self.labels[1]


@dataclasses.dataclass(frozen=True, eq=False)
class DuplicateReport:
  """The duplicates of a data set, over all splits.

  Attributes:
    pairs: by kind, then by position; see `Duplicates` for the pairs of a large cluster.
    clusters: number of clusters.
    images: number of images in clusters.
    conflicting: number of clusters with more than one class.
    leaked: split -> number of its images in a cluster with a training image.
  """

  pairs: tuple[DuplicatePair, ...]
  clusters: int
  images: int
  conflicting: int
  leaked: Mapping[str, int]

  def of_kind(self, kind: str) -> list[DuplicatePair]:
    """Returns the pairs of a kind."""
    return [pair for pair in self.pairs if pair.kind == kind]


@dataclasses.dataclass(frozen=True, eq=False)
class Exploration:
  """What `jaxvision explore` found in a data set.

  Attributes:
    config_name: name of the config.
    dataset: the data set.
    splits: train first.
    sampled: whether only some of the images were read.
    samples: int64 [K, s], training images of each class, padded with -1.
    duplicates: duplicates within and across splits.
    headers: headers of the image files of a folder set; None for other sets.
    normalisation: mean and std [C] that training normalises by.
    augmented: training images before and after augmentation.
    files: split -> name of each example; empty for sets without files.
    notes: warnings that stand at the head of the page.
  """

  config_name: str
  dataset: Dataset
  splits: tuple[Split, ...]
  sampled: bool
  samples: np.ndarray
  duplicates: DuplicateReport
  headers: Headers | None
  normalisation: tuple[tuple[float, ...], tuple[float, ...]]
  augmented: Augmented
  files: Mapping[str, Sequence[str]]
  notes: tuple[str, ...]

  @property
  def images_read(self) -> int:
    """Number of images whose pixels were read."""
    return sum(len(split.sample) for split in self.splits)

  @property
  def examples(self) -> int:
    """Number of examples in all splits."""
    return sum(split.examples for split in self.splits)


def draw(count: int, number: int, seed: int = 0) -> np.ndarray:
  """Draws `number` of `count` examples, or all if there are fewer.

  It uses the raw output of PCG64, which NumPy guarantees never to change.

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
  """Draws at most `most` examples in all, the same share of each split.

  Args:
    sizes: split -> number of examples.
    most: number of examples in all; at least one is drawn of each split.

  >>> {name: len(rows) for name, rows in draw_from({'a': 60, 'b': 20}, 40).items()}
  {'a': 30, 'b': 10}
  """
  share = min(1.0, most / sum(sizes.values()))
  return {
    name: draw(size, max(1, math.floor(size * share + 1e-9)), seed)
    for seed, (name, size) in enumerate(sizes.items())
  }


def compute_pixel_statistics(
  source: Source,
  rows: np.ndarray,
  image_shape: tuple[int, int, int],
  chunk: int | None = None,
) -> PixelStatistics:
  """Reads images once, in chunks, and computes their statistics.

  Args:
    source: the images of a split.
    rows: int64 [m], the images to read.
    image_shape: (H, W, C) of each.
    chunk: images at a time, by default as many as fit 4 MB.
  """

  def count(part: range) -> PixelStatistics:
    examples = read_many(source, rows[part.start : part.stop].tolist())
    images = np.stack([image for image, _ in examples])
    planes = np.moveaxis(images, -1, 0).reshape(image_shape[-1], -1)
    histogram = np.stack([np.bincount(plane, minlength=LEVELS) for plane in planes])
    return PixelStatistics(moments(images), histogram, duplicates.signatures(images))

  size = chunk or max(1, min(_CHUNK_IMAGES, _CHUNK_BYTES // int(np.prod(image_shape))))
  chunks = [range(i, min(i + size, len(rows))) for i in range(0, len(rows), size)]
  parts = list(in_order(count, chunks))
  return PixelStatistics(
    np.concatenate([part.sums for part in parts]),
    np.sum([part.histogram for part in parts], axis=0),
    Signatures.joined([part.signatures for part in parts]),
  )


def split_statistics(
  name: str,
  labels: np.ndarray,
  sample: np.ndarray,
  pixels: PixelStatistics,
  image_shape: tuple[int, int, int],
  num_classes: int,
) -> Split:
  """Summarises a split.

  Args:
    name: name of the split.
    labels: int32 [n].
    sample: int64 [m], the examples that `pixels` describes.
    pixels: from `compute_pixel_statistics`.
    image_shape: (H, W, C).
    num_classes: K.
  """
  mean, std = mean_std(pixels.sums, image_shape[0] * image_shape[1])
  levels = (pixels.histogram > 0).sum(1)
  std = tuple(0.0 if level == 1 else value for value, level in zip(std, levels))
  counts = np.bincount(labels, minlength=num_classes)
  return Split(name, labels, counts, sample, mean, std, pixels.histogram)


def duplicate_report(splits: Sequence[Split], found: Duplicates) -> DuplicateReport:
  """Describes duplicates by the splits and labels of their images.

  Args:
    splits: in the order in which their samples were joined.
    found: duplicates among the joined images.
  """
  home = np.repeat(np.arange(len(splits)), [len(split.sample) for split in splits])
  place = np.concatenate([split.sample for split in splits])
  labels = np.concatenate([split.labels[split.sample] for split in splits])

  def pair(first: int, second: int, kind: int, evidence: float) -> DuplicatePair:
    both = (first, second)
    return DuplicatePair(
      tuple(splits[home[i]].name for i in both),
      tuple(int(place[i]) for i in both),
      tuple(int(labels[i]) for i in both),
      duplicates.KINDS[kind],
      evidence,
    )

  columns = (found.first, found.second, found.kind, found.evidence)
  pairs = tuple(pair(*row) for row in zip(*(column.tolist() for column in columns)))
  clusters = found.clusters()
  train = next(i for i, split in enumerate(splits) if split.name == 'train')
  leaking = [group for group in clusters if (home[group] == train).any()]
  return DuplicateReport(
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
  """Draws `count` examples of each class.

  Returns:
    int64 [K, count], rising in each row, padded with -1.

  >>> draw_samples(np.array([1, 1, 0]), 3, 2).tolist()
  [[2, -1], [0, 1], [-1, -1]]
  """
  chosen = np.full((num_classes, count), -1, np.int64)
  for label in range(num_classes):
    members = np.flatnonzero(labels == label)
    members = members[draw(len(members), count, label)]
    chosen[label, : len(members)] = members
  return chosen
