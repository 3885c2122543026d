"""From the fields of `config.data` to a `Dataset`: find, decode once, split, measure."""

import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxvision import config
from jaxvision.data import cache
from jaxvision.data.dataset import (
  ArraySource,
  Dataset,
  Source,
  SubsetSource,
  draw_per_class,
  mean_std,
  stratified_split,
)
from jaxvision.data.decode import PLAIN, Resizing
from jaxvision.data.scan import scan
from jaxvision.data.sources import digits, folder, synthetic, tfds
from jaxvision.data.sources.source import Located, RawSet
from jaxvision.errors import UserError

STATISTICS_SAMPLE = 10_000

# So that no two share numbers.
_TEST_DRAW, _VALIDATION_DRAW, _SAMPLE_DRAW, _CLASS_DRAW = range(4)

_log = logging.getLogger(__name__)


def load(data: str | ConfigDict, **overrides: Any) -> Dataset:
  """Loads an image classification set.

  A set from TFDS or from a folder is decoded once and cached; the next start maps the
  files. Where the whole set, decoded, is within `resident_limit_mb` (or `pipeline` is
  'resident') the splits are arrays; else they are decoded on access. Example i of a
  split is the same either way, to the bit.

  A set without a test split loses `test_fraction` of its examples to one; then
  `1 - train_fraction` of what trains becomes 'validation', and of the rest the training
  split keeps `examples_per_class`. The draws are stratified and depend on `split_seed`
  alone.

  Mean and deviation are those of the training split, or of a seeded sample of 10,000
  of its images where the set is larger than `resident_limit_mb`.

  Args:
    data: the section `data` of a config, or the name of a set.
    **overrides: fields of that section.

  Raises:
    UserError: an unknown or impossible field; a set that is not there and cannot be
      prepared; a bad folder; an unreadable image; a cache that cannot be written; a
      class with fewer images than `examples_per_class`.

  >>> dataset = load('digits', train_fraction=0.9)
  >>> {name: len(source) for name, source in dataset.splits.items()}
  {'train': 1294, 'test': 359, 'validation': 144}
  >>> dataset.image_shape, dataset.num_classes
  ((8, 8, 1), 10)
  """
  fields = {'name': data} if isinstance(data, str) else data.to_dict()
  fields = config.validate(ConfigDict({'data': fields | overrides})).data
  if fields.name == 'digits':
    raw = digits.open_digits(fields.image_size, fields.channels, _resizing(fields))
    return _in_memory(raw, fields)
  if fields.name == 'synthetic':
    return _in_memory(_open_synthetic(fields), fields)
  if fields.name == 'folder':
    located = folder.locate(
      fields.root,
      fields.image_size,
      fields.channels,
      fields.skip_unreadable,
      _resizing(fields),
    )
  else:
    located = tfds.locate(
      fields.name,
      fields.dir,
      fields.image_size,
      fields.channels,
      fields.skip_unreadable,
      cache.directory(fields.cache_dir),
      _resizing(fields),
    )
  return _decoded_once(located, fields)


def _resizing(fields: ConfigDict) -> Resizing:
  """Returns what is asked for, or the default where nothing is."""
  interpolation = fields.interpolation
  if interpolation == 'auto':
    interpolation = PLAIN.interpolation
  return Resizing(float(fields.crop_fraction) or 1.0, interpolation)


def _open_synthetic(fields: ConfigDict) -> RawSet:
  if fields.synthetic_examples < fields.synthetic_classes:
    raise UserError(
      f'config: data.synthetic_examples {fields.synthetic_examples} are fewer than '
      f'data.synthetic_classes {fields.synthetic_classes}'
    )
  return synthetic.open_synthetic(
    fields.synthetic_examples,
    fields.synthetic_classes,
    fields.image_size,
    fields.channels,
    fields.test_fraction,
    _resizing(fields),
  )


def _in_memory(raw: RawSet, fields: ConfigDict) -> Dataset:
  """Loads a set that needs no cache."""
  pipeline = _pipeline(raw.decoded_bytes, fields)
  pools = raw.pools
  if pipeline == 'resident':
    pools = {p: _as_arrays(source, raw.image_shape) for p, source in pools.items()}
  labels = {p: source.labels for p, source in pools.items()}
  splits = _carve(labels, raw.class_names, fields)
  mean, std = _given(fields, raw.image_shape)
  if not mean:
    rows = splits['train'][1]
    rows = _sampled(len(pools['train']), rows, raw.decoded_bytes, fields)
    mean, std = _measure(pools['train'], rows, raw.image_shape)
  return Dataset(
    name=raw.name,
    splits=_take_splits(pools, splits),
    class_names=raw.class_names,
    image_shape=raw.image_shape,
    mean=mean,
    std=std,
    pipeline=pipeline,
    synthetic=raw.synthetic,
    origin=raw.origin,
    **_resizing(fields)._asdict(),
  )


def _decoded_once(located: Located, fields: ConfigDict) -> Dataset:
  """Loads a set through the cache, which is written where it does not hold the set."""
  root = cache.directory(fields.cache_dir)
  full_path, labels_path = root / located.key, root / f'{located.key}-labels'
  stamp = located.fingerprint
  cached = cache.read(full_path, located.name, stamp, with_images=True)
  if cached is None and fields.pipeline != 'resident':
    cached = cache.read(labels_path, located.name, stamp, with_images=False)
  if cached:
    raw, size = None, cached.decoded_bytes
  else:
    raw = located.open()
    size = raw.decoded_bytes
  pipeline = _pipeline(size, fields)

  if pipeline == 'resident':
    if cached is None or not cached.images:
      cached = _write(full_path, raw or located.open(), fields, with_images=True)
    pools = _cached_pools(cached)
  elif cached and cached.images and stamp is None:  # a copy, without the originals
    pools = _cached_pools(cached)
  else:
    # The labels alone may have been cached under another limit.
    if cached is None or (cached.moments is None and _measures_all(size, fields)):
      cached = _write(labels_path, raw or located.open(), fields, with_images=False)
    pools = _opened_pools(located, cached)
  skipped = _report_skipped(cached)
  splits = _carve(cached.labels, cached.class_names, fields)
  mean, std = _given(fields, cached.image_shape)
  if not mean:
    mean, std = _statistics(cached, pools['train'], splits['train'][1], size, fields)
  return Dataset(
    name=cached.name,
    splits=_take_splits(pools, splits),
    class_names=cached.class_names,
    image_shape=cached.image_shape,
    mean=mean,
    std=std,
    pipeline=pipeline,
    skipped=skipped,
    origin=cached.origin,
    **_resizing(fields)._asdict(),
  )


def _write(
  path: Path, raw: RawSet, fields: ConfigDict, *, with_images: bool
) -> cache.CachedSet:
  decode = with_images or fields.skip_unreadable
  decode = decode or _measures_all(raw.decoded_bytes, fields)
  if decode:
    count = sum(map(len, raw.pools.values()))
    _log.info('decoding %d images of %s into %s, once', count, raw.origin, path)
  return cache.write(
    path,
    raw,
    with_images=with_images,
    decode=decode,
    skip_unreadable=fields.skip_unreadable,
  )


def _cached_pools(cached: cache.CachedSet) -> dict[str, Source]:
  return {p: ArraySource(cached.images[p], cached.labels[p]) for p in cached.labels}


def _opened_pools(located: Located, cached: cache.CachedSet) -> dict[str, Source]:
  """Opens the original files, less what was skipped, with their labels as cached."""
  labels = {}
  for pool, of_kept in cached.labels.items():
    labels[pool] = of_kept
    if pool in cached.kept:
      labels[pool] = np.full(len(of_kept) + cached.skipped[pool], -1, np.int32)
      labels[pool][cached.kept[pool]] = of_kept
  raw = located.open(cached.image_shape, labels)
  return {
    pool: SubsetSource(source, cached.kept[pool]) if pool in cached.kept else source
    for pool, source in raw.pools.items()
  }


def _report_skipped(cached: cache.CachedSet) -> int:
  """Warns of unreadable files in one line and returns how many there are."""
  skipped = sum(cached.skipped.values())
  if skipped:
    _log.warning(
      'passed over %d unreadable images of %s (data.skip_unreadable)',
      skipped,
      cached.origin,
    )
    counts = np.bincount(cached.labels['train'], minlength=len(cached.class_names))
    if not counts.all():
      name = cached.class_names[int(np.argmin(counts))]
      raise UserError(f'all training images of class "{name}" are unreadable')
  return skipped


def _limit(fields: ConfigDict) -> int:
  return fields.resident_limit_mb * 2**20


def _pipeline(decoded_bytes: int, fields: ConfigDict) -> str:
  if fields.pipeline != 'auto':
    return fields.pipeline
  return 'resident' if decoded_bytes <= _limit(fields) else 'streaming'


def _measures_all(decoded_bytes: int, fields: ConfigDict) -> bool:
  """Whether mean and deviation are those of all training images."""
  return not fields.mean and decoded_bytes <= _limit(fields)


# A split is the pool that it comes from and its indices there; None: all of them.
_Splits = Mapping[str, tuple[str, np.ndarray | None]]


def _carve(
  labels: Mapping[str, np.ndarray], class_names: tuple[str, ...], fields: ConfigDict
) -> _Splits:
  """Returns every split, given the labels of every pool."""
  train, splits = None, {}
  if 'test' in labels:
    test = None
  else:
    train, test = stratified_split(
      labels['train'], fields.test_fraction, (fields.split_seed, _TEST_DRAW)
    )
  splits['test'] = ('test' if test is None else 'train', test)
  if fields.train_fraction < 1:
    rest = labels['train'] if train is None else labels['train'][train]
    kept, held = stratified_split(
      rest, 1 - fields.train_fraction, (fields.split_seed, _VALIDATION_DRAW)
    )
    splits['validation'] = ('train', held if train is None else train[held])
    train = kept if train is None else train[kept]
  for split, (_, indices) in splits.items():
    if indices is not None and not len(indices):
      raise UserError(
        f'config: no images are left for the {split} split: see data.train_fraction '
        'and data.test_fraction'
      )
  if fields.examples_per_class:
    rest = labels['train'] if train is None else labels['train'][train]
    kept = _per_class(rest, class_names, fields)
    train = kept if train is None else train[kept]
  return {'train': ('train', train), **splits}


def _per_class(
  labels: np.ndarray, class_names: tuple[str, ...], fields: ConfigDict
) -> np.ndarray:
  """Returns which training images stay: data.examples_per_class of each class."""
  count = fields.examples_per_class
  kept = draw_per_class(labels, count, (fields.split_seed, _CLASS_DRAW))
  there = np.bincount(labels, minlength=len(class_names))
  if there.min() < count:
    rarest = int(np.argmin(there))
    raise UserError(
      f'config: data.examples_per_class is {count}, and class "{class_names[rarest]}" '
      f'has {there[rarest]} training images: ask for at most as many'
    )
  return kept


def _take_splits(pools: Mapping[str, Source], splits: _Splits) -> dict[str, Source]:
  taken = {}
  for split, (pool, indices) in splits.items():
    taken[split] = pools[pool] if indices is None else _take(pools[pool], indices)
  return taken


def _take(source: Source, indices: np.ndarray) -> Source:
  """Returns the examples `indices` of `source`."""
  if isinstance(source, ArraySource):
    return source.take(indices)
  return SubsetSource(source, indices)


def _as_arrays(source: Source, image_shape: tuple[int, int, int]) -> ArraySource:
  """Decodes every image of `source` into one array."""
  if isinstance(source, ArraySource):
    return source
  images = np.empty((len(source), *image_shape), np.uint8)
  for i in range(len(source)):
    images[i] = source[i][0]
  return ArraySource(images, source.labels)


def _given(
  fields: ConfigDict, image_shape: tuple[int, int, int]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Returns data.mean and data.std, checked; empty where they are to be measured."""
  channels = image_shape[-1]
  for field in ('mean', 'std'):
    if fields[field] and len(fields[field]) != channels:
      raise UserError(
        f'config: data.{field} has {len(fields[field])} numbers, and the images of '
        f'{fields.name} have {channels} channel{"s" if channels > 1 else ""}'
      )
  return tuple(map(float, fields.mean)), tuple(map(float, fields.std))


def _statistics(
  cached: cache.CachedSet,
  source: Source,
  rows: np.ndarray | None,
  size: int,
  fields: ConfigDict,
) -> cache.Statistics:
  """Returns mean and std of the training split, which is `rows` of `source`."""
  rows = _sampled(len(source), rows, size, fields)
  if cached.moments is not None:
    height, width, _ = cached.image_shape
    return mean_std(
      cached.moments if rows is None else cached.moments[rows], height * width
    )
  memo = f'{fields.train_fraction!r}-{fields.test_fraction!r}-{fields.split_seed}'
  if fields.examples_per_class:
    memo += f'-{fields.examples_per_class}'
  measure = functools.partial(_measure, source, rows, cached.image_shape)
  return cache.statistics(cached, memo, measure)


def _sampled(
  count: int, rows: np.ndarray | None, size: int, fields: ConfigDict
) -> np.ndarray | None:
  """Returns the rows to measure: all, or a seeded sample of those of a large set."""
  if size <= _limit(fields):
    return rows
  rows = np.arange(count) if rows is None else rows
  if len(rows) <= STATISTICS_SAMPLE:
    return rows
  fraction = STATISTICS_SAMPLE / len(rows)
  one_class = np.zeros(len(rows), np.int32)
  seed = (fields.split_seed, _SAMPLE_DRAW)
  return rows[stratified_split(one_class, fraction, seed)[1]]


def _measure(
  source: Source, rows: np.ndarray | None, image_shape: tuple[int, int, int]
) -> cache.Statistics:
  """Decodes `rows` of `source` and returns their mean and std."""
  chosen = source if rows is None else SubsetSource(source, rows)
  _, sums = scan(chosen, image_shape)
  return mean_std(sums, image_shape[0] * image_shape[1])
