"""onnxruntime-web for the pages, and a server of files."""

import functools
import http.server
import os
import threading
from pathlib import Path

import pytest
from web_models import classifier, generator

from jaxvision.deployment import web
from jaxvision.deployment.web import runtime as runtime_files
from jaxvision.errors import UserError

# As it was before the session took a cache of its own.
_CACHE = Path(os.environ.get('JAXVISION_CACHE') or '~/.cache/jaxvision').expanduser()


@pytest.fixture(scope='session')
def runtime(cache_dir):
  """A place of onnxruntime-web: $ONNXRUNTIME_WEB, the user's cache, or a download."""
  if named := os.environ.get('ONNXRUNTIME_WEB'):
    return Path(named)
  name = f'onnxruntime-web-{runtime_files.VERSION}'
  if (_CACHE / name / runtime_files.WASM).is_file():
    return _CACHE / name
  try:
    runtime_files.find()
  except UserError as error:
    pytest.skip(f'$ONNXRUNTIME_WEB names no onnxruntime-web, and: {error}')
  return cache_dir / name


@pytest.fixture
def tiny_runtime(tmp_path):
  """A folder with files of the names that a page needs; no page runs with them."""
  folder = tmp_path / 'runtime'
  folder.mkdir()
  (folder / runtime_files.SCRIPT).write_text(
    'var ort = "</script>";\n//# sourceMappingURL=ort.wasm.min.js.map\n'
  )
  (folder / runtime_files.GLUE).write_text('export default 1;\n')
  (folder / runtime_files.WASM).write_bytes(b'\0asm' * 100)
  return folder


@pytest.fixture(scope='module')
def serve():
  """Starts servers of folders on loopback; returns their URLs, which end in '/'."""
  servers = []

  def start(folder, handler=http.server.SimpleHTTPRequestHandler):
    quiet = type('Quiet', (handler,), {'log_message': lambda *_: None})
    server = http.server.ThreadingHTTPServer(
      ('127.0.0.1', 0), functools.partial(quiet, directory=str(folder))
    )
    servers.append(server)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return f'http://127.0.0.1:{server.server_port}/'

  yield start
  for server in servers:
    server.shutdown()
    server.server_close()


@pytest.fixture(scope='module')
def publish(tmp_path_factory, runtime, serve):
  """Writes the page of a network: (its URL or file, the ONNX file)."""

  def write(signature, *, single_file=False, examples=()):
    folder = tmp_path_factory.mktemp('published')
    make = generator if signature.kind == 'generator' else classifier
    model = make(signature)
    (folder / 'model.onnx').write_bytes(model)
    written = web.write_web(
      folder / ('page.html' if single_file else 'site'),
      model,
      signature,
      examples=examples,
      single_file=single_file,
      runtime=runtime,
    )
    return written if single_file else serve(written.parent), folder / 'model.onnx'

  return write
