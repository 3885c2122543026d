"""Starting a server and stopping it, without losing a request that it took."""

import asyncio
import contextlib
import errno
import logging
import os
import socket
import threading
from typing import Any

import uvicorn

from jaxvision.deployment.server import app as app_lib
from jaxvision.deployment.server.answers import SAFE_HEADERS
from jaxvision.deployment.server.app import Service
from jaxvision.deployment.server.connections import bounded_protocol
from jaxvision.deployment.server.limits import IDLE_SECONDS
from jaxvision.deployment.server.logs import Log, Uvicorn
from jaxvision.errors import UserError, quoted

_BACKLOG = 2048
_LOGGERS = ('uvicorn', 'python_multipart')


def bound_socket(host: str, port: int) -> socket.socket:
  """Returns a socket at which connections wait until a server takes them.

  Args:
    host: name or address of an interface of this machine.
    port: 0: any that is free.

  Raises:
    UserError: the port is taken or not allowed, or there is no such interface.
  """
  if not 0 <= port <= 65535:
    raise UserError(f'serve: --port is a number from 0 to 65535, not {port}')
  try:
    family, kind, protocol, _, address = socket.getaddrinfo(
      host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
  except (OSError, UnicodeError) as error:
    raise UserError(
      f'serve: --host={quoted(host)} is no address of a machine'
    ) from error
  opened = socket.socket(family, kind, protocol)
  try:
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind(address)
    # Another that has not begun to listen would not be seen by `bind`.
    opened.listen(_BACKLOG)
    return opened
  except OSError as error:
    opened.close()
    raise _port_problem(host, port, error) from error


def _port_problem(host: str, port: int, error: OSError) -> UserError:
  if error.errno == errno.EADDRINUSE:
    return UserError(
      f'serve: port {port} of {host} is taken: choose another with --port, or --port=0 '
      'for any that is free'
    )
  if error.errno == errno.EACCES:
    return UserError(f'serve: port {port} is not allowed: choose one from 1024 on')
  return UserError(f'serve: {host} port {port}: {os.strerror(error.errno or 0)}')


class Server:
  """A service on a socket, in a thread.

  Args:
    service: what answers.
    listener: of `bound_socket`.
    log: of the server.

  Attributes:
    url: where it is.
  """

  def __init__(self, service: Service, listener: socket.socket, log: Log):
    self._service, self._listener, self._log = service, listener, log
    host, port = listener.getsockname()[:2]
    shown = f'[{host}]' if ':' in host else host
    self.url = f'http://{shown}:{port}'
    self._error: BaseException | None = None
    self._warm = threading.Event()
    self._uvicorn = _Uvicorn(service, listener, log)
    self._thread = threading.Thread(target=self._run, name='server', daemon=True)

  def start(self) -> None:
    """Starts it; `wait_until_warm` says when it answers."""
    self._thread.start()

  def wait_until_warm(self, seconds: float) -> bool:
    """Returns whether it is ready, after so many seconds at most.

    Raises:
      UserError: the model cannot be served.
    """
    warm = self._warm.wait(seconds)
    if self._error:
      raise self._error
    return warm

  def alive(self) -> bool:
    """Returns whether it runs.

    Raises:
      Exception: what has ended it.
    """
    if self._error:
      raise self._error
    return self._thread.is_alive()

  def stop(self) -> None:
    """Takes no more connections, answers what it took, and ends."""
    self._uvicorn.should_exit = True
    self._thread.join()
    if self._error:
      raise self._error

  def _run(self) -> None:
    try:
      with _quiet(self._log):
        factory = self._uvicorn.config.get_loop_factory()
        with asyncio.Runner(loop_factory=factory) as runner:
          runner.run(self._serve())
    except BaseException as error:
      self._error = error
    finally:
      self._warm.set()
      self._listener.close()

  async def _serve(self) -> None:
    service = self._service
    service.work.start()
    warming = asyncio.create_task(self._warm_up())
    try:
      await self._uvicorn.serve(sockets=[self._listener])
    finally:
      await asyncio.to_thread(service.work.close)
    await warming

  async def _warm_up(self) -> None:
    try:
      found = await asyncio.to_thread(self._service.work.warm_up)
    except BaseException:
      self._uvicorn.should_exit = True
      raise
    if not self._uvicorn.should_exit:
      self._service.state = app_lib.READY
      self._log.record('ready', url=self.url, **found)
      self._warm.set()


class _Uvicorn(uvicorn.Server):
  """uvicorn, with bounded connections and a stop that loses nothing."""

  def __init__(self, service: Service, listener: socket.socket, log: Log):
    self._service, self._listener = service, listener
    limits, metrics = service.limits, service.metrics

    def refused(status: int) -> None:
      metrics.request('', status, 0.0)
      log.record('refused', status=status)

    super().__init__(
      uvicorn.Config(
        service.app,
        http=bounded_protocol(limits, refused),
        ws='none',
        lifespan='off',
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        headers=SAFE_HEADERS,
        backlog=_BACKLOG,
        timeout_keep_alive=IDLE_SECONDS,
        # The body, the answer, and what is sent after a refusal.
        timeout_graceful_shutdown=round(2 * limits.timeout) + 2,
      )
    )

  async def on_tick(self, counter: int) -> bool:
    """Counts connections, ten times a second."""
    self._service.connections = len(self.server_state.connections)
    return await super().on_tick(counter)

  async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
    """Stops, after taking the connections that the system has taken already."""
    self._service.state = app_lib.STOPPING
    loop = asyncio.get_running_loop()
    taken: list[Any] = []
    with contextlib.suppress(OSError):  # that nobody waits any more, too
      while True:
        taken.append(self._listener.accept()[0])
    for server in self.servers:
      server.close()
    for connection in taken:
      connection.setblocking(False)
      with contextlib.suppress(OSError):
        await loop.connect_accepted_socket(self._connection, connection)
    await super().shutdown(sockets)

  def _connection(self) -> asyncio.Protocol:
    return self.config.http_protocol_class(  # type: ignore[call-arg]
      config=self.config, server_state=self.server_state, app_state={}
    )


@contextlib.contextmanager
def _quiet(log: Log):
  """Has the loggers of others write into the log of the server, or nothing."""
  before = {}
  handler = Uvicorn(log)
  for name in _LOGGERS:
    logger = logging.getLogger(name)
    before[logger] = logger.propagate
    logger.propagate = False
    if name == 'uvicorn':
      logger.addHandler(handler)
    else:  # its warnings hold what a client wrote
      logger.addHandler(logging.NullHandler())
  try:
    yield
  finally:
    for logger, propagated in before.items():
      logger.propagate = propagated
      logger.removeHandler(handler)
