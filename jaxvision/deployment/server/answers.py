"""What a server says: one line of JSON, and the headers that keep browsers safe."""

import http
import json
from typing import Any

# JSON is no page, whatever a browser makes of it.
NOTHING_LOADS = "default-src 'none'; frame-ancestors 'none'"

SAFE_HEADERS = [
  ('x-content-type-options', 'nosniff'),
  ('referrer-policy', 'no-referrer'),
  ('cache-control', 'no-store'),
]


class Refusal(Exception):
  """A request that is not answered as it was meant.

  Args:
    status: of HTTP, from 400 on.
    message: one line for whoever sent it.
    headers: beside those of every answer.
  """

  def __init__(self, status: int, message: str, **headers: str):
    super().__init__(message)
    self.status, self.message = status, message
    self.headers = {name.replace('_', '-'): value for name, value in headers.items()}


def busy(status: int, message: str, seconds: int = 1) -> Refusal:
  """Returns a refusal that asks to come again: 429 or 503 with Retry-After."""
  return Refusal(status, message, retry_after=str(seconds))


def json_line(value: Any) -> bytes:
  r"""Returns strict JSON in ASCII, in one line, with no character that HTML knows.

  Raises:
    ValueError: a number is NaN or infinite.

  >>> json_line({'class': '</script>'})
  b'{"class": "\\u003c/script\\u003e"}\n'
  """
  text = json.dumps(value, allow_nan=False)
  for character in '<>&':
    if character in text:
      text = text.replace(character, f'\\u{ord(character):04x}')
  return f'{text}\n'.encode('ascii')


def raw(refusal: Refusal) -> bytes:
  """Returns the bytes of an answer where no application has been asked yet."""
  body = json_line({'error': refusal.message})
  headers = [
    ('content-type', 'application/json'),
    ('content-length', str(len(body))),
    ('connection', 'close'),
    ('content-security-policy', NOTHING_LOADS),
    *SAFE_HEADERS,
    *refusal.headers.items(),
  ]
  lines = [f'HTTP/1.1 {refusal.status} {http.HTTPStatus(refusal.status).phrase}']
  lines += [f'{name}: {value}' for name, value in headers]
  return '\r\n'.join([*lines, '', '']).encode('ascii') + body
