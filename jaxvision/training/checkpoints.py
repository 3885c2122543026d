"""Checkpoints with Orbax: written in the background, checked when read.

A checkpoint is the state, plus a JSON record: the data position, the seconds spent, the
metrics and a checksum of every leaf. Orbax writes to a temporary name and renames, so a
killed process leaves a whole checkpoint or none; the checksums find what a failing disk
or a stray hand damages later. A damaged one is set aside under another name, never
deleted, and the one before it is used.
"""

import logging
import re
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from jaxvision.errors import UserError

PyTree = Any

FORMAT = 1


def _checksums(tree: PyTree) -> dict[str, int]:
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {
    jax.tree_util.keystr(path): zlib.crc32(np.ascontiguousarray(leaf).data)
    for path, leaf in leaves
  }


def _plain_name(name: str) -> str:
  """Returns the name of a leaf whatever containers it lies in.

  Runs of earlier versions have states that are dataclasses, later ones dicts.

  >>> _plain_name("['state'].params['conv1']") == _plain_name("['state']['params']['conv1']")
  True
  """
  return '/'.join(a or b or c for a, b, c in _KEYS.findall(name))


_KEYS = re.compile(r"\['([^']*)'\]|\.(\w+)|\[(\d+)\]")


def _reason(error: BaseException) -> str:
  """Returns what was wrong at the bottom, in one line."""
  while error.__cause__ is not None:
    error = error.__cause__
  text = ' '.join(str(error).split()).split(' See full ')[0]
  return f'{type(error).__name__}: {text[:160]}'


def _not_of_orbax(record: logging.LogRecord) -> bool:
  return 'orbax' not in record.pathname


def _ignore_dropped_reads(original: Callable[[Any], Any]) -> Callable[[Any], None]:
  """Returns an unraisable hook that passes on all but the coroutines of Orbax.

  When one array of a checkpoint cannot be read, Orbax drops the reads of the others,
  and each complains with a page of traceback, some much later.
  """

  def hook(event: Any) -> None:
    code = getattr(event.object, 'cr_code', None)
    if code is None or 'orbax' not in code.co_filename:
      original(event)

  return hook


class Checkpoints:
  """The checkpoints of one run: the newest few and the best.

  Args:
    directory: `checkpoints/` of the run directory.
    keep: how many of the newest to keep.
    best: name of the measure that says which is the best, and whether by its 'max' or
      its 'min'.
    read_only: change nothing, as the run may be training in another process.
  """

  def __init__(
    self,
    directory: Path,
    keep: int = 2,
    best: tuple[str, str] = ('accuracy', 'max'),
    read_only: bool = False,
  ):
    self.directory = Path(directory).absolute()
    self._measure, mode = best
    sign = {'max': 1.0, 'min': -1.0}[mode]

    def goodness(metrics: dict[str, float]) -> float:
      return sign * metrics[self._measure]

    self._read_only = read_only
    self.warnings: list[str] = []
    # Orbax tells of every step at INFO, of what a killed writer left at WARNING, and at
    # ERROR, with tracebacks, what `save` and `wait` raise again.
    logging.getLogger('absl').addFilter(_not_of_orbax)
    self._unraisablehook = sys.unraisablehook
    sys.unraisablehook = _ignore_dropped_reads(self._unraisablehook)
    newest = policies.LatestN(keep)
    good = policies.BestN(
      get_metric_fn=goodness, n=1, keep_checkpoints_without_metrics=False
    )
    self._manager = ocp.CheckpointManager(
      self.directory,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy([newest, good]),
        cleanup_tmp_directories=not read_only,
        read_only=read_only,
        # Metrics decide what is kept and must survive a resume.
        best_fn=goodness,
      ),
      item_handlers={
        'state': ocp.StandardCheckpointHandler(),
        'record': ocp.JsonCheckpointHandler(),
      },
    )

  def steps(self) -> list[int]:
    """Returns the steps that have a checkpoint, oldest first."""
    return sorted(self._manager.all_steps())

  def best_step(self) -> int | None:
    """Returns the step with the best measure, or None before any evaluation."""
    return self._manager.best_step()

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
      state: arrays; copied before this returns, so they may be donated next.
      record: JSON values to keep beside it.
      metrics: of an evaluation of the state; None, or without the measure that says
        which is the best: it is none of the best.
    """
    if step in self._manager.all_steps():
      return True
    if metrics is not None and self._measure not in metrics:
      metrics = None
    host = state
    if jax.process_count() == 1:
      # A copy of our own: on a CPU, device_get is a view of memory that the next step
      # takes over while the background thread is still writing.
      host = jax.tree.map(lambda leaf: np.array(leaf), state)
      if not all(
        np.isfinite(leaf).all()
        for leaf in jax.tree.leaves(host)
        if np.issubdtype(leaf.dtype, np.floating)
      ):
        return False
      record = {**record, 'checksums': _checksums(host)}
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(host),
        record=ocp.args.JsonSave({**record, 'format': FORMAT, 'step': step}),
      ),
      metrics=metrics,
      force=True,
    )
    return True

  def wait(self) -> None:
    """Waits until everything is on disk; raises what the writer ran into."""
    self._manager.wait_until_finished()

  def restore(
    self, abstract: PyTree, step: int | None = None
  ) -> tuple[PyTree, dict[str, Any]] | None:
    """Returns the newest state that is whole and its record; None if there is none.

    Damaged checkpoints on the way are renamed to `damaged-STEP` and told in
    `warnings`.

    Args:
      abstract: shapes, dtypes and the shardings wanted now, whatever they were then.
      step: this one only.
    """
    wanted = self.steps()[::-1] if step is None else [step]
    for candidate in wanted:
      try:
        return self._read(candidate, abstract)
      except Exception as error:  # Orbax, TensorStore, JSON: whatever damage causes
        self._set_aside(candidate, _reason(error))
    return None

  def _read(self, step: int, abstract: PyTree) -> tuple[PyTree, dict[str, Any]]:
    restored = self._manager.restore(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(abstract), record=ocp.args.JsonRestore()
      ),
    )
    state, record = restored['state'], restored['record']
    self._verify(state, record)
    return state, record

  def _verify(self, state: PyTree, record: dict[str, Any]) -> None:
    if record.get('format') != FORMAT:
      raise ValueError(f'format {record.get("format")!r} instead of {FORMAT}')
    expected = record.get('checksums')
    if expected is None or jax.process_count() > 1:
      return
    known = {_plain_name(name): value for name, value in expected.items()}
    found = _checksums(jax.tree.map(np.asarray, state))
    wrong = [name for name in found if found[name] != known.get(_plain_name(name))]
    if wrong:
      raise ValueError(f'{wrong[0]} does not have the checksum it was written with')

  def _set_aside(self, step: int, reason: str) -> None:
    told = f'checkpoint of step {step} is damaged and passed over ({reason})'
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
        f'{here} is damaged ({reason}) and cannot be set aside: {problem}'
      ) from problem
    self._manager.reload()
    self.warnings.append(f'{told}; it is kept as {aside.name}')

  def close(self) -> None:
    """Waits for the writer and ends it, and puts the process's hooks back."""
    try:
      self._manager.close()
    finally:
      sys.unraisablehook = self._unraisablehook
      logging.getLogger('absl').removeFilter(_not_of_orbax)
