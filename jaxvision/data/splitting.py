"""Splits of a data set: test, validation and a few training images of each class."""

from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from jaxvision.errors import UserError

# Each kind of draw has its own stream of random numbers.
TEST_DRAW, VALIDATION_DRAW, SAMPLE_DRAW, CLASS_DRAW = range(4)

# Split -> the pool that it comes from, and its indices there; None: all of them.
Splits = Mapping[str, tuple[str, np.ndarray | None]]


def are_classes(labels: np.ndarray) -> bool:
  """Returns whether labels are class numbers: one integer for each example."""
  return labels.ndim == 1 and labels.dtype.kind != 'f'


def stratified_split(
  labels: np.ndarray, fraction: float, seed: int | Sequence[int] = 0
) -> tuple[np.ndarray, np.ndarray]:
  """Holds out `fraction` of the examples, the same share of every class.

  The number held out is `round(fraction * n)`, spread over the classes by largest
  remainder; a class of two or more examples keeps at least one on each side, and a
  class of one stays. Labels other than class numbers are not stratified. The draw uses
  the raw output of PCG64, which NumPy promises never to change, so a seed always gives
  the same split.

  Args:
    labels: int [n], or [n, ...] of any other kind.
    fraction: share to hold out, above 0 and below 1.
    seed: one or more non-negative integers.

  Returns:
    (kept, held): int64 indices, each ascending; together every index once.

  >>> kept, held = stratified_split(np.repeat([0, 1], [8, 4]), 0.25)
  >>> len(kept), np.repeat([0, 1], [8, 4])[held].tolist()
  (9, [0, 0, 1])
  """
  labels = np.asarray(labels)
  if not are_classes(labels):
    labels = np.zeros(len(labels), np.int32)
  _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
  exact = counts * fraction
  quota = np.floor(exact).astype(np.int64)
  left = round(len(labels) * fraction) - int(quota.sum())
  quota[np.argsort(quota - exact, kind='stable')[: max(left, 0)]] += 1
  quota = np.clip(quota, np.minimum(1, counts - 1), counts - 1)
  draws = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(len(labels))
  by_class = np.lexsort((draws, inverse))
  starts = np.cumsum(counts) - counts
  held = np.concatenate(
    [by_class[start : start + n] for start, n in zip(starts, quota)]
    or [np.zeros(0, np.int64)]
  )
  mask = np.ones(len(labels), bool)
  mask[held] = False
  return np.flatnonzero(mask), np.sort(held)


def draw_per_class(
  labels: np.ndarray, count: int, seed: int | Sequence[int] = 0
) -> np.ndarray:
  """Draws `count` examples of each class, or all of a class that has fewer.

  The examples of a smaller count are among those of a larger one.

  Args:
    labels: int [n], class numbers.
    count: examples of each class.
    seed: as in `stratified_split`.

  Returns:
    int64, ascending indices.

  Raises:
    UserError: the labels are not class numbers.

  >>> draw_per_class(np.array([0, 1, 0, 1, 1, 0]), 2)
  array([0, 1, 2, 3])
  """
  if not are_classes(labels):
    raise UserError(
      'config: data.examples_per_class draws images of each class, and the labels are '
      'not class numbers: set it to 0'
    )
  draws = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(len(labels))
  by_class = np.lexsort((draws, labels))
  _, counts = np.unique(labels, return_counts=True)
  rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
  return np.sort(by_class[rank < count])


def settings(fields: ConfigDict) -> tuple[float, ...]:
  """Returns the fields of the `data` section that decide which examples a split has."""
  return (
    fields.test_fraction,
    fields.train_fraction,
    fields.split_seed,
    fields.examples_per_class,
  )


def carve(
  labels: Mapping[str, np.ndarray], class_names: Sequence[str], fields: ConfigDict
) -> Splits:
  """Makes the splits of a data set.

  A set without a test pool loses `test_fraction` of its examples to one; then
  `1 - train_fraction` of what is left for training becomes 'validation', and of the rest
  the training split keeps `examples_per_class`.

  Args:
    labels: pool -> labels; the pools are 'train', and 'test' and 'validation' where the
      set has them.
    class_names: names of the classes.
    fields: the `data` section of a config.

  Raises:
    UserError: a split would be empty; a class has fewer images than
      `examples_per_class`; the set has a validation split and `train_fraction` asks for
      another one.
  """
  seed = fields.split_seed
  splits: dict[str, tuple[str, np.ndarray | None]] = {}
  train = np.arange(len(labels['train']))
  if 'test' in labels:
    splits['test'] = 'test', None
  else:
    train, held = stratified_split(
      labels['train'], fields.test_fraction, (seed, TEST_DRAW)
    )
    splits['test'] = 'train', held
  if 'validation' in labels:
    if fields.train_fraction < 1:
      raise UserError(
        f'config: data.train_fraction {fields.train_fraction} would make a validation '
        'split, and the data set has one already: set it to 1'
      )
    splits['validation'] = 'validation', None
  elif fields.train_fraction < 1:
    kept, held = stratified_split(
      labels['train'][train], 1 - fields.train_fraction, (seed, VALIDATION_DRAW)
    )
    train, splits['validation'] = train[kept], ('train', train[held])
  for split, (_, indices) in splits.items():
    if indices is not None and not len(indices):
      raise UserError(
        f'config: no images are left for the {split} split: change data.train_fraction '
        'or data.test_fraction'
      )
  if fields.examples_per_class:
    train = train[_per_class(labels['train'][train], class_names, fields)]
  whole = len(train) == len(labels['train'])
  return {'train': ('train', None if whole else train), **splits}


def _per_class(
  labels: np.ndarray, class_names: Sequence[str], fields: ConfigDict
) -> np.ndarray:
  """Returns the indices of `data.examples_per_class` training images of each class."""
  count = fields.examples_per_class
  kept = draw_per_class(labels, count, (fields.split_seed, CLASS_DRAW))
  there = np.bincount(labels, minlength=len(class_names))
  if there.min() < count:
    rarest = int(np.argmin(there))
    raise UserError(
      f'config: data.examples_per_class is {count}, and class "{class_names[rarest]}" '
      f'has {there[rarest]} training images: ask for at most as many'
    )
  return kept
