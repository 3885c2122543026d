"""The run directory: its config, its data set's facts, its summary, its lock."""

import contextlib
import dataclasses
import fcntl
import json
import logging
import math
import operator
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvision import config as config_lib
from jaxvision.data.dataset import Dataset
from jaxvision.data.identity import ImageTable, difference, table_of
from jaxvision.data.info import DatasetInfo
from jaxvision.errors import UserError
from jaxvision.io import local_path, write_whole
from jaxvision.training import processes

_REMEDY = 'delete it, and the train command writes it anew'
# Written anew, it would be that of whatever the data are now.
_RESTORE = 'restore it, or replace the run with --overwrite'
_DELETE = 'delete it: no more than the seconds of repeated steps are lost with it'
# What `lr-find` may have written before there is a run.
_BEFORE_A_RUN = ('lr_find.json', 'lr_find.png')

_log = logging.getLogger('jaxvision')
_told: set[Path] = set()  # files whose damaged lines were told of


def read_history(path: Path) -> list[dict[str, Any]]:
  """Returns the log points of metrics.jsonl, without the lines that are damaged.

  A warning counts them, but for a last line that a kill has cut off.

  Raises:
    UserError: the file cannot be read.
  """
  try:
    lines = path.read_bytes().split(b'\n')
  except FileNotFoundError:
    return []
  except OSError as error:
    raise UserError(f'{path} cannot be read: {error.strerror}') from error
  points = [_log_point(line) for line in lines]
  damaged = sum(p is None for p, line in zip(points[:-1], lines) if line.strip())
  if damaged and path not in _told:
    _told.add(path)
    _log.warning('%s: damaged lines that are left out: %d', path, damaged)
  return [point for point in points if point is not None]


def _log_point(line: bytes) -> dict[str, Any] | None:
  """Returns what a line of metrics.jsonl says, None where it is none."""
  try:
    point = json.loads(line.decode())
    step, split = point['step'], point['split']
  except (ValueError, TypeError, KeyError, RecursionError):
    return None
  known = type(step) is int and step >= 0 and isinstance(split, str)
  values = [value for name, value in point.items() if name not in ('step', 'split')]
  if known and all(v is None or _is_number(v) for v in values):
    return point
  return None


def _is_number(value: Any) -> bool:
  return isinstance(value, int | float) and abs(value) < math.inf


def _damaged(path: Path, reason: Any, remedy: str = _REMEDY) -> str:
  return f'{path} is damaged ({" ".join(str(reason).split())[:200]}): {remedy}'


def write_json(path: Path, value: Any) -> None:
  """Writes JSON by `write_whole`; NaN and infinity are refused."""
  write_whole(path, json.dumps(value, indent=2, allow_nan=False) + '\n')


class RunDirectory:
  """Paths and files of one run; the layout is part of the public contract.

  Of several processes that train one run, the first writes: what the others would write is
  left out, and all read.
  """

  def __init__(self, path: str | Path):
    self.path = local_path(path, 'workdir')
    self.config_file = self.path / 'config.json'
    self.dataset_file = self.path / 'dataset.json'
    self.images_file = self.path / 'images.npz'
    self.pretrained_file = self.path / 'pretrained.json'
    self.sources_file = self.path / 'sources.json'
    self.segments_file = self.path / 'segments.json'
    self.summary_file = self.path / 'summary.json'
    self.clock_file = self.path / 'clock.json'
    self.metrics_file = self.path / 'metrics.jsonl'
    self.checkpoints = self.path / 'checkpoints'
    self.report = self.path / 'report'
    self.evaluations = self.path / 'evaluations'
    self.samples = self.path / 'samples'
    self.parts = self.path / 'parts'
    self.parts_file = self.path / 'parts.json'

  def check(self, config: ConfigDict, overwrite: bool = False) -> None:
    """Raises UserError unless the directory is this run's, new, or to be overwritten.

    Changes nothing, so that a mistake found later leaves no trace.
    """
    if not self.path.exists():
      return
    if not self.path.is_dir():
      raise UserError(
        f'workdir {self.path} is a file: choose another with --workdir=DIR'
      )
    if not self.config_file.exists():
      # A process killed at its very start leaves hidden files only.
      names = sorted(p.name for p in self.path.iterdir())
      known = ('.', *_BEFORE_A_RUN)
      strangers = [name for name in names if not name.startswith(known)]
      if strangers:
        raise UserError(
          f'workdir {self.path} is not empty and holds no run (it has {strangers[0]}), '
          'and nothing in it is overwritten: choose another directory with --workdir=DIR'
        )
    elif not overwrite:
      before = self.config()
      if different := config_lib.differences(before, config):
        extend = ''
        if not config_lib.fixed(config_lib.changes(before, config)):
          extend = 'go on with that run and these values by --extend, '
        raise UserError(
          f'workdir {self.path} holds a run with another config ('
          + '; '.join(different)
          + f'): {extend}choose another directory with --workdir=DIR, or replace that run '
          'with --overwrite'
        )

  def open(self, config: ConfigDict, overwrite: bool = False) -> None:
    """Makes the directory this config's; call `check` first and hold `locked`."""
    if overwrite and processes.is_writer():
      self._clear()
    self.write(self.config_file, config_lib.thaw(config).to_dict())

  def write(self, path: Path, value: Any) -> None:
    """Writes JSON to a file of the run, in the first process."""
    if processes.is_writer():
      write_json(path, value)

  def _clear(self) -> None:
    """Removes what a run writes, and nothing else."""
    for tree in (
      self.checkpoints,
      self.report,
      self.evaluations,
      self.samples,
      self.parts,
    ):
      shutil.rmtree(tree, ignore_errors=True)
    for file in (
      self.config_file,
      self.dataset_file,
      self.images_file,
      self.pretrained_file,
      self.sources_file,
      self.parts_file,
      self.segments_file,
      self.summary_file,
      self.clock_file,
      self.metrics_file,
    ):
      file.unlink(missing_ok=True)
    for events in self.path.glob('events.out.tfevents.*'):
      events.unlink()

  def config(self) -> ConfigDict:
    """Returns the run's config, or raises UserError if this is no run."""
    if not self.config_file.exists():
      raise UserError(
        f'{self.path} is no run: it has no config.json (give the --workdir of a '
        'training run)'
      )
    remedy = 'restore it from a copy, or start the run anew with --overwrite'
    found = self._read(self.config_file, ('data', 'model', 'optimizer'), remedy)
    try:
      return config_lib.from_json(json.dumps(found))
    except (ValueError, TypeError, AttributeError, UserError) as error:
      raise UserError(_damaged(self.config_file, error, remedy)) from error

  def summary(self) -> dict[str, Any] | None:
    """Returns summary.json, or None if the run has not finished."""
    return self._read(self.summary_file, ('task', 'steps'))

  def dataset(self) -> dict[str, Any] | None:
    """Returns what the run knows of its data: class names, image shape, mean, std."""
    return self._read(
      self.dataset_file, ('name', 'class_names', 'image_shape'), _RESTORE
    )

  def data_info(self) -> DatasetInfo | None:
    """Returns the same as an object; None where no data are known yet."""
    known = self.dataset()
    if known is None:
      return None
    try:
      info = DatasetInfo.from_dict(known)
      _, _, channels = map(operator.index, info.image_shape)
      ' '.join(info.class_names)
      operator.index(info.examples['train'])
      if not len(info.mean) == len(info.std) == channels:
        raise ValueError(f'mean and std are not of {channels} channels')
      sum((*info.mean, *info.std))
    except (ValueError, TypeError, KeyError) as error:
      raise UserError(_damaged(self.dataset_file, error, _RESTORE)) from error
    return info

  def trained_on(self) -> DatasetInfo:
    """Returns the same, or raises UserError where nothing has trained yet."""
    known = self.data_info()
    if known is None:
      raise UserError(f'{self.path} has no trained weights yet: train it first')
    return known

  def images(self) -> ImageTable | None:
    """Returns what the run knows of each image, None where they have no names."""
    try:
      return ImageTable.from_bytes(self.images_file.read_bytes())
    # What NumPy raises for a damaged archive is of several kinds. The table only counts
    # what has changed; whether anything has, dataset.json says.
    except Exception:
      return None

  def data_difference(self, dataset: Dataset) -> str:
    """Returns in words how data differ from the run's; '' where they are the same."""
    known = self.data_info()
    if known is None:
      return ''
    tables = self.images(), table_of(dataset)
    return difference(known, DatasetInfo.of(dataset), tables)

  def record_data(self, dataset: Dataset) -> None:
    """Stores the facts of a run's data, once: what is there already stays."""
    if self.dataset_file.exists() or not processes.is_writer():
      return
    if table := table_of(dataset):
      write_whole(self.images_file, table.to_bytes())
    write_json(self.dataset_file, dataclasses.asdict(DatasetInfo.of(dataset)))

  def pretrained(self) -> dict[str, Any] | None:
    """Returns where the run's first weights came from, or None if from nowhere."""
    needed = ('source', 'name', 'sha256', 'revision', 'facts')
    return self._read(self.pretrained_file, needed)

  def sources(self) -> dict[str, Any]:
    """Returns what the run learns from beside its data, see `Task.sources`."""
    found = self._read(self.sources_file) or {}
    for name, origin in found.items():
      if not isinstance(origin, dict) or 'sha256' not in origin:
        raise UserError(_damaged(self.sources_file, f'"{name}" is no source'))
    return found

  def read_parts(self) -> dict[str, Any] | None:
    """Returns the names and hashes of the user's own parts, None if there are none."""
    found = self._read(self.parts_file)
    for path, entry in (found or {}).items():
      if not isinstance(entry, dict) or not {'name', 'sha256', 'file'} <= entry.keys():
        raise UserError(_damaged(self.parts_file, f'"{path}" is no part'))
    return found

  def segments(self) -> list[dict[str, Any]]:
    """Returns what was changed in the run and from which step on, [] for nothing.

    See `jaxvision.training.segments`.
    """
    found = (self._read(self.segments_file, ('segments',)) or {}).get('segments', [])
    try:
      for entry in found:
        operator.index(entry['first_step'])
        for pair in entry['changes'].values():
          _, _ = pair
        dict(entry['summary'] or {})
        if unknown := entry.keys() - {'first_step', 'changes', 'summary'}:
          raise ValueError(f'it has {min(unknown)}')
    except (ValueError, TypeError, KeyError, AttributeError) as error:
      raise UserError(_damaged(self.segments_file, error, _RESTORE)) from error
    return list(found)

  def write_segments(self, segments: Sequence[dict[str, Any]]) -> None:
    """Stores the same."""
    if segments or self.segments_file.exists():
      self.write(self.segments_file, {'segments': list(segments)})

  def clock(self) -> dict[str, Any] | None:
    """Returns how far the run was when it was last seen alive, None where it was never."""
    found = self._read(
      self.clock_file, ('step', 'total', 'repeated_steps', 'starts'), _DELETE
    )
    for name, value in (found or {}).items():
      if not _is_number(value):
        raise UserError(_damaged(self.clock_file, f'"{name}" is no number', _DELETE))
    return found

  def history(self) -> list[dict[str, Any]]:
    """Returns the log points of metrics.jsonl, as `read_history` does."""
    return read_history(self.metrics_file)

  def _read(
    self, path: Path, needed: Sequence[str] = (), remedy: str = _REMEDY
  ) -> dict[str, Any] | None:
    """Returns the object in a file of JSON, None where there is no file.

    Raises:
      UserError: it is something else, or lacks a key of those that are needed.
    """
    try:
      found = json.loads(path.read_bytes().decode())
    # Of a directory whose parent is a file `locked` tells.
    except (FileNotFoundError, NotADirectoryError):
      return None
    except OSError as error:
      raise UserError(f'{path} cannot be read: {error.strerror}') from error
    except (ValueError, RecursionError) as error:
      raise UserError(_damaged(path, error, remedy)) from error
    if not isinstance(found, dict):
      raise UserError(_damaged(path, 'it holds no object', remedy))
    for key in needed:
      if key not in found:
        raise UserError(_damaged(path, f'it has no "{key}"', remedy))
    return found

  def is_free(self) -> bool:
    """Whether no process trains in the directory, which is made where it is not there."""
    with contextlib.suppress(UserError), self.locked():
      return True
    return False

  @contextlib.contextmanager
  def locked(self) -> Iterator[None]:
    """Makes and holds the directory for one run; the system frees it on any exit.

    Of several processes of the run, the first holds it.
    """
    if not processes.is_writer():
      yield
      return
    try:
      self.path.mkdir(parents=True, exist_ok=True)
      lock = (self.path / '.lock').open('w')
    except OSError as error:
      raise UserError(
        f'workdir {self.path} cannot be written ({error.strerror}): choose another '
        'directory with --workdir=DIR'
      ) from error
    with lock:
      try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except OSError as error:
        raise UserError(
          f'another process is training in {self.path}: wait for it, or choose another '
          'directory with --workdir=DIR'
        ) from error
      yield
