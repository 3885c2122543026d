"""Paths that users name, and files written whole."""

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
