"""Finding onnxruntime-web: downloads, archives, folders, the cache."""

import base64
import hashlib
import io
import tarfile

import pytest

from jaxvision.deployment.web import runtime
from jaxvision.errors import UserError

CONTENTS = {
  runtime.SCRIPT: b'var ort = {};',
  runtime.GLUE: b'export default 1;',
  runtime.WASM: b'\0asm' * 9,
}


def _archive(members):
  file = io.BytesIO()
  with tarfile.open(fileobj=file, mode='w:gz') as archive:
    for member, content in members:
      if isinstance(member, str):
        member = tarfile.TarInfo(member)
        member.size = len(content)
      archive.addfile(member, io.BytesIO(content))
  return file.getvalue()


GOOD = _archive(
  [
    ('package/README.md', b'text'),
    ('../../escaped', b'text'),
    *((f'package/dist/{name}', content) for name, content in CONTENTS.items()),
  ]
)


@pytest.fixture
def registry(tmp_path, monkeypatch):
  """An archive of another package at a URL, with its checksums in place of the real ones."""
  monkeypatch.setenv('JAXVISION_CACHE', str(tmp_path / 'cache'))
  digest = base64.b64encode(hashlib.sha512(GOOD).digest()).decode()
  monkeypatch.setattr(runtime, 'INTEGRITY', digest)
  sums = {name: hashlib.sha256(data).hexdigest() for name, data in CONTENTS.items()}
  monkeypatch.setattr(runtime, '_SHA256', sums)
  (tmp_path / 'host').mkdir()
  (tmp_path / 'host' / 'web.tgz').write_bytes(GOOD)
  return tmp_path / 'host'


def _cached(tmp_path):
  return tmp_path / 'cache' / f'onnxruntime-web-{runtime.VERSION}'


def test_the_archive_is_downloaded_once(registry, serve, tmp_path):
  url = serve(registry) + 'web.tgz'
  found = runtime.find(url=url)
  assert found == tuple(CONTENTS.values())
  (registry / 'web.tgz').unlink()
  assert runtime.find(url=url) == found
  kept = sorted(path.name for path in _cached(tmp_path).iterdir())
  assert kept == sorted(['LICENSE', *CONTENTS])
  assert 'Microsoft Corporation' in (_cached(tmp_path) / 'LICENSE').read_text()
  # No more than these: what else the archive names is nowhere.
  assert [path.name for path in (tmp_path / 'cache').iterdir()] == [
    _cached(tmp_path).name
  ]
  assert not list(tmp_path.rglob('escaped'))


def test_a_damaged_cache_is_downloaded_again(registry, tmp_path):
  url = (registry / 'web.tgz').as_uri()
  found = runtime.find(url=url)
  (_cached(tmp_path) / runtime.WASM).write_bytes(b'\0asm')
  assert runtime.find(url=url) == found
  assert (_cached(tmp_path) / runtime.WASM).read_bytes() == CONTENTS[runtime.WASM]


def test_another_archive_than_the_known_one_is_refused(registry, tmp_path):
  (registry / 'web.tgz').write_bytes(GOOD + b'\0')
  with pytest.raises(UserError, match='its SHA-512 is another: `npm pack'):
    runtime.find(url=(registry / 'web.tgz').as_uri())
  assert not _cached(tmp_path).exists()


@pytest.mark.parametrize('end', ['gone.tgz', 'refused'])
def test_without_a_network_the_line_says_how_to_get_it(registry, serve, end):
  base = serve(registry)
  url = 'http://127.0.0.1:9/web.tgz' if end == 'refused' else base + end
  with pytest.raises(UserError) as raised:
    runtime.find(url=url)
  line = str(raised.value)
  assert line.startswith(f'the page needs onnxruntime-web, and {url} cannot be read (')
  assert f'`npm pack onnxruntime-web@{runtime.VERSION}`' in line
  assert f'--runtime=onnxruntime-web-{runtime.VERSION}.tgz' in line
  assert '\n' not in line


def test_a_cache_that_cannot_be_written_is_no_loss(registry, tmp_path):
  (tmp_path / 'cache').write_text('a file')
  found = runtime.find(url=(registry / 'web.tgz').as_uri())
  assert found.glue == CONTENTS[runtime.GLUE]


@pytest.mark.parametrize('place', ['', 'dist', 'package/dist'])
def test_a_folder_is_taken_as_it_is(tmp_path, place):
  folder = tmp_path / place
  folder.mkdir(parents=True, exist_ok=True)
  for name, content in CONTENTS.items():
    (folder / name).write_bytes(content)
  assert runtime.find(tmp_path) == tuple(CONTENTS.values())


def test_a_folder_without_them_is_refused(tmp_path):
  (tmp_path / runtime.SCRIPT).touch()
  with pytest.raises(
    UserError, match='in it or in its dist: name the unpacked package'
  ):
    runtime.find(tmp_path)


def test_an_archive_of_npm_pack_is_taken(tmp_path):
  path = tmp_path / 'onnxruntime-web-9.tgz'
  path.write_bytes(GOOD)
  assert runtime.find(path) == tuple(CONTENTS.values())


def _link():
  link = tarfile.TarInfo(f'package/dist/{runtime.WASM}')
  link.type, link.linkname = tarfile.SYMTYPE, '/etc/passwd'
  return link


@pytest.mark.parametrize(
  ('archive', 'complaint'),
  [
    (GOOD[:200], 'is no archive of npm'),
    (b'no archive', 'is no archive of npm'),
    (b'', 'is no archive of npm'),
    (_archive([('package/dist/other.js', b'')]), f'has no {runtime.SCRIPT}, '),
    (
      _archive(
        [
          *((f'package/dist/{name}', b'x') for name in list(CONTENTS)[:2]),
          (_link(), b''),
        ]
      ),
      f'has no {runtime.WASM}: it is not the package',
    ),
  ],
)
def test_what_is_no_such_archive_is_refused(tmp_path, archive, complaint):
  path = tmp_path / 'given.tgz'
  path.write_bytes(archive)
  with pytest.raises(UserError, match=complaint) as raised:
    runtime.find(path)
  assert '\n' not in str(raised.value)
