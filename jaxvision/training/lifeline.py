"""Notices within a stated time that another process of a run has died, hangs or is cut off.

JAX's runtime notices some of it, after a while, and ends a process with a trace that names
nobody. The connections over which the processes met stay open here: process 0 has one with
each other. A process that dies closes its own; one that is stopped, or whose machine or
network is gone, falls silent; one that hangs no longer goes on, which its messages say.
"""

import contextlib
import json
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

_MESSAGES = 10  # of a process, in the time after which it is taken for lost
_WITHOUT_PROGRESS = 20  # times as long a process that others wait for may take
_GRACE_SECONDS = (
  1.5  # that this process has to end by itself as a peer has, which failed
)
_TELLING_SECONDS = 0.5  # for the others to read whom process 0 has lost


class Lifeline:
  """Tells the other processes that this one lives, and watches over them, in a thread.

  Args:
    index: of this process.
    count: of processes.
    connections: from `rendezvous.meet`; closed with the process.
    seconds: without a message, after which a process is taken for lost. One that sends
      messages and takes no step, while others have taken theirs, has 20 times as long.
    lost: called once, in the thread, with a line that names the process that was lost and
      says what is known of it.

  Attributes:
    seconds: see above.
  """

  def __init__(
    self,
    index: int,
    count: int,
    connections: Mapping[int, socket.socket],
    seconds: float,
    lost: Callable[[str], None],
  ):
    self._index, self._count, self._lost = index, count, lost
    self.seconds = seconds
    self._connections = dict(connections)
    now = time.monotonic()
    self._heard = dict.fromkeys(connections, now)
    self._unread = dict.fromkeys(connections, b'')
    # When to take a peer for lost that said that it ends, and what to say of it.
    self._failed: dict[int, tuple[float, str]] = {}
    self._signs = 0
    self._signs_of = {index: 0, **dict.fromkeys(connections, 0)}
    self._went_on = now
    self._over, self._told = threading.Event(), threading.Event()
    self._selector = selectors.DefaultSelector()
    for peer, connection in connections.items():
      connection.setblocking(False)
      self._selector.register(connection, selectors.EVENT_READ, peer)
    self._thread = threading.Thread(target=self._watch, daemon=True)
    self._thread.start()

  def sign(self) -> None:
    """Tells that the program has gone on: at every step of a loop."""
    self._signs += 1

  def leave(self, code: int) -> None:
    """Tells the others that this process ends by itself.

    Args:
      code: its exit code. After 0 it still watches over the others until it has ended;
        after another they have a moment to end, too.
    """
    self._send(end=code)
    if code:
      self._over.set()

  def close(self) -> None:
    """Ends the thread, and closes the connections."""
    self._over.set()
    self._thread.join()
    for connection in self._connections.values():
      connection.close()
    self._selector.close()

  def _send(self, **message: Any) -> None:
    data = json.dumps(message).encode() + b'\n'
    for connection in self._connections.values():
      # Who reads no more will be missed, and who has ended seen.
      with contextlib.suppress(OSError):
        connection.send(data)

  def _watch(self) -> None:
    due, pause = 0.0, self.seconds / _MESSAGES
    while self._heard and not self._over.is_set():
      now = time.monotonic()
      if now >= due:
        self._send(signs=self._signs)
        due = now + pause
      for key, _ in self._selector.select(max(0.0, min(due - now, 1.0))):
        self._receive(key.data)
      if not self._over.is_set() and (line := self._missing()):
        self._tell(line)

  def _receive(self, peer: int) -> None:
    try:
      data = self._connections[peer].recv(65536)
    except BlockingIOError:
      return
    except OSError:
      data = b''
    if not data:
      self._selector.unregister(self._connections[peer])
    *lines, self._unread[peer] = (self._unread[peer] + data).split(b'\n')
    for line in lines:
      self._read(peer, json.loads(line))
    if peer in self._heard:  # else it has said that it ends well
      self._heard[peer] = time.monotonic() if data else -float('inf')

  def _read(self, peer: int, message: dict[str, Any]) -> None:
    if 'lost' in message:
      self._tell(message['lost'])
    elif 'signs' in message:
      if self._signs_of.get(peer, message['signs']) != message['signs']:
        self._signs_of[peer], self._went_on = message['signs'], time.monotonic()
    elif message['end'] == 0:
      del self._heard[peer], self._signs_of[peer]
    else:
      line = f'{self._name(peer)} has ended with exit code {message["end"]}'
      self._failed.setdefault(peer, (time.monotonic() + _GRACE_SECONDS, line))

  def _missing(self) -> str:
    """Returns a line about a process that was lost, '' where none was."""
    now = time.monotonic()
    for late, line in self._failed.values():
      if now > late:
        return line
    for peer, heard in self._heard.items():
      if peer in self._failed:
        continue
      if heard == -float('inf'):
        return f'{self._name(peer)} has ended'
      if now - heard > self.seconds:
        return (
          f'{self._name(peer)} has given no sign of life for {self.seconds:g} s '
          '(parallel.heartbeat_timeout)'
        )
    return self._hanging(now) if self._index == 0 else ''

  def _hanging(self, now: float) -> str:
    if self._signs_of.get(0) != self._signs:
      self._signs_of[0], self._went_on = self._signs, now
    signs, limit = self._signs_of, _WITHOUT_PROGRESS * self.seconds
    behind = min(signs, key=lambda peer: signs[peer])
    if signs[behind] == max(signs.values()) or now - self._went_on < limit:
      return ''
    return (
      f'{self._name(behind)} has not gone on for {limit:g} s '
      f'({_WITHOUT_PROGRESS} times parallel.heartbeat_timeout), and the others wait for it'
    )

  def has_lost(self, seconds: float) -> bool:
    """Waits until a process is lost; returns whether one was within some seconds."""
    return self._told.wait(seconds)

  def _tell(self, line: str) -> None:
    self._over.set()
    self._told.set()
    if self._index == 0:
      self._send(lost=line)
      time.sleep(_TELLING_SECONDS)  # their runtime aborts them when this process ends
    self._lost(line)

  def _name(self, peer: int) -> str:
    return f'process {peer} of {self._count}'
