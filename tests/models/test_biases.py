"""Gradients of biases of networks in bfloat16, which are sums of many numbers."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from jaxvision.models.biases import float32_bias_gradients, spread

COUNT = 40_000  # ones: bfloat16 sums of them end at 256


class Net(nn.Module):
  """A layer, as users write it."""

  layer: nn.Module

  @nn.compact
  def __call__(self, x):
    return self.layer(x)


LAYERS = {
  'dense': lambda **options: nn.Dense(3, **options),
  'convolution': lambda **options: nn.Conv(3, (3, 3), **options),
  'transposed': lambda **options: nn.ConvTranspose(3, (2, 2), (2, 2), **options),
}


@pytest.mark.parametrize('kind', LAYERS)
def test_sums_of_many_numbers_are_right_in_layers_of_any_network(kind):
  net = Net(LAYERS[kind](dtype=jnp.bfloat16, bias_init=nn.initializers.ones))
  x = jax.random.normal(jax.random.key(0), (4, 100, 100, 2), jnp.bfloat16)
  variables = net.init(jax.random.key(1), x)

  @jax.jit
  def total(variables):
    with float32_bias_gradients():
      return net.apply(variables, x).astype(jnp.float32).sum()

  gradient = jax.jit(jax.grad(total))(variables)
  chex.assert_trees_all_equal_shapes_and_dtypes(gradient, variables)
  count = net.apply(variables, x).size // 3
  assert count >= COUNT
  assert gradient['params']['layer']['bias'].tolist() == [count] * 3


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16, None])
@pytest.mark.parametrize('use_bias', [False, True])
def test_values_and_other_gradients_stay(dtype, use_bias):
  net = Net(nn.Conv(4, (3, 3), dtype=dtype, use_bias=use_bias))
  x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
  variables = net.init(jax.random.key(1), x)
  variables = jax.tree.map(lambda v: v + 0.1, variables)

  def squares(variables):
    return jnp.square(net.apply(variables, x).astype(jnp.float32)).mean()

  def with_sums(variables):
    with float32_bias_gradients():
      return squares(variables)

  plain = jax.value_and_grad(squares)(variables)
  ours = jax.value_and_grad(with_sums)(variables)
  chex.assert_trees_all_equal_shapes_and_dtypes(ours, plain)
  if dtype == jnp.bfloat16:
    chex.assert_trees_all_close(ours, plain, rtol=0.03, atol=1e-3)
  else:
    chex.assert_trees_all_equal(ours, plain)


def test_parameters_are_made_as_ever():
  net = Net(nn.Conv(4, (3, 3), dtype=jnp.bfloat16))
  x = jnp.ones((1, 8, 8, 3))
  plain = net.init(jax.random.key(1), x)
  with float32_bias_gradients():
    chex.assert_trees_all_equal(net.init(jax.random.key(1), x), plain)


@pytest.mark.parametrize('shape', [(5,), (4, 5), (1, 5), (3, 1, 5), (3, 4, 5), ()])
def test_spread_is_a_broadcast(shape):
  parameter = jax.random.normal(jax.random.key(0), shape)
  weights = jax.random.normal(jax.random.key(1), (3, 4, 5))

  def by(broadcast):
    return jax.value_and_grad(lambda p: (broadcast(p) * weights).sum())(parameter)

  ours = by(lambda p: spread(p, (3, 4, 5), jnp.float32))
  plain = by(lambda p: jnp.broadcast_to(p, (3, 4, 5)))
  chex.assert_trees_all_close(ours, plain, rtol=1e-5)


@pytest.mark.parametrize('axes', [(0, None), (None, 0), (0, 0)])
def test_spread_under_vmap(axes):
  arrays = jax.random.normal(jax.random.key(0), (2, 3, 4)), jnp.ones((2, 7, 4))
  several = [x if axis == 0 else x[0] for x, axis in zip(arrays, axes)]

  def by(broadcast):
    def each(parameter, x):
      return jax.grad(lambda p: (broadcast(p.sum(0)) * jnp.sin(x)).sum())(parameter)

    return jax.vmap(each, axes)(*several)

  ours = by(lambda p: spread(p, (7, 4), jnp.float32))
  plain = by(lambda p: jnp.broadcast_to(p, (7, 4)))
  chex.assert_trees_all_close(ours, plain, rtol=1e-5)
