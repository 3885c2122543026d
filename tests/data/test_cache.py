"""The decoded cache: written once, whole or not at all, rebuilt when damaged."""

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
import time

import chex
import numpy as np
import pytest
from command_line import assert_refused
from PIL import Image

from jaxvision.data import cache, decode, load
from jaxvision.data.sources import folder
from jaxvision.errors import UserError


def _count_decodes(monkeypatch):
  """Counts images decoded from here on."""
  calls = []

  def counted(image, *options):
    calls.append(image)
    return decode.decode_image(image, *options)

  monkeypatch.setattr(folder, 'decode_image', counted)
  return calls


def _only_folder(path):
  (found,) = [p for p in path.iterdir() if not p.name.startswith('.')]
  return found


@pytest.fixture
def root(image_folder):
  return str(image_folder({'train/a': 4, 'train/b': 4, 'test/a': 1, 'test/b': 2}))


@pytest.mark.parametrize('pipeline', ['resident', 'streaming'])
def test_the_second_start_decodes_nothing(root, monkeypatch, pipeline):
  calls = _count_decodes(monkeypatch)
  first = load('folder', root=root, pipeline=pipeline)
  assert len(calls) == 11
  second = load('folder', root=root, pipeline=pipeline, train_fraction=0.5)
  assert len(calls) == 11
  assert first.splits['test'].labels.tolist() == second.splits['test'].labels.tolist()


def test_streaming_uses_what_resident_cached(root, monkeypatch, fresh_cache):
  load('folder', root=root)
  calls = _count_decodes(monkeypatch)
  load('folder', root=root, pipeline='streaming')
  assert not calls
  assert len(list(fresh_cache.iterdir())) == 1


def test_a_large_set_is_streamed_without_decoding_it_all(
  root, monkeypatch, fresh_cache
):
  monkeypatch.setattr('jaxvision.data.statistics.STATISTICS_SAMPLE', 3)
  calls = _count_decodes(monkeypatch)
  streamed = load('folder', root=root, resident_limit_mb=0)
  assert streamed.pipeline == 'streaming'
  assert len(calls) == 3
  again = load('folder', root=root, resident_limit_mb=0)
  assert len(calls) == 3
  assert (again.mean, again.std) == (streamed.mean, streamed.std)
  assert not list(fresh_cache.rglob('*_images.npy'))
  resident = load('folder', root=root, resident_limit_mb=0, pipeline='resident')
  assert (resident.mean, resident.std) == (streamed.mean, streamed.std)


def test_the_files_are_plain_and_the_index_tells_what_they_are(root, fresh_cache):
  dataset = load('folder', root=root)
  cached = _only_folder(fresh_cache)
  index = json.loads((cached / 'index.json').read_text())
  assert index['classes'] == ['a', 'b']
  assert index['image_shape'] == [6, 5, 3]
  assert index['pools']['test'] == {'examples': 3, 'skipped': 0}
  assert tuple(index['mean']) == dataset.mean
  images = np.load(cached / 'train_images.npy')
  chex.assert_trees_all_equal(images, np.asarray(dataset.splits['train'].images))
  assert isinstance(dataset.splits['train'].images, np.memmap)


def _truncate(path):
  path.write_bytes(path.read_bytes()[:-10])


DAMAGE = {
  'cut images': lambda c: _truncate(c / 'train_images.npy'),
  'empty images': lambda c: (c / 'test_images.npy').write_bytes(b''),
  'cut labels': lambda c: _truncate(c / 'train_labels.npy'),
  'no labels': lambda c: (c / 'test_labels.npy').unlink(),
  'other labels': lambda c: np.save(c / 'test_labels.npy', np.full(3, 7, np.int32)),
  'other shape': lambda c: np.save(c / 'test_images.npy', np.zeros((3, 2, 2, 3), 'u1')),
  'cut moments': lambda c: _truncate(c / 'train_moments.npy'),
  'bad JSON': lambda c: _truncate(c / 'index.json'),
  'no object': lambda c: (c / 'index.json').write_text('[1]'),
  'no keys': lambda c: (c / 'index.json').write_text('{"format_version": 1}'),
  'binary': lambda c: (c / 'index.json').write_bytes(b'\xff\xfe\x00'),
}


@pytest.mark.parametrize('kind', DAMAGE)
def test_a_damaged_cache_is_rebuilt_with_a_word(root, fresh_cache, caplog, kind):
  before = load('folder', root=root)
  images = np.array(before.splits['train'].images)
  DAMAGE[kind](_only_folder(fresh_cache))
  with caplog.at_level(logging.WARNING):
    after = load('folder', root=root)
  (record,) = caplog.records
  assert 'is damaged and is rebuilt' in record.getMessage()
  assert '\n' not in record.getMessage()
  chex.assert_trees_all_equal(np.asarray(after.splits['train'].images), images)
  caplog.clear()
  load('folder', root=root)
  assert not caplog.records


def test_another_format_is_rebuilt(root, fresh_cache, monkeypatch):
  load('folder', root=root)
  monkeypatch.setattr(cache, 'FORMAT_VERSION', 99)
  calls = _count_decodes(monkeypatch)
  load('folder', root=root)
  assert len(calls) == 11


def test_a_cache_that_cannot_be_written_names_the_field(root, tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match=r'data\.cache_dir') as caught:
    load('folder', root=root, cache_dir=str(tmp_path / 'file' / 'inside'))
  assert '\n' not in str(caught.value)


def test_a_full_disk_names_the_field_and_leaves_nothing(root, fresh_cache, monkeypatch):
  def full(*_, **__):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(cache, 'scan', full)
  with pytest.raises(UserError, match=r'No space left.*data\.cache_dir'):
    load('folder', root=root)
  assert not list(fresh_cache.iterdir())


def test_an_interrupted_writer_leaves_nothing(root, fresh_cache, monkeypatch):
  def interrupted(*_, **__):
    raise KeyboardInterrupt

  monkeypatch.setattr(cache, 'scan', interrupted)
  with pytest.raises(KeyboardInterrupt):
    load('folder', root=root)
  assert not list(fresh_cache.iterdir())


def test_what_killed_writers_left_is_swept_later(root, fresh_cache):
  load('folder', root=root)
  name = _only_folder(fresh_cache).name
  shutil.rmtree(fresh_cache / name)
  for left, age in (('old', 2 * 24 * 3600), ('new', 60)):
    (fresh_cache / f'.{name}-{left}').mkdir()
    os.utime(fresh_cache / f'.{name}-{left}', (0, time.time() - age))
  load('folder', root=root)
  assert {p.name for p in fresh_cache.iterdir()} == {name, f'.{name}-new'}


def test_a_changed_folder_takes_the_place_of_its_former_copy(root, fresh_cache, caplog):
  load('folder', root=root)
  before = _only_folder(fresh_cache)
  Image.new('RGB', (5, 6), 'red').save(f'{root}/train/a/new.png')
  with caplog.at_level(logging.INFO, 'jaxvision'):
    assert len(load('folder', root=root).splits['train']) == 9
  assert 'has changed since it was cached' in caplog.text
  assert _only_folder(fresh_cache) == before
  load('folder', root=root, image_size=8)  # for another run, beside it
  assert len(cache.copies(fresh_cache)) == 2


def test_copies_are_listed_and_dropped_by_name(root, fresh_cache, call):
  load('folder', root=root)
  (fresh_cache / 'xla').mkdir()  # not a set
  (copy,) = cache.copies(fresh_cache)
  files = (fresh_cache / copy.folder).iterdir()
  assert copy.size == sum(file.stat().st_size for file in files)
  code, output, _ = call('prepare', '--cached')
  assert code == 0
  assert output.split()[2:] == [copy.folder, *copy.origin.split()]
  assert_refused(call('prepare', '--drop=../x'), 'no decoded set "../x"')
  assert call('prepare', f'--drop={copy.folder}') == (0, '', '')
  assert [p.name for p in fresh_cache.iterdir()] == ['xla']
  assert len(load('folder', root=root).splits['train']) == 8


def test_of_concurrent_writers_one_decodes_and_all_agree(root, fresh_cache):
  program = (
    'import logging, sys; from jaxvision.data import cache, load; '
    'logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s"); '
    'fill, input_ = cache._fill, sys.stdin.readline; '
    'cache._fill = lambda *args: (input_(), fill(*args)); '  # until it is told to go on
    'print(int(load("folder", root=sys.argv[1]).splits["train"].images.sum()))'
  )
  pipes = dict.fromkeys(('stdin', 'stdout', 'stderr'), subprocess.PIPE)
  children = [
    subprocess.Popen([sys.executable, '-c', program, str(root)], text=True, **pipes)
    for _ in '123'
  ]
  heard = [child.stderr.readline() for child in children]
  assert sum(line.startswith('decoding') for line in heard) == 1
  assert sum(line.startswith('waiting for another process') for line in heard) == 2
  for child in children:  # whichever decodes
    child.stdin.write('\n')
    child.stdin.flush()
  found = [child.communicate(timeout=60) for child in children]
  sums = {float(printed) for printed, _ in found}
  assert sums == {float(np.sum(load('folder', root=root).splits['train'].images))}
  assert 'decoding' not in ''.join(errors for _, errors in found)
  assert len(list(fresh_cache.iterdir())) == 1


def test_a_finished_set_of_another_writer_is_kept(root, fresh_cache, monkeypatch):
  """Two writers end together: the second finds the place taken by a good set."""
  fill = cache._fill
  load('folder', root=root)
  winner = fresh_cache.with_name('winner')
  place = _only_folder(fresh_cache)
  shutil.move(place, winner)

  def slow(*arguments):
    fill(*arguments)
    shutil.copytree(winner, place)
    (place / 'mark').touch()

  monkeypatch.setattr(cache, '_fill', slow)
  load('folder', root=root)
  assert (place / 'mark').exists()
  assert len(list(fresh_cache.iterdir())) == 1
