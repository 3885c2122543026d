"""Checkpoints with Orbax: checksums and files made in the background, checked when read.

A checkpoint is the state, plus a JSON record: the data position, the seconds spent, the
metrics, and checksums of every leaf and of the record itself. Orbax writes to a temporary
name and renames, so a killed process leaves a whole checkpoint or none; the checksums
find what a failing disk or a stray hand damages later. A damaged one is set aside under
another name, never deleted, and the one before it is used. One that cannot be read is not
damaged: then nothing is changed.

Other processes may read a run while it trains. They hold a lock on the checkpoint that
they read, and the one that trains deletes none that is held.
"""

import concurrent.futures
import contextlib
import copy
import errno
import fcntl
import logging
import math
import os
import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal

import jax

from jaxvision.errors import UserError
from jaxvision.training import checkpoint_files as files

PyTree = Any


def _not_of_orbax(record: logging.LogRecord) -> bool:
  return 'orbax' not in record.pathname


class _GoneError(Exception):
  """A checkpoint was deleted, by the process that trains, before it could be held."""


class _DamagedError(Exception):
  """A checkpoint is not what was written."""


@contextlib.contextmanager
def _held(path: Path, lock: int) -> Iterator[None]:
  """Holds a checkpoint by a lock on its directory, where the file system has locks.

  Raises:
    _GoneError: it is no longer there.
    BlockingIOError: another process holds it, and the lock is not to wait.
  """
  try:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
  except FileNotFoundError as error:
    raise _GoneError from error
  try:
    try:
      fcntl.flock(directory, lock)
    except BlockingIOError:
      raise
    except OSError as error:
      if error.errno not in (errno.EBADF, errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
        raise
    if not _is_at(directory, path):
      raise _GoneError
    try:
      yield
    except Exception:
      if not _is_at(directory, path):  # --overwrite asks for no lock
        raise _GoneError from None
      raise
  finally:
    os.close(directory)


def _is_at(directory: int, path: Path) -> bool:
  """Whether an open directory is still the one at a path."""
  try:
    return os.path.samestat(os.fstat(directory), path.stat())
  except FileNotFoundError:
    return False


class Checkpoints:
  """The checkpoints of one run: the newest few and the best.

  Args:
    directory: `checkpoints/` of the run directory.
    keep: how many of the newest to keep.
    best: name of the measure that says which is the best, and whether by its 'max' or
      its 'min'.
    read_only: change nothing, as the run may be training in another process.

  Attributes:
    warnings: damaged checkpoints that `restore` passed over.
  """

  def __init__(
    self,
    directory: Path,
    keep: int = 2,
    best: tuple[str, str] = ('accuracy', 'max'),
    read_only: bool = False,
  ):
    self.directory = Path(directory).absolute()
    self.warnings: list[str] = []
    self._keep, (self._measure, mode) = keep, best
    self._sign = {'max': 1.0, 'min': -1.0}[mode]
    self._read_only = read_only
    self._records: dict[int, dict[str, Any]] = {}
    self._under_way: int | None = None
    self._thread = concurrent.futures.ThreadPoolExecutor(1, 'checkpoint')
    self._writing: concurrent.futures.Future | None = None
    # Orbax tells of every step at INFO, of what a killed writer left at WARNING, and at
    # ERROR, with tracebacks, what `save` and `wait` raise again.
    logging.getLogger('absl').addFilter(_not_of_orbax)
    self._opened_writer: Any = None
    if read_only:
      return
    self.directory.mkdir(parents=True, exist_ok=True)
    if jax.process_index() == 0:  # what killed writers left
      for pattern in ('*.orbax-checkpoint-tmp*', '.deleted-*'):
        for path in self.directory.glob(pattern):
          shutil.rmtree(path, ignore_errors=True)

  @property
  def _writer(self) -> Any:
    """What writes, from the first checkpoint on."""
    if self._opened_writer is None:
      assert not self._read_only, 'these checkpoints are for reading only'
      from jaxvision.training.checkpoint_format import Writer  # see there

      self._opened_writer = Writer()
    return self._opened_writer

  def steps(self) -> list[int]:
    """Returns the steps that have a checkpoint, oldest first."""
    try:
      return sorted(
        int(path.name)
        for path in self.directory.iterdir()
        if re.fullmatch('0|[1-9][0-9]*', path.name) and path.is_dir()
      )
    except FileNotFoundError:
      return []
    except OSError as error:
      raise UserError(f'{self.directory} cannot be read ({error.strerror})') from error

  def best_step(self) -> int | None:
    """Returns the step with the best measure, or None before any evaluation.

    Of checkpoints whose records are damaged the measure is not known.
    """
    best = None
    for step in self.steps():
      with contextlib.suppress(_GoneError, _DamagedError):
        goodness = self._goodness(self._record(step))
        if goodness is not None and (best is None or goodness >= best[0]):
          best = goodness, step
    return best[1] if best else None

  def _goodness(self, record: dict[str, Any]) -> float | None:
    value = (record.get('metrics') or {}).get(self._measure)
    return None if value is None or math.isnan(value) else self._sign * value

  def _record(self, step: int) -> dict[str, Any]:
    if step not in self._records:
      with self._reading(step) as path:
        self._records[step] = files.read_record(path)
    return self._records[step]

  @contextlib.contextmanager
  def _reading(self, step: int) -> Iterator[Path]:
    """Holds a checkpoint while it is read, and tells damage from what cannot be read."""
    path = self.directory / str(step)
    try:
      with _held(path, fcntl.LOCK_SH):
        yield path
    except _GoneError:
      raise
    except Exception as error:  # Orbax, TensorStore, JSON: whatever damage causes
      why = files.unreadable(error, path)
      if why is None:
        raise _DamagedError(files.reason(error)) from error
      raise UserError(
        f'{path} cannot be read ({why}), which does not mean that it is damaged: '
        'nothing is changed; mend that and give the same command again'
      ) from error

  def save(
    self,
    step: int,
    state: PyTree,
    record: dict[str, Any],
    metrics: dict[str, float] | None = None,
  ) -> bool:
    """Starts to write a checkpoint; returns False, writing none, if it is not finite.

    Args:
      step: of the state.
      state: arrays; copied before this returns, so they may be donated next. What is
        wrong while it is written is raised by `wait`, or by the next `save`.
      record: JSON values to keep beside it.
      metrics: of an evaluation of the state; None, or without the measure that says
        which is the best: it is none of the best.
    """
    if step == self._under_way or step in self.steps():
      return True
    record = copy.deepcopy({**record, 'step': step, 'metrics': metrics})
    # Of a state that is sharded over processes, none has the whole.
    is_whole = all(map(files.is_whole, jax.tree.leaves(state)))
    if is_whole:
      state = jax.tree.map(files.to_host, state)
      if any(files.diverged(*named) for named in files.named_leaves(state).items()):
        return False
    self.wait()
    self._under_way = step
    if jax.process_count() == 1:
      self._writing = self._thread.submit(self._write, step, state, record, is_whole)
    else:  # the processes wait for each other, in the order of their programs
      self._write(step, state, record, is_whole)
    return True

  def _write(
    self, step: int, state: PyTree, record: dict[str, Any], is_whole: bool
  ) -> None:
    if is_whole:
      record = {**record, 'leaves': files.describe_leaves(state)}
      state = jax.tree.map(files.storable, state)
    self._records[step] = files.seal(record)
    self._writer.save(self.directory / str(step), state, self._records[step])

  def wait(self) -> None:
    """Waits until everything is on disk; raises what the writer ran into."""
    under_way, self._under_way = self._under_way, None
    writing, self._writing = self._writing, None
    if writing is not None:
      writing.result()
    if self._opened_writer is not None:
      self._opened_writer.wait()
    if under_way is not None:
      self._delete_old()

  def _delete_old(self) -> None:
    """Deletes what is neither among the newest nor the best, unless it is being read.

    What is held now goes at a later time.
    """
    if jax.process_index() != 0:
      return
    try:
      best = self.best_step()
    except UserError:  # an old one cannot be read now: it may be the best
      return
    for step in self.steps()[: -self._keep]:
      here, away = self.directory / str(step), self.directory / f'.deleted-{step}'
      if step == best:
        continue
      with contextlib.suppress(_GoneError, _DamagedError, UserError, BlockingIOError):
        self._record(step)  # else it may be the best
        with _held(here, fcntl.LOCK_EX | fcntl.LOCK_NB):
          # Renamed first: a process killed now leaves no half checkpoint.
          here.rename(away)
        shutil.rmtree(away)
        self._records.pop(step, None)

  def restore(
    self, abstract: PyTree, which: int | Literal['last', 'best'] = 'last'
  ) -> tuple[PyTree, dict[str, Any]] | None:
    """Returns a state that is whole and its record; None if there is no checkpoint.

    Where the last is damaged, it is the newest that is whole. The damaged ones are then
    renamed to `damaged-STEP` and told in `warnings`.

    Args:
      abstract: shapes, dtypes and the shardings wanted now, whatever they were then.
      which: the last, the best (the last before any evaluation), or a step.

    Raises:
      UserError: none is whole, or it is the one wanted that is not; one cannot be read;
        one is of another shape. Then nothing is changed.
    """
    damaged: dict[int, str] = {}
    while True:
      try:
        step = self._choose(which, damaged)
        if step is None:
          break
        found = self._read(step, abstract)
      except _GoneError:
        continue  # there is a newer one
      except _DamagedError as error:
        if which != 'last':
          what = f'checkpoint {which}' + (f' (step {step})' if which == 'best' else '')
          raise self._instead(f'{what} is damaged ({error})') from error
        damaged[step] = str(error)
        continue
      for number, why in damaged.items():
        self._set_aside(number, why)
      return found
    if damaged or (which == 'last' and any(self.directory.glob('damaged-*'))):
      why = f': step {max(damaged)}: {damaged[max(damaged)]}' if damaged else ''
      raise UserError(
        f'{self.directory}: no checkpoint is whole{why}; nothing is changed: put a copy '
        'in its place, or start anew with --overwrite'
      )
    return None

  def _choose(self, which: int | str, damaged: Collection[int]) -> int | None:
    """Returns the step to read next; None if there is none left."""
    steps = self.steps()
    if which == 'best':
      for step in steps:
        try:
          self._record(step)
        except _DamagedError as error:
          raise self._instead(
            f'checkpoint best is not known: that of step {step} is damaged ({error})'
          ) from error
      which = self.best_step() or 'last'
    left = [step for step in steps if step not in damaged]
    if which == 'last':
      return left[-1] if left else None
    return which if which in left else None

  def _read(self, step: int, abstract: PyTree) -> tuple[PyTree, dict[str, Any]]:
    with self._reading(step) as path:
      record = files.read_record(path)
      leaves = files.read_state(path, record)
    return files.fit(leaves, abstract, record, path), record

  def _instead(self, problem: str) -> UserError:
    """Returns what to say of a damaged checkpoint that was asked for by its name."""
    for step in self.steps()[::-1]:
      with contextlib.suppress(_GoneError, _DamagedError, UserError):
        with self._reading(step) as path:
          files.read_state(path, files.read_record(path))
        return UserError(
          f'{self.directory}: {problem}; that of step {step} is whole: take it with '
          '--checkpoint=last'
        )
    return UserError(f'{self.directory}: {problem}, and no other is whole')

  def _set_aside(self, step: int, why: str) -> None:
    told = f'checkpoint of step {step} is damaged and passed over ({why})'
    if self._read_only:
      self.warnings.append(told)
      return
    here = self.directory / str(step)
    aside = self.directory / f'damaged-{step}'
    number = 1
    while aside.exists():
      number += 1
      aside = self.directory / f'damaged-{step}-{number}'
    try:
      here.rename(aside)
    except OSError as problem:
      raise UserError(
        f'{here} is damaged ({why}) and cannot be set aside: {problem}'
      ) from problem
    self._records.pop(step, None)
    self.warnings.append(f'{told}; it is kept as {aside.name}')

  def close(self) -> None:
    """Waits for the writer and ends it."""
    try:
      self.wait()
    finally:
      self._thread.shutdown()
      if self._opened_writer is not None:
        self._opened_writer.close()
      logging.getLogger('absl').removeFilter(_not_of_orbax)
