"""The processes of one run: how they find each other, agree, and which of them writes.

Each runs the same program with the same config. `process_group` says which number a process
has and where they meet; then JAX's runtime connects their devices to one mesh.

Before it does, they meet over a plain socket at the coordinator's address. JAX ends a
process with a trace of its own where a peer does not come; here that, another config or
another version of the package is one line in every process that came.
"""

import contextlib
import hashlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxvision import __version__
from jaxvision.config.comparing import decisive
from jaxvision.errors import UserError, short
from jaxvision.training.process_group import Group, find

_RETRY_SECONDS = 0.2
_ANSWER_SECONDS = 5.0
_HEARTBEAT_SECONDS = (
  30  # without a sign of life, after which a process is taken for lost
)
_LINE_BYTES = 4096


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
  _meet(group, _facts(group, config), config.parallel.timeout)
  local = None if group.local is None else [group.local]
  # It would take SIGTERM away from `jaxvision.signals`; see `SharedStop`.
  jax.config.update('jax_enable_preemption_service', False)
  jax.distributed.initialize(
    group.coordinator,
    group.count,
    group.index,
    local_device_ids=local,
    cluster_detection_method='deactivate',
    initialization_timeout=max(1, int(config.parallel.timeout)),
    heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
  )
  return (
    f'process {group.index} of {group.count}, which meet at {group.coordinator} '
    f'({group.origin})'
  )


def lost_peer(error: object) -> str:
  """Returns what to say of an error of JAX where another process may have ended."""
  told = re.search(r'task:(\d+)', str(error))
  which = f'process {told[1]}' if told else 'another process'
  return (
    f'{which} has ended or cannot be reached ({short(str(error), 160)}): the same command '
    'goes on from the last checkpoint'
  )


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


def _meet(group: Group, facts: dict[str, Any], seconds: float) -> None:
  """Returns once all processes of a group have come, with the same facts.

  Raises:
    UserError: they have not, in time; or one of them is another than the first.
  """
  deadline = time.monotonic() + seconds
  host, _, port = group.coordinator.rpartition(':')
  host = host.strip('[]')
  problem = (_receive if group.index == 0 else _report)(
    group, facts, (host, int(port)), deadline
  )
  if problem:
    raise UserError(problem)


def _receive(
  group: Group, facts: dict[str, Any], address: tuple[str, int], deadline: float
) -> str:
  """Waits for all others as process 0; returns what is wrong, '' if nothing."""
  came: dict[int, socket.socket] = {}
  problem = ''
  with contextlib.ExitStack() as opened:
    listener = opened.enter_context(socket.socket(_family(address), socket.SOCK_STREAM))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      listener.bind(('', address[1]))
      listener.listen(group.count)
    except OSError as error:
      return (
        f'process 0 cannot listen at port {address[1]} ({error.strerror}): choose another '
        'port for the coordinator'
      )
    while len(came) < group.count - 1 and not problem:
      listener.settimeout(max(0.01, deadline - time.monotonic()))
      try:
        connection, _ = listener.accept()
      except TimeoutError:
        absent = [str(i) for i in range(1, group.count) if i not in came]
        problem = (
          f'{len(absent)} of {group.count} processes did not come to '
          f'{group.coordinator} in time (parallel.timeout): number {", ".join(absent)}'
        )
        break
      opened.enter_context(connection)
      theirs = _read(connection)
      if theirs is None:  # no process of ours
        continue
      index = theirs.get('index')
      if not isinstance(index, int) or index in came or not 0 < index < group.count:
        problem = f'two processes have number {index} of {group.count}'
      came[index] = connection
      for name, mine in facts.items():
        if name != 'index' and theirs.get(name) != mine:
          problem = (
            f'the {name} of process {index} is {short(str(theirs.get(name)))}, and that '
            f'of process 0 {mine}: all processes run the same command'
          )
          break
    for connection in came.values():
      with contextlib.suppress(OSError):  # it will see that nobody answers
        connection.sendall(json.dumps(problem).encode() + b'\n')
  return problem


def _report(
  group: Group, facts: dict[str, Any], address: tuple[str, int], deadline: float
) -> str:
  """Tells process 0 that this one came; returns what is wrong, '' if nothing."""
  reason = 'nobody listens there'
  while (left := deadline - time.monotonic()) > 0:
    try:
      with socket.create_connection(address, timeout=left) as connection:
        connection.sendall(json.dumps(facts).encode() + b'\n')
        # Process 0 says at the end of its own time who is missing.
        connection.settimeout(left + _ANSWER_SECONDS)
        answer = _read(connection)
        if isinstance(answer, str):
          return answer
        reason = 'process 0 has ended'
    except TimeoutError:
      reason = 'it does not answer'
    except OSError as error:
      reason = error.strerror or str(error)
    time.sleep(_RETRY_SECONDS)
  return (
    f'process {group.index} of {group.count} did not reach process 0 at '
    f'{group.coordinator} in time ({reason}): is it running there, and is the port open?'
  )


def _family(address: tuple[str, int]) -> socket.AddressFamily:
  try:
    return socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0][0]
  except (OSError, UnicodeError) as error:
    raise UserError(f'the coordinator {address[0]} is no name of a machine') from error


def _read(connection: socket.socket) -> Any:
  """Returns the line of JSON that a peer sends, None where it sends none."""
  data = b''
  with contextlib.suppress(OSError, ValueError):
    connection.settimeout(connection.gettimeout() or 10.0)
    while not data.endswith(b'\n') and len(data) < _LINE_BYTES:
      if not (more := connection.recv(_LINE_BYTES)):
        return None
      data += more
    return json.loads(data)
  return None


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
