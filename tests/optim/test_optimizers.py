"""Optimisers and schedules: that each works, and what the config says of it holds."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import models
from jaxvision.config import base_config
from jaxvision.errors import UserError
from jaxvision.optim import OPTIMIZERS, make_optimizer, make_schedule
from jaxvision.optim.optimizers import decay_mask


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_every_optimizer_lowers_a_loss_and_spares_biases_from_decay(name):
  config = base_config().optimizer
  config.name, config.weight_decay = name, 0.01
  optimizer = make_optimizer(config, lambda step: 0.01, grad_clip=1.0)
  params = {'kernel': jnp.full((3, 4), 2.0), 'bias': jnp.full(4, 2.0)}
  state = optimizer.init(params)

  def loss(params):
    return sum(jnp.sum(p**2) for p in jax.tree.leaves(params))

  @jax.jit
  def step(params, state):
    updates, state = optimizer.update(jax.grad(loss)(params), state, params)
    return jax.tree.map(jnp.add, params, updates), state

  first = loss(params)
  for _ in range(5):
    params, state = step(params, state)
  chex.assert_tree_all_finite(params)
  assert loss(params) < first


# Class tokens, positions, the scales of layers and norms, and biases do not.
@pytest.mark.parametrize(
  ('name', 'fields', 'others'),
  [
    ('vit_tiny', {'depth': 1}, {'token', 'positions', 'scale', 'bias'}),
    ('cct_2_3x2', {'depth': 1}, {'positions', 'scale', 'bias'}),
    ('conv_mixer_256_8', {'depth': 1}, {'scale', 'bias'}),
    ('convnext_atto', {'depths': (1,) * 4}, {'layer_scale', 'scale', 'bias'}),
  ],
)
def test_of_a_transformer_or_its_like_kernels_alone_decay(name, fields, others):
  model = models.create(name, 10, **fields)
  images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  params = jax.eval_shape(model.init, jax.random.key(0), images)['params']
  decays = {True: set(), False: set()}
  for keys, decayed in jax.tree_util.tree_leaves_with_path(decay_mask(params)):
    decays[decayed].add(keys[-1].key)
  assert decays == {True: {'kernel'}, False: others}


def test_gradients_are_clipped_to_the_global_norm():
  config = base_config().optimizer
  config.momentum, config.nesterov = 0.0, False
  optimizer = make_optimizer(config, 1.0, grad_clip=1.0)
  grads = {'a': jnp.array([3.0]), 'b': jnp.array([4.0])}
  updates, _ = optimizer.update(grads, optimizer.init(grads), grads)
  np.testing.assert_allclose(updates['a'], [-0.6], rtol=1e-6)
  np.testing.assert_allclose(updates['b'], [-0.8], rtol=1e-6)


def test_adam_is_not_nadam_though_nesterov_is_the_default():
  import optax

  config = base_config().optimizer
  config.name = 'adam'
  grads = {'w': jnp.array([[1.0, -2.0]])}
  ours, theirs = make_optimizer(config, 0.1), optax.adam(0.1)
  for _ in range(2):
    chex.assert_trees_all_close(
      ours.update(grads, ours.init(grads), grads)[0],
      theirs.update(grads, theirs.init(grads), grads)[0],
    )


def rates(steps, **fields):
  schedule = base_config().schedule
  for name, value in fields.items():
    schedule[name] = value
  rate = make_schedule(schedule, 1.0, 100, 10)
  return [round(float(rate(step)), 4) for step in steps]


def test_schedules_at_their_corners():
  assert rates([0, 99], name='constant') == [1, 1]
  assert rates([0, 50, 100], name='linear', end_factor=0.5) == [1, 0.75, 0.5]
  assert rates([0, 50, 100], name='cosine', end_factor=0.1) == [1, 0.55, 0.1]
  assert rates([0, 29, 30, 60, 99], name='step', boundaries=(0.3, 0.6), factor=0.1) == [
    1,
    1,
    0.1,
    0.01,
    0.01,
  ]
  begin, peak, end = rates([0, 30, 100], name='one_cycle', peak=0.3)
  assert (begin, peak, end) == (0.04, 1, 0)


def test_warm_up_rises_to_the_peak_and_the_rest_is_shared_out():
  assert rates([0, 5, 10, 55, 100], name='cosine', warmup_steps=10) == [
    0,
    0.5,
    1,
    0.5,
    0,
  ]
  assert rates([10], name='constant', warmup_epochs=2.0) == [0.5]
  # Boundaries are shares of the whole run, warm-up and all.
  assert rates([29, 30], name='step', boundaries=(0.3,), warmup_steps=10) == [1, 0.2]


def test_schedule_mistakes():
  for fields in ({'name': 'one_cycle', 'warmup_steps': 3}, {'warmup_steps': 100}):
    with pytest.raises(UserError):
      rates([0], **fields)


@pytest.mark.parametrize(
  ('name', 'options', 'words'),
  [
    ('adamw', {'b1': 2}, ['optimizer.options.b1', 'below 1', '2']),
    ('adamw', {'b1': (0, 9)}, ['optimizer.options.b1', 'a number', '(0, 9)']),
    ('adamw', {'b1': True}, ['optimizer.options.b1', 'a number']),
    ('adamw', {'eps': '1e-8x'}, ['optimizer.options.eps', "'1e-8x'"]),
    ('adamw', {'eps': -1.0}, ['optimizer.options.eps', 'at least 0']),
    ('adamw', {'nesterov': 'maybe'}, ['optimizer.options.nesterov', 'True or False']),
    ('adamw', {'mu_dtype': 'float16'}, ['optimizer.options.mu_dtype', 'bfloat16']),
    ('rmsprop', {'momentum': 'x'}, ['optimizer.options.momentum', 'a number']),
    ('rmsprop', {'momentum': 1.0}, ['optimizer.options.momentum', 'below 1']),
    ('adafactor', {'min_dim_size_to_factor': 1.5}, ['min_dim_size', 'whole number']),
    ('muon', {'ns_steps': 0}, ['optimizer.options.ns_steps', 'at least 1']),
    ('sgd', {'zzz': 1}, ['no option "zzz"']),
  ],
)
def test_options_have_the_types_and_limits_of_fields(name, options, words):
  config = base_config().optimizer
  config.name, config.options = name, options
  with pytest.raises(UserError) as error:
    make_optimizer(config, 0.1)
  message = str(error.value)
  assert '\n' not in message
  for word in words:
    assert word in message


@pytest.mark.parametrize(
  ('name', 'options'),
  [
    ('adamw', {'b1': 0, 'mu_dtype': 'bfloat16'}),
    ('adamw', {'mu_dtype': None}),
    ('rmsprop', {'momentum': 0.9, 'centered': True}),
    ('rmsprop', {'momentum': None}),
    ('adafactor', {'clipping_threshold': None, 'dtype_momentum': 'bfloat16'}),
    ('lars', {'trust_ratio_mask': False}),
    ('muon', {'ns_dtype': 'float32', 'ns_steps': 5}),
  ],
)
def test_options_that_optax_takes_are_taken(name, options):
  config = base_config().optimizer
  config.name, config.options = name, options
  params = {'kernel': jnp.ones((3, 4))}
  make_optimizer(config, 0.1).init(params)


def test_defaults_of_optax_are_within_the_limits():
  import inspect

  from jaxvision.optim.optimizers import _LIMITS

  for make in OPTIMIZERS.values():
    for name, parameter in inspect.signature(make).parameters.items():
      number = isinstance(parameter.default, int | float)
      if name in _LIMITS and number and parameter.default is not None:
        assert _LIMITS[name]['valid'](parameter.default), (make, name)
