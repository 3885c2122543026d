"""Packs: what travels is, unpacked, byte for byte the decoded copy it was made from."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from jaxvision import data
from jaxvision.data import ArraySource, cache
from jaxvision.data.sources.source import OpenedDataset
from jaxvision.errors import UserError


def cached_set(root, name, count, channels):
  """Writes a set of random images, more than a sheet holds, into a cache."""
  rng = np.random.default_rng(len(name))
  pools = {}
  for pool, n in (('train', count), ('test', 30)):
    images = rng.integers(0, 256, (n, 8, 8, channels), np.uint8)
    pools[pool] = ArraySource(images, np.arange(n, dtype=np.int32) % 10)
  opened = OpenedDataset(
    name=name,
    class_names=tuple('abcdefghij'),
    image_shape=(8, 8, channels),
    pools=pools,
    origin=f'TFDS {name} 3.0.2',
    fingerprint='3.0.2 of test',
  )
  cache.write(root / name, opened, with_images=True)


@pytest.fixture
def root(tmp_path, monkeypatch):
  """A cache with the sets colours and greys, and no TFDS."""
  root = tmp_path / 'cache'
  monkeypatch.setenv('JAXVISION_CACHE', str(root))
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'nothing'))
  cached_set(root, 'colours', 2050, 3)
  cached_set(root, 'greys', 40, 1)
  return root


def contents(folder):
  return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_parts_become_the_same_copies_whatever_comes_first(module, root, tmp_path):
  lib = module('pack')
  limit = 390_000
  lines = lib.pack(['colours', 'greys'], '', tmp_path / 'pack', limit, wheels=False)
  parts = sorted((tmp_path / 'pack').glob('part*'), reverse=True)
  assert [part.name for part in parts] == ['part2', 'part1']
  assert all(sum(map(len, contents(part).values())) <= limit for part in parts)
  assert lines[0].endswith('over 2 parts')
  assert lines[1].endswith('in part2')
  there = tmp_path / 'there'
  first, last = (lib.unpack(part, there) for part in parts)
  assert first == ['colours: 1 of 3 files are still to come', 'greys: unpacked']
  assert last == ['colours: unpacked']
  assert lib.unpack(tmp_path / 'pack', there) == []
  for name in ('colours', 'greys'):
    assert contents(there / name) == contents(root / name)
  before = data.load('colours')
  after = data.load('colours', cache_dir=str(there))
  np.testing.assert_array_equal(
    after.splits['train'].images, before.splits['train'].images
  )
  assert after.fingerprint == before.fingerprint


def test_a_damaged_sheet_is_found(module, root, tmp_path):
  lib = module('pack')
  lib.pack(['greys'], '', tmp_path / 'pack', 2**20, wheels=False)
  sheet = tmp_path / 'pack' / 'part1' / 'greys-test-00.webp'
  sheet.write_bytes(sheet.read_bytes()[:-1] + b'\0')
  with pytest.raises(UserError, match='greys-test-00.webp is damaged'):
    lib.unpack(tmp_path / 'pack', tmp_path / 'there')


def test_what_cannot_be_packed_is_one_line(module, root, tmp_path):
  lib = module('pack')
  with pytest.raises(UserError, match='larger than a part: raise --part-mib'):
    lib.pack(['colours'], '', tmp_path / 'pack', 1000, wheels=False)
  with pytest.raises(UserError, match='is not empty'):
    lib.pack(['greys'], '', tmp_path, 2**20, wheels=False)
  two = root / 'two'
  cached_set(root, 'two', 20, 2)
  assert two.is_dir()
  with pytest.raises(UserError, match='has 2 channels'):
    lib.pack(['two'], '', tmp_path / 'other', 2**20, wheels=False)


def test_wheels_of_what_is_installed_are_left_out(module, tmp_path):
  for name in ('numpy-2.0', 'not_there_9-1.0'):
    with zipfile.ZipFile(tmp_path / f'{name}-py3-none-any.whl', 'w') as wheel:
      wheel.writestr(f'{name.split("-")[0]}.py', 'answer = 42\n')
  unzipped = module('pack').install_wheels(tmp_path, tmp_path / 'site')
  assert unzipped == ['not_there_9-1.0-py3-none-any.whl']
  assert [path.name for path in (tmp_path / 'site').iterdir()] == ['not_there_9.py']
