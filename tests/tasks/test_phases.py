"""Phases of a run: which layers train, and at what image size."""

import pytest

from jaxvision.tasks.phases import make_phases


def test_a_plain_run_is_one_phase():
  (phase,) = make_phases(10)
  assert (phase.first, phase.frozen, phase.image_size) == (0, None, 0)


@pytest.mark.parametrize(
  ('first_steps', 'total', 'expected'),
  [
    ({'a': 10, 'b': 5, 'c': 0}, 10, [0, 5]),
    ({'a': 7, 'b': 7}, 10, [0, 7]),
    ({'a': 0, 'b': 0}, 10, [0]),
    ({'a': 10}, 10, [0]),
  ],
)
def test_phases_begin_where_other_parameters_train(first_steps, total, expected):
  phases = make_phases(total, first_steps)
  assert [phase.first for phase in phases] == expected
  for phase in phases:
    assert phase.frozen == {n: first > phase.first for n, first in first_steps.items()}


def test_sizes_share_the_steps_until_the_last_ends():
  phases = make_phases(90, sizes=(8, 16, 24), until=2 / 3)
  assert [(p.first, p.image_size) for p in phases] == [
    (0, 8),
    (20, 16),
    (40, 24),
    (60, 0),
  ]


def test_sizes_and_late_layers_cross():
  phases = make_phases(100, {'body': 25, 'head': 0}, (16,), 0.5)
  assert [(p.first, p.image_size, p.frozen) for p in phases] == [
    (0, 16, {'body': True, 'head': False}),
    (25, 16, {'body': False, 'head': False}),
    (50, 0, {'body': False, 'head': False}),
  ]


def test_a_size_without_a_step_is_left_out():
  phases = make_phases(2, sizes=(8, 12, 16, 20), until=0.5)
  assert [p.first for p in phases] == [0, 1]
  assert phases[-1].image_size == 0
