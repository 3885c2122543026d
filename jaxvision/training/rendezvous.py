"""Where the processes of a run meet: a plain socket at the coordinator's address.

JAX ends a process with a trace of its own where a peer does not come. Here that, another
config or another version of the package is one line in every process that came.
"""

import contextlib
import errno
import json
import socket
import time
from typing import Any

from jaxvision.errors import UserError, short
from jaxvision.training.process_group import Group

_RETRY_SECONDS = 0.2
_ANSWER_SECONDS = 5.0
_PORT_SECONDS = 15.0  # for what is left of a run that was killed to leave the port
_LINE_BYTES = 4096
_STRANGER_SECONDS = 10.0  # for a line from whoever connects


def meet(
  group: Group, facts: dict[str, Any], seconds: float
) -> dict[int, socket.socket]:
  """Returns once all processes of a group have come, with the same facts.

  Args:
    group: that this process belongs to.
    facts: what has to be the same in all, by what it is called; and 'index', which is not.
    seconds: in which all have to come.

  Returns:
    Connections that stay open, by the number of the process: of process 0 to every other,
    of every other to process 0.

  Raises:
    UserError: they have not, in time; or one of them is another than the first.
  """
  deadline = time.monotonic() + seconds
  host, _, port = group.coordinator.rpartition(':')
  address = host.strip('[]'), int(port)
  with contextlib.ExitStack() as opened:
    if group.index == 0:
      connections, problem = _receive(group, facts, address, deadline, opened)
    else:
      connections, problem = _report(group, facts, address, deadline, opened)
    if problem:
      raise UserError(problem)
    opened.pop_all()
  return connections


_Met = tuple[dict[int, socket.socket], str]  # connections, what is wrong or ''


def _receive(
  group: Group,
  facts: dict[str, Any],
  address: tuple[str, int],
  deadline: float,
  opened: contextlib.ExitStack,
) -> _Met:
  """Waits for all others as process 0."""
  came: dict[int, socket.socket] = {}
  problem = ''
  # JAX's service listens at the same port afterwards, beside connections that stay open.
  with socket.socket(_family(address), socket.SOCK_STREAM) as listener:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken_until = min(deadline, time.monotonic() + _PORT_SECONDS)
    while True:
      try:
        listener.bind(('', address[1]))
        listener.listen(group.count)
        break
      except OSError as error:
        if error.errno == errno.EADDRINUSE and time.monotonic() < taken_until:
          time.sleep(_RETRY_SECONDS)
          continue
        return {}, (
          f'process 0 cannot listen at port {address[1]} ({error.strerror}): choose '
          'another port for the coordinator'
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
      if not isinstance(theirs, dict):  # no process of ours
        connection.close()
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
  return came, problem


def _report(
  group: Group,
  facts: dict[str, Any],
  address: tuple[str, int],
  deadline: float,
  opened: contextlib.ExitStack,
) -> _Met:
  """Tells process 0 that this one came."""
  reason = 'nobody listens there'
  while (left := deadline - time.monotonic()) > 0:
    try:
      connection = opened.enter_context(socket.create_connection(address, timeout=left))
      connection.sendall(json.dumps(facts).encode() + b'\n')
      # Process 0 says at the end of its own time who is missing.
      connection.settimeout(left + _ANSWER_SECONDS)
      answer = _read(connection)
      if isinstance(answer, str):
        return {0: connection}, answer
      connection.close()
      reason = 'process 0 has ended'
    except TimeoutError:
      reason = 'it does not answer'
    except OSError as error:
      reason = error.strerror or str(error)
    time.sleep(_RETRY_SECONDS)
  return {}, (
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
    connection.settimeout(connection.gettimeout() or _STRANGER_SECONDS)
    # Byte by byte: what follows the line is for who takes over the connection.
    while not data.endswith(b'\n') and len(data) < _LINE_BYTES:
      if not (more := connection.recv(1)):
        return None
      data += more
    return json.loads(data)
  return None
