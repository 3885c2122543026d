"""Schedule-free optimisers: the steps of optax's, groups, freezing, what is refused."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvision import config as config_lib
from jaxvision.errors import UserError
from jaxvision.optim import make_optimizer, make_schedule
from jaxvision.optim.schedule_free import averaged, schedule_free

# A noisy least-squares problem: every step sees other examples.
_RNG = np.random.default_rng(0)
_INPUTS = _RNG.normal(size=(200, 8, 5)).astype(np.float32)
_TRUE = _RNG.normal(size=(5, 3)).astype(np.float32)
_TARGETS = _INPUTS @ _TRUE + _RNG.normal(size=(200, 8, 3)).astype(np.float32)
START = {'kernel': jnp.ones((5, 3))}


def loss(params, step):
  batch = step % len(_INPUTS)
  inputs, targets = jnp.asarray(_INPUTS)[batch], jnp.asarray(_TARGETS)[batch]
  return jnp.mean((inputs @ params['kernel'] - targets) ** 2)


def make(freeze=(), layers=(), params=START, **fields):
  config = config_lib.thaw(config_lib.base_config())
  for path, value in {
    'optimizer.schedule_free': True,
    'schedule.name': 'constant',
    **fields,
  }.items():
    config_lib.put(config, path, value)
  config = config_lib.validate(config)

  def rate(peak, until=1.0, stop=1.0):
    return make_schedule(config.schedule, peak, 200, 10, until, stop)

  return make_optimizer(
    config.optimizer,
    rate(config.optimizer.learning_rate),
    schedule=rate,
    freeze=freeze,
    params=params,
    total_steps=200,
    layers=layers,
  )


def descend(tx, average, steps=200):
  """Returns the parameters and their averages after each step."""

  def body(carry, step):
    params, state = carry
    updates, state = tx.update(jax.grad(loss)(params, step), state, params)
    params = optax.apply_updates(params, updates)
    return (params, state), (params, average(state, params))

  start = (START, tx.init(START))
  return jax.jit(lambda: jax.lax.scan(body, start, jnp.arange(steps))[1])()


@pytest.mark.parametrize(
  ('fields', 'theirs'),
  [
    (
      {'optimizer.momentum': 0.8},
      optax.contrib.schedule_free_sgd(0.1, b1=0.8, warmup_steps=20),
    ),
    (
      {'optimizer.weight_decay': 0.01},
      optax.contrib.schedule_free_sgd(0.1, warmup_steps=20, weight_decay=0.01),
    ),
    (
      {'optimizer.name': 'adam', 'optimizer.options.b2': 0.95},
      optax.contrib.schedule_free_adamw(0.1, b2=0.95, warmup_steps=20),
    ),
    (
      {
        'optimizer.name': 'adamw',
        'optimizer.options.b1': 0.95,
        'optimizer.options.eps': 1e-6,
        'optimizer.weight_decay': 0.1,
      },
      optax.contrib.schedule_free_adamw(
        0.1, b1=0.95, eps=1e-6, warmup_steps=20, weight_decay=0.1
      ),
    ),
  ],
  ids=['sgd', 'sgd with decay', 'adam', 'adamw'],
)
def test_every_step_is_that_of_optax(fields, theirs):
  ours = make(**{'schedule.warmup_steps': 20, **fields})
  expected = descend(theirs, optax.contrib.schedule_free_eval_params)
  found = descend(ours, lambda state, params: averaged(state, params))
  chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5)
  moved = jnp.abs(found[0]['kernel'] - found[1]['kernel']).max()
  assert moved > 1e-3  # the average is not what trains


def test_average_finds_the_minimum_that_a_constant_rate_misses():
  solution, *_ = np.linalg.lstsq(
    _INPUTS.reshape(-1, 5), _TARGETS.reshape(-1, 3), rcond=None
  )

  def distance(params):
    return float(jnp.linalg.norm(params['kernel'][-1] - solution))

  _, averages = descend(make(), lambda s, params: averaged(s, params), 1000)
  plain, _ = descend(optax.sgd(0.1), lambda s, params: params, 1000)
  assert distance(averages) < 0.1 * distance(plain)


def test_another_b1_goes_on_from_the_same_average():
  grads = {'kernel': jnp.full((5, 3), 0.5)}
  first = schedule_free(optax.sgd(0.1), 0.1, 0.9)
  params, state = START, first.init(START)
  for _ in range(3):
    updates, state = first.update(grads, state, params)
    params = optax.apply_updates(params, updates)
  before = averaged(state, params)['kernel']
  other = schedule_free(optax.sgd(0.1), 0.1, 0.5)
  updates, new = other.update(grads, state, params)
  params = optax.apply_updates(params, updates)
  z = state.z['kernel'] - 0.05
  np.testing.assert_allclose(new.z['kernel'], z, rtol=1e-6)
  after = averaged(new, params)['kernel']
  np.testing.assert_allclose(after, 0.75 * before + 0.25 * z, rtol=1e-5)
  np.testing.assert_allclose(params['kernel'], (after + z) / 2, rtol=1e-5)


def test_z_begins_at_the_weights_that_the_first_step_finds():
  tx = make()
  loaded = {'kernel': jnp.full((5, 3), 7.0)}
  state = tx.init(START)
  chex.assert_trees_all_equal(averaged(state, loaded), loaded)
  zeros = jax.tree.map(jnp.zeros_like, loaded)
  updates, state = tx.update(zeros, state, loaded)
  chex.assert_trees_all_close(updates, zeros, atol=1e-6)
  chex.assert_trees_all_close(averaged(state, loaded), loaded, rtol=1e-6)


NET = {
  'stem': {'kernel': jnp.ones((2, 3)), 'bias': jnp.ones(3)},
  'head': {'kernel': jnp.ones((3, 2)), 'bias': jnp.ones(2)},
}


def drifts(tx, steps):
  """Returns how far the average of each leaf is from 1, along a gradient of ones."""
  params, state = NET, tx.init(NET)
  grads = jax.tree.map(jnp.ones_like, NET)
  for _ in range(steps):
    updates, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, updates)
  return jax.tree.map(
    lambda leaf: round(1 - float(leaf.ravel()[0]), 5), averaged(state, params)
  )


def test_groups_layers_and_frozen_leaves_keep_their_rates():
  fields = {
    'optimizer.learning_rate': 0.1,
    'optimizer.layer_decay': 0.5,
    'optimizer.groups.fast.match': 'head/bias',
    'optimizer.groups.fast.learning_rate': 0.2,
    'optimizer.groups.late.match': 'head/kernel',
    'optimizer.groups.late.start': 0.01,  # of 200 steps
  }
  arguments = {'layers': ('stem', 'head'), 'params': NET, **fields}
  tx = make(freeze=('stem/bias',), **arguments)
  # z falls by the rate a step, and x is the mean of 1, 2, 3 of these falls.
  assert drifts(tx, 3) == {
    'stem': {'kernel': 0.1, 'bias': 0.0},
    'head': {'kernel': 0.1, 'bias': 0.4},
  }

  def memory(tx):
    return sum(leaf.size for leaf in jax.tree.leaves(tx.init(NET)))

  assert memory(tx) == memory(make(**arguments)) - NET['stem']['bias'].size


@pytest.mark.parametrize(
  ('fields', 'wanted'),
  [
    ({'optimizer.name': 'muon'}, 'averages adam, adamw, sgd'),
    ({'optimizer.name': 'nosuch'}, '"nosuch"'),
    (
      {'optimizer.groups.a.match': '.*', 'optimizer.groups.a.name': 'muon'},
      'optimizer.name is "muon"',
    ),
    (
      {'optimizer.groups.a.match': '.*', 'optimizer.groups.a.until': 0.5},
      'optimizer.groups.a.until',
    ),
    ({'optimizer.momentum': 0.0}, 'optimizer.momentum above 0'),
    (
      {'optimizer.name': 'adam', 'optimizer.options.b1': 0.0},
      'optimizer.options.b1 above 0',
    ),
    (
      {'optimizer.name': 'adamw', 'optimizer.options.mu_dtype': 'bfloat16'},
      'no option "mu_dtype"',
    ),
    ({'ema_decay': 0.9}, 'optimizer.schedule_free and ema_decay'),
    ({'lookahead.every': 5}, 'optimizer.schedule_free and lookahead.every'),
    ({'schedule.name': 'cosine'}, 'schedule.name is'),
    ({'schedule.name': 'file.py:rate'}, 'set it to constant'),
  ],
)
def test_what_cannot_be_averaged_is_refused(fields, wanted):
  with pytest.raises(UserError) as error:
    make(**fields)
  assert wanted in str(error.value)
  assert '\n' not in str(error.value)


def test_an_optimizer_of_ones_own_is_refused():
  config = config_lib.base_config().optimizer
  config.name, config.schedule_free = 'file.py:rule', True
  with pytest.raises(UserError, match='file.py:rule'):
    make_optimizer(config, 0.1, constructor=optax.adam)
