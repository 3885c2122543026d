"""Mean and deviation of the training split, and what is measured at all."""

import functools

import numpy as np
from ml_collections import ConfigDict

from jaxvision.data import cache, splitting
from jaxvision.data.dataset import Source, SubsetSource, mean_std
from jaxvision.data.scan import scan
from jaxvision.errors import UserError

STATISTICS_SAMPLE = 10_000


def _limit(fields: ConfigDict) -> int:
  return fields.resident_limit_mb * 2**20


def pipeline(decoded_bytes: int, fields: ConfigDict) -> str:
  """Returns 'resident' or 'streaming', by the size of the set where it is left open."""
  if fields.pipeline != 'auto':
    return fields.pipeline
  return 'resident' if decoded_bytes <= _limit(fields) else 'streaming'


def measures_all(decoded_bytes: int, fields: ConfigDict) -> bool:
  """Returns whether mean and deviation are those of all training images."""
  return not fields.mean and decoded_bytes <= _limit(fields)


def given(
  fields: ConfigDict, image_shape: tuple[int, int, int]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Returns data.mean and data.std, checked; empty where they are to be measured."""
  channels = image_shape[-1]
  for field in ('mean', 'std'):
    if fields[field] and len(fields[field]) != channels:
      raise UserError(
        f'config: data.{field} has {len(fields[field])} numbers, and the images of '
        f'{fields.name} have {channels} channel{"s" if channels > 1 else ""}'
        + (f': set data.channels={len(fields[field])}' if channels in (1, 3) else '')
      )
  return tuple(map(float, fields.mean)), tuple(map(float, fields.std))


def of_cached(
  found: cache.CachedSet,
  source: Source,
  rows: np.ndarray | None,
  *,
  size: int,
  fields: ConfigDict,
  rule: str,
) -> cache.Statistics:
  """Returns mean and deviation of the training split of a cached set.

  Args:
    found: the set.
    source: its training pool.
    rows: those of the pool that are in the split; None: all.
    size: bytes of the decoded set.
    fields: the `data` section of a config.
    rule: of the splits.
  """
  rows = sampled(len(source), rows, size, fields)
  if found.moments is not None:
    height, width, _ = found.image_shape
    moments = found.moments if rows is None else found.moments[rows]
    return mean_std(moments, height * width)
  memo = f'{fields.train_fraction!r}-{fields.test_fraction!r}-{fields.split_seed}'
  if fields.examples_per_class:
    memo += f'-{fields.examples_per_class}'
  if rule != splitting.INDEX:
    memo += f'-{rule}'
  compute = functools.partial(measure, source, rows, found.image_shape)
  return cache.statistics(found, memo, compute)


def sampled(
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
  seed = (fields.split_seed, splitting.SAMPLE_DRAW)
  return rows[splitting.stratified_split(one_class, fraction, seed)[1]]


def measure(
  source: Source, rows: np.ndarray | None, image_shape: tuple[int, int, int]
) -> cache.Statistics:
  """Decodes `rows` of `source` and returns their mean and std."""
  chosen = source if rows is None else SubsetSource(source, rows)
  _, sums = scan(chosen, image_shape)
  return mean_std(sums, image_shape[0] * image_shape[1])
