"""What every request goes through: its time, its errors, its headers, its count."""

import asyncio
import contextlib
import re
import time
from collections.abc import Callable
from typing import Any

from starlette.exceptions import HTTPException

from jaxvision.deployment.server.answers import (
  NOTHING_LOADS,
  Refusal,
  busy,
  json_line,
)
from jaxvision.deployment.server.limits import Limits
from jaxvision.deployment.server.logs import Log
from jaxvision.deployment.server.metrics import Metrics
from jaxvision.deployment.server.uploads import Disconnected

_METHODS = ('GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS')
_GONE = (
  499  # logged and counted where a client did not wait for its answer, as nginx has it
)

# What a client still sends once it is refused is read for so long and thrown away: were the
# connection closed at once, the system would reset it, and the client not see why.
_DISCARD_SECONDS, _DISCARD_BYTES = 1.0, 64_000_000


class Guard:
  """An ASGI application around another, whose exceptions become answers.

  Args:
    app: the other.
    routes: the paths that are counted by their names.
    limits, log, metrics: of the server.
    closing: whether connections end after their answers.
    hosts: names by which a client may ask for the server; empty: any.
  """

  def __init__(
    self,
    app: Any,
    routes: tuple[str, ...],
    *,
    limits: Limits,
    log: Log,
    metrics: Metrics,
    closing: Callable[[], bool],
    hosts: tuple[str, ...] = (),
  ):
    self._hosts = frozenset(name.lower() for name in hosts)
    self._app, self._routes, self._limits = app, routes, limits
    self._log, self._metrics, self._closing = log, metrics, closing

  async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
    """Answers a request."""
    if scope['type'] != 'http':
      return
    started = time.perf_counter()
    exchange = _Exchange(scope, receive, send, self._closing)
    scope['app'] = self  # has the router of Starlette raise where a method is wrong
    try:
      await self._answered(scope, exchange)
    except Disconnected:
      exchange.status = _GONE
    finally:
      seconds = time.perf_counter() - started
      path, method = scope['path'], scope['method']
      route = path if path in self._routes else 'other'
      self._metrics.request(route, exchange.status, seconds)
      self._log.record(
        'request',
        method=method if method in _METHODS else 'other',
        route=route,
        status=exchange.status,
        ms=round(1000 * seconds, 2),
        **scope.get('jaxvision', {}),
      )

  async def _answered(self, scope: Any, exchange: '_Exchange') -> None:
    try:
      # Both for the body and for the answer; a body that is late is refused before.
      async with asyncio.timeout(2 * self._limits.timeout):
        self._check_host(scope)
        await self._app(scope, exchange.receive, exchange.send)
      return
    except Refusal as refusal:
      refused = refusal
    except HTTPException as error:  # of the router
      hint = dict(error.headers or {})
      refused = Refusal(error.status_code, str(error.detail).lower(), **hint)
    except Disconnected:
      raise
    except TimeoutError:
      refused = busy(503, 'the answer took too long: try again later')
    except Exception as error:
      self._log.fault(error)
      refused = Refusal(500, 'a fault of the server, which its log tells')
    if exchange.status:  # begun: the connection ends, so that nothing passes for whole
      raise Disconnected
    with contextlib.suppress(TimeoutError):
      async with asyncio.timeout(self._limits.timeout):
        await exchange.refuse(refused)

  def _check_host(self, scope: Any) -> None:
    """Refuses a request by a foreign name.

    A page elsewhere whose name was made to point to this machine (DNS rebinding) would
    else be one of the same origin.
    """
    given = dict(scope['headers']).get(b'host', b'').decode('latin-1')
    name = re.sub(r':\d*$', '', given).strip('[]').lower()
    if self._hosts and name not in self._hosts:
      raise Refusal(
        421, 'this server is not asked for by that name: see --allowed-host'
      )


class _Exchange:
  """A request and its answer, on their way through the guard.

  Attributes:
    status: of the answer; 0 before it has begun.
  """

  def __init__(self, scope: Any, receive: Any, send: Any, closing: Callable[[], bool]):
    self.status = 0
    self._receive, self._send, self._closing = receive, send, closing
    self._unread = any(
      name == b'transfer-encoding' or (name == b'content-length' and value != b'0')
      for name, value in scope['headers']
    )

  async def receive(self) -> Any:
    """Receives, as ASGI has it."""
    message = await self._receive()
    if not message.get('more_body'):
      self._unread = False
    return message

  async def send(self, message: Any) -> None:
    """Sends, as ASGI has it, with the headers of every answer."""
    if message['type'] == 'http.response.start':
      self.status = message['status']
      headers = message['headers'] = list(message.get('headers', ()))
      if not any(name == b'content-security-policy' for name, _ in headers):
        headers.append((b'content-security-policy', NOTHING_LOADS.encode()))
      if self._unread or self._closing():
        headers.append((b'connection', b'close'))
    elif self._unread and not message.get('more_body'):
      await self._send({**message, 'more_body': True})
      await self._discard()
      message = {'type': 'http.response.body', 'body': b''}
    await self._send(message)

  async def refuse(self, refusal: Refusal) -> None:
    """Sends a refusal as one line of JSON."""
    body = json_line({'error': refusal.message})
    headers = {
      'content-type': 'application/json',
      'content-length': str(len(body)),
      **refusal.headers,
    }
    start = {
      'type': 'http.response.start',
      'status': refusal.status,
      'headers': [(k.lower().encode(), v.encode()) for k, v in headers.items()],
    }
    await self.send(start)
    await self.send({'type': 'http.response.body', 'body': body})

  async def _discard(self) -> None:
    size = 0
    with contextlib.suppress(TimeoutError):
      async with asyncio.timeout(_DISCARD_SECONDS):
        while self._unread and size < _DISCARD_BYTES:
          message = await self.receive()
          size += len(message.get('body', b''))
