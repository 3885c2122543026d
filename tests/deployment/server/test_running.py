"""Where a server listens, and how it ends."""

import json
import socket
import threading
import time

import pytest
from refusals import refused
from serving import Fake, answer, grey, post

from jaxvision.deployment.server.running import bound_socket


def test_addresses_that_cannot_be_had_are_told(monkeypatch):
  with bound_socket('127.0.0.1', 0) as taken:
    port = taken.getsockname()[1]
    message = refused(bound_socket, '127.0.0.1', port)
    assert f'port {port} of 127.0.0.1 is taken' in message
    assert '--port' in message
  assert 'from 0 to 65535' in refused(bound_socket, '127.0.0.1', 65536)
  assert 'no address' in refused(bound_socket, 'no such host\n', 0)
  assert 'no address' in refused(bound_socket, 'a' * 100, 0)
  assert '192.0.2.1' in refused(bound_socket, '192.0.2.1', 0)  # of no interface


@pytest.mark.skipif(not socket.has_ipv6, reason='no IPv6 here')
def test_ipv6_is_an_address_too():
  try:
    with bound_socket('::1', 0) as opened:
      assert opened.family == socket.AF_INET6
  except Exception as error:
    pytest.skip(f'no IPv6 here: {error}')


def test_what_was_sent_before_the_end_is_answered(serve):
  model, entered, go_on = Fake(), threading.Event(), threading.Event()
  running = serve(model, batch=1)
  model.before = lambda images: (entered.set(), go_on.wait(30))
  # One that is computed, some that wait, one half sent, one connected and not yet asked.
  working = [running.connect() for _ in range(5)]
  for i, connection in enumerate(working):
    connection.sendall(post(grey(i)))
  assert entered.wait(30)
  half = running.connect()
  image = post(grey(9))
  half.sendall(image[:-30])
  while running.service.connections < 6:
    time.sleep(0.01)
  # Connections that the system has taken, and requests that lie there unread.
  stopping = threading.Thread(target=running.server.stop)
  stopping.start()
  late = running.connect()
  late.sendall(image)
  while running.service.state != 'stopping':
    time.sleep(0.01)
  half.sendall(image[-30:])
  go_on.set()
  for connection in (*working, half, late):
    status, _, body = answer(connection)
    assert status == 200
    assert b'predictions' in body
    assert connection.recv(1) == b''  # closed after it
  stopping.join()
  assert not running.server._thread.is_alive()
  with pytest.raises(OSError):
    running.connect()


def test_while_it_ends_it_is_not_ready_and_says_that_connections_end(serve):
  model, entered, go_on = Fake(), threading.Event(), threading.Event()
  running = serve(model)
  model.before = lambda images: (entered.set(), go_on.wait(30))
  with running.connect() as idle, running.connect() as busy:
    busy.sendall(post(grey(1)))
    assert entered.wait(30)
    idle.sendall(b'GET /livez HTTP/1.1\r\nHost: x\r\n\r\n')
    assert answer(idle)[0] == 200
    stopping = threading.Thread(target=running.server.stop)
    stopping.start()
    while running.service.state != 'stopping':
      time.sleep(0.001)
    idle.sendall(b'GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n')
    status, head, body = answer(idle)
    assert (status, json.loads(body)) == (503, {'status': 'stopping'})
    assert 'connection: close' in head
    go_on.set()
    assert answer(busy)[0] == 200
    stopping.join()


def test_the_log_is_json_without_content(serve):
  running = serve(Fake())
  running.talk(post(grey(9), 'X-Secret: 1', path='/predict?top=2&secret=1'))
  running.talk(b'GET /secret HTTP/1.1\r\nHost: x\r\n\r\n')
  running.talk(b'secret\r\n\r\n')
  running.server.stop()
  text = running.log.getvalue()
  lines = [json.loads(line) for line in text.splitlines()]
  assert [line['event'] for line in lines if line['event'] != 'uvicorn'] == [
    *('ready', 'request', 'request', 'refused')
  ]
  assert list(lines[0]['batch_ms']) == ['1', '2', '4', '8', '16', '32']
  requests = [line for line in lines if line['event'] == 'request']
  assert requests[0]['images'] == 1
  assert (requests[0]['route'], requests[0]['status']) == ('/predict', 200)
  assert (requests[1]['route'], requests[1]['status']) == ('other', 404)
  assert 'secret' not in text
  assert all(line['time'].endswith('+00:00') for line in lines)
