"""Splits: shares of classes, draws that never change, labels that are not classes."""

import chex
import numpy as np
import pytest

from jaxvision import config
from jaxvision.data.splitting import (
  PATH,
  WHOLE,
  carve,
  draw_per_class,
  path_hashes,
  stratified_split,
)
from jaxvision.errors import UserError


@pytest.mark.parametrize('fraction', [0.1, 0.2, 0.5])
def test_split_is_a_partition_with_the_same_share_of_every_class(fraction):
  labels = np.random.default_rng(1).permutation(
    np.repeat(np.arange(4), [10, 37, 80, 3])
  )
  kept, held = stratified_split(labels, fraction, 5)
  assert sorted([*kept, *held]) == list(range(130))
  assert (np.diff(kept) > 0).all()
  assert (np.diff(held) > 0).all()
  share = np.bincount(labels[held]) / np.bincount(labels)
  assert np.abs(share[:3] - fraction).max() <= 0.1
  assert 1 <= (labels[held] == 3).sum() <= 2


def test_split_holds_out_the_exact_number():
  labels = np.random.default_rng(0).integers(0, 10, 6000)
  assert len(stratified_split(labels, 0.1)[1]) == 600


def test_split_depends_on_the_seed_and_never_changes():
  labels = np.repeat([0, 1], 10)
  assert stratified_split(labels, 0.3, 0)[1].tolist() == [1, 2, 3, 11, 13, 15]
  assert stratified_split(labels, 0.3, 1)[1].tolist() != [1, 2, 3, 11, 13, 15]


def test_split_leaves_a_class_of_one_where_it_is():
  kept, held = stratified_split(np.array([0, 1, 1]), 0.5)
  assert 0 in kept
  assert len(held) == 1


LABELS = {
  'multilabel': np.eye(4, dtype=np.uint8)[np.arange(20) % 4],
  'regression': np.linspace(0, 1, 20, dtype=np.float32),
  'several outputs': np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32),
}


@pytest.mark.parametrize('kind', LABELS)
def test_other_labels_are_split_without_strata_by_the_same_draw(kind):
  kept, held = stratified_split(LABELS[kind], 0.25, 3)
  expected = stratified_split(np.zeros(20, np.int32), 0.25, 3)
  chex.assert_trees_all_equal((kept, held), expected)


@pytest.mark.parametrize('kind', LABELS)
def test_examples_per_class_needs_classes(kind):
  with pytest.raises(UserError, match=r'data\.examples_per_class.*not class numbers'):
    draw_per_class(LABELS[kind], 2)


def _fields(**changes):
  fields = config.base_config().data
  fields.update(changes)
  return fields


def test_validation_of_a_set_is_kept_or_another_one_refused():
  labels = {'train': np.repeat([0, 1], 10), 'validation': np.repeat([0, 1], 2)}
  splits = carve(labels, ('a', 'b'), _fields())
  assert splits['validation'] == ('validation', None)
  assert len(splits['test'][1]) == 4
  with pytest.raises(UserError, match=r'train_fraction 0\.9 .*set it to 1'):
    carve(labels, ('a', 'b'), _fields(train_fraction=0.9))


def test_an_empty_split_is_an_error():
  with pytest.raises(UserError, match='no images are left for the test split'):
    carve({'train': np.arange(3)}, ('a', 'b', 'c'), _fields())


def _folder(*counts):
  """Returns labels and relative paths of classes with so many images."""
  labels = np.repeat(np.arange(len(counts)), counts)
  names = [f'{label}/{i:04}.jpg' for label, n in enumerate(counts) for i in range(n)]
  return labels, np.array(names, object)


def _sides(labels, names, **fields):
  """Returns name -> split."""
  splits = carve(
    {'train': labels},
    tuple(map(str, range(labels.max() + 1))),
    _fields(**fields),
    rule=PATH,
    names={'train': names},
  )
  everything = np.arange(len(names))
  return {
    name: split
    for split, (_, rows) in splits.items()
    for name in names[everything if rows is None else rows]
  }


@pytest.mark.parametrize('seed', range(3))
def test_an_image_keeps_its_split_whatever_others_come_and_go(seed):
  labels, names = _folder(120, 60, 80)
  fields = {'split_seed': seed, 'train_fraction': 0.8}
  whole = _sides(labels, names, **fields)
  assert {whole[name] for name in names} == {'train', 'test', 'validation'}
  rng = np.random.default_rng(seed)
  for removed in [[i] for i in rng.permutation(260)[:40]] + [
    rng.permutation(260)[:count] for count in (2, 30, 130)
  ]:
    kept = np.setdiff1d(np.arange(260), removed)
    kept = kept[np.argsort(rng.random(len(kept)))]  # nor does the order count
    for name, split in _sides(labels[kept], names[kept], **fields).items():
      assert split == whole[name]


def test_split_by_path_has_the_share_of_every_class_on_average():
  labels, names = _folder(5000, 5000)
  _, held = stratified_split(labels, 0.2, 0, names=names)
  share = np.bincount(labels[held]) / 5000
  assert np.abs(share - 0.2).max() < 4 * (0.2 * 0.8 / 5000) ** 0.5
  _, other = stratified_split(labels, 0.2, 1, names=names)
  assert 0.1 < np.isin(held, other).mean() < 0.3  # draws of two seeds are independent


@pytest.mark.parametrize('fraction', [1e-9, 0.2, 1 - 1e-9])
def test_split_by_path_keeps_one_of_each_class_on_each_side(fraction):
  labels, names = _folder(1, 2, 3, 2)
  for seed in range(20):
    kept, held = stratified_split(labels, fraction, seed, names=names)
    assert sorted([*kept, *held]) == list(range(8))
    assert np.bincount(labels[kept], minlength=4).min() == 1
    assert np.bincount(labels[held], minlength=4).tolist()[0] == 0
    assert np.bincount(labels[held], minlength=4)[1:].min() == 1


def test_split_by_path_never_changes():
  labels, names = _folder(10, 10)
  assert stratified_split(labels, 0.3, (0, 0), names=names)[1].tolist() == [
    1,
    2,
    4,
    9,
    16,
    17,
    19,
  ]
  assert path_hashes(['cat/e\u0301.png']) == path_hashes(['cat/\u00e9.png'])
  assert path_hashes(['cat/\udcff.png']) != path_hashes(['cat/\udcfe.png'])


def test_few_images_of_each_class_stay_when_others_go():
  labels, names = _folder(30, 30)
  few = draw_per_class(labels, 5, 0, names=names)
  assert np.bincount(labels[few]).tolist() == [5, 5]
  kept = np.setdiff1d(np.arange(60), [i for i in range(60) if i not in few][:20])
  again = draw_per_class(labels[kept], 5, 0, names=names[kept])
  assert kept[again].tolist() == few.tolist()


def test_the_whole_of_a_set_is_one_split_where_it_has_no_test_split():
  labels = {'train': np.arange(6) % 2}
  assert carve(labels, ('a', 'b'), _fields(), rule=WHOLE) == {
    'train': ('train', None),
    'test': ('train', None),
  }
  labels['test'] = labels['train']
  found = carve(labels, ('a', 'b'), _fields(train_fraction=0.5), rule=WHOLE)
  assert found == {'train': ('train', None), 'test': ('test', None)}
