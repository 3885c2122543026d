"""Bodies: forms, limits, and what is no image."""

import io
import struct
import threading
import zlib

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from serving import Fake, grey, post

FORM = 'Content-Type: multipart/form-data; boundary=x'
PART = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n'


def form(*files, end=b'--x--\r\n'):
  return b''.join(PART + file + b'\r\n' for file in files) + end


def refused(found, status, *words):
  assert found[0] == status, found
  body = found[2].decode()
  assert body.startswith('{"error": "')
  assert body.count('\n') == 1
  for word in words:
    assert word in body


def test_what_holds_no_image_is_refused(serve):
  running = serve(Fake())
  for request, status, word in (
    (post(b''), 400, 'empty'),
    (post(b'GIF89a'), 400, 'cannot be read'),
    (post(b'\x00' * 1000), 400, 'not an image of a known format'),
    (post(grey(9)[:45]), 400, 'cannot be read'),
    (post(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n'), 400, 'known format'),
    (post(b'<svg xmlns="http://www.w3.org/2000/svg"/>'), 400, 'known format'),
    (post(b'{}', 'Content-Type: application/json'), 415, 'application/json'),
    (post(grey(9), 'Content-Type: text/html\x01'), (400, 415), ''),
    (post(grey(9), 'Content-Encoding: gzip'), 415, 'gzip'),
    (
      post(b'f=1', 'Content-Type: application/x-www-form-urlencoded'),
      415,
      '/form-data',
    ),
    (post(form(), FORM), 400, ''),
    (post(form(b''), FORM), 400, 'cannot be read'),
    (post(form(grey(9), end=b''), FORM), 400, 'last boundary'),
    (post(b'no form', FORM), 400, 'not multipart'),
    (post(form(grey(9)), FORM.partition(';')[0]), 400, 'boundary'),
    (post(form(grey(9)), FORM + 'x' * 5000), 400, 'boundary'),
    (
      post(b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\n1\r\n--x--', FORM),
      400,
      'no file',
    ),
  ):
    found = running.talk(request)
    expected = status if isinstance(status, tuple) else (status,)
    assert found[0] in expected, (request[:200], found)
    if found[0] == expected[-1]:
      refused(found, expected[-1], word)
  assert running.talk(post(grey(9)))[0] == 200
  assert running.service._held.bytes == 0


def test_too_much_is_refused(serve):
  running = serve(Fake(), body_mb=0.1, images=3, queue=3)
  refused(running.talk(post(bytes(200_000))), 413, '0.1 MB')
  # The length alone is enough, whatever comes after.
  head = post(b'', 'Content-Length: 99999999999', length=False)
  refused(running.talk(head), 413, '0.1 MB')
  refused(running.talk(post(form(*[grey(9)] * 4), FORM)), 413, 'at most 3 images')
  assert running.talk(post(form(*[grey(9)] * 3), FORM))[0] == 200
  field = b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\n1\r\n'
  refused(running.talk(post(field * 100 + b'--x--\r\n', FORM)), 413, 'fields')
  long = b'--x\r\n' + b'X: ' + b'y' * 3000 + b'\r\n'
  many = b'--x\r\n' + b'X: y\r\n' * 5000
  for data in (long + b'X: ' + b'y' * 20_000, many):
    found = running.talk(post(data + b'\r\n\r\n--x--\r\n', FORM))
    assert found[0] in (400, 413)
  assert running.service._held.bytes == 0


def bomb(side):
  """Returns a valid PNG of side x side pixels of 1 bit: some kilobytes."""

  def chunk(kind, data):
    body = kind + data
    return struct.pack('>I', len(data)) + body + struct.pack('>I', zlib.crc32(body))

  packer = zlib.compressobj(9)
  row = bytes(1 + -(-side // 8))
  data = b''.join(packer.compress(row) for _ in range(side)) + packer.flush()
  header = struct.pack('>IIBBBBB', side, side, 1, 0, 0, 0, 0)
  return (
    b'\x89PNG\r\n\x1a\n'
    + chunk(b'IHDR', header)
    + chunk(b'IDAT', data)
    + chunk(b'IEND', b'')
  )


def test_a_decompression_bomb_is_refused_by_its_header(serve):
  running = serve(Fake(), megapixels=1)
  refused(running.talk(post(bomb(5000))), 400, '5000x5000 pixels', 'limit of 1 mega')
  assert running.talk(post(bomb(900)))[0] == 200
  # Those that hide in the frames of other formats.
  for kind in ('GIF', 'TIFF', 'WEBP', 'BMP'):
    file = io.BytesIO()
    Image.new('L', (1100, 1100)).save(file, kind)
    refused(running.talk(post(file.getvalue())), 400, '1100x1100')


def test_a_full_queue_asks_to_come_again(serve):
  model = Fake()
  running = serve(model, queue=4, images=4, batch=1)
  entered, go_on = threading.Event(), threading.Event()
  model.before = lambda images: (entered.set(), go_on.wait(30))
  found = []
  threads = [
    threading.Thread(target=lambda: found.append(running.talk(post(grey(9)))))
    for _ in range(4)
  ]
  for thread in threads:
    thread.start()
  assert entered.wait(30)
  while running.service.work.waiting < 4:
    pass
  status, head, body = running.talk(post(grey(9)))
  assert (status, b'4 images wait' in body) == (429, True)
  assert 'retry-after: 1' in head
  go_on.set()
  for thread in threads:
    thread.join()
  assert [status for status, _, _ in found] == [200] * 4


def test_bodies_share_a_budget(serve):
  running = serve(Fake(), body_mb=0.01, timeout=5)
  body = bytes(9_000)
  held = [running.connect() for _ in range(8)]
  for connection in held:
    connection.sendall(post(body, 'Content-Length: 9999', length=False))
  while running.service._held.bytes < 8 * 9_000:
    pass
  status, head, _ = running.talk(post(body))
  assert status == 429
  assert 'retry-after' in head
  for connection in held:
    connection.close()
  while running.service._held.bytes:
    pass


def test_names_of_files_are_shown_and_never_used(serve, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  running = serve(Fake())
  names = [
    '../../etc/passwd', '/etc/passwd', 'C:\\x\\a.png', 'a' * 3000, 'ünï.png', '\u202eexe.png'
  ]  # fmt: skip
  files = [('f', (name, grey(9))) for name in names]
  answer = httpx.post(f'{running.url}/predict', files=files).json()['images']
  assert all('predictions' in entry for entry in answer)
  assert answer[0]['file'] == '../../etc/passwd'
  assert len(answer[3]['file']) <= 200
  assert answer[4]['file'] == 'ünï.png'
  assert '\u202e' not in answer[5]['file']
  raw = PART.replace(b'"a"', b'"\xff\xfe\x1b[31m"') + grey(9) + b'\r\n--x--\r\n'
  status, _, body = running.talk(post(raw, FORM))
  assert status == 200
  assert body.isascii()
  assert b'\\u001b' not in body
  assert not list(tmp_path.iterdir())
  running.server.stop()
  log = running.log.getvalue()
  assert 'passwd' not in log
  assert '127.0.0.1' not in log.replace(running.url, '')


@pytest.fixture(scope='module')
def image():
  file = io.BytesIO()
  pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
  Image.fromarray(pixels).save(file, 'JPEG')
  return file.getvalue()


@settings(
  max_examples=60,
  deadline=None,
  suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_damaged_forms_are_answered_by_one_line(serve_once, image, data):
  body = bytearray(form(image, grey(9)))
  for _ in range(data.draw(st.integers(1, 6))):
    at = data.draw(st.integers(0, len(body) - 1))
    cut = data.draw(st.integers(0, 40))
    body[at : at + cut] = data.draw(st.binary(max_size=40))
    if not body:
      break
  status, _, answer = serve_once.talk(post(bytes(body), FORM))
  assert status in (200, 400, 413)
  assert answer.count(b'\n') == 1
  assert answer.startswith((b'{"images": [', b'{"error": "'))
  assert serve_once.service._held.bytes == 0


@pytest.fixture
def serve_once(serve):
  return serve(Fake())
