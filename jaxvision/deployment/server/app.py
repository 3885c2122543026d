"""The routes of a server: what is asked, and what is answered."""

import asyncio
import heapq
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from jaxvision.deployment.server.answers import Refusal, busy, json_line
from jaxvision.deployment.server.batching import Batcher, Outcome
from jaxvision.deployment.server.drawing import Drawer
from jaxvision.deployment.server.guard import Guard
from jaxvision.deployment.server.limits import Limits
from jaxvision.deployment.server.logs import Log
from jaxvision.deployment.server.metrics import Metrics, resident_bytes
from jaxvision.deployment.server.openapi import described
from jaxvision.deployment.server.uploads import Held, Upload, read_uploads
from jaxvision.deployment.web import page
from jaxvision.errors import UserError, printable, quoted
from jaxvision.inference.classifier import Classifier
from jaxvision.inference.signature import GeneratorSignature

STARTING, READY, STOPPING = 'starting', 'ready', 'stopping'
_TOP, _COUNT = 5, 1  # by default: classes, drawn images
_LARGEST_SEED = 2**31 - 1
# What may load stands in the page.
_PAGE_POLICY = "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


class Service:
  """A model, and what a server says of it.

  Args:
    model: a `Classifier`, or what draws as `GeneratorRun` does.
    limits: of the server.
    log: of the server.
    origins: of pages elsewhere that may ask, such as 'https://example.org'; '*': any.
    hosts: names by which a client may ask for the server; empty: any.

  Attributes:
    state: STARTING, then READY, and STOPPING once a signal came.
    app: the ASGI application.
    work: what computes: a `Batcher` or a `Drawer`.

  Raises:
    UserError: the model neither predicts nor draws.
  """

  def __init__(
    self,
    model: Any,
    limits: Limits,
    log: Log,
    origins: tuple[str, ...] = (),
    hosts: tuple[str, ...] = (),
  ):
    self.limits, self.state, self.connections = limits, STARTING, 0
    self._held = Held(limits)
    self.work: Batcher | Drawer
    known = getattr(model, 'signature', None)
    if isinstance(model, Classifier):
      self.work = batcher = Batcher(model, limits)
      route = Route('/predict', self._predict, methods=['POST'])
    elif isinstance(known, GeneratorSignature) and hasattr(model, 'sample'):
      self.work = Drawer(model, limits)
      route = Route('/sample', self._sample, methods=['GET'])
    else:
      raise UserError(
        'serve: the task of this run neither predicts classes or values nor draws: '
        'jaxvision.load_run(workdir) opens it in Python'
      )
    self.regresses = known.kind == 'regression'
    self.names = tuple(map(printable, known.class_names))
    self.model = printable(known.model or known.kind)
    self.draws = isinstance(self.work, Drawer)
    self.metrics = Metrics({'model': self.model}, self.work.sizes, {
      ('jaxvision_queue_length', 'Images or drawings that wait.'): lambda: self.work.waiting,
      ('jaxvision_connections', 'Open connections.'): lambda: self.connections,
      ('jaxvision_held_bytes', 'Bodies in memory.'): lambda: self._held.bytes,
      ('jaxvision_ready', '1 once warm.'): lambda: self.state == READY,
      ('process_resident_memory_bytes', 'Memory of the process.'): resident_bytes,
    })  # fmt: skip
    if not self.draws:
      batcher.metrics = self.metrics
    self._page = Response(
      page(known).encode('utf-8', 'replace'),
      media_type='text/html',
      headers={'content-security-policy': _PAGE_POLICY},
    )
    self._openapi = _json(described(self))
    routes = [
      route,
      Route('/', self._root),
      Route('/healthz', self._healthz),
      Route('/livez', self._livez),
      Route('/metrics', self._metrics),
      Route('/openapi.json', self._described),
    ]
    self.app: Any = Guard(
      Router(routes, redirect_slashes=False, default=_nothing_there),
      tuple(r.path for r in routes),
      limits=limits,
      log=log,
      metrics=self.metrics,
      closing=lambda: self.state == STOPPING,
      hosts=hosts,
    )
    if origins:
      self.app = CORSMiddleware(
        self.app, origins, allow_methods=['GET', 'POST'], allow_headers=['content-type']
      )

  async def _predict(self, request: Request) -> Response:
    self._check_ready()
    assert isinstance(self.work, Batcher)
    top = _whole(request, 'top', _TOP, 1, len(self.names))
    self.work.check_room()
    with self._held.body() as add:
      with self.work.reading():
        try:
          async with asyncio.timeout(self.limits.timeout):
            uploads = await read_uploads(
              request.headers, request.receive, self.limits, add
            )
        except TimeoutError as error:
          raise Refusal(408, 'the body did not come in time') from error
        predicting = self.work.predict([upload.data for upload in uploads])
      outcomes = await predicting
    unread = sum(isinstance(outcome, str) for outcome in outcomes)
    self.metrics.images['unreadable'] += unread
    self.metrics.images['predicted'] += len(outcomes) - unread
    request.scope['jaxvision'] = {'images': len(outcomes), 'unreadable': unread}
    if unread == len(outcomes):
      more = '' if unread == 1 else f'none of {unread} images can be read; the first: '
      raise Refusal(400, f'{more}{outcomes[0]}')
    return _json(
      {'images': [self._entry(*each, top) for each in zip(uploads, outcomes)]}
    )

  def _entry(self, upload: Upload, outcome: Outcome, top: int) -> dict[str, Any]:
    entry: dict[str, Any] = {} if upload.name is None else {'file': upload.name}
    if isinstance(outcome, str):
      return {**entry, 'error': outcome}
    if self.regresses:
      values = zip(self.names, outcome)
      entry['predictions'] = [{'class': name, 'value': value} for name, value in values]
      return entry
    # As `Predictions.top` sorts them: of equal ones the first comes first.
    best = heapq.nlargest(top, range(len(outcome)), outcome.__getitem__)
    entry['predictions'] = [
      {'class': self.names[i], 'probability': outcome[i]} for i in best
    ]
    return entry

  async def _sample(self, request: Request) -> Response:
    self._check_ready()
    assert isinstance(self.work, Drawer)
    count = _whole(request, 'count', min(_COUNT, self.limits.images), 1)
    if count > self.limits.images:
      raise Refusal(400, f'count is at most {self.limits.images}')
    seed = _whole(request, 'seed', 0, 0)
    if seed > _LARGEST_SEED:
      raise Refusal(400, f'seed is at most {_LARGEST_SEED}')
    label = _query(request).get('class') or None
    png = await self.work.draw(count, seed, label)
    self.metrics.images['drawn'] += count
    request.scope['jaxvision'] = {'images': count}
    return Response(png, media_type='image/png')

  def _check_ready(self) -> None:
    if self.state == STARTING:
      raise busy(503, 'the model is not warm yet: try again in a moment')

  async def _root(self, request: Request) -> Response:
    return self._page

  async def _described(self, request: Request) -> Response:
    return self._openapi

  async def _healthz(self, request: Request) -> Response:
    ready = self.state == READY
    answer = _json({'status': self.state}, 200 if ready else 503)
    if not ready:
      answer.headers['retry-after'] = '1'
    return answer

  async def _livez(self, request: Request) -> Response:
    return _json({'status': 'alive'})

  async def _metrics(self, request: Request) -> Response:
    return Response(
      self.metrics.text(), headers={'content-type': 'text/plain; version=0.0.4'}
    )


def _json(value: Mapping[str, Any], status: int = 200) -> Response:
  return Response(json_line(value), status, media_type='application/json')


def _query(request: Request) -> dict[str, str]:
  """Returns what stands behind the question mark, the last of each name."""
  return dict(parse_qsl(request.scope['query_string'].decode('latin-1')))


def _whole(request: Request, name: str, default: int, least: int, most: int = 0) -> int:
  """Returns a whole number of the query; one above `most` is as good as that."""
  text = _query(request).get(name) or str(default)
  if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= least):
    raise Refusal(400, f'{name} is a whole number from {least} on, not {quoted(text)}')
  return min(int(text), most) if most else int(text)


async def _nothing_there(scope: Any, receive: Any, send: Any) -> None:
  raise Refusal(404, 'there is nothing here: GET /openapi.json tells what there is')
