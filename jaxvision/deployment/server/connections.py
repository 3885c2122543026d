"""Connections, before and between requests, where no application has a say.

uvicorn lets a client take any time for the head of its request and for reading its answer,
send any number of requests ahead, and open any number of connections. Its protocol
(httptools, or h11 where that is not installed) is bounded here.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from jaxvision.deployment.server.answers import Refusal, busy, raw
from jaxvision.deployment.server.limits import HEAD_BYTES, Limits

_LINGER = 1.0  # seconds in which a client that is refused may read why
# After a signal, an idle connection stays open for so long: a request that was on its way
# is answered.
_GRACE = 0.25
_AHEAD = 8  # requests that a client may send before it has the answers to earlier ones


class _Transport:
  """A transport whose `close` has an end, though nobody reads what is left to send.

  Args:
    transport: the real one.
    close: is called instead of its own.
  """

  def __init__(self, transport: Any, close: Callable[[], None]):
    self._transport, self.close = transport, close

  def __getattr__(self, name: str) -> Any:
    return getattr(self._transport, name)


def bounded_protocol(
  limits: Limits, refused: Callable[[int], None]
) -> type[asyncio.Protocol]:
  """Returns the protocol of uvicorn's connections.

  Args:
    limits: of the server.
    refused: is called with the status of each refusal.
  """

  class Bounded(AutoHTTPProtocol):
    """A connection whose heads come, and whose answers go, in time and in size."""

    def connection_made(self, transport: Any) -> None:
      super().connection_made(_Transport(transport, self._close))
      self._socket = transport
      self._over = self._stopping = False
      self._head_bytes, self._head_timer, self._write_timer = 0, None, None
      count = len(self.connections)
      if count > 2 * limits.connections:  # those that linger are too many, too
        self._socket.abort()
      elif count > limits.connections:
        self._refuse(busy(503, 'too many connections: try again in a moment'))
      else:
        self._await_head()

    def data_received(self, data: bytes) -> None:
      if self._over:
        return
      before = self.cycle
      super().data_received(data)
      if self._over:
        return
      if len(getattr(self, 'pipeline', ())) > _AHEAD:  # h11 stops reading by itself
        self._socket.abort()
      elif self.cycle is not before:  # a head is whole
        self._head_bytes = 0
        self._unset_head_timer()
        if self._stopping:
          self.cycle.keep_alive = False
      elif self._idle:
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES:
          self._refuse(Refusal(431, 'the headers are too long'))
        elif self._head_timer is None:
          self._await_head()

    def eof_received(self) -> bool:
      if self._idle:
        if self._head_bytes and not self._over:
          self._refuse(Refusal(400, 'the request ends in its headers'))
        return False
      if self.cycle.more_body:
        self._refuse(Refusal(400, 'the request ends in its body'))
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        return False
      self.cycle.keep_alive = False  # it waits for its answer
      return True

    def connection_lost(self, exc: Exception | None) -> None:
      self._unset_head_timer()
      if self._write_timer is not None:
        self._write_timer.cancel()
      super().connection_lost(exc)

    def pause_writing(self) -> None:
      super().pause_writing()
      self._write_timer = self.loop.call_later(limits.timeout, self._socket.abort)

    def resume_writing(self) -> None:
      super().resume_writing()
      if self._write_timer is not None:
        self._write_timer.cancel()

    def send_400_response(self, msg: str) -> None:
      # Within a request it is the body that is wrong, and the application goes on waiting.
      if not self._idle:
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        if self.cycle.response_started:
          self.transport.close()
          return
      self._refuse(Refusal(400, 'this is no request of HTTP/1.1'))

    def shutdown(self) -> None:
      self._stopping = True
      if self._idle:
        self.loop.call_later(_GRACE, self._end_idle)
      else:
        self.cycle.keep_alive = False

    @property
    def _idle(self) -> bool:
      return self.cycle is None or self.cycle.response_complete

    def _await_head(self) -> None:
      self._head_timer = self.loop.call_later(limits.timeout, self._head_is_late)

    def _unset_head_timer(self) -> None:
      if self._head_timer is not None:
        self._head_timer.cancel()
        self._head_timer = None

    def _head_is_late(self) -> None:
      self._head_timer = None
      if self._idle and not self._over:
        self._refuse(Refusal(408, 'the headers did not come in time'))

    def _close(self) -> None:
      if not self._socket.is_closing():
        self._socket.close()  # once everything is sent
        self.loop.call_later(limits.timeout, self._socket.abort)

    def _end_idle(self) -> None:
      if self._idle:
        self.transport.close()

    def _refuse(self, refusal: Refusal) -> None:
      """Says why, and ends once the client has read it, or soon."""
      self._over = True
      refused(refusal.status)
      self._unset_head_timer()
      self._unset_keepalive_if_required()
      self.transport.write(raw(refusal))
      self.transport.write_eof()
      self.loop.call_later(_LINGER, self.transport.close)

  return Bounded
