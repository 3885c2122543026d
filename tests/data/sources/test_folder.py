"""Image folders: layouts, splits, shapes, and every way they can be wrong."""

import logging
import os
import pickle

import chex
import numpy as np
import pytest
from PIL import Image

from jaxvision.data import fit_image, load
from jaxvision.data.sources.folder import list_images
from jaxvision.data.sources.image_headers import read_headers
from jaxvision.errors import UserError


def _pixels(source):
  return np.stack([source[i][0] for i in range(len(source))])


def _both(root, **fields):
  resident = load('folder', root=str(root), pipeline='resident', **fields)
  streaming = load('folder', root=str(root), pipeline='streaming', **fields)
  return resident, streaming


def _assert_same(resident, streaming):
  assert (resident.pipeline, streaming.pipeline) == ('resident', 'streaming')
  assert list(resident.splits) == list(streaming.splits)
  for name, source in resident.splits.items():
    chex.assert_trees_all_equal(
      np.asarray(source.images), _pixels(streaming.splits[name])
    )
    chex.assert_trees_all_equal(source.labels, streaming.splits[name].labels)
    assert [streaming.splits[name][i][1] for i in range(len(source))] == list(
      source.labels
    )
  assert (resident.mean, resident.std) == (streaming.mean, streaming.std)
  assert resident.skipped == streaming.skipped


def test_train_and_test_folders_in_sorted_order(image_folder):
  root = image_folder({'train/b': 3, 'train/a': 2, 'test/a': 1, 'test/b': 2})
  resident, streaming = _both(root)
  _assert_same(resident, streaming)
  assert resident.class_names == ('a', 'b')
  assert resident.splits['train'].labels.tolist() == [0, 0, 1, 1, 1]
  with Image.open(root / 'train' / 'b' / '01.png') as image:
    chex.assert_trees_all_equal(resident.splits['train'][3][0], np.asarray(image))


@pytest.mark.parametrize('prefix', ['', 'train/'])
def test_without_a_test_folder_the_split_is_stratified(image_folder, prefix):
  root = image_folder({f'{prefix}a': 10, f'{prefix}b': 20})
  resident, streaming = _both(root, train_fraction=0.75)
  _assert_same(resident, streaming)
  counts = {s: np.bincount(v.labels) for s, v in resident.splits.items()}
  assert list(counts) == ['train', 'test', 'validation']
  assert sum(counts.values()).tolist() == [10, 20]
  assert min(of_class.min() for of_class in counts.values()) > 0
  for split, source in resident.splits.items():
    names = resident.files[split].names
    assert names == streaming.files[split].names
    for name, (image, label) in zip(names, [source[i] for i in range(len(source))]):
      assert name.split('/')[-2] == resident.class_names[label]
      with Image.open(root / name) as stored:
        chex.assert_trees_all_equal(image, np.asarray(stored))
  assert load('folder', root=str(root), split_seed=7).mean != resident.mean


def test_a_validation_folder_stands_in_for_test_and_is_named(image_folder):
  root = image_folder({'train/a': 2, 'train/b': 2, 'val/a': 1, 'val/b': 1})
  dataset = load('folder', root=str(root))
  assert len(dataset.splits['test']) == 2
  assert f'test = {root / "val"}' in dataset.origin


def test_every_extension_counts_in_either_case_and_hidden_files_do_not(image_folder):
  root = image_folder({'a': 2, 'b': 2})
  for suffix in ('JPG', 'jpeg', 'webp', 'BMP'):
    image_folder({'a': 1}, suffix=suffix)
  (root / 'a' / '.hidden.png').write_bytes(b'')
  (root / 'a' / 'notes.txt').write_text('no image')
  (root / '.git').mkdir()
  dataset = load('folder', root=str(root), test_fraction=0.3)
  assert sum(map(len, dataset.splits.values())) == 8


def test_what_is_not_used_is_told_in_one_line(image_folder, caplog):
  root = image_folder({'train/a': 2, 'train/b': 2, 'val/a': 1, 'test/b': 1, '.': 1})
  image_folder({'train/a/more': 3})
  (root / 'train/a/notes.txt').write_text('no image')
  (root / 'train/b/cat.psd').write_bytes(b'')
  os.mkfifo(root / 'train/b/x.png')
  with caplog.at_level(logging.INFO):
    dataset = load('folder', root=str(root))
    load('folder', root=str(root))
  assert len(dataset.splits['train']) == 7
  told = [r.getMessage() for r in caplog.records if 'not used' in r.getMessage()]
  assert told == [
    f'{root}: not used: 3 files (.txt 1, .psd 1, no regular files 1), val/, '
    f'1 image directly in {root}; images in sub-folders count for their class: a 3'
  ]


def test_one_class_and_no_class_folders_are_data_of_one_class(image_folder):
  one = load('folder', root=str(image_folder({'a': 10}, root='one')))
  assert one.class_names == ('a',)
  assert sum(map(len, one.splits.values())) == 10
  flat = image_folder({'.': 10}, root='flat')
  resident, streaming = _both(flat)
  _assert_same(resident, streaming)
  assert resident.class_names == ('images',)
  assert sum(map(len, resident.splits.values())) == 10
  assert resident.origin == str(flat)


@pytest.mark.parametrize(
  ('folders', 'words'),
  [
    (['a/x', 'a/y', 'b/z'], ['two ways', 'a, b as the classes', 'x, y, ...']),
    (['a/train', 'a/test', 'b/train'], ['a has test/, train/ within it']),
  ],
)
def test_classes_below_class_folders_are_refused(image_folder, folders, words):
  root = image_folder(dict.fromkeys(folders, 2))
  with pytest.raises(UserError) as caught:
    load('folder', root=str(root))
  for word in words:
    assert word in str(caught.value)


def test_a_folder_one_too_deep_is_the_same_set(image_folder, tmp_path):
  root = image_folder({'inner/a': 4, 'inner/b': 4})
  deep, plain = load('folder', root=str(root)), load('folder', root=str(root / 'inner'))
  assert deep.fingerprint == plain.fingerprint
  assert deep.mean == plain.mean


def test_names_that_are_not_utf8_are_read_and_shown_escaped(image_folder, caplog):
  root = image_folder({'a': 4, 'b': 4})
  try:
    (root / 'b').rename(root / os.fsdecode(b'caf\xe9\x1b[31m'))
  except OSError:
    pytest.skip('this file system takes UTF-8 alone')
  bad = root / 'a' / os.fsdecode(b'\xff.png')
  (root / 'a/00.png').rename(bad)
  resident, streaming = _both(root)
  _assert_same(resident, streaming)
  assert resident.class_names == ('a', r'caf\xe9\x1b[31m')
  names = [n for files in streaming.files.values() for n in files.names]
  assert sorted(names)[3] == os.fsdecode(b'a/\xff.png')
  bad.write_bytes(b'no image')
  assert read_headers(list_images(str(root))).unreadable == (str(root / r'a/\xff.png'),)
  with pytest.raises(UserError) as caught:
    load('folder', root=str(root))
  assert r'a/\xff.png cannot be read' in str(caught.value)
  for record in caplog.records:
    record.getMessage().encode('utf-8')


def test_channels_follow_the_files_or_the_config(image_folder):
  root = image_folder({'a': 2, 'b': 2}, mode='L')
  assert load('folder', root=str(root)).image_shape == (6, 5, 1)
  assert load('folder', root=str(root), channels=3).image_shape == (6, 5, 3)
  image_folder({'c': 2})
  dataset = load('folder', root=str(root))
  assert dataset.image_shape == (6, 5, 3)
  assert len(dataset.mean) == 3


def test_sizes_that_differ_need_image_size(image_folder):
  root = image_folder({'train/a': 2, 'test/a': 1, 'test/b': 1})
  image_folder({'train/b': 2}, size=(9, 9))
  with pytest.raises(
    UserError, match=r'00\.png is 5x6 .*00\.png is 9x9.*data.image_size'
  ):
    load('folder', root=str(root))
  resident, streaming = _both(root, image_size=4)
  _assert_same(resident, streaming)
  assert resident.image_shape == (4, 4, 3)


def _damage(root, *names):
  for name in names:
    file = root / name
    file.write_bytes(file.read_bytes()[: len(file.read_bytes()) // 2])


@pytest.mark.parametrize('pipeline', ['resident', 'streaming'])
def test_an_unreadable_image_is_named(image_folder, pipeline):
  root = image_folder({'a': 3, 'b': 3}, size=(30, 30))
  _damage(root, 'b/01.png')
  with pytest.raises(UserError, match=r'b/01\.png cannot be read'):
    load('folder', root=str(root), pipeline=pipeline)


def test_unreadable_images_are_skipped_and_counted_when_asked(image_folder, caplog):
  root = image_folder({'train/a': 4, 'train/b': 3, 'test/a': 2, 'test/b': 2}, (30, 30))
  _damage(root, 'train/a/01.png', 'test/b/00.png')
  (root / 'train/b/02.png').write_bytes(b'no image')
  with caplog.at_level(logging.WARNING):
    resident, streaming = _both(root, skip_unreadable=True)
  assert len(caplog.records) == 2  # one line for each start
  assert 'left out 3 unreadable images' in caplog.text
  _assert_same(resident, streaming)
  assert resident.skipped == 3
  assert resident.splits['train'].labels.tolist() == [0, 0, 0, 1, 1]
  with Image.open(root / 'train/a/02.png') as image:
    chex.assert_trees_all_equal(streaming.splits['train'][1][0], np.asarray(image))


def test_skipped_images_of_a_large_set_are_found_too(image_folder):
  root = image_folder({'a': 4, 'b': 4}, (30, 30))
  _damage(root, 'a/01.png')
  dataset = load('folder', root=str(root), skip_unreadable=True, resident_limit_mb=0)
  assert dataset.pipeline == 'streaming'
  assert dataset.skipped == 1
  assert sum(map(len, dataset.splits.values())) == 7


def test_a_class_that_loses_all_its_images_is_an_error(image_folder):
  root = image_folder({'train/a': 2, 'train/b': 1, 'test/a': 1}, (30, 30))
  _damage(root, 'train/b/00.png')
  with pytest.raises(UserError, match='class "b" are unreadable'):
    load('folder', root=str(root), skip_unreadable=True)


@pytest.mark.parametrize('skip', [True, False])
def test_all_unreadable(image_folder, skip):
  root = image_folder({'a': 2, 'b': 2})
  for file in root.glob('*/*'):
    file.write_bytes(b'no image')
  with pytest.raises(UserError, match='unreadable|cannot be read'):
    load('folder', root=str(root), skip_unreadable=skip, image_size=4, channels=3)
  with pytest.raises(UserError, match='all 4 images .*unreadable|cannot be read'):
    load('folder', root=str(root), skip_unreadable=skip)


@pytest.mark.parametrize(
  ('folders', 'message'),
  [
    ({}, 'no images in'),
    ({'a': 0, 'b': 0}, 'no images in'),
    ({'a': 3, 'b': 0}, 'class "b" has no images'),
    ({'a': 3, 'b': 1}, 'class "b" has one image'),
    ({'train/a': 3, 'train/b': 0, 'test/a': 1}, 'class "b" has no images'),
    ({'train/a': 3, 'train/b': 3, 'test/c': 1}, 'class "c" is in .*test but not in'),
    ({'train/a': 3, 'train/b': 3, 'test/a': 0}, 'no images in .*test'),
    ({'test/a': 3, 'test/b': 3}, 'test/ but no train/'),
  ],
)
def test_bad_folders_are_told_in_one_line(image_folder, tmp_path, folders, message):
  root = image_folder(folders)
  root.mkdir(exist_ok=True)
  with pytest.raises(UserError, match=message) as caught:
    load('folder', root=str(root))
  assert '\n' not in str(caught.value)
  assert 'data.root' in str(caught.value)


def test_a_missing_root_is_named(tmp_path):
  with pytest.raises(UserError, match='nowhere is not there'):
    load('folder', root=str(tmp_path / 'nowhere'))
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='is a file'):
    load('folder', root=str(tmp_path / 'file'))


def test_classes_named_train_and_test_are_classes(image_folder):
  root = image_folder({'train': 4, 'plane': 4, 'test': 4})
  assert load('folder', root=str(root)).class_names == ('plane', 'test', 'train')


def test_streaming_sources_travel_to_workers(image_folder):
  root = image_folder({'a': 5, 'b': 5})
  source = load('folder', root=str(root), pipeline='streaming').splits['train']
  chex.assert_trees_all_equal(
    _pixels(pickle.loads(pickle.dumps(source))), _pixels(source)
  )


def test_a_changed_folder_is_decoded_again(image_folder):
  root = image_folder({'a': 4, 'b': 4})
  before = load('folder', root=str(root))
  file = root / 'a' / '00.png'
  Image.fromarray(np.zeros((6, 5, 3), np.uint8)).save(file)
  os.utime(file, ns=(0, 0))
  assert load('folder', root=str(root), test_fraction=0.5).mean != before.mean


def test_resizing_is_part_of_the_cache_only_where_it_is_not_the_default(
  image_folder, fresh_cache
):
  root = image_folder({'a': 4, 'b': 4}, size=(12, 16))
  fields = {'image_size': 8, 'channels': 3}
  _both(root, **fields)
  _both(root, crop_fraction=1.0, interpolation='bilinear', **fields)
  assert len(list(fresh_cache.iterdir())) == 1
  for changed in ({'crop_fraction': 0.5}, {'interpolation': 'bicubic'}):
    resident, streaming = _both(root, **fields, **changed)
    _assert_same(resident, streaming)
    with Image.open(root / 'a' / '00.png') as image:
      pixels = np.asarray(image)
    everywhere = np.concatenate([_pixels(s) for s in resident.splits.values()])
    expected = fit_image(pixels, (8, 8, 3), **changed)
    assert (everywhere == expected).all((1, 2, 3)).any()
  assert len(list(fresh_cache.iterdir())) == 3


def test_some_examples_of_each_class(image_folder):
  root = image_folder({'train/a': 6, 'train/b': 9, 'test/a': 1, 'test/b': 1})
  resident, streaming = _both(root, examples_per_class=4)
  _assert_same(resident, streaming)
  assert resident.splits['train'].labels.tolist() == [0] * 4 + [1] * 4
  large = _both(root, examples_per_class=4, resident_limit_mb=0)
  small = _both(root, examples_per_class=6, resident_limit_mb=0)
  assert large[0].mean == large[1].mean == resident.mean != small[0].mean
  with pytest.raises(UserError, match=r'"a" has 6 training images'):
    load('folder', root=str(root), examples_per_class=7)


def test_fingerprint_stays_when_the_folder_moves(image_folder, tmp_path):
  root = image_folder({'a': 4, 'b': 4})
  first = load('folder', root=str(root)).fingerprint
  root.rename(tmp_path / 'moved')
  (tmp_path / 'moved/a/00.png').touch()
  assert load('folder', root=str(tmp_path / 'moved')).fingerprint == first
  (tmp_path / 'moved/a/00.png').rename(tmp_path / 'moved/a/99.png')
  assert load('folder', root=str(tmp_path / 'moved')).fingerprint != first


def test_a_folder_to_evaluate_on_is_one_split_and_may_have_one_class(image_folder):
  root = image_folder({'b': 1})
  with pytest.raises(UserError, match='class "b" has one image'):
    load('folder', root=str(root))
  whole = load('folder', root=str(root), split_rule='whole')
  assert (whole.class_names, len(whole.splits['test'])) == (('b',), 1)
  root = image_folder({'test/a': 2, 'test/b': 3}, root='tests')
  whole = load('folder', root=str(root), split_rule='whole')
  assert whole.splits['test'].labels.tolist() == [0, 0, 1, 1, 1]
  root = image_folder({'train/b': 4, 'test/a': 2, 'test/b': 3}, root='both')
  whole = load('folder', root=str(root), split_rule='whole')
  assert whole.splits['test'].labels.tolist() == [0, 0, 1, 1, 1]
  assert whole.splits['train'].labels.tolist() == [1] * 4
