"""The numbers of summary.json."""

import pytest

from jaxvision.training.summary import last_epoch


def test_last_epoch_weights_log_points_by_their_steps():
  points = [
    {'step': step, 'split': 'train', 'loss': loss, 'accuracy': accuracy}
    for step, loss, accuracy in [(10, 4, 0.1), (20, 2, 0.2), (30, 1, 0.4), (35, 0, 1.0)]
  ]
  names = ('loss', 'accuracy')
  found = last_epoch(points, names, total_steps=35, steps_per_epoch=15)
  assert found['loss'] == pytest.approx((10 * 1 + 5 * 0) / 15)
  assert found['accuracy'] == pytest.approx((10 * 0.4 + 5 * 1.0) / 15)
  # Log points further apart than an epoch: the last one is what there is.
  assert last_epoch(points[:1], names, 10, 2)['loss'] == 4
  assert last_epoch([], names, 10, 2) == {'loss': None, 'accuracy': None}
