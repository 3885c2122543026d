"""Splits: shares of classes, draws that never change, labels that are not classes."""

import chex
import numpy as np
import pytest

from jaxvision import config
from jaxvision.data.splitting import carve, draw_per_class, stratified_split
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
