"""Data sets: splits with random access, names of the outputs, shape, statistics.

Every pipeline reads through these types, so that example i of a split is the same
image and label whether it comes out of an array, a record file or a folder. NumPy
only: worker processes import this module, and should start fast.
"""

import dataclasses
import hashlib
import json
import mmap
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from jaxvision.data.decode import PLAIN, BoxOf, Resizing, fit_image
from jaxvision.errors import UserError

LABEL_KINDS = ('class', 'multilabel', 'regression')

_TAKE = 4096  # images of a mapped file that are copied at a time


@runtime_checkable
class Source(Protocol):
  """Random access to one split; picklable, so that worker processes can take it."""

  @property
  def labels(self) -> np.ndarray:
    """The label of every example in order, without decoding an image.

    Class numbers are int32 [n], multiple labels uint8 or float32 [n, K] in [0, 1], and
    targets of a regression float32 [n] or [n, D].
    """
    ...

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> tuple[np.ndarray, Any]:
    """Returns (image uint8 [H, W, C], label)."""
    ...


Example = tuple[np.ndarray, Any]  # image uint8 [H, W, C], label


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource:
  """A split held in arrays, or in a memory-mapped file.

  Attributes:
    images: uint8 [n, H, W, C]; a mapped .npy file is read page by page as it is
      used, and a copy that goes to a worker process maps it again.
    labels: see `Source`.
  """

  images: np.ndarray
  labels: np.ndarray

  def __len__(self) -> int:
    return len(self.labels)

  def __getitem__(self, index: int) -> Example:
    return np.asarray(self.images[index]), self.labels[index]

  def read_images(self, indices: Sequence[int], images: np.ndarray) -> None:
    """See `read_images`."""
    # With 'raise' NumPy would gather into memory of its own first; the indices are valid.
    np.take(self.images, indices, axis=0, out=images, mode='clip')

  def take(self, indices: np.ndarray) -> 'ArraySource':
    """Returns a copy, in memory, of the examples at `indices` (ascending).

    A mapped file is opened anew for each part that is copied: the pages of one mapping
    would all count as memory of this process beside the copy.
    """
    images = np.empty((len(indices), *self.images.shape[1:]), np.uint8)
    for first in range(0, len(self.images), _TAKE):
      start, stop = np.searchsorted(indices, [first, first + _TAKE])
      source = np.load(path, mmap_mode='r') if (path := self._file()) else self.images
      images[start:stop] = source[indices[start:stop]]
    return ArraySource(images, self.labels[indices])

  def __reduce__(self):
    if path := self._file():
      return _mapped_again, (path, self.labels)
    return ArraySource, (self.images, self.labels)

  def _file(self) -> str | None:
    """Returns the .npy file that `images` maps whole, or None."""
    # The base of a slice of a mapped file is an array.
    if isinstance(self.images, np.memmap) and isinstance(self.images.base, mmap.mmap):
      return str(self.images.filename)
    return None


def _mapped_again(path: str, labels: np.ndarray) -> ArraySource:
  return ArraySource(np.load(path, mmap_mode='r'), labels)


@dataclasses.dataclass(frozen=True, eq=False)
class SubsetSource:
  """The examples `indices` (int64 [m]) of another source, in that order."""

  source: Source
  indices: np.ndarray

  @property
  def labels(self) -> np.ndarray:
    return self.source.labels[self.indices]

  def __len__(self) -> int:
    return len(self.indices)

  def __getitem__(self, index: int) -> Example:
    return self.source[int(self.indices[index])]

  def __getitems__(self, indices: Sequence[int]) -> list[Example]:
    return read_many(self.source, self._inner(indices))

  def read_images(self, indices: Sequence[int], images: np.ndarray) -> None:
    """See `read_images`."""
    read_images(self.source, self._inner(indices), images)

  def crops(self, indices: Sequence[int], boxes: Sequence[BoxOf]) -> list[Example]:
    """See `read_crops`."""
    return read_crops(self.source, self._inner(indices), boxes)

  def _inner(self, indices: Sequence[int]) -> list[int]:
    return self.indices[np.asarray(indices, np.int64)].tolist()


@dataclasses.dataclass(frozen=True, eq=False)
class ResizedSource:
  """The examples of another source, with their images brought to another shape."""

  source: Source
  image_shape: tuple[int, int, int]
  resizing: Resizing = PLAIN

  @property
  def labels(self) -> np.ndarray:
    return self.source.labels

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> Example:
    image, label = self.source[index]
    return fit_image(image, self.image_shape, *self.resizing), label


def read_many(source: Source, indices: Sequence[int]) -> list[Example]:
  """Returns several examples, by one call where the source has a `__getitems__`.

  Record files answer a batch about ten times faster than as many single reads.
  """
  many = getattr(source, '__getitems__', None)
  return many(indices) if many else [source[i] for i in indices]


def read_images(source: Source, indices: Sequence[int], images: np.ndarray) -> None:
  """Reads the images of several examples into memory that is there.

  Args:
    source: a split with images [H, W, C].
    indices: which examples to read.
    images: uint8 [len(indices), H, W, C], which is written.
  """
  read = getattr(source, 'read_images', None)
  if read:
    read(indices, images)
  else:
    np.stack([image for image, _ in read_many(source, indices)], out=images)


def is_gathered(source: Source) -> bool:
  """Returns whether `read_images` is one copy out of an array."""
  while isinstance(source, SubsetSource | RelabelledSource):
    source = source.source
  return isinstance(source, ArraySource)


def read_crops(
  source: Source, indices: Sequence[int], boxes: Sequence[BoxOf]
) -> list[Example]:
  """Returns a crop of each of several examples, resized to the shape of its image.

  A source that decodes files has a method `crops`, which cuts out of the original
  picture; for any other source the crop is taken from the decoded image.

  Args:
    source: a split with images [H, W, C].
    indices: which examples to read.
    boxes: one function for each example, from (height, width) of what is cropped, in
      pixels, to (top, left, height, width) of the crop.

  Returns:
    (image uint8 [H, W, C], label) for each.
  """
  crops = getattr(source, 'crops', None)
  if crops:
    return crops(indices, boxes)
  return [
    (fit_image(image, image.shape, box=box), label)
    for (image, label), box in zip(read_many(source, indices), boxes)
  ]


@dataclasses.dataclass(frozen=True, eq=False)
class RelabelledSource:
  """The images of another source with other labels."""

  source: Source
  labels: np.ndarray

  def __len__(self) -> int:
    return len(self.labels)

  def __getitem__(self, index: int) -> Example:
    return self.source[index][0], self.labels[index]

  def __getitems__(self, indices: Sequence[int]) -> list[Example]:
    images = (image for image, _ in read_many(self.source, indices))
    return [(image, self.labels[i]) for image, i in zip(images, indices)]

  def read_images(self, indices: Sequence[int], images: np.ndarray) -> None:
    """See `read_images`."""
    read_images(self.source, indices, images)


@dataclasses.dataclass(frozen=True, eq=False)
class Files:
  """The files of the images of a split.

  Attributes:
    names: n paths relative to the folder of the set, with slashes.
    sizes: int64 [n], bytes.
  """

  names: tuple[str, ...]
  sizes: np.ndarray

  def take(self, indices: np.ndarray) -> 'Files':
    """Returns the files at `indices`."""
    return Files(tuple(self.names[i] for i in indices.tolist()), self.sizes[indices])


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """One labelled set of images, ready for a pipeline.

  Attributes:
    name: as in the config.
    splits: 'train', 'test' and, where there is one, 'validation'. What `from_arrays`
      returns may lack the test split, which `load` then carves from train.
    class_names: the names of the classes, of multiple labels, or of the outputs of a
      regression, in the order of the outputs of a network.
    image_shape: (height, width, channels) of every image.
    mean: mean of each channel over the training split, in units of [0, 1].
    std: standard deviation likewise; 1 for a channel that is constant.
    pipeline: 'resident' (ArraySources) or 'streaming' (decoded on access).
    synthetic: whether the images are made up; every output must say so.
    skipped: number of unreadable files that were left out, over all splits.
    origin: where the splits come from, for reports.
    crop_fraction, interpolation: how pictures were resized; see `decode_image`.
    label_kind: 'class', 'multilabel' or 'regression'; see `Source.labels`.
    measured: whether `mean` and `std` were measured on the training split.
    split_settings: `test_fraction`, `train_fraction`, `split_seed` and
      `examples_per_class` that the splits were made with; () for splits as they came.
    split_rule: 'path', 'index' or 'whole'; see `splitting`.
    fingerprint: SHA-256 that identifies the examples and their splits, wherever they are
      stored: class names, image shape and labels; of a folder the names and sizes of the
      files too, and of arrays their pixels.
    named: whether `load` finds the set again by the section `data` alone.
    files: split -> the files of its images, where they have files of their own.
  """

  name: str
  splits: Mapping[str, Source]
  class_names: tuple[str, ...]
  image_shape: tuple[int, int, int]
  mean: tuple[float, ...]
  std: tuple[float, ...]
  pipeline: str
  synthetic: bool = False
  skipped: int = 0
  origin: str = ''
  crop_fraction: float = 1.0
  interpolation: str = 'bilinear'
  label_kind: str = 'class'
  measured: bool = True
  split_settings: tuple[float, ...] = ()
  split_rule: str = 'index'
  fingerprint: str = ''
  named: bool = False
  files: Mapping[str, Files] = dataclasses.field(default_factory=dict)

  @property
  def num_classes(self) -> int:
    """The number of classes, of multiple labels, or of outputs of a regression."""
    return len(self.class_names)

  @property
  def label_shape(self) -> tuple[int, ...]:
    """The shape of the label of one example: (), (K,) or (D,)."""
    return self.splits['train'].labels.shape[1:]


def with_classes(dataset: Dataset, class_names: Sequence[str]) -> Dataset:
  """Returns a set of images with the class numbers of other class names.

  Args:
    dataset: whose classes are some of `class_names`, or all, in any order.
    class_names: the names in their new order.

  Raises:
    UserError: a class that is not among them.
  """
  if dataset.class_names == tuple(class_names):
    return dataset
  place = {name: k for k, name in enumerate(class_names)}
  if unknown := [name for name in dataset.class_names if name not in place]:
    raise UserError(
      f'class "{unknown[0]}" of {dataset.origin or dataset.name} is not among the '
      f'{len(place)} classes of the run ({", ".join(list(place)[:5])}'
      f'{", ..." if len(place) > 5 else ""}): leave it out or rename it'
    )
  numbers = np.array([place[name] for name in dataset.class_names], np.int32)
  mapped: dict[int, Source] = {}
  for source in dataset.splits.values():  # two splits may be one source
    labels = numbers[source.labels]
    mapped[id(source)] = (
      ArraySource(source.images, labels)
      if isinstance(source, ArraySource)
      else RelabelledSource(source, labels)
    )
  splits = {split: mapped[id(source)] for split, source in dataset.splits.items()}
  return dataclasses.replace(dataset, splits=splits, class_names=tuple(class_names))


def fingerprint(
  class_names: Sequence[str],
  image_shape: Sequence[int],
  label_kind: str,
  labels: Mapping[str, np.ndarray],
  content: str = '',
) -> str:
  """Returns a SHA-256, in hexadecimal, that identifies a data set; see `Dataset`.

  Args:
    class_names, image_shape, label_kind: see `Dataset`.
    labels: split -> labels, in the order of the examples.
    content: identifies the files or the pixels, where they are known.
  """
  known = [list(class_names), list(image_shape), label_kind, content]
  digest = hashlib.sha256(json.dumps(known).encode())
  for split in sorted(labels):
    array = np.ascontiguousarray(labels[split])
    digest.update(f'{split} {array.dtype.str} {array.shape}'.encode())
    digest.update(array.data)
  return digest.hexdigest()


def moments(images: np.ndarray) -> np.ndarray:
  """Returns sum and sum of squares per image and channel, int64 [n, 2, C].

  They are integers, so that the statistics of any subset are exact, whatever the order
  and the pipeline in which its images were read.

  Args:
    images: uint8 [n, H, W, C].

  >>> moments(np.full((1, 2, 2, 1), 3, np.uint8)).tolist()
  [[[12], [36]]]
  """
  n, height, width, channels = images.shape
  flat = np.ascontiguousarray(
    images.reshape(n, height * width, channels).transpose(0, 2, 1)
  )
  squares = np.square(flat, dtype=np.uint16)  # 255^2 just fits
  return np.stack([flat.sum(2, np.int64), squares.sum(2, np.int64)], axis=1)


def mean_std(
  image_moments: np.ndarray, pixels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Returns mean and standard deviation per channel, in units of [0, 1].

  Args:
    image_moments: int64 [n, 2, C], from `moments`.
    pixels: height times width of an image.

  >>> mean_std(moments(np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)), 1)
  ((0.5,), (0.5,))
  """
  count = len(image_moments) * pixels
  mean, std = [], []
  for total, squared in image_moments.sum(0).T.tolist():  # Python's integers: exact
    mean.append(total / (255 * count))
    std.append((count * squared - total**2) ** 0.5 / (255 * count) or 1.0)
  return tuple(mean), tuple(std)
