"""A trial of a sweep in the hands of a process."""

import contextlib
import platform
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from jaxvision.commands import sweep_storage
from jaxvision.commands.sweep_storage import DATABASE_ERRORS, DatabaseError, Storage


class TrialLost(Exception):
  """Another process has taken the trial over."""


class StudyTrial:
  """A trial under way that belongs to this process.

  Args:
    handle: of Optuna.
    values: path of the field -> value.
    storage: the database that the trial is in.
    owner: what this process is called there.
    lock: of the trial's directory; the trial closes it.
    before: host of the process that had it before, or None.

  Attributes:
    number: from 0, in the study.
    values, before: see above.
    lost: whether another process was found to have taken it over.
  """

  def __init__(
    self,
    handle: optuna.trial.Trial,
    values: Mapping[str, Any],
    storage: Storage,
    owner: str,
    lock: IO[str],
    before: str | None,
  ):
    self._handle, self._storage = handle, storage
    self._owner, self._lock = owner, lock
    self.number: int = handle.number
    self.values, self.before = values, before
    self.lost = False
    self._over = False
    self._left = threading.Event()

  @contextlib.contextmanager
  def held(self) -> Iterator[None]:
    """Tells the database that this process works on the trial, until it is left.

    If it is not over by then, any process may go on with it.
    """
    beating = threading.Thread(target=self._beat, daemon=True)
    beating.start()
    try:
      yield
    except DatabaseError:
      self._over = True  # there is no telling it anything; silence says the same
      raise
    finally:
      self._left.set()
      beating.join(1.0)  # it may be waiting for the server
      with contextlib.suppress(DatabaseError):
        self._release()
      self._lock.close()

  def _beat(self) -> None:
    while not self._left.wait(sweep_storage.HEARTBEAT_SECONDS):
      # A database that is away for a while ends no training.
      with contextlib.suppress(*DATABASE_ERRORS):
        if not self._is_ours():
          self.lost = not self._over
          break
        self._storage.open().record_heartbeat(self._handle._trial_id)
    self._storage.open().remove_session()

  def _is_ours(self) -> bool:
    return is_owned(self._storage.open().get_trial(self._handle._trial_id), self._owner)

  def _check(self) -> None:
    if not self._is_ours():
      self.lost = True
    if self.lost:
      raise TrialLost(f'trial {self.number}: another process has taken it over')

  def report(self, value: float, step: int) -> bool:
    """Notes the measure at a step; returns whether to give the trial up there.

    Raises:
      TrialLost: another process has taken it over.
    """
    with self._storage.usable():
      self._check()
      self._handle.report(value, step)
      return self._handle.should_prune()

  def finish(self, value: float, **facts: Any) -> None:
    """Ends it with a result.

    Args:
      value: of the measure.
      **facts: kept beside it.
    """
    self._end(lambda: self._handle.study.tell(self._handle, value), facts)

  def prune(self) -> None:
    """Ends it as given up; its last report is its result."""
    self._end(lambda: self._handle.study.tell(self._handle, state=TrialState.PRUNED))

  def fail(self, reason: str, diverged: bool = False) -> None:
    """Ends it without a result."""
    facts = {'error': ' '.join(reason.split())[:500], 'diverged': diverged}
    self._end(
      lambda: self._handle.study.tell(self._handle, state=TrialState.FAIL), facts
    )

  def _end(
    self, tell: Callable[[], Any], facts: Mapping[str, Any] | None = None
  ) -> None:
    with self._storage.exclusive():
      self._check()
      for key, value in (facts or {}).items():
        self._handle.set_user_attr(key, value)
      tell()
    self._over = True

  def _release(self) -> None:
    if self._over or self.lost:
      return
    with self._storage.exclusive():
      if self._is_ours():
        self._handle.set_user_attr('owner', '')


def take(
  handle: optuna.trial.Trial, storage: Storage, owner: str, workdir: str
) -> None:
  """Makes a process the owner of a trial; call it within `storage.exclusive`.

  Args:
    handle: of Optuna.
    storage: the database that the trial is in.
    owner: the process.
    workdir: identity of the directory that the trial is trained in.
  """
  # In this order: a trial with an owner has had a heartbeat.
  storage.open().record_heartbeat(handle._trial_id)
  facts = {
    'host': platform.node(),
    'kernel': kernel(),
    'workdir': workdir,
    'owner': owner,
  }
  for key, value in facts.items():
    handle.set_user_attr(key, value)


def is_owned(trial: FrozenTrial, owner: str) -> bool:
  """Returns whether a trial is under way in the hands of a process."""
  return trial.state == TrialState.RUNNING and trial.user_attrs.get('owner') == owner


def kernel() -> str:
  """Returns what two processes have in common that see each other's locks of files.

  The names of two machines may be equal; the identity of a boot is that of one kernel.
  """
  with contextlib.suppress(OSError):
    return Path('/proc/sys/kernel/random/boot_id').read_text().strip()
  return platform.node()
