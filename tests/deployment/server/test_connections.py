"""Clients that are slow, cut off, too many or no clients of HTTP, with either parser."""

import socket
import threading
import time

import pytest
from serving import Fake, answer, grey, post
from uvicorn.protocols.http.h11_impl import H11Protocol

from jaxvision.deployment.server import connections


@pytest.fixture(params=['httptools', pytest.param('h11', marks=pytest.mark.slow)])
def either(request, monkeypatch):
  """Has uvicorn parse with one or the other."""
  if request.param == 'httptools':
    pytest.importorskip('httptools')
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as Protocol
  else:
    Protocol = H11Protocol
  monkeypatch.setattr(connections, 'AutoHTTPProtocol', Protocol)


def refused(found, *statuses):
  """Asserts that it is one line of JSON with a status, and nothing is missing of it."""
  status, head, body = found
  assert status in statuses, (status, head, body)
  assert 'content-type: application/json' in head
  assert 'nosniff' in head
  assert body.startswith(b'{"error": "')
  assert body.endswith(b'"}\n')
  assert body.count(b'\n') == 1


def alive(running):
  """Asserts that it still answers as it should, and holds nothing of earlier requests."""
  status, _, body = running.talk(post(grey(9)))
  assert status == 200, body
  assert running.service.work.waiting == 0
  assert running.service._held.bytes == 0


def test_what_is_no_http_is_refused(serve, either):
  running = serve(Fake())
  for data in (
    b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03' + bytes(100),  # TLS
    b'nonsense\r\n\r\n',
    b'GET / HTTX/1.1\r\n\r\n',
    b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n',
    b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n',
    b'POST /predict HTTP/1.1\r\nHost: x\r\nBad Header: x\r\n\r\n',
  ):
    refused(running.talk(data), 400)
  alive(running)


def test_lengths_that_contradict_each_other_are_refused(serve, either):
  running = serve(Fake())
  both = post(b'', 'Content-Length: 3', 'Transfer-Encoding: chunked', length=False)
  refused(running.talk(both + b'0\r\n\r\n'), 400)
  refused(running.talk(post(b'abc', 'Content-Length: 5')), 400)
  alive(running)


def test_a_chunk_that_is_none_is_refused(serve, either):
  running = serve(Fake())
  head = post(b'', 'Transfer-Encoding: chunked', length=False)
  refused(running.talk(head, b'zz\r\nabc\r\n'), 400)
  alive(running)


def test_a_long_head_is_refused(serve, either):
  running = serve(Fake())
  line = b'X-Long: ' + b'a' * 200_000
  refused(running.talk(b'GET / HTTP/1.1\r\nHost: x\r\n' + line), 400, 431)
  lines = b'X: y\r\n' * 40_000
  refused(running.talk(b'GET / HTTP/1.1\r\nHost: x\r\n' + lines), 400, 431)
  alive(running)


def test_slow_heads_and_slow_bodies_are_refused_in_time(serve, either):
  running = serve(Fake(), timeout=0.4)

  def drip(data, connection):
    for i in range(len(data)):
      try:
        connection.sendall(data[i : i + 1])
      except OSError:
        return
      time.sleep(0.02)

  image = post(grey(9))
  begun = time.monotonic()
  for first, rest in (
    (b'', b'GET / HTTP/1.1\r\nHost: localhost and a long one at that\r\n\r\n'),
    (b'', b''),  # says nothing at all
    (image[:-60], image[-60:]),
    (post(b'', 'Content-Length: 99', length=False), b''),
  ):
    with running.connect() as connection:
      connection.sendall(first)
      thread = threading.Thread(target=drip, args=(rest, connection))
      thread.start()
      refused(answer(connection), 408)
      thread.join()
  assert time.monotonic() - begun < 20
  # The head of a second request on a connection is held to it too.
  with running.connect() as connection:
    connection.sendall(image)
    assert answer(connection)[0] == 200
    connection.sendall(image[:20])
    refused(answer(connection), 408)
  alive(running)


def test_chunks_without_end_are_refused(serve, either):
  running = serve(Fake(), body_mb=0.1, timeout=5)
  with running.connect() as connection:
    connection.sendall(post(b'', 'Transfer-Encoding: chunked', length=False))
    found = []
    reader = threading.Thread(target=lambda: found.append(answer(connection)))
    reader.start()
    chunk = b'2000\r\n' + bytes(0x2000) + b'\r\n'
    sent = 0
    while reader.is_alive():
      try:
        connection.sendall(chunk)
      except OSError:
        break
      sent += 1
    reader.join()
  refused(*found, 413)
  # Also where a body is of no interest: the connection ends.
  with running.connect() as connection:
    head = b'GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n'
    connection.sendall(head)
    assert answer(connection)[0] == 200
    assert sends_until_reset(connection, chunk)
  alive(running)


def test_a_request_that_is_cut_off_is_refused(serve, either):
  running = serve(Fake())
  image = post(grey(9))
  refused(running.talk(image[:30], shut=True), 400)
  refused(running.talk(image[:-10], shut=True), 400)
  # One that is whole is answered, though its sender says no more.
  status, _, _ = running.talk(image, shut=True)
  assert status == 200
  for end in (30, len(image) - 10):  # and hangs up
    with running.connect() as connection:
      connection.sendall(image[:end])
  alive(running)


def test_two_requests_at_once_on_a_connection_are_answered_in_order(serve, either):
  running = serve(Fake())
  with running.connect() as connection:
    connection.sendall(post(grey(51)) + post(grey(102)))
    data = b''
    while data.count(b'predictions') < 2:
      data += connection.recv(65536)
  assert data.index(b'0.2') < data.index(b'0.4')
  alive(running)


def test_too_many_connections_are_told_to_come_again(serve, either):
  running = serve(Fake(), connections=3)
  held = [running.connect() for _ in range(3)]
  while running.service.connections < 3:
    time.sleep(0.01)
  status, head, body = running.talk(post(grey(9)))
  assert status == 503
  assert b'too many connections' in body
  assert 'retry-after: 1' in head
  flood = [running.connect() for _ in range(20)]
  for connection in held + flood:
    connection.close()
  while running.service.connections:
    time.sleep(0.01)
  alive(running)


def sends_until_reset(connection, data):
  """Returns whether the server ends a connection while it is sent to."""
  for _ in range(100_000):
    try:
      connection.sendall(data)
    except OSError:
      return True
  return False


def test_requests_far_ahead_of_their_answers_end_the_connection(serve, either):
  running = serve(Fake(), timeout=0.5)
  with running.connect() as connection:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    request = b'GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n'
    assert sends_until_reset(connection, request * 1000)
  alive(running)


def test_a_client_that_does_not_read_its_answer_is_let_go(serve, either):
  running = serve(Fake(('a' * 20_000_000, 'b', 'c')), timeout=0.3)
  last = ('', 'Connection: close\r\n')
  held = [running.connect() for _ in last]
  for connection, header in zip(held, last):
    request = f'GET /openapi.json HTTP/1.1\r\nHost: x\r\n{header}\r\n'
    connection.sendall(request.encode())
  while running.service.connections < 2:
    time.sleep(0.01)
  while running.service.connections:
    time.sleep(0.01)
  for connection in held:
    connection.close()
  assert running.talk(b'GET /livez HTTP/1.1\r\nHost: x\r\n\r\n')[0] == 200
