"""Whether data are those of a run: what is counted, what is the same elsewhere."""

import dataclasses

import numpy as np
import pytest

from jaxvision.data import load
from jaxvision.data.dataset import Files
from jaxvision.data.identity import ImageTable, difference, table_of
from jaxvision.data.info import DatasetInfo


def _table(**splits):
  """Makes a table of split=[(name, size, label), ...]."""
  files, labels = {}, {}
  for split, rows in splits.items():
    names, sizes, of = zip(*rows)
    files[split] = Files(names, np.array(sizes))
    labels[split] = np.array(of)
  return ImageTable.of(files, labels)


TRAIN = [('a/0', 10, 0), ('a/1', 11, 0), ('b/0', 12, 1), ('b/1', 13, 1)]
TEST = [('a/2', 14, 0), ('b/2', 15, 1)]


def test_a_table_is_the_same_in_any_order_and_read_back():
  table = _table(train=TRAIN, test=TEST)
  assert _table(test=TEST[::-1], train=TRAIN[::-1]).digest() == table.digest()
  assert ImageTable.from_bytes(table.to_bytes()).digest() == table.digest()
  others = [
    _table(train=TRAIN[1:], test=TEST),
    _table(train=[('a/0', 11, 0), *TRAIN[1:]], test=TEST),
    _table(train=[('a/0', 10, 1), *TRAIN[1:]], test=TEST),
    _table(train=[('a/9', 10, 0), *TRAIN[1:]], test=TEST),
    _table(train=TRAIN[1:], test=[TRAIN[0], *TEST]),
  ]
  assert len({table.digest(), *(other.digest() for other in others)}) == 6


@pytest.mark.parametrize(
  ('now', 'words'),
  [
    (
      {'train': TRAIN[1:], 'test': TEST},
      '1 image removed; none of the 2 test images was trained on',
    ),
    (
      {'train': TRAIN, 'test': [*TEST, ('b/9', 1, 1), ('b/8', 1, 1)]},
      '2 images added; none of the 4 test images was trained on',
    ),
    (
      {'train': [*TRAIN[2:], *TEST], 'test': TRAIN[:2]},
      '4 images in another split; 2 of the 2 test images were trained on',
    ),
    (
      {'train': [('a/0', 99, 0), *TRAIN[1:3]], 'test': [*TEST, TRAIN[3]]},
      '1 image changed, 1 image in another split; 1 of the 3 test images was trained on',
    ),
  ],
)
def test_changes_are_counted(now, words):
  assert _table(train=TRAIN, test=TEST).changes(_table(**now)) == words


def _differs(one, other):
  infos = DatasetInfo.of(one), DatasetInfo.of(other)
  return difference(*infos, (table_of(one), table_of(other)))


def test_a_copy_of_a_folder_is_the_same_data_and_a_changed_one_is_not(
  image_folder, tmp_path
):
  counts = {'a': 20, 'b': 20}
  one = load('folder', root=str(image_folder(counts)))
  copy = image_folder(counts, root='copy')
  assert _differs(one, load('folder', root=str(copy))) == ''
  assert _differs(one, load('folder', root=str(copy), pipeline='streaming')) == ''
  changed = load('folder', root=str(copy), split_seed=1)
  assert 'in another split' in _differs(one, changed)
  assert 'trained on' in _differs(one, changed)
  (copy / 'a/03.png').rename(tmp_path / '03.png')
  assert '1 image removed' in _differs(one, load('folder', root=str(copy)))
  (copy / 'b').rename(copy / 'c')
  assert _differs(one, load('folder', root=str(copy))) == (
    'class "b" is gone and class "c" is new (2 classes before, 2 now)'
  )
  image_folder({'b': 2, 'c': 2}, root='copy')
  renamed = _differs(one, load('folder', root=str(copy)))
  assert renamed == 'class "c" is new (2 classes before, 3 now)'


def test_of_an_earlier_version_the_facts_are_compared():
  dataset = load('digits')
  info = DatasetInfo.of(dataset)
  known = dataclasses.asdict(info)
  for field in ('fingerprint', 'split_rule', 'named', 'label_kind'):
    del known[field]
  old = DatasetInfo.from_dict(known)
  assert old.named
  assert old.split_rule == 'index'
  assert difference(old, info, (None, None)) == ''
  fewer = dataclasses.replace(info, examples={'train': 1437, 'test': 359})
  assert difference(old, fewer, (None, None)) == (
    '1,438 train images before and 1,437 now'
  )
  darker = dataclasses.replace(info, mean=(info.mean[0] + 0.01,))
  assert 'pixels' in difference(info, darker, (None, None))
  arrays = DatasetInfo.from_dict(known | {'fingerprint': 'ab'})
  assert not arrays.named


def test_named_sets_are_the_same_in_any_pipeline_and_other_with_another_split():
  one = load('digits')
  assert one.named
  assert one.split_rule == 'index'
  assert _differs(one, load('digits', pipeline='streaming')) == ''
  assert 'sha256' in _differs(one, load('digits', split_seed=1))
