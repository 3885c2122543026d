"""Paths that users name, and files written whole."""

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from jaxvision import io
from jaxvision.errors import UserError


def test_local_path_expands_the_home(monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  assert io.local_path('~/x', 'workdir') == tmp_path / 'x'
  assert io.local_path(Path('~'), 'workdir') == tmp_path
  for name in ('./~/x', './gs://x'):
    path = io.local_path(name, 'workdir')
    assert path == Path.cwd() / name
    assert io.local_path(path, 'workdir') == path
  assert io.local_path('runs/a:b/c', 'workdir') == Path('runs/a:b/c')


@pytest.mark.parametrize(
  'name',
  [
    'gs://bucket/run',
    's3://bucket/run',
    'HTTP://host/x',
    'file:///x',
    Path('gs://bucket/run'),
    '~no-such-user/x',
    'a\0b',
  ],
)
def test_local_path_refuses_what_is_no_path_of_this_machine(name):
  with pytest.raises(UserError, match='^sample: --output: ') as refused:
    io.local_path(name, 'sample: --output')
  assert '\n' not in str(refused.value)


def _listed(directory):
  return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def null(tmp_path):
  """A device of the test's own that drops what is written."""
  path = tmp_path / 'null'
  try:
    os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    path.write_bytes(b'x')
  except PermissionError:
    pytest.skip('this user may not make or write devices')
  return path


def test_write_whole_replaces_a_file(tmp_path):
  path = tmp_path / 'weights'
  for content in ('old', b'new'):
    io.write_whole(path, content)
  assert path.read_bytes() == b'new'
  assert _listed(tmp_path) == ['weights']


def test_write_whole_leaves_the_old_file_where_the_new_one_cannot_be_written(
  tmp_path, monkeypatch
):
  path = tmp_path / 'weights'
  path.write_text('old')

  def full(self, data):
    with self.open('wb') as file:
      file.write(data[:1])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(Path, 'write_bytes', full)
  with pytest.raises(OSError, match='No space'):
    io.write_whole(path, b'new')
  assert path.read_text() == 'old'
  assert _listed(tmp_path) == ['weights']


@pytest.mark.parametrize('there', [True, False], ids=['to a file', 'to a new name'])
def test_write_whole_follows_a_link(there, tmp_path):
  target, link = tmp_path / 'disk' / 'weights', tmp_path / 'link'
  target.parent.mkdir()
  if there:
    target.write_text('old')
  link.symlink_to(Path('disk') / 'weights')
  io.write_whole(link, b'new')
  assert os.readlink(link) == 'disk/weights'
  assert not target.is_symlink()
  assert target.read_bytes() == b'new'
  assert _listed(target.parent) == ['weights']


def test_write_whole_writes_into_a_device(null, tmp_path):
  link = tmp_path / 'link'
  link.symlink_to(null)
  for path in (null, link):
    io.write_whole(path, b'x' * 100_000)
  assert stat.S_ISCHR(null.stat().st_mode)
  assert link.is_symlink()
  assert _listed(tmp_path) == ['link', 'null']


def test_write_whole_writes_into_a_pipe(tmp_path):
  path, content = tmp_path / 'pipe', b'x' * 200_000  # more than a pipe holds
  os.mkfifo(path)
  read = []
  # A daemon: where nothing is written into the pipe, the test ends all the same.
  reader = threading.Thread(target=lambda: read.append(path.read_bytes()), daemon=True)
  reader.start()
  io.write_whole(path, content)
  reader.join(10)
  assert read == [content]
  assert stat.S_ISFIFO(path.stat().st_mode)
  assert _listed(tmp_path) == ['pipe']


def test_write_whole_refuses_a_directory_and_a_circle_of_links(tmp_path):
  (tmp_path / 'directory').mkdir()
  (tmp_path / 'circle').symlink_to('circle')
  for name in ('directory', 'circle'):
    with pytest.raises(OSError):
      io.write_whole(tmp_path / name, b'x')
  assert _listed(tmp_path) == ['circle', 'directory']


def test_output_file_and_directory_refuse_what_they_cannot_be(tmp_path):
  (tmp_path / 'broken').symlink_to('nowhere')
  (tmp_path / 'link').symlink_to(tmp_path)
  os.mkfifo(tmp_path / 'pipe')
  for name in ('pipe', 'broken', 'pipe/below'):
    with pytest.raises(UserError, match='^x: --output: .* is no directory'):
      io.output_directory(tmp_path / name, 'x: --output')
  for name in ('link', 'new', 'new/below'):
    assert io.output_directory(tmp_path / name, 'x') == tmp_path / name
  for name in ('pipe', 'new'):
    assert io.output_file(tmp_path / name, 'x') == tmp_path / name
  with pytest.raises(UserError, match='is a directory: name a file'):
    io.output_file(tmp_path / 'link', 'x')
  with pytest.raises(UserError, match='there is no directory'):
    io.output_file(tmp_path / 'new' / 'below', 'x')
  assert _listed(tmp_path) == ['broken', 'link', 'pipe']
