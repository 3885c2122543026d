"""The processes of one run: how they join, agree, and which of them writes.

Each runs the same program with the same config. `process_group` says which number a process
has, in `rendezvous` they meet, then JAX's runtime connects their devices to one mesh, and
`lifeline` watches over them.
"""

import atexit
import contextlib
import hashlib
import json
import math
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxvision import __version__, signals
from jaxvision.config.comparing import decisive
from jaxvision.errors import UserError
from jaxvision.placement import flags
from jaxvision.training import coordination
from jaxvision.training.lifeline import Lifeline
from jaxvision.training.process_group import Group, find
from jaxvision.training.rendezvous import meet

# JAX's own watch over the processes would end this one with a trace: it comes second.
_RUNTIME_HEARTBEATS = 4
_SHUTDOWN_SECONDS = 3600  # in which the first to end waits for the others
_OUTLIVES_SECONDS = 5.0  # of the coordination service, when process 0 is killed
_VERDICT_SECONDS = 5.0  # in which a lost process is noticed after an error

# What JAX and the libraries below it say where another process does not answer.
_COLLECTIVE = re.compile(
  'gloo|nccl|connect|peer|timed? ?out|unavailable|deadline|heartbeat', re.IGNORECASE
)

_lifeline: Lifeline | None = None


def join(config: ConfigDict) -> str | None:
  """Connects this process to the others of its run, before JAX starts its backend.

  Args:
    config: valid.

  Returns:
    A line about what was found; None where it trains alone, or was connected already.

  Raises:
    UserError: a peer did not come in `parallel.timeout` seconds; or they differ.
  """
  if jax.distributed.is_initialized():
    return None
  group = find(config.parallel, os.environ)
  if group is None:
    return None
  seconds = config.parallel.heartbeat_timeout
  met = meet(group, _facts(group, config), config.parallel.timeout)
  _watch(group, met, seconds)
  heartbeat = math.ceil(_RUNTIME_HEARTBEATS * seconds)
  if group.index == 0:
    port = int(group.coordinator.rpartition(':')[2])
    atexit.register(
      coordination.start(
        port, group.count, heartbeat, _SHUTDOWN_SECONDS, _OUTLIVES_SECONDS
      )
    )
  # It would take SIGTERM away from `jaxvision.signals`; see `SharedStop`.
  jax.config.update('jax_enable_preemption_service', False)
  jax.distributed.initialize(
    group.coordinator,
    group.count,
    group.index,
    local_device_ids=None if group.local is None else [group.local],
    cluster_detection_method='deactivate',
    initialization_timeout=max(1, int(config.parallel.timeout)),
    heartbeat_timeout_seconds=heartbeat,
    shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
    coordinator_bind_address='127.0.0.1:0',  # of the service of process 0, which none uses
  )
  # Called before JAX's own, in which the first to end waits for the others.
  atexit.register(lambda: leave(int(hasattr(sys, 'last_value'))))
  return (
    f'process {group.index} of {group.count}, which meet at {group.coordinator} '
    f'({group.origin})'
  )


def _watch(group: Group, met: dict[int, Any], seconds: float) -> None:
  """Has this process end, with one line, once another is lost."""
  global _lifeline

  def end(line: str) -> None:
    # The main thread may wait in a collective for ever.
    remedy = 'start all again: training goes on from the last checkpoint'
    signals.end(f'error: {line}; {remedy}', 1)

  _lifeline = Lifeline(group.index, group.count, met, seconds, end)


def leave(code: int) -> None:
  """Tells the other processes that this one ends by itself; once, the first time.

  Args:
    code: its exit code.
  """
  global _lifeline
  if _lifeline is not None:
    lifeline, _lifeline = _lifeline, None
    lifeline.leave(code)


def await_verdict(error: Exception) -> None:
  """Waits, after an error, for the line about a process that was lost.

  Where one was, this process ends meanwhile. One that was cut off is noticed after a while;
  an error of a collective tells of it before.
  """
  if _lifeline is not None:
    silent = _lifeline.seconds if _COLLECTIVE.search(str(error)) else 0.0
    if _lifeline.has_lost(silent + _VERDICT_SECONDS):
      threading.Event().wait()  # the other thread ends this process


def _facts(group: Group, config: ConfigDict) -> dict[str, Any]:
  """Returns what has to be the same in all processes, and the number of this one."""
  decided = json.dumps(decisive(config), sort_keys=True, default=str)
  return {
    'index': group.index,
    'number of processes': group.count,
    'version of jaxvision': __version__,
    'version of jax': jax.__version__,
    'config': hashlib.sha256(decided.encode()).hexdigest()[:12],
  }


def index() -> int:
  """Returns the number of this process; 0 where it is alone. Starts no backend."""
  return _state().process_id if joined() else 0


def joined() -> bool:
  """Returns whether this process is one of several."""
  return jax.distributed.is_initialized() and _state().num_processes > 1


def is_writer() -> bool:
  """Returns whether this process writes the files of a run, and prints: the first does."""
  return index() == 0


def _state() -> Any:
  from jax._src import distributed  # Orbax and Flax take it from there, too

  return distributed.global_state


_phases: dict[str, int] = {}
_loops = 0  # training loops that have begun: the same number in every process
_NOTICE_SECONDS = 5  # that a wait for a notice lasts, before it begins anew
_STOP, _OVER = 'stop', 'over'  # notices: a signal came; the loop has ended by itself


class SharedStop:
  """Has all processes end a loop at the same step, whichever of them a signal reached.

  Each asks once before every dispatch of steps, in the same order as the others. The first
  to see the signal gives notice; each then says how often it has asked and holds its loop,
  and all go on to one more than the most of them. In a single process it is the event.

  Args:
    event: that a signal sets in this process.
  """

  def __init__(self, event: threading.Event):
    global _loops
    _loops += 1
    self._event, self._state = event, _state()
    self._alone = not joined()
    self._key = f'jaxvision/stop/{_loops}'
    self._changed = threading.Condition()  # of the four below
    self._asked = 0
    self._noticed = self._told = False
    self._last: float = float('inf')  # the asking at which all stop, once it is known
    self._closed = False
    self._thread = threading.Thread(target=self._watch, daemon=True)
    if not self._alone:
      self._thread.start()

  def __call__(self) -> bool:
    """Returns whether the loop ends here."""
    if self._alone:
      return self._event.is_set()
    if self._event.is_set() and not self._told:
      self._told = True
      self._state.client.key_value_set(self._key, _STOP, allow_overwrite=True)
    if _lifeline is not None:
      _lifeline.sign()
    with self._changed:
      self._asked += 1
      while self._noticed and self._last == float('inf') and not self._closed:
        self._changed.wait()
      return self._asked >= self._last

  def close(self) -> None:
    """Ends the thread that waits for a notice: one in C++ may not outlive the program."""
    with self._changed:
      self._closed = True
      self._changed.notify_all()
    if not self._alone:
      with contextlib.suppress(Exception):  # of XLA: the processes part already
        self._state.client.key_value_set(self._key, _OVER, allow_overwrite=True)
      self._thread.join(2 * _NOTICE_SECONDS)

  def _watch(self) -> None:
    client, notice = self._state.client, ''
    while not notice and not self._closed:
      try:
        notice = client.blocking_key_value_get(self._key, 1000 * _NOTICE_SECONDS)
      except Exception:  # of XLA: the time has passed, or the processes part
        time.sleep(0.01)
    if notice != _STOP:
      return
    with self._changed:
      self._noticed = True
      asked = self._asked
    try:
      client.key_value_set(f'{self._key}/{self._state.process_id}', str(asked))
      found = [
        int(client.blocking_key_value_get(f'{self._key}/{i}', 60_000))
        for i in range(self._state.num_processes)
      ]
      last: float = max(found) + 1
    except Exception:  # one has died: the collective under way will say so
      last = asked + 1
    with self._changed:
      self._last = last
      self._changed.notify_all()


_agreements = 0


def agreed(reason: str) -> str:
  """Returns the reason of the first process that has one, '' where none has.

  In several processes all call it, at the same point of their program: what stops a run
  may depend on the clock of one.

  Args:
    reason: of this process to stop; '' for none.
  """
  global _agreements
  if not joined():
    return reason
  _agreements += 1
  state, key = _state(), f'jaxvision/reason/{_agreements}'
  if reason:
    state.client.key_value_set(f'{key}/{state.process_id}', reason)
  have = flags(bool(reason))
  if not have.any():
    return ''
  return state.client.blocking_key_value_get(f'{key}/{have.argmax()}', 60_000)


@contextlib.contextmanager
def together(phase: str, seconds: float = 600.0) -> Iterator[None]:
  """Ends a block once all processes have come to its end; raises where one has failed.

  Without it, the others would wait in the next collective for one that has ended with an
  error.

  Args:
    phase: what the block does, for messages: 'opening the run directory'.
    seconds: how long to wait for the slowest.

  Raises:
    UserError: another process raised an error in the block, or did not come to its end.
  """
  if not joined():
    yield
    return
  state = _state()
  number = _phases[phase] = _phases.get(phase, 0) + 1
  key = f'jaxvision/{phase}/{number}'
  try:
    yield
  except BaseException as error:
    line = str(error) if isinstance(error, UserError) else repr(error)
    with contextlib.suppress(Exception):  # of XLA: the processes part already
      state.client.key_value_set(f'{key}/{state.process_id}', line or 'failed')
    raise
  state.client.key_value_set(f'{key}/{state.process_id}', '')
  deadline = time.monotonic() + seconds
  for other in range(state.num_processes):
    left = max(1, int(1000 * (deadline - time.monotonic())))
    try:
      problem = state.client.blocking_key_value_get(f'{key}/{other}', left)
    except Exception as error:  # of XLA, for the time that has passed
      raise UserError(
        f'process {other} of {state.num_processes} did not finish {phase} within '
        f'{seconds:g} s'
      ) from error
    if problem:
      raise UserError(f'process {other} of {state.num_processes}: {problem}')
