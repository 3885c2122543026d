"""Batch norms that take their statistics of parts of a batch, and those that are frozen."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvision
from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.models.norms import frozen_norms, training_norms

X = jax.random.normal(jax.random.key(0), (12, 4, 4, 3)) * 3 + 1


class Net(nn.Module):
  """A batch norm with what it is told to have."""

  options: dict

  @nn.compact
  def __call__(self, x, train):
    return nn.BatchNorm(**self.options, name='bn')(x, use_running_average=not train)


def applied(net, variables, x, parts=1):
  with training_norms(parts):
    return net.apply(variables, x, train=True, mutable=['batch_stats'])


@pytest.mark.parametrize(
  'options',
  [
    {},
    {'use_scale': False, 'epsilon': 1e-3},
    {'use_bias': False, 'use_fast_variance': False, 'momentum': 0.5},
    {'dtype': jnp.bfloat16},
  ],
)
def test_each_part_is_normalised_as_a_batch_of_its_own(options):
  net = Net(options)
  variables = net.init(jax.random.key(1), X, train=False)
  variables = jax.tree.map(lambda v: v + 0.3, variables)
  y, updated = applied(net, variables, X, parts=3)
  alone = [applied(net, variables, part) for part in jnp.split(X, 3)]
  tolerance = 2e-2 if 'dtype' in options else 1e-5
  assert y.dtype == alone[0][0].dtype
  chex.assert_trees_all_close(
    y.astype(jnp.float32),
    jnp.concatenate([part for part, _ in alone]).astype(jnp.float32),
    rtol=tolerance,
    atol=tolerance,
  )
  means = jax.tree.map(lambda *v: np.mean(v, 0), *[stats for _, stats in alone])
  chex.assert_trees_all_close(updated, means, rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_the_parts():
  net = Net({})
  variables = net.init(jax.random.key(1), X, train=False)
  weights = jax.random.normal(jax.random.key(2), X.shape)

  def loss(x, weights, parts):
    return jnp.sum(applied(net, variables, x, parts)[0] ** 2 * weights)

  found = jax.grad(loss)(X, weights, 3)
  alone = [
    jax.grad(loss)(part, w, 1)
    for part, w in zip(jnp.split(X, 3), jnp.split(weights, 3))
  ]
  chex.assert_trees_all_close(found, jnp.concatenate(alone), rtol=1e-4, atol=1e-5)


def test_evaluation_and_frozen_norms_use_running_statistics():
  net = Net({})
  variables = net.init(jax.random.key(1), X, train=False)
  with training_norms(3):
    y = net.apply(variables, X, train=False)
    with frozen_norms(lambda path: path == ('bn',)):
      still, updated = net.apply(variables, X, train=True, mutable=['batch_stats'])
  wanted = net.apply(variables, X, train=False)
  chex.assert_trees_all_equal(y, wanted)
  chex.assert_trees_all_equal(still, wanted)
  chex.assert_trees_all_equal(updated['batch_stats'], variables['batch_stats'])


def test_what_has_no_parts_is_one_line():
  net = Net({'axis': 1})
  variables = net.init(jax.random.key(1), X, train=False)
  with pytest.raises(UserError, match='batch norm bn of the model has a mask'):
    applied(net, variables, X, parts=3)
  net = Net({})
  variables = net.init(jax.random.key(1), X, train=False)
  with pytest.raises(UserError, match='12 images, which 5 devices'):
    applied(net, variables, X, parts=5)


def test_no_device_waits_for_another_within_a_pass():
  """Nothing is summed over two devices, forwards or backwards to the images."""
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ('data',))
  rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
  everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  net = models.create('basic_cnn', num_classes=10, batch_norm=True)
  x = jax.device_put(jnp.zeros((8, 32, 32, 3)), rows)
  variables = jax.device_put(net.init(jax.random.key(0), x, train=False), everywhere)

  def outputs(variables, x, parts):
    with training_norms(parts):
      return net.apply(
        variables,
        x,
        train=True,
        mutable=['batch_stats'],
        rngs={'dropout': jax.random.key(0)},
      )[0]

  def gradient(variables, x, parts):
    return jax.grad(lambda x: outputs(variables, x, parts).sum())(x)

  def sums(function, parts):
    compiled = jax.jit(function, static_argnums=2).lower(variables, x, parts).compile()
    return compiled.as_text().count(' all-reduce(')

  for function in (outputs, gradient):
    assert sums(function, 2) == 0
    assert sums(function, 1) > 0


@pytest.mark.long
def test_a_run_trains_with_norms_of_each_device(digits_config, tmp_path):
  digits_config.parallel.data = 2
  digits_config.batch_size = 60
  losses = {}
  for scope in ('global', 'device'):
    digits_config.parallel.norm_scope = scope
    summary = jaxvision.train(digits_config, tmp_path / scope, quiet=True)
    losses[scope] = summary['test_loss']
  assert losses['global'] != losses['device']
  assert losses['device'] == pytest.approx(losses['global'], rel=0.5)
