"""From the fields of `config.data` to a `Dataset`: find, decode once, split, measure."""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from jaxvision import config
from jaxvision.data import cache, splitting, statistics
from jaxvision.data.dataset import (
  ArraySource,
  Dataset,
  Files,
  ResizedSource,
  Source,
  SubsetSource,
  fingerprint,
  read_many,
)
from jaxvision.data.decode import PLAIN, Resizing
from jaxvision.data.identity import ImageTable
from jaxvision.data.scan import in_order
from jaxvision.data.sources import (
  arrays,
  digits,
  folder,
  synthetic,
  tfds,
  user_function,
)
from jaxvision.data.sources.source import DatasetSource, Decoding, OpenedDataset
from jaxvision.errors import UserError, printable

_log = logging.getLogger(__name__)


def load(
  data: str | ConfigDict,
  *,
  source: Any = None,
  split_rule: str | None = None,
  **overrides: Any,
) -> Dataset:
  """Loads a data set.

  A set from TFDS or from a folder is decoded once and cached; the next start maps the
  files. Where the whole set, decoded, is within `resident_limit_mb` (or `pipeline` is
  'resident') the splits are arrays; otherwise they are decoded on access. Example i of a
  split is bit for bit the same either way.

  A set without a test split loses `test_fraction` of its examples to one; then
  `1 - train_fraction` of what is left for training becomes 'validation', and of the rest
  the training split keeps `examples_per_class`. The draws are stratified by class and
  depend on `split_seed` alone; of a folder each image is drawn by its relative path, and
  stays where it is when others are added or removed.

  Mean and deviation are those of the training split, or of a seeded sample of 10,000
  of its images where the set is larger than `resident_limit_mb`.

  Args:
    data: the section `data` of a config, or the name of a set.
    source: a data set of the user's own, instead of the one that `data.name` names: a
      `Dataset`, (images, labels) or what else `from_arrays` takes, or a function that
      returns either and takes nothing or the section `data`.
    split_rule: 'path', 'index' or 'whole', see `splitting`; by default 'path' for
      folders and 'index' for other sets. A run of an earlier version has 'index'.
    **overrides: fields of that section.

  Raises:
    UserError: an unknown or impossible field; a set that is not there and cannot be
      prepared; a bad folder; an unreadable image; a cache that cannot be written; a
      class with fewer images than `examples_per_class`; a `source` that raises or
      returns something else.

  >>> dataset = load('digits', train_fraction=0.9)
  >>> {name: len(source) for name, source in dataset.splits.items()}
  {'train': 1294, 'test': 359, 'validation': 144}
  >>> dataset.image_shape, dataset.num_classes
  ((8, 8, 1), 10)
  """
  if isinstance(data, FrozenConfigDict) and not overrides:
    fields = data  # of a config that has been checked
  else:
    given = {'name': data} if isinstance(data, str) else data.to_dict()
    fields = config.validate(ConfigDict({'data': given | overrides})).data
  decoding = _decoding(fields)
  if source is not None:
    return _from_source(source, fields, decoding, split_rule)
  if fields.name == 'digits':
    dataset = _in_memory(digits.open_digits(decoding), fields, split_rule)
    return dataclasses.replace(dataset, named=True)
  if fields.name == 'synthetic':
    dataset = _in_memory(_open_synthetic(fields, decoding), fields, split_rule)
    return dataclasses.replace(dataset, named=True)
  if fields.name == 'folder':
    to_train = split_rule != splitting.WHOLE
    located = folder.locate(fields.root, decoding, to_train)
    return _decoded_once(located, fields, split_rule)
  if user_function.is_function(fields.name):
    raise UserError(
      f'config: data.name "{fields.name}" names a function: pass it, '
      'load(config.data, source=function)'
    )
  root = cache.directory(fields.cache_dir)
  located = tfds.locate(fields.name, fields.dir, decoding, root)
  return _decoded_once(located, fields, split_rule)


def _decoding(fields: ConfigDict) -> Decoding:
  interpolation = fields.interpolation
  if interpolation == 'auto':
    interpolation = PLAIN.interpolation
  resizing = Resizing(float(fields.crop_fraction) or 1.0, interpolation)
  return Decoding(fields.image_size, fields.channels, resizing, fields.skip_unreadable)


def _open_synthetic(fields: ConfigDict, decoding: Decoding) -> OpenedDataset:
  if fields.synthetic_examples < fields.synthetic_classes:
    raise UserError(
      f'config: data.synthetic_examples {fields.synthetic_examples} are fewer than '
      f'data.synthetic_classes {fields.synthetic_classes}'
    )
  return synthetic.open_synthetic(
    fields.synthetic_examples,
    fields.synthetic_classes,
    fields.test_fraction,
    decoding=decoding,
  )


def _from_source(
  source: Any, fields: ConfigDict, decoding: Decoding, split_rule: str | None
) -> Dataset:
  """Loads a data set of the user's own: a Dataset, arrays, or a function."""
  if callable(source):
    given = user_function.call(source, fields)
  else:
    given = arrays.as_dataset(source, 'data')
  if user_function.is_function(fields.name):
    given = dataclasses.replace(given, name=fields.name)
  arrays.check(given)
  height, width, channels = stored = tuple(given.image_shape)
  size = fields.image_size
  shape = (size or height, size or width, fields.channels or channels)
  mean, std = statistics.given(fields, shape)
  if given.split_settings:
    asked = split_rule == splitting.WHOLE or (
      given.split_settings == splitting.settings(fields)
    )
    if not asked or shape != stored:
      raise UserError(
        f'config: {given.name} was loaded with other fields of data than the config has: '
        'pass it the section config.data, data.load(config.data, ...)'
      )
    if mean:
      return dataclasses.replace(given, mean=mean, std=std, measured=False)
    return given
  pools = given.splits
  if shape != stored or decoding.resizing != PLAIN:
    if not {channels, shape[-1]} <= {1, 3}:
      raise UserError(
        f'config: data.image_size, channels and crop_fraction need images of 1 or 3 '
        f'channels, and those of {given.name} have {channels}: resize them before'
      )
    pools = {
      pool: ResizedSource(images, shape, decoding.resizing)
      for pool, images in pools.items()
    }
  opened = OpenedDataset(
    name=given.name,
    class_names=tuple(given.class_names),
    image_shape=shape,
    pools=pools,
    origin=given.origin or given.name,
    fingerprint=given.fingerprint,
    synthetic=given.synthetic,
    label_kind=given.label_kind,
  )
  known = None if given.measured else (given.mean, given.std)
  return _in_memory(opened, fields, split_rule, known)


def _in_memory(
  opened: OpenedDataset,
  fields: ConfigDict,
  split_rule: str | None,
  known: cache.Statistics | None = None,
) -> Dataset:
  """Loads a set that needs no cache; `known` are its mean and deviation, if given."""
  pipeline = statistics.pipeline(opened.decoded_bytes, fields)
  pools = opened.pools
  if pipeline == 'resident':
    pools = {p: _as_arrays(source, opened.image_shape) for p, source in pools.items()}
  labels = {p: source.labels for p, source in pools.items()}
  rule = _rule(split_rule, named=False)
  splits = splitting.carve(labels, opened.class_names, fields, rule=rule)
  mean, std = statistics.given(fields, opened.image_shape)
  if not mean and known:
    mean, std = known
  measured = not mean
  if measured:
    rows = splits['train'][1]
    rows = statistics.sampled(len(pools['train']), rows, opened.decoded_bytes, fields)
    mean, std = statistics.measure(pools['train'], rows, opened.image_shape)
  return _dataset(
    opened,
    fields,
    splits=_take_splits(pools, splits),
    split_rule=rule,
    content=opened.fingerprint,
    label_kind=opened.label_kind,
    synthetic=opened.synthetic,
    mean=mean,
    std=std,
    measured=measured,
    pipeline=pipeline,
  )


def _dataset(
  found: OpenedDataset | cache.CachedSet,
  fields: ConfigDict,
  *,
  splits: Mapping[str, Source],
  content: str = '',
  label_kind: str = 'class',
  files: Mapping[str, Files] | None = None,
  **known: Any,
) -> Dataset:
  """Puts a data set together; `known` are further fields of it."""
  # Names of folders, or of whatever a user's own data has, go to terminals and pages.
  class_names = tuple(map(printable, found.class_names))
  labels = {split: source.labels for split, source in splits.items()}
  if files:
    content, labels = ImageTable.of(files, labels).digest(), {}
  return Dataset(
    name=found.name,
    splits=splits,
    class_names=class_names,
    image_shape=found.image_shape,
    origin=found.origin,
    label_kind=label_kind,
    split_settings=splitting.settings(fields),
    fingerprint=fingerprint(
      class_names, found.image_shape, label_kind, labels, content
    ),
    files=files or {},
    **known,
    **_decoding(fields).resizing._asdict(),
  )


def _rule(split_rule: str | None, named: bool) -> str:
  """Returns how the splits are made, of images with names or without."""
  if split_rule is None or (split_rule == splitting.PATH and not named):
    return splitting.PATH if named else splitting.INDEX
  return split_rule


def _decoded_once(
  source: DatasetSource, fields: ConfigDict, split_rule: str | None
) -> Dataset:
  """Loads a set through the cache, which is written where it does not hold the set."""
  root = cache.directory(fields.cache_dir)
  found = _through_cache(source, fields, root, write=False)
  if found is None:
    with cache.held(root / source.key):
      found = _through_cache(source, fields, root, write=True)
  assert found
  cached, pools, size, pipeline = found
  skipped = _report_skipped(cached)
  files = {
    pool: found.take(cached.kept[pool]) if pool in cached.kept else found
    for pool, found in source.files.items()
  }
  rule = _rule(split_rule, named=bool(files))
  names = {pool: found.names for pool, found in files.items()}
  splits = splitting.carve(
    cached.labels, cached.class_names, fields, rule=rule, names=names
  )
  mean, std = statistics.given(fields, cached.image_shape)
  measured = not mean
  if measured:
    rows = splits['train'][1]
    mean, std = statistics.of_cached(
      cached, pools['train'], rows, size=size, fields=fields, rule=rule
    )
  return _dataset(
    cached,
    fields,
    splits=_take_splits(pools, splits),
    files=_take_files(files, splits),
    split_rule=rule,
    named=True,
    mean=mean,
    std=std,
    measured=measured,
    pipeline=pipeline,
    skipped=skipped,
  )


def _through_cache(
  source: DatasetSource, fields: ConfigDict, root: Path, write: bool
) -> tuple[cache.CachedSet, dict[str, Source], int, str] | None:
  """Returns (what is cached, its pools, its bytes, the pipeline).

  Returns None instead where that wants to be written and `write` is False.
  """
  full_path, labels_path = root / source.key, root / f'{source.key}-labels'
  stamp = source.fingerprint
  cached = cache.read(full_path, source.name, stamp, with_images=True, tell=write)
  if cached is None and fields.pipeline != 'resident':
    cached = cache.read(labels_path, source.name, stamp, with_images=False, tell=write)
  if cached is None and not write:
    return None
  opened = None
  if cached:
    size = cached.decoded_bytes
  else:
    opened = source.open()
    size = opened.decoded_bytes
  pipeline = statistics.pipeline(size, fields)
  if pipeline == 'resident':
    if cached is None or not cached.images:
      if not write:
        return None
      cached = _write(full_path, opened or source.open(), fields, with_images=True)
    return cached, _cached_pools(cached), size, pipeline
  if cached and cached.images and stamp is None:  # a copy, without the originals
    return cached, _cached_pools(cached), size, pipeline
  # The labels alone may have been cached under another limit.
  if cached is None or (
    cached.moments is None and statistics.measures_all(size, fields)
  ):
    if not write:
      return None
    cached = _write(labels_path, opened or source.open(), fields, with_images=False)
  return cached, _opened_pools(source, cached), size, pipeline


def _write(
  path: Path, opened: OpenedDataset, fields: ConfigDict, *, with_images: bool
) -> cache.CachedSet:
  decode = with_images or fields.skip_unreadable
  decode = decode or statistics.measures_all(opened.decoded_bytes, fields)
  if decode:
    count = sum(map(len, opened.pools.values()))
    _log.info('decoding %d images of %s into %s, once', count, opened.origin, path)
  return cache.write(
    path,
    opened,
    with_images=with_images,
    decode=decode,
    skip_unreadable=fields.skip_unreadable,
  )


def _cached_pools(cached: cache.CachedSet) -> dict[str, Source]:
  return {p: ArraySource(cached.images[p], cached.labels[p]) for p in cached.labels}


def _opened_pools(source: DatasetSource, cached: cache.CachedSet) -> dict[str, Source]:
  """Opens the original files, without those that were skipped, with cached labels."""
  labels = {}
  for pool, of_kept in cached.labels.items():
    labels[pool] = of_kept
    if pool in cached.kept:
      labels[pool] = np.full(len(of_kept) + cached.skipped[pool], -1, np.int32)
      labels[pool][cached.kept[pool]] = of_kept
  opened = source.open(cached.image_shape, labels)
  return {
    pool: SubsetSource(images, cached.kept[pool]) if pool in cached.kept else images
    for pool, images in opened.pools.items()
  }


def _report_skipped(cached: cache.CachedSet) -> int:
  """Logs a warning of unreadable files and returns their number."""
  skipped = sum(cached.skipped.values())
  if skipped:
    _log.warning(
      'left out %d unreadable images of %s (data.skip_unreadable)',
      skipped,
      cached.origin,
    )
    counts = np.bincount(cached.labels['train'], minlength=len(cached.class_names))
    if not counts.all():
      name = cached.class_names[int(np.argmin(counts))]
      raise UserError(f'all training images of class "{name}" are unreadable')
  return skipped


def _take_splits(
  pools: Mapping[str, Source], splits: splitting.Splits
) -> dict[str, Source]:
  taken = {}
  for split, (pool, indices) in splits.items():
    taken[split] = pools[pool] if indices is None else _take(pools[pool], indices)
  return taken


def _take_files(
  files: Mapping[str, Files], splits: splitting.Splits
) -> dict[str, Files]:
  return {
    split: files[pool] if indices is None else files[pool].take(indices)
    for split, (pool, indices) in splits.items()
    if files
  }


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

  def decode(indices: range) -> None:
    for i, (image, _) in zip(indices, read_many(source, list(indices))):
      images[i] = image

  chunks = [range(i, min(i + 256, len(source))) for i in range(0, len(source), 256)]
  for _ in in_order(decode, chunks):
    pass
  return ArraySource(images, source.labels)
