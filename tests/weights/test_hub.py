"""A Hugging Face repository, served by a few lines here, then from the cache alone."""

import hashlib
import http.server
import json
import socket
import sys
import threading

import numpy as np
import pytest
import safetensors.numpy
from huggingface_hub import constants, errors

from jaxvision import weights
from jaxvision.errors import UserError
from jaxvision.weights import hub as hub_lib

COMMIT = '0123456789abcdef0123456789abcdef01234567'
TENSORS = {'conv1.weight': np.ones([2, 3, 3, 3], np.float32)}
CONFIG = {
  'architecture': 'resnet18',
  'num_classes': 2,
  'label_names': ['cat', 'dog'],
  'pretrained_cfg': {
    'input_size': [3, 160, 160],
    'crop_pct': 0.95,
    'interpolation': 'bicubic',
    'mean': [0.5, 0.5, 0.5],
    'std': [0.5, 0.5, 0.5],
  },
}


class Hub(http.server.BaseHTTPRequestHandler):
  """/ORG/NAME/resolve/REVISION/FILE, as the hub answers it."""

  files: dict  # (repository, file) -> bytes

  def do_HEAD(self):
    self.do_GET()

  def do_GET(self):
    repository, _, rest = self.path[1:].partition('/resolve/')
    revision, _, name = rest.partition('/')
    content = self.files.get((repository, name))
    status, error = 200, None
    if repository == 'some/gated':
      status, error = 403, 'GatedRepo'
    elif not any(repository == known for known, _ in self.files):
      status, error = 401, 'RepoNotFound'
    elif revision not in ('main', 'v1', COMMIT):
      status, error = 404, 'RevisionNotFound'
    elif content is None:
      status, error = 404, 'EntryNotFound'
    content = content if error is None else b''
    self.send_response(status)
    if error:
      self.send_header('X-Error-Code', error)
    if error in (None, 'EntryNotFound'):
      self.send_header('X-Repo-Commit', COMMIT)
      self.send_header('ETag', f'"{hashlib.sha256(content).hexdigest()}"')
    self.send_header('Content-Length', str(len(content)))
    self.end_headers()
    if self.command == 'GET':
      self.wfile.write(content)

  def log_message(self, *_):
    pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
  """The repositories' files; a server and a cache of their own."""
  handler = type('Handler', (Hub,), {'files': {}})
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  # The package reads HF_ENDPOINT and its kin once, when it is imported.
  endpoint = f'http://127.0.0.1:{server.server_port}'
  monkeypatch.setattr(constants, 'ENDPOINT', endpoint)
  template = endpoint + '/{repo_id}/resolve/{revision}/{filename}'
  monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE', template)
  monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
  for name in ('HTTP_PROXY', 'http_proxy', 'ALL_PROXY', 'all_proxy'):
    monkeypatch.delenv(name, raising=False)
  yield handler.files
  server.shutdown()
  server.server_close()


def refused(source):
  with pytest.raises(UserError) as caught:
    weights.read(source)
  assert '\n' not in str(caught.value)
  assert source in str(caught.value)
  return str(caught.value)


def test_a_repository_then_its_cache(hub, monkeypatch, capfd):
  data = safetensors.numpy.save(TENSORS)
  hub['some/net', 'model.safetensors'] = data
  hub['some/net', 'config.json'] = json.dumps(CONFIG).encode()
  online = weights.read('some/net')
  assert online.origin == 'some/net'
  assert online.revision == COMMIT
  assert online.sha256 == hashlib.sha256(data).hexdigest()
  assert online.preprocessing == weights.Preprocessing(
    (0.5,) * 3, (0.5,) * 3, 160, 0.95, 'bicubic', ('cat', 'dog')
  )
  np.testing.assert_array_equal(online.tensors['conv1.weight'], TENSORS['conv1.weight'])
  assert weights.read('some/net@v1').revision == COMMIT
  assert 'no such revision' in refused('some/net@v2')

  monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
  hub.clear()
  for source in ('some/net', 'some/net@v1', f'some/net@{COMMIT}'):
    offline = weights.read(source)
    assert (offline.revision, offline.preprocessing) == (COMMIT, online.preprocessing)
    assert offline.sha256 == online.sha256
  assert 'is not in the cache' in refused('some/other')
  out, err = capfd.readouterr()
  # Our own lines are there where a test before has run the command line.
  assert out == ''
  assert all(line.startswith('looking up some/') for line in err.splitlines())


def test_a_repository_of_pickles_without_a_config(hub, monkeypatch, tmp_path):
  torch = pytest.importorskip('torch')
  path = tmp_path / 'file.bin'
  torch.save({name: torch.from_numpy(t) for name, t in TENSORS.items()}, path)
  hub['some/net', 'pytorch_model.bin'] = path.read_bytes()
  assert weights.read('some/net').preprocessing == weights.Preprocessing()
  monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
  offline = weights.read('some/net')
  assert list(offline.tensors) == list(TENSORS)
  assert (offline.revision, offline.preprocessing) == (COMMIT, weights.Preprocessing())


def test_repositories_that_cannot_be_read(hub):
  assert 'no such repository' in refused('some/unknown')
  assert 'access is restricted' in refused('some/gated')
  hub['some/empty', 'README.md'] = b'nothing'
  assert 'neither model.safetensors nor' in refused('some/empty')
  hub['some/net', 'model.safetensors'] = safetensors.numpy.save(TENSORS)
  hub['some/net', 'config.json'] = b'{'
  assert 'config.json' in refused('some/net')
  assert 'no such file' in refused('a/b/c')


def test_without_huggingface_hub_the_message_says_how_to_install_it(monkeypatch):
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  assert "pip install 'jaxvision[hub]'" in refused('some/net')


@pytest.mark.parametrize('answers', [False, True])
def test_a_hub_that_does_not_answer_is_one_line_and_no_wait(
  answers, hub, monkeypatch, caplog
):
  silent = socket.create_server(('127.0.0.1', 0))
  endpoint = f'http://127.0.0.1:{silent.getsockname()[1]}'
  monkeypatch.setattr(constants, 'ENDPOINT', endpoint)
  monkeypatch.setattr(hub_lib, '_PATIENCE', 0.2)
  monkeypatch.setattr('huggingface_hub.hf_hub_download', from_cache_only)
  if not answers:
    silent.close()
  with caplog.at_level('INFO', 'jaxvision'):
    assert 'the hub cannot be reached' in refused('some/net')
  silent.close()
  assert 'looking up some/net on Hugging Face' in caplog.text


def from_cache_only(name, filename, revision, local_files_only):
  assert local_files_only, 'the package tries five times'
  raise errors.LocalEntryNotFoundError('nothing here')
