"""From the body of a request to images that are still files, within the limits.

Nothing is decoded here, and nothing is ever written to a disk. Bodies are held in memory,
all of them together within a budget.
"""

import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers

from jaxvision.deployment.server.answers import Refusal, busy
from jaxvision.deployment.server.limits import HELD_BODIES, PART_HEAD_BYTES, Limits
from jaxvision.errors import short

_FORM = 'multipart/form-data'
_HOW = (
  'send one image as the body with Content-Type: image/png or the like, or files as '
  'multipart/form-data'
)
_FIELDS = 16  # of a form that are no files, and are passed over
_NAME_LETTERS = 200

Receive = Callable[[], Awaitable[Any]]


class Disconnected(Exception):
  """The client has gone before its request was whole."""


class Upload(NamedTuple):
  """One file.

  Attributes:
    name: as its sender calls it, made printable; None where it was not told.
    data: its bytes.
  """

  name: str | None
  data: bytes


class Held:
  """The bytes of all bodies that are in memory.

  Args:
    limits: of the server.
  """

  def __init__(self, limits: Limits):
    self._most = HELD_BODIES * limits.body_bytes
    self.bytes = 0

  @contextlib.contextmanager
  def body(self) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the size of each part of a body, which is freed."""
    mine = 0

    def add(size: int) -> None:
      nonlocal mine
      if self.bytes + size > self._most:
        raise busy(429, 'too many uploads at once: try again in a moment')
      self.bytes += size
      mine += size

    try:
      yield add
    finally:
      self.bytes -= mine


async def read_uploads(
  headers: Headers, receive: Receive, limits: Limits, add: Callable[[int], None]
) -> list[Upload]:
  """Reads the images of a request.

  Args:
    headers: of the request.
    receive: of ASGI.
    limits: of the server.
    add: is called with the size of whatever is held, see `Held.body`.

  Returns:
    At least one file.

  Raises:
    Refusal: it holds no images in a form that is taken, or too many or too large ones.
    Disconnected: the client has gone.
  """
  kind, options = parse_options_header(headers.get('content-type'))
  name = kind.decode('latin-1')
  form = name == _FORM
  if not (
    form or name.startswith('image/') or name in ('', 'application/octet-stream')
  ):
    raise Refusal(415, f'Content-Type {short(name)} holds no images: {_HOW}')
  encoding = headers.get('content-encoding', 'identity')
  if encoding.strip().lower() != 'identity':
    raise Refusal(415, f'Content-Encoding {short(encoding)}: send images as they are')
  length = headers.get('content-length', '')
  if re.fullmatch('[0-9]{1,20}', length) and int(length) > limits.body_bytes:
    raise _too_large(limits)
  chunks = _chunks(receive, limits, add)
  if form:
    return await _read_form(options.get(b'boundary', b''), chunks, limits)
  parts = [chunk async for chunk in chunks]
  data = parts[0] if len(parts) == 1 else b''.join(parts)
  if not data:
    raise Refusal(400, f'the body is empty: {_HOW}')
  return [Upload(None, data)]


def _too_large(limits: Limits) -> Refusal:
  return Refusal(413, f'the body is larger than {limits.body_mb:g} MB')


async def _chunks(
  receive: Receive, limits: Limits, add: Callable[[int], None]
) -> AsyncIterator[bytes]:
  size, more = 0, True
  while more:
    message = await receive()
    if message['type'] == 'http.disconnect':
      raise Disconnected
    chunk, more = message.get('body', b''), message.get('more_body', False)
    size += len(chunk)
    if size > limits.body_bytes:
      raise _too_large(limits)
    if chunk:
      add(len(chunk))
      yield chunk


async def _read_form(
  boundary: bytes, chunks: AsyncIterator[bytes], limits: Limits
) -> list[Upload]:
  form = _Form(limits)
  try:
    parser = MultipartParser(boundary, form.callbacks())
  except FormParserError as error:
    raise Refusal(400, 'the form has a boundary that is too long') from error
  if not boundary:
    raise Refusal(400, 'the form has no boundary in its Content-Type')
  async for chunk in chunks:
    try:
      parser.write(chunk)
    except FormParserError as error:
      raise Refusal(400, 'the body is not multipart/form-data') from error
  if not form.ended:
    raise Refusal(400, 'the form ends before its last boundary')
  if not form.uploads:
    raise Refusal(400, f'the form holds no file: {_HOW}')
  return form.uploads


class _Form:
  """The files of a form, collected while it is parsed."""

  def __init__(self, limits: Limits):
    self.uploads: list[Upload] = []
    self.ended = False
    self._most, self._fields = limits.images, 0
    self._head: dict[bytes, bytes] = {}
    self._head_bytes = 0
    self._field, self._value, self._data = bytearray(), bytearray(), bytearray()
    self._name: str | None = None
    self._is_file = False

  def callbacks(self) -> Any:
    """Returns what the parser calls, by its names."""
    return {
      'on_part_begin': self._begin,
      'on_header_field': self._header_field,
      'on_header_value': self._header_value,
      'on_header_end': self._header_end,
      'on_headers_finished': self._headers_finished,
      'on_part_data': self._part_data,
      'on_part_end': self._part_end,
      'on_end': self._end,
    }

  def _begin(self) -> None:
    self._head, self._head_bytes = {}, 0
    self._field, self._value, self._data = bytearray(), bytearray(), bytearray()
    self._is_file = False

  def _header(self, kept: bytearray, data: bytes, start: int, end: int) -> None:
    self._head_bytes += end - start
    if self._head_bytes > PART_HEAD_BYTES:
      raise Refusal(413, 'a file of the form has headers that are too long')
    kept += data[start:end]

  def _header_field(self, data: bytes, start: int, end: int) -> None:
    self._header(self._field, data, start, end)

  def _header_value(self, data: bytes, start: int, end: int) -> None:
    self._header(self._value, data, start, end)

  def _header_end(self) -> None:
    self._head[bytes(self._field).lower()] = bytes(self._value)
    self._field, self._value = bytearray(), bytearray()

  def _headers_finished(self) -> None:
    _, options = parse_options_header(self._head.get(b'content-disposition'))
    name = options.get(b'filename')
    self._is_file = name is not None
    if name is None:
      self._fields += 1
      if self._fields > _FIELDS:
        raise Refusal(413, f'the form has more than {_FIELDS} fields that are no files')
      return
    if len(self.uploads) == self._most:
      raise Refusal(413, f'a request holds at most {self._most} images')
    text = name.decode('utf-8', 'surrogateescape')
    self._name = short(text, _NAME_LETTERS) if text else None

  def _part_data(self, data: bytes, start: int, end: int) -> None:
    if self._is_file:
      self._data += data[start:end]

  def _part_end(self) -> None:
    if self._is_file:
      self.uploads.append(Upload(self._name, bytes(self._data)))
    self._data = bytearray()

  def _end(self) -> None:
    self.ended = True
