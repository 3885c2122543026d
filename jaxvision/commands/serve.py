"""`jaxvision serve`: a trained model behind HTTP."""

import argparse
import re
import sys

from ml_collections import ConfigDict

from jaxvision import signals
from jaxvision.commands.workdir import workdir_of
from jaxvision.errors import UserError, quoted
from jaxvision.extras import require
from jaxvision.inference.loading import load_model
from jaxvision.io import local_path

_LOOPBACK = ('localhost', '127.0.0.1', '::1')
_ORIGIN = re.compile(r'\*|https?://[A-Za-z0-9.\-\[\]:]+|null')


def command(options: argparse.Namespace, config: ConfigDict | None) -> int:
  """Serves until a signal comes, then answers what was taken; 0."""
  for module in ('starlette', 'uvicorn', 'python_multipart'):
    require(module, 'serve', 'serve')
  from jaxvision.deployment.server.app import Service
  from jaxvision.deployment.server.limits import Limits
  from jaxvision.deployment.server.logs import Log
  from jaxvision.deployment.server.running import Server, bound_socket

  limits = Limits(
    batch=options.max_batch,
    delay_ms=options.max_delay_ms,
    queue=options.queue,
    images=options.max_images,
    body_mb=options.max_body_mb,
    megapixels=options.max_megapixels,
    connections=options.max_connections,
    timeout=options.timeout,
  )
  for origin in options.cors_origin:
    if not _ORIGIN.fullmatch(origin):
      raise UserError(
        f'serve: --cors-origin={quoted(origin)} is no origin, such as https://example.org'
      )
  path = _model_of(options, config)
  listener = bound_socket(options.host, options.port)
  with listener:
    model = load_model(path, options.checkpoint)
    log = Log(sys.stderr)
    try:
      server = Server(
        Service(model, limits, log, tuple(options.cors_origin), _hosts(options)),
        listener,
        log,
      )
      with signals.stop_on_signal('requests under way are answered') as stop:
        server.start()
        print(f'warming up {path}', flush=True)
        while not stop.is_set() and not server.wait_until_warm(0.2):
          pass
        if not stop.is_set():
          print(f'serving {path} at {server.url} (Ctrl-C stops)', flush=True)
        while not stop.wait(0.5) and server.alive():
          pass
        server.stop()
    finally:
      log.close()
  return 0


def _hosts(options: argparse.Namespace) -> tuple[str, ...]:
  """Returns the names by which the server may be asked for; () for any.

  A server that the whole network reaches has names that nobody here knows.
  """
  allowed = tuple(options.allowed_host)
  if '*' in allowed or (options.host not in _LOOPBACK and not allowed):
    return ()
  return (*_LOOPBACK, options.host, *allowed)


def _model_of(options: argparse.Namespace, config: ConfigDict | None) -> str:
  """Returns the run or the exported file."""
  given = options.workdir or config is not None
  if bool(given) == bool(options.model):
    raise UserError('serve: say what to serve with --workdir=DIR or --model=FILE')
  if options.model:
    return str(local_path(options.model, 'serve: --model'))
  return workdir_of(options, config)
