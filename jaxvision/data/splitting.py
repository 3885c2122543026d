"""Splits of a data set: test, validation and a few training images of each class.

Which examples a split gets, its rule, is one of
  path: each image is drawn by a hash of its relative path, so that it stays on its side
    whatever images come and go. The rule of folders.
  index: examples are drawn by their positions. The rule of sets whose images have no
    names, and of the folders of runs that began before there was another.
  whole: nothing is drawn; a set without a test split is one as a whole. The rule of
    other data that a run is evaluated on.
"""

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from jaxvision.data.order import stable_order
from jaxvision.errors import UserError

# Each kind of draw has its own stream of random numbers.
TEST_DRAW, VALIDATION_DRAW, SAMPLE_DRAW, CLASS_DRAW = range(4)

PATH, INDEX, WHOLE = 'path', 'index', 'whole'

Names = Sequence[str] | np.ndarray  # relative paths; an array of objects

# Split -> the pool that it comes from, and its indices there; None: all of them.
Splits = Mapping[str, tuple[str, np.ndarray | None]]


def are_classes(labels: np.ndarray) -> bool:
  """Returns whether labels are class numbers: one integer for each example."""
  return labels.ndim == 1 and labels.dtype.kind != 'f'


def draws(
  count: int, seed: int | Sequence[int], names: Names | None = None
) -> np.ndarray:
  """Returns a random number for each example, uint64 [n], which a seed never changes.

  Args:
    count: n.
    seed: one or more non-negative integers.
    names: relative paths, with slashes; the number of an image is then the BLAKE2b hash
      of its path under the key of the seed, and depends on no other image. None: the raw
      output of PCG64, which NumPy promises never to change, by position.
  """
  if names is None:
    return np.random.PCG64(np.random.SeedSequence(seed)).random_raw(count)
  key = ' '.join(map(str, np.atleast_1d(seed).tolist())).encode()
  return path_hashes(names, key)


def path_hashes(names: Names, key: bytes = b'') -> np.ndarray:
  """Returns BLAKE2b hashes of 64 bits of relative paths, uint64 [n].

  Paths that differ in the normal form of Unicode alone, as between file systems, are one.
  """
  hashed = b''.join(
    hashlib.blake2b(
      unicodedata.normalize('NFC', name).encode('utf-8', 'surrogateescape'),
      digest_size=8,
      key=key,
    ).digest()
    for name in names
  )
  return np.frombuffer(hashed, '>u8').astype(np.uint64)


def stratified_split(
  labels: np.ndarray,
  fraction: float,
  seed: int | Sequence[int] = 0,
  *,
  names: Names | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Holds out `fraction` of the examples, the same share of every class.

  A class of two or more examples keeps at least one on each side, and a class of one
  stays. Labels other than class numbers are not stratified. A seed always gives the same
  split, see `draws`.

  Without names the number held out is `round(fraction * n)`, spread over the classes by
  largest remainder. With names an image is held out where its draw is below `fraction`:
  the share of a class is that on average, and an image keeps its side when others are
  added or removed. Only where one side of a class would be empty, the image with the
  lowest draw is held out, or the one with the highest kept.

  Args:
    labels: int [n], or [n, ...] of any other kind.
    fraction: share to hold out, above 0 and below 1.
    seed: one or more non-negative integers.
    names: relative paths of the images, or None.

  Returns:
    (kept, held): int64 indices, each ascending; together every index once.

  >>> kept, held = stratified_split(np.repeat([0, 1], [8, 4]), 0.25)
  >>> len(kept), np.repeat([0, 1], [8, 4])[held].tolist()
  (9, [0, 0, 1])
  """
  labels = np.asarray(labels)
  if not are_classes(labels):
    labels = np.zeros(len(labels), np.int32)
  inverse, counts = _numbered(labels)
  drawn = draws(len(labels), seed, names)
  by_class = _by_class(inverse, len(counts), drawn)
  if names is None:
    exact = counts * fraction
    quota = np.floor(exact).astype(np.int64)
    left = round(len(labels) * fraction) - int(quota.sum())
    quota[np.argsort(quota - exact, kind='stable')[: max(left, 0)]] += 1
  else:
    below = drawn < np.uint64(fraction * 2.0**64)
    quota = np.bincount(inverse, below, len(counts)).astype(np.int64)
  quota = np.clip(quota, np.minimum(1, counts - 1), counts - 1)
  held = _rank_in_class(by_class, counts) < np.repeat(quota, counts)
  return np.sort(by_class[~held]), np.sort(by_class[held])


def _numbered(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the classes of examples, numbered without gaps, and examples of each.

  As `np.unique` with its inverse and counts, without sorting where the labels are such
  numbers already, or nearly.
  """
  low, high = (int(labels.min()), int(labels.max())) if len(labels) else (0, 0)
  if low < 0 or high > 2 * len(labels):
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return inverse, counts
  counts = np.bincount(labels)
  number = np.cumsum(counts > 0) - 1
  return number[labels], counts[counts > 0]


def _by_class(inverse: np.ndarray, classes: int, drawn: np.ndarray) -> np.ndarray:
  """Returns the examples sorted by class, and within a class by their draws, int64 [n]."""
  order = np.argsort(drawn, kind='stable')
  return order[stable_order(inverse[order], classes)]


def _rank_in_class(by_class: np.ndarray, counts: np.ndarray) -> np.ndarray:
  """Returns the place of each example among those of its class, int64 [n]."""
  return np.arange(len(by_class)) - np.repeat(np.cumsum(counts) - counts, counts)


def draw_per_class(
  labels: np.ndarray,
  count: int,
  seed: int | Sequence[int] = 0,
  *,
  names: Names | None = None,
) -> np.ndarray:
  """Draws `count` examples of each class, or all of a class that has fewer.

  The examples of a smaller count are among those of a larger one.

  Args:
    labels: int [n], class numbers.
    count: examples of each class.
    seed, names: as in `stratified_split`.

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
  inverse, counts = _numbered(labels)
  by_class = _by_class(inverse, len(counts), draws(len(labels), seed, names))
  return np.sort(by_class[_rank_in_class(by_class, counts) < count])


def settings(fields: ConfigDict) -> tuple[float, ...]:
  """Returns the fields of the `data` section that decide which examples a split has."""
  return (
    fields.test_fraction,
    fields.train_fraction,
    fields.split_seed,
    fields.examples_per_class,
  )


def carve(
  labels: Mapping[str, np.ndarray],
  class_names: Sequence[str],
  fields: ConfigDict,
  *,
  rule: str = INDEX,
  names: Mapping[str, Sequence[str]] | None = None,
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
    rule: see the module.
    names: pool -> relative paths, for the rule 'path'.

  Raises:
    UserError: a split would be empty; a class has fewer images than
      `examples_per_class`; the set has a validation split and `train_fraction` asks for
      another one.
  """
  if rule == WHOLE:
    test = 'test' if 'test' in labels else 'train'
    return {pool: (pool, None) for pool in labels} | {'test': (test, None)}
  paths = np.asarray(names['train'], object) if names and rule == PATH else None
  named = lambda indices: None if paths is None else paths[indices]  # noqa: E731
  seed = fields.split_seed
  splits: dict[str, tuple[str, np.ndarray | None]] = {}
  train = np.arange(len(labels['train']))
  if 'test' in labels:
    splits['test'] = 'test', None
  else:
    train, held = stratified_split(
      labels['train'], fields.test_fraction, (seed, TEST_DRAW), names=paths
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
      labels['train'][train],
      1 - fields.train_fraction,
      (seed, VALIDATION_DRAW),
      names=named(train),
    )
    train, splits['validation'] = train[kept], ('train', train[held])
  for split, (_, indices) in splits.items():
    if indices is not None and not len(indices):
      raise UserError(
        f'config: no images are left for the {split} split: change data.train_fraction '
        'or data.test_fraction'
      )
  if fields.examples_per_class:
    there = labels['train'][train]
    train = train[_per_class(there, class_names, fields, names=named(train))]
  whole = len(train) == len(labels['train'])
  return {'train': ('train', None if whole else train), **splits}


def _per_class(
  labels: np.ndarray,
  class_names: Sequence[str],
  fields: ConfigDict,
  *,
  names: Names | None,
) -> np.ndarray:
  """Returns the indices of `data.examples_per_class` training images of each class."""
  count = fields.examples_per_class
  kept = draw_per_class(labels, count, (fields.split_seed, CLASS_DRAW), names=names)
  there = np.bincount(labels, minlength=len(class_names))
  if there.min() < count:
    rarest = int(np.argmin(there))
    raise UserError(
      f'config: data.examples_per_class is {count}, and class "{class_names[rarest]}" '
      f'has {there[rarest]} training images: ask for at most as many'
    )
  return kept
