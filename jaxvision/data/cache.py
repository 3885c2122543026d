"""Decoded sets on disk: plain .npy files and a JSON index, written once.

A cached set is one folder, which may be copied to a machine that has neither the
original files nor TensorFlow Datasets:

    index.json            format version, name, classes, shape, counts, statistics, origin
    POOL_images.npy       uint8 [n, H, W, C]   (not for a set that is streamed)
    POOL_labels.npy       int32 [n]
    POOL_kept.npy         int64 [n]: which records these are, where some were skipped
    train_moments.npy     int64 [n, 2, C]: see `dataset.moments`
    statistics_*.json     mean and std of a sample, for sets too large to measure

A folder appears whole or not at all: it is written beside its place and renamed.
"""

import contextlib
import dataclasses
import fcntl
import io
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxvision.data.dataset import mean_std
from jaxvision.data.scan import scan
from jaxvision.data.sources.source import OpenedDataset
from jaxvision.errors import UserError

FORMAT_VERSION = 1
INDEX = 'index.json'

Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and std per channel

_STALE_SECONDS = 24 * 3600  # a half-written folder this old has no writer any more

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class CachedSet:
  """A set read back from its folder.

  Attributes:
    folder: folder of the set.
    name, class_names, image_shape, origin: as in `OpenedDataset`.
    labels: pool -> int32 [n].
    images: pool -> uint8 [n, H, W, C] mapped from the file; empty where only the
      labels are cached.
    kept: pool -> int64 [n] positions in the original pool; a pool of which nothing
      was skipped has no entry.
    moments: int64 [n, 2, C] of pool 'train'; None where the images were not decoded.
    skipped: pool -> number of unreadable files that were left out.
  """

  folder: Path
  name: str
  class_names: tuple[str, ...]
  image_shape: tuple[int, int, int]
  origin: str
  labels: Mapping[str, np.ndarray]
  images: Mapping[str, np.ndarray]
  kept: Mapping[str, np.ndarray]
  moments: np.ndarray | None
  skipped: Mapping[str, int]

  @property
  def decoded_bytes(self) -> int:
    """Bytes of all images of all pools, decoded."""
    return sum(map(len, self.labels.values())) * int(np.prod(self.image_shape))


def directory(configured: str) -> Path:
  """Returns data.cache_dir, else $JAXVISION_CACHE, else ~/.cache/jaxvision."""
  default = os.environ.get('JAXVISION_CACHE') or '~/.cache/jaxvision'
  return Path(configured or default).expanduser()


class CachedCopy(NamedTuple):
  """What a cache holds: the folder's name in it, where the images came from, bytes."""

  folder: str
  origin: str
  size: int


def copies(root: Path) -> list[CachedCopy]:
  """Returns the decoded sets in a cache, the largest first."""
  found = []
  for index in root.glob(f'[!.]*/{INDEX}'):
    with contextlib.suppress(*_DAMAGE):
      origin = json.loads(index.read_text('utf-8'))['origin']
      size = sum(file.stat().st_size for file in index.parent.iterdir())
      found.append(CachedCopy(index.parent.name, origin, size))
  return sorted(found, key=lambda copy: (-copy.size, copy.folder))


def drop(root: Path, folder: str) -> None:
  """Deletes a decoded set; what trains on it at this moment goes on.

  Raises:
    UserError: the cache holds no such set, or it cannot be deleted.
  """
  if folder not in [copy.folder for copy in copies(root)]:
    raise UserError(
      f'there is no decoded set "{folder}" in {root}: `prepare --cached` lists them'
    )
  try:
    shutil.rmtree((root / folder).rename(_beside(root / folder) / 'old').parent)
  except OSError as error:
    raise UserError(f'{root / folder} cannot be deleted: {error.strerror}') from error


def read(
  folder: Path,
  name: str,
  fingerprint: str | None,
  *,
  with_images: bool,
  tell: bool = True,
) -> CachedSet | None:
  """Returns the set cached in `folder`; None where it must be written (again).

  Args:
    folder: folder of one set.
    name: the set that it must hold.
    fingerprint: identifies the files that it must be decoded from; None: any.
    with_images: whether the images have to be there, or the labels do.
    tell: whether to say why a set that is there must be written again.
  """
  try:
    return _read(folder, name, fingerprint, with_images)
  except _Changed as error:
    if tell:
      _log.info('%s', error)
  except _DAMAGE as error:
    reason = ' '.join(str(error).split())
    if tell:
      _log.warning('cached set %s is damaged and is rebuilt: %s', folder, reason)
  return None


class _Changed(ValueError):
  """The files of a set are not those that were decoded."""


# EOFError, ValueError: a truncated .npy; the rest: an index that is not one.
_DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError)


def _read(
  folder: Path, name: str, fingerprint: str | None, with_images: bool
) -> CachedSet | None:
  if not (folder / INDEX).exists():
    return None
  index = json.loads((folder / INDEX).read_text('utf-8'))
  if index['format_version'] != FORMAT_VERSION or index['name'] != name:
    return None
  if fingerprint is not None and index['fingerprint'] != fingerprint:
    raise _Changed(f'{name} has changed since it was cached in {folder}')
  cached = _mapped(folder, index)
  return cached if cached.images or not with_images else None


def _mapped(folder: Path, index: Mapping[str, Any]) -> CachedSet:
  height, width, channels = map(int, index['image_shape'])
  labels, images, kept = {}, {}, {}
  for pool, counts in index['pools'].items():
    n = int(counts['examples'])
    labels[pool] = _array(folder / f'{pool}_labels.npy', np.int32, (n,))
    if n and not 0 <= labels[pool].min() <= labels[pool].max() < len(index['classes']):
      raise ValueError(f'{pool}_labels.npy holds labels of no class')
    if counts['skipped']:
      kept[pool] = _array(folder / f'{pool}_kept.npy', np.int64, (n,))
    if index['has_images']:
      path = folder / f'{pool}_images.npy'
      images[pool] = _array(path, np.uint8, (n, height, width, channels), mapped=True)
  train_moments = None
  if index['mean'] is not None:
    shape = (len(labels['train']), 2, channels)
    train_moments = _array(folder / 'train_moments.npy', np.int64, shape)
  return CachedSet(
    folder=folder,
    name=index['name'],
    class_names=tuple(index['classes']),
    image_shape=(height, width, channels),
    origin=index['origin'],
    labels=labels,
    images=images,
    kept=kept,
    moments=train_moments,
    skipped={pool: int(c['skipped']) for pool, c in index['pools'].items()},
  )


def _array(
  path: Path, dtype: type, shape: tuple[int, ...], *, mapped: bool = False
) -> np.ndarray:
  array = np.load(path, mmap_mode='r' if mapped else None, allow_pickle=False)
  if array.dtype != dtype or array.shape != shape:
    raise ValueError(f'{path.name} is {array.dtype}{array.shape}, not {shape}')
  return array


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
  """Holds the right to write a set: of several processes one decodes it, and others wait.

  The system takes it from a process that dies. Where it gives none (no locks on a file
  system of another machine, a cache that cannot be written) nothing is held: `write` is
  safe without, and all decode.

  Args:
    folder: its place in the cache.
  """
  path = folder.parent / f'.{folder.name}.lock'
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = path.open('w')
  except OSError:
    yield
    return
  with lock:
    with contextlib.suppress(OSError):
      try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        _log.info('waiting for another process, which decodes into %s', folder)
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
      yield
    finally:
      # Who waits has it open and finds the set written; who comes later needs none.
      path.unlink(missing_ok=True)


def write(
  folder: Path,
  opened: OpenedDataset,
  *,
  with_images: bool,
  decode: bool = True,
  skip_unreadable: bool = False,
) -> CachedSet:
  """Decodes a data set into `folder` and returns it read back.

  Memory is bounded however large the set: images are appended to their file as they
  are decoded. (A mapped file would kill the process, not raise, on a full disk.)
  Of several processes that write the same set, one wins and all go on.

  Args:
    folder: its place in the cache.
    opened: the data set.
    with_images: whether the images are kept.
    decode: whether they are decoded at all, for their statistics and to find
      unreadable ones; False: only the labels are written.
    skip_unreadable: leave out unreadable images and count them, or raise.

  Raises:
    UserError: the disk is full or not writable (names data.cache_dir); an image is
      unreadable; all of a pool are.
  """
  with _disk_errors(folder):
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    work = _beside(folder)
  try:
    with _disk_errors(folder):
      _fill(work, opened, with_images, decode, skip_unreadable)
      _put(work, folder, opened, with_images)
  finally:
    shutil.rmtree(work, ignore_errors=True)
  cached = read(folder, opened.name, opened.fingerprint, with_images=with_images)
  if cached is None:
    raise UserError(
      f'the cache {folder} changed while it was written: start again, or choose '
      'another data.cache_dir'
    )
  return cached


def _fill(
  work: Path,
  opened: OpenedDataset,
  with_images: bool,
  decode: bool,
  skip_unreadable: bool,
) -> None:
  """Writes every file of a set into `work`, the index last."""
  pools, mean, std = {}, None, None
  for pool, source in opened.pools.items():
    labels = np.asarray(source.labels, np.int32)
    count = len(labels)
    if decode:
      path = work / f'{pool}_images.npy' if with_images else None
      with path.open('wb') if path else contextlib.nullcontext() as file:
        if file:
          file.write(_header((count, *opened.image_shape)))
        kept, sums = scan(
          source, opened.image_shape, file, skip_unreadable=skip_unreadable
        )
      count = len(kept)
      if not count:
        raise UserError(f'all {len(labels)} images of the {pool} split are unreadable')
      if count < len(labels):
        np.save(work / f'{pool}_kept.npy', kept)
        if path:  # NumPy pads headers, so that any number of images fits
          with path.open('r+b') as file:
            file.write(_header((count, *opened.image_shape)))
      if pool == 'train':
        np.save(work / 'train_moments.npy', sums)
        mean, std = mean_std(sums, opened.image_shape[0] * opened.image_shape[1])
      skipped, labels = len(labels) - count, labels[kept]
    else:
      skipped = 0
    np.save(work / f'{pool}_labels.npy', labels)
    pools[pool] = {'examples': count, 'skipped': skipped}
  index = {
    'format_version': FORMAT_VERSION,
    'name': opened.name,
    'origin': opened.origin,
    'image_shape': list(opened.image_shape),
    'pools': pools,
    'mean': mean,
    'std': std,
    'has_images': with_images,
    'fingerprint': opened.fingerprint,
    'classes': list(opened.class_names),
  }
  (work / INDEX).write_text(json.dumps(index, indent=1) + '\n', 'utf-8')


def _header(shape: tuple[int, ...]) -> bytes:
  buffer = io.BytesIO()
  np.lib.format.write_array_header_1_0(
    buffer, {'descr': '|u1', 'fortran_order': False, 'shape': shape}
  )
  return buffer.getvalue()


def _put(work: Path, folder: Path, opened: OpenedDataset, with_images: bool) -> None:
  """Renames `work` to `folder`, over an outdated or damaged one."""
  for _ in range(10):
    try:
      work.rename(folder)
      return
    except OSError:
      if not folder.exists():
        raise
    with contextlib.suppress(*_DAMAGE):
      if _read(folder, opened.name, opened.fingerprint, with_images):
        return  # another process was faster
    # Renaming first, so that no reader meets a folder half deleted.
    old = _beside(folder)
    with contextlib.suppress(FileNotFoundError):  # another process did the same
      folder.rename(old / 'old')
    shutil.rmtree(old, ignore_errors=True)


def _beside(folder: Path) -> Path:
  """Makes a folder of a name of its own, with the permissions of any other."""
  path = folder.parent / f'.{folder.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}'
  path.mkdir()
  return path


def _sweep(folder: Path) -> None:
  """Deletes what killed writers of this set left behind long ago."""
  for left in folder.parent.glob(f'.{folder.name}-*'):
    with contextlib.suppress(OSError):
      if time.time() - left.stat().st_mtime > _STALE_SECONDS:
        shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    raise UserError(
      f'the decoded set cannot be written to {folder.parent} '
      f'({error.strerror or error}): free space there or choose another directory '
      'with data.cache_dir (or $JAXVISION_CACHE)'
    ) from error


def statistics(
  cached: CachedSet, memo: str, compute: Callable[[], Statistics]
) -> Statistics:
  """Returns (mean, std) stored under `memo`, or computes and stores them."""
  path = cached.folder / f'statistics_{memo}.json'
  with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
    stored = json.loads(path.read_text('utf-8'))
    return tuple(map(float, stored['mean'])), tuple(map(float, stored['std']))
  mean, std = compute()
  # A cache that is not writable costs only this memo.
  with contextlib.suppress(OSError):
    part = path.with_name(f'{path.name}.{os.getpid()}')
    part.write_text(json.dumps({'mean': mean, 'std': std}) + '\n', 'utf-8')
    part.replace(path)
  return mean, std
