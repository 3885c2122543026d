"""Groups of parameters with rates of their own, and frozen ones."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvision.config import base_config, from_json, override, to_json
from jaxvision.errors import UserError
from jaxvision.optim import groups, make_optimizer, make_schedule

PARAMS = {
  'stem': {'kernel': jnp.ones((2, 3)), 'bias': jnp.ones(3)},
  'head': {'kernel': jnp.ones((3, 2)), 'bias': jnp.ones(2)},
}


def make(groups, freeze=(), layers=(), **fields):
  config = base_config()
  config.optimizer.momentum, config.optimizer.nesterov = 0.0, False
  config.optimizer.learning_rate = 1.0
  config.schedule.name = 'linear'
  config.optimizer.update(fields)
  config.optimizer.groups = groups
  config = from_json(to_json(config))
  rate = functools.partial(rate_of, config.schedule)
  return make_optimizer(
    config.optimizer,
    rate(1.0),
    schedule=rate,
    freeze=freeze,
    params=PARAMS,
    total_steps=10,
    layers=layers,
  )


def rate_of(schedule, peak, until=1.0, stop=1.0):
  return make_schedule(schedule, peak, 10, 10, until, stop)


def moved(tx, steps=1):
  """Returns how far each leaf moved in each step, along a gradient of ones."""
  grads, state, path = jax.tree.map(jnp.ones_like, PARAMS), tx.init(PARAMS), []
  for _ in range(steps):
    updates, state = tx.update(grads, state, PARAMS)
    path.append(jax.tree.map(lambda u: float(u.ravel()[0]), updates))
  return path


def test_each_leaf_goes_by_its_group_and_the_rest_by_the_base():
  tx = make(
    {
      'biases': {'match': '.*/bias', 'learning_rate': 4.0, 'weight_decay': 0.5},
      'head': {'match': 'head/kernel', 'name': 'sign_sgd', 'learning_rate': 2.0},
    },
    weight_decay=0.25,
  )
  (first,) = moved(tx)
  # The base decays kernels; a decay that a group sets holds for biases as well.
  assert first == {
    'stem': {'kernel': -1.25, 'bias': -4 * 1.5},
    'head': {'kernel': -2.0, 'bias': -4 * 1.5},
  }


def test_until_and_stop_end_a_schedule_early():
  tx = make(
    {
      'quick': {'match': 'stem/bias', 'until': 0.5},
      'cut': {'match': 'head/bias', 'stop': 0.5},
    }
  )
  path = moved(tx, 7)
  whole = [1 - i / 10 for i in range(7)]
  np.testing.assert_allclose([-p['stem']['kernel'] for p in path], whole, rtol=1e-6)
  quick = [1, 0.8, 0.6, 0.4, 0.2, 0, 0]
  np.testing.assert_allclose([-p['stem']['bias'] for p in path], quick, atol=1e-6)
  cut = [*whole[:5], 0, 0]
  np.testing.assert_allclose([-p['head']['bias'] for p in path], cut, rtol=1e-6)


def test_a_group_that_starts_late_stands_still_until_then():
  late = {'match': 'stem', 'start': 0.4, 'weight_decay': 0.5}
  path = moved(make({'late': late}, momentum=0.5), 6)
  assert all(p['stem'] == {'kernel': 0.0, 'bias': 0.0} for p in path[:4])
  # The run's own rate at that step, on a momentum that has seen nothing before.
  np.testing.assert_allclose(path[4]['stem']['bias'], -1.5 * 0.6, rtol=1e-6)
  np.testing.assert_allclose(path[5]['stem']['bias'], -1.5 * 1.5 * 0.5, rtol=1e-6)
  assert path[0]['head']['bias'] == -1.0


def test_layer_decay_slows_the_layers_before_the_last_one():
  biases = {'match': '.*/bias', 'learning_rate': 2.0}
  tx = make({'biases': biases}, layers=('stem', 'middle', 'head'), layer_decay=0.5)
  (first,) = moved(tx)
  assert first['head'] == {'kernel': -1.0, 'bias': -2.0}
  assert first['stem'] == {'kernel': -0.25, 'bias': -0.5}


def test_first_steps_of_frozen_late_and_other_leaves():
  late = {'slow': {'match': '.*/bias', 'start': 0.5}, 'now': {'match': 'head/kernel'}}
  steps = groups.first_steps(PARAMS, ('stem',), late, 10)
  assert steps == {
    'stem': {'kernel': 10, 'bias': 10},
    'head': {'kernel': 0, 'bias': 5},
  }


def test_frozen_leaves_have_no_memory_and_stay():
  tx = make({'biases': {'match': '.*/bias'}}, freeze=('stem/.*',), momentum=0.9)
  (first,) = moved(tx)
  assert first['stem'] == {'kernel': 0.0, 'bias': 0.0}
  assert first['head']['kernel'] == first['head']['bias'] == -1.0
  memory = [leaf.shape for leaf in jax.tree.leaves(tx.init(PARAMS)) if leaf.ndim]
  assert sorted(memory) == [(2,), (3, 2)]


def test_without_groups_the_state_is_that_of_the_plain_optimizer():
  config = base_config().optimizer
  plain = optax.chain(optax.sgd(0.1, 0.9, nesterov=True)).init(PARAMS)
  chex.assert_trees_all_equal_structs(make_optimizer(config, 0.1).init(PARAMS), plain)


@pytest.mark.parametrize(
  ('group', 'words'),
  [
    ({}, ['match', 'which parameters']),
    ({'match': 'stme/.*'}, ['stme/.*', 'matches no parameter', 'stem/kernel']),
    ({'match': 'stem/kern'}, ['matches no parameter', 'whole path']),
    ({'match': 'stem'}, ['both', 'stem/bias', 'exclusive']),
    ({'match': '(', 'momentum': 0.5}, ['no regular expression']),
    ({'match': '.*/bias'}, ['both', 'stem/bias', 'exclusive']),
    ({'match': 'stem/kernel', 'learnign_rate': 1.0}, ['mean "learning_rate"']),
    ({'match': 'stem/kernel', 'learning_rate': 'x'}, ['learning_rate', 'at least 0']),
    ({'match': 'stem/kernel', 'until': 0}, ['until', 'above 0']),
    ({'match': 'stem/kernel', 'start': 1.0}, ['start', 'below 1']),
    ({'match': 'stem/kernel', 'start': 0.5, 'stop': 0.25}, ['stop', 'not after']),
    ({'match': 'stem/kernel', 'start': 0.5, 'until': 0.5}, ['until', 'not after']),
    ({'match': 'stem/kernel', 'name': 3}, ['name', '3']),
    ({'match': 'stem/kernel', 'nesterov': 1}, ['nesterov', 'True or False']),
    ({'match': 'stem/kernel', 'name': 'sdg'}, ['"sdg"', 'sgd']),
    ({'match': 'stem/kernel', 'options': {'zzz': 1}}, ['no option "zzz"']),
  ],
)
def test_mistakes_in_a_group(group, words):
  with pytest.raises(UserError) as error:
    make({'mine': group or {'momentum': 0.5}, 'other': {'match': 'stem/bias'}})
  message = str(error.value)
  assert '\n' not in message
  for word in words:
    assert word in message


def test_frozen_patterns_must_match():
  with pytest.raises(UserError, match='freeze.*nothing/.*matches no parameter'):
    make({}, freeze=('nothing/.*',))


def test_groups_from_the_command_line():
  config = override(
    base_config(),
    [
      'optimizer.groups.head.match=head/.*',
      'optimizer.groups.head.learning_rate=3',
      'optimizer.groups.head.options.b1=0.5',
      'freeze=stem/.*',
    ],
  )
  assert config.optimizer.groups.to_dict() == {
    'head': {'match': 'head/.*', 'learning_rate': 3, 'options': {'b1': 0.5}}
  }
  assert config.freeze == ('stem/.*',)
  assert from_json(to_json(config)) == config
  changed = override(config, ['optimizer.groups.head.learning_rate=0.5'])
  assert changed.optimizer.groups.head.learning_rate == 0.5
  for bad in ('optimizer.groups.head=1', 'optimizer.groups.head.a.b=1'):
    with pytest.raises(UserError):
      override(base_config(), [bad])
