"""The command: what it refuses, and that a signal loses no request."""

import io
import json
import re
import shutil
import signal
import socket
import threading
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from command_line import assert_refused
from PIL import Image
from serving import answer, post

import jaxvision

pytest.importorskip('uvicorn', reason='the server comes with the extra "serve"')

TRAINED = Path(__file__).resolve().parents[1] / 'fixtures' / 'trained'
RUN = f'--workdir={TRAINED / "digits_cnn"}'


def png(image):
  file = io.BytesIO()
  Image.fromarray(image[..., 0]).save(file, 'PNG')
  return file.getvalue()


def test_what_cannot_be_served_is_told_in_one_line(call, tmp_path, monkeypatch):
  assert_refused(call('serve'), '--workdir=DIR or --model=FILE')
  assert_refused(call('serve', RUN, '--model=x.onnx'), '--workdir=DIR or --model=FILE')
  assert_refused(call('serve', f'--workdir={tmp_path}', '--port=0'), str(tmp_path))
  assert_refused(call('serve', '--model=https://x/y.onnx'), 'URL')
  assert_refused(call('serve', RUN, '--port=x'), '--port')
  assert_refused(call('serve', RUN, '--port=70000'), '65535')
  assert_refused(call('serve', RUN, '--max-batch=0'), '--max-batch')
  assert_refused(call('serve', RUN, '--cors-origin=example.org'), '--cors-origin')
  with socket.socket() as taken:
    taken.bind(('127.0.0.1', 0))
    taken.listen()
    port = taken.getsockname()[1]
    assert_refused(call('serve', RUN, f'--port={port}'), str(port), 'is taken')
  # None in sys.modules is a package that is not there.
  for module in ('uvicorn', 'starlette', 'python_multipart'):
    with monkeypatch.context() as patch:
      patch.setitem(__import__('sys').modules, module, None)
      assert_refused(call('serve', RUN, '--port=0'), "pip install 'jaxvision[serve]'")


TASK = """
from jaxvision.tasks.classification import Classification


class Mine(Classification):
  def load(self, state, step, origin):
    return object()
"""


def test_a_task_that_neither_predicts_nor_draws_is_told(call, tmp_path):
  copy = shutil.copytree(TRAINED / 'digits_cnn', tmp_path / 'run')
  (tmp_path / 'mine.py').write_text(TASK)
  config = json.loads((copy / 'config.json').read_text())
  config['task'] = f'{tmp_path / "mine.py"}:Mine'
  (copy / 'config.json').write_text(json.dumps(config))
  assert_refused(call('serve', f'--workdir={copy}', '--port=0'), 'neither predicts')


def url_of(process):
  """Returns the address that the command prints once it is ready."""
  for line in process.stdout:
    if found := re.search(r'serving .* at http://127\.0\.0\.1:(\d+)', line):
      return int(found[1])
  raise AssertionError(f'it ended with code {process.wait()}')


def test_a_signal_under_load_loses_no_request(command):
  run = jaxvision.load_run(TRAINED / 'digits_cnn')
  images = jaxvision.data.load('digits').splits['test'].images[:40]
  expected = run.predict(images)
  requests = [post(png(image), path='/predict?top=1') for image in images]
  process = command('serve', RUN, '--port=0', '--max-batch=2')
  try:
    port = url_of(process)
    with urllib.request.urlopen(f'http://127.0.0.1:{port}/healthz') as ready:
      assert ready.status == 200
    answered, lost = [], []
    many = threading.Event()

    def ask(first):
      """Asks by a connection for each request, until nobody listens."""
      i = first
      while True:
        i = (i + 1) % len(images)
        try:
          connection = socket.create_connection(('127.0.0.1', port), timeout=30)
        except ConnectionRefusedError:
          return
        try:
          with connection:
            connection.sendall(requests[i])
            status, _, body = answer(connection)
        except OSError as error:
          status, body = 0, repr(error)
        if status == 200:
          entry = json.loads(body)['images'][0]['predictions'][0]
          answered.append((i, entry['class'], entry['probability']))
        else:
          lost.append((status, body))
        if len(answered) > 100:
          many.set()

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(16)]
    for thread in threads:
      thread.start()
    assert many.wait(60)
    process.send_signal(signal.SIGTERM)
    for thread in threads:
      thread.join(60)
    output, _ = process.communicate(timeout=60)
  finally:
    process.kill()
  assert process.returncode == 0
  assert not lost
  assert len(answered) > 100
  for i, name, probability in answered:
    assert name == expected.names[i]
    assert np.isclose(probability, expected.probabilities[i].max(), rtol=1e-3)
  assert 'SIGTERM: requests under way are answered' in output
  assert 'Traceback' not in output


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGHUP])
def test_other_signals_end_it_too(command, number):
  process = command('serve', f'--workdir={TRAINED / "digits_dcgan"}', '--port=0')
  try:
    port = url_of(process)
    with urllib.request.urlopen(f'http://127.0.0.1:{port}/sample?count=4') as drawn:
      assert drawn.headers['content-type'] == 'image/png'
    process.send_signal(number)
    assert process.wait(30) == 0
  finally:
    process.kill()
    process.communicate()


def test_help_names_every_limit(command):
  process = command('serve', '--help')
  output, _ = process.communicate(timeout=60)
  assert process.returncode == 0
  for option in (
    '--host',
    '--port',
    '--model',
    '--cors-origin',
    '--max-batch',
    '--queue',
  ):
    assert option in output
  for option in ('--max-delay-ms', '--max-images', '--max-body-mb', '--max-megapixels'):
    assert option in output
  for option in ('--max-connections', '--timeout'):
    assert option in output


@pytest.mark.parametrize(
  ('host', 'allowed', 'names'),
  [
    ('127.0.0.1', [], {'localhost', '127.0.0.1', '::1'}),
    ('127.0.0.1', ['a.example'], {'localhost', '127.0.0.1', '::1', 'a.example'}),
    ('0.0.0.0', [], set()),
    (
      '0.0.0.0',
      ['a.example'],
      {'localhost', '127.0.0.1', '::1', '0.0.0.0', 'a.example'},
    ),
    ('127.0.0.1', ['*'], set()),
  ],
)
def test_names_that_clients_may_use(host, allowed, names):
  from types import SimpleNamespace

  from jaxvision.commands.serve import _hosts

  assert set(_hosts(SimpleNamespace(host=host, allowed_host=allowed))) == names
