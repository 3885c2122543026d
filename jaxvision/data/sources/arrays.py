"""Data sets from arrays in memory, or in memory-mapped files."""

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxvision.data.dataset import (
  LABEL_KINDS,
  ArraySource,
  Dataset,
  fingerprint,
  mean_std,
)
from jaxvision.data.scan import scan
from jaxvision.errors import UserError, closest

Split = tuple[Any, Any]  # images and labels

_HASHED = 1024  # images whose bytes are hashed at a time


def from_arrays(
  train: Split,
  test: Split | None = None,
  validation: Split | None = None,
  *,
  class_names: Sequence[str] | None = None,
  kind: str | None = None,
  name: str = 'arrays',
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
) -> Dataset:
  """Makes a data set of arrays.

  `jaxvision.data.load(config.data, source=dataset)` applies the `data` section of a
  config to it: without `test`, a stratified `data.test_fraction` of the training images
  becomes the test split; `train_fraction`, `examples_per_class`, `image_size`, `mean` and
  `std` work as for every other set.

  Args:
    train: (images, labels). Images are uint8 [n, H, W, C], or [n, H, W], which get one
      channel. Labels are, by kind,
      class: integers or strings [n]. The different labels, sorted, become the classes 0
      to K-1. Where `class_names` is given, integers are class numbers already, and
      strings are looked up in it.
      multilabel: 0 or 1, or probabilities, [n, K].
      regression: floats [n] or [n, D].
    test: likewise.
    validation: likewise.
    class_names: names of the classes, of the K labels or of the D outputs. By default
      the labels themselves, '0' to 'K-1', and 'y' or 'y0' to 'yD-1'.
    kind: 'class', 'multilabel' or 'regression'. By default integers or strings [n] are
      classes, arrays [n, K] of zeros and ones are multiple labels, and other floats are
      targets of a regression.
    name: name of the set, for messages and reports.
    mean: mean of each channel, in units of [0, 1]; by default measured on `train`.
    std: standard deviation of each channel likewise.

  Returns:
    A data set with exactly the splits that were given.

  Raises:
    UserError: images of another dtype or rank, labels of another number than images,
      labels that are not finite, out of range or of type object, a class without
      training images.

  >>> images = np.zeros((4, 8, 8), np.uint8)
  >>> dataset = from_arrays((images, ['dog', 'cat', 'dog', 'cat']))
  >>> dataset.class_names, dataset.splits['train'].labels
  (('cat', 'dog'), array([1, 0, 1, 0], dtype=int32))
  """
  given = {'train': train, 'test': test, 'validation': validation}
  pairs = {s: _pair(s, pair) for s, pair in given.items() if pair is not None}
  images = {s: _images(f'{name}: {s}', pair[0]) for s, pair in pairs.items()}
  shape = images['train'].shape[1:]
  raw = {}
  for split, pair in pairs.items():
    where = f'{name}: {split}'
    raw[split] = _labels(where, pair[1], len(images[split]))
    if images[split].shape[1:] != shape:
      raise UserError(
        f'{where} images are {_by(images[split].shape[1:])}, and the training images '
        f'{_by(shape)}: resize them to one shape'
      )
  if kind is None:
    kind = _kind(name, raw['train'])
  elif kind not in LABEL_KINDS:
    raise UserError(
      f'{name}: kind must be one of {", ".join(LABEL_KINDS)}, not {kind!r}'
      + closest(str(kind), LABEL_KINDS)
    )
  names = None if class_names is None else tuple(str(n) for n in class_names)
  targets = _TARGETS[kind](name, raw, names)
  splits = {s: ArraySource(images[s], targets.labels[s]) for s in images}
  measured = mean is None and std is None
  if measured:
    mean, std = mean_std(scan(splits['train'], shape)[1], shape[0] * shape[1])
  return Dataset(
    name=name,
    splits=splits,
    class_names=targets.names,
    image_shape=shape,
    mean=_per_channel(name, 'mean', mean, shape[-1]),
    std=_per_channel(name, 'std', std, shape[-1]),
    pipeline='resident',
    origin=f'{name}, {sum(map(len, splits.values()))} images in arrays',
    label_kind=kind,
    measured=measured,
    fingerprint=fingerprint(
      targets.names, shape, kind, targets.labels, content=_digest(images)
    ),
  )


def as_dataset(value: Any, what: str) -> Dataset:
  """Returns a data set from what a user's function returned, or passed as data.

  Args:
    value: a `Dataset`; (images, labels); a tuple of up to three such pairs, train, test
      and validation; or a dict of the arguments of `from_arrays`.
    what: what it is, for messages.

  Raises:
    UserError: it is nothing of the kind, or as `from_arrays`.
  """
  if isinstance(value, Dataset):
    return value
  if isinstance(value, Mapping):
    known = list(inspect.signature(from_arrays).parameters)
    for key in value:
      if key not in known:
        raise UserError(
          f'{what}: there is no "{key}"{closest(str(key), known)} (known: '
          f'{", ".join(known)})'
        )
    if 'train' not in value:
      raise UserError(f'{what}: the dict has no "train": (images, labels)')
    return from_arrays(**value)
  if isinstance(value, tuple | list) and 1 <= len(value) <= 3:
    if len(value) == 2 and hasattr(value[0], 'shape'):
      return from_arrays((value[0], value[1]))
    return from_arrays(*value)
  raise UserError(
    f'{what} must be a Dataset, (images, labels), ((images, labels), (test images, test '
    f'labels)) or a dict of the arguments of from_arrays, not {type(value).__name__}'
  )


def check(dataset: Dataset) -> None:
  """Raises UserError unless a user's data set has what training reads of it."""
  if not dataset.splits.get('train'):
    raise UserError(f'data: {dataset.name} has no training images: splits["train"]')
  if dataset.label_kind not in LABEL_KINDS:
    raise UserError(
      f'data: the label_kind of {dataset.name} must be one of {", ".join(LABEL_KINDS)}, '
      f'not {dataset.label_kind!r}'
    )
  for split, source in dataset.splits.items():
    image, _ = source[0]
    if image.dtype != np.uint8 or image.shape != tuple(dataset.image_shape):
      raise UserError(
        f'data: the {split} images of {dataset.name} are {image.dtype} '
        f'{_by(image.shape)}, and must be uint8 {_by(dataset.image_shape)}'
      )


def _pair(split: str, pair: Any) -> Split:
  if not isinstance(pair, tuple | list) or len(pair) != 2:
    raise UserError(f'{split} must be (images, labels), not {type(pair).__name__}')
  return pair[0], pair[1]


def _by(shape: Sequence[int]) -> str:
  return 'x'.join(map(str, shape))


def _images(where: str, images: Any) -> np.ndarray:
  """Returns images uint8 [n, H, W, C], or raises UserError."""
  # A subclass is kept: the pages of a memory-mapped file are read as they are used.
  images = images if isinstance(images, np.ndarray) else np.asarray(images)
  if images.dtype != np.uint8:
    mend = 'images.astype(np.uint8)'
    if images.dtype.kind == 'f':
      mend = '(images * 255).round().astype(np.uint8), if they are in [0, 1]'
    elif images.dtype.kind == 'O':
      mend = 'np.stack(images), once all have one shape'
    raise UserError(
      f'{where} images are {images.dtype}, and must be uint8 in [0, 255]: pass {mend}'
    )
  if images.ndim == 3:
    images = images[..., None]
  if images.ndim != 4:
    raise UserError(
      f'{where} images are {_by(images.shape)}, and must be [n, H, W, C] or [n, H, W]'
    )
  if not images.size:
    raise UserError(f'{where} images are empty: {_by(images.shape)}')
  if images.shape[1] in (1, 3) and images.shape[2] == images.shape[3] > 4:
    raise UserError(
      f'{where} images are {_by(images.shape)}, channels first: pass '
      'images.transpose(0, 2, 3, 1)'
    )
  return images


def _labels(where: str, labels: Any, count: int) -> np.ndarray:
  """Returns labels [n] or [n, ...] of a plain dtype, or raises UserError."""
  labels = np.asarray(labels)
  if labels.dtype.kind not in 'biufU':
    mend = {'O': 'astype(str) or astype(int)', 'S': 'astype(str)'}
    raise UserError(
      f'{where} labels are {labels.dtype}, and must be numbers or strings: pass '
      f'labels.{mend.get(labels.dtype.kind, "astype(float)")}'
    )
  if labels.ndim not in (1, 2) or not labels.size:
    raise UserError(
      f'{where} labels are {list(labels.shape)}, and must be [n] or [n, K]'
    )
  if len(labels) != count:
    raise UserError(
      f'{where} has {count} images and {len(labels)} labels: pass one label per image'
    )
  if labels.dtype.kind == 'f' and not np.isfinite(labels).all():
    row = int(np.argmin(np.isfinite(labels).reshape(count, -1).all(1)))
    raise UserError(
      f'{where} label {row} is {labels[row]}: leave out images without a finite label'
    )
  return labels


def _kind(name: str, labels: np.ndarray) -> str:
  """Returns the kind that labels most likely are of."""
  if labels.dtype.kind != 'f' and (labels.ndim == 1 or labels.shape[1] == 1):
    return 'class'
  if labels.ndim == 1:
    return 'regression'
  if labels.dtype.kind == 'U' or not ((labels == 0) | (labels == 1)).all():
    return 'regression'
  if labels.shape[1] > 1 and (labels.sum(1) == 1).all():
    raise UserError(
      f'{name}: the labels are one-hot: pass labels.argmax(1) for classes, or '
      "kind='multilabel'"
    )
  return 'multilabel'


class _Targets(NamedTuple):
  """The names of the outputs of a network, and the labels of each split."""

  names: tuple[str, ...]
  labels: dict[str, np.ndarray]


def _classes(
  name: str, raw: Mapping[str, np.ndarray], names: tuple[str, ...] | None
) -> _Targets:
  """Maps integers or strings [n], or [n, 1], to class numbers 0 to K-1."""
  raw = {s: v[:, 0] if v.shape[1:] == (1,) else v for s, v in raw.items()}
  for split, labels in raw.items():
    if labels.ndim != 1 or labels.dtype.kind == 'f':
      raise UserError(
        f'{name}: {split} labels are {labels.dtype} {list(labels.shape)}, and classes '
        'must be integers or strings [n]'
      )
  text = raw['train'].dtype.kind == 'U'
  known: Any = np.unique(raw['train'])
  if names is not None:
    known = np.asarray(names) if text else np.arange(len(names))
  place = {label: k for k, label in enumerate(known.tolist())}
  found = {}
  for split, labels in raw.items():
    values, inverse = np.unique(labels, return_inverse=True)
    if unknown := [v for v in values.tolist() if v not in place]:
      allowed = 'the training labels' if names is None else 'class_names'
      if names is not None and not text:
        allowed = f'the class numbers 0 to {len(names) - 1} of class_names'
      raise UserError(f'{name}: {split} label {unknown[0]!r} is not among {allowed}')
    numbers = np.array([place[v] for v in values.tolist()], np.int32)
    found[split] = numbers[inverse].astype(np.int32)
  names = names or tuple(str(label) for label in known.tolist())
  counts = np.bincount(found['train'], minlength=len(names))
  if not counts.all():
    raise UserError(
      f'{name}: class "{names[int(np.argmin(counts))]}" has no training images: add some, '
      'or leave it out of class_names'
    )
  if len(names) < 2:
    raise UserError(f'{name}: all labels are {names[0]!r}: pass two classes or more')
  return _Targets(names, found)


def _multilabel(
  name: str, raw: Mapping[str, np.ndarray], names: tuple[str, ...] | None
) -> _Targets:
  for split, labels in raw.items():
    if labels.ndim != 2 or labels.dtype.kind == 'U':
      raise UserError(
        f'{name}: {split} labels are {labels.dtype} {list(labels.shape)}, and multiple '
        'labels must be numbers [n, K]'
      )
    if labels.min() < 0 or labels.max() > 1:
      raise UserError(
        f'{name}: {split} labels lie in [{labels.min()}, {labels.max()}], and multiple '
        'labels must be 0 or 1, or probabilities'
      )
  dtype = np.float32 if any(v.dtype.kind == 'f' for v in raw.values()) else np.uint8
  return _columns(name, raw, names, dtype)


def _regression(
  name: str, raw: Mapping[str, np.ndarray], names: tuple[str, ...] | None
) -> _Targets:
  for split, labels in raw.items():
    if labels.dtype.kind == 'U':
      raise UserError(
        f'{name}: {split} labels are strings, and a regression needs numbers'
      )
  if names is None:
    train = raw['train']
    names = ('y',)
    if train.ndim == 2 and train.shape[1] > 1:
      names = tuple(f'y{i}' for i in range(train.shape[1]))
  return _columns(name, raw, names, np.float32)


def _columns(
  name: str,
  raw: Mapping[str, np.ndarray],
  names: tuple[str, ...] | None,
  dtype: Any,
) -> _Targets:
  """Checks the number of columns and names, and converts the labels to `dtype`."""
  shape = raw['train'].shape[1:]
  count = shape[0] if shape else 1
  for split, labels in raw.items():
    if labels.shape[1:] != shape:
      raise UserError(
        f'{name}: {split} labels are {list(labels.shape)}, and those of train '
        f'{list(raw["train"].shape)}: pass the same number of columns'
      )
  if names is not None and len(names) != count:
    raise UserError(
      f'{name}: class_names has {len(names)} names for {count} columns of labels'
    )
  names = names or tuple(str(i) for i in range(count))
  return _Targets(names, {s: np.asarray(v, dtype) for s, v in raw.items()})


_TARGETS = {'class': _classes, 'multilabel': _multilabel, 'regression': _regression}


def _per_channel(
  name: str, field: str, values: Sequence[float] | None, channels: int
) -> tuple[float, ...]:
  if values is None:
    raise UserError(f'{name}: pass mean and std together, or neither')
  numbers = tuple(map(float, values))
  if len(numbers) != channels:
    raise UserError(
      f'{name}: {field} has {len(numbers)} numbers for images of {channels} channels'
    )
  if field == 'std' and min(numbers) <= 0:
    raise UserError(f'{name}: std must be above 0')
  return numbers


def _digest(images: Mapping[str, np.ndarray]) -> str:
  """Returns the SHA-256, in hexadecimal, of the pixels of all splits."""
  digest = hashlib.sha256()
  for array in images.values():
    for first in range(0, len(array), _HASHED):
      digest.update(np.ascontiguousarray(array[first : first + _HASHED]).data)
  return digest.hexdigest()
