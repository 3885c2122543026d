"""Building blocks against linen's own and against NumPy."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.errors import UserError
from jaxvision.models import cnn, layers
from jaxvision.models.layers import (
  ACTIVATIONS,
  ConvUnit,
  SqueezeExcite,
  max_pool_2x2,
  max_pool_3x3,
  zero_pad_shortcut,
)

# It compiles much: not in `make test-fast`.
pytestmark = pytest.mark.long

SIZES = [(2, 2), (8, 8), (7, 7), (5, 8), (8, 3)]


def linen_3x3(x):
  return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))


@pytest.mark.parametrize('size', SIZES)
def test_max_pool_has_the_values_of_linen(size):
  x = jax.random.normal(jax.random.key(0), (2, *size, 3))
  chex.assert_trees_all_equal(max_pool_2x2(x), nn.max_pool(x, (2, 2), (2, 2)))


@pytest.mark.parametrize('size', SIZES)
def test_max_pool_has_the_gradient_of_linen_where_nothing_ties(size):
  shape = (2, *size, 3)
  x = jax.random.permutation(jax.random.key(0), np.prod(shape)).reshape(shape)
  x = x.astype(jnp.float32)
  weights = jax.random.normal(jax.random.key(1), max_pool_2x2(x).shape)
  ours = jax.grad(lambda x: (weights * max_pool_2x2(x)).sum())(x)
  linen = jax.grad(lambda x: (weights * nn.max_pool(x, (2, 2), (2, 2))).sum())(x)
  chex.assert_trees_all_equal(ours, linen)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_max_pool_gives_the_gradient_of_a_tie_to_the_first_as_linen_does(dtype):
  x = jax.random.randint(jax.random.key(0), (3, 9, 8, 5), 0, 3).astype(dtype)
  weights = jax.random.normal(jax.random.key(1), (3, 4, 4, 5), dtype)

  def gradient(pool):
    return jax.grad(lambda x: (weights * pool(x)).sum())(x)

  linen = gradient(lambda x: nn.max_pool(x, (2, 2), (2, 2)))
  chex.assert_trees_all_equal(gradient(max_pool_2x2), linen)


@pytest.mark.parametrize('size', [(1, 1), (2, 2), (1, 6), (9, 3), (8, 7)])
def test_overlapping_max_pool_has_the_values_and_gradient_of_linen(size):
  shape = (2, *size, 3)
  # All different, so that nothing ties, and below zero, which is no padding then.
  x = -1.0 - jax.random.permutation(jax.random.key(0), np.prod(shape)).reshape(shape)
  weights = jax.random.normal(jax.random.key(1), linen_3x3(x).shape)

  @jax.jit
  def both(x):
    def loss(x, pool):
      y = pool(x)
      return (weights * y).sum(), (y, pool(x.astype(jnp.bfloat16)))

    gradient = jax.grad(loss, has_aux=True)
    return gradient(x, max_pool_3x3), gradient(x, linen_3x3)

  (ours, values), (linen, expected) = both(x)
  chex.assert_trees_all_equal(values, expected)
  chex.assert_shape(values[0], (2, (size[0] + 1) // 2, (size[1] + 1) // 2, 3))
  chex.assert_trees_all_close(ours, linen, atol=1e-6)


def test_overlapping_max_pool_shares_the_gradient_of_a_tie_and_keeps_its_sum():
  gradient = jax.grad(lambda x: max_pool_3x3(x).sum())(jnp.ones((1, 5, 6, 1)))
  assert jnp.all(gradient > 0)
  assert gradient.sum() == 9


def test_overlapping_max_pool_is_linens_on_other_backends(monkeypatch):
  x = jnp.ones((1, 6, 6, 1))
  assert 'reduce_window' not in str(jax.make_jaxpr(max_pool_3x3)(x))
  monkeypatch.setattr(layers.jax, 'default_backend', lambda: 'gpu')
  program = jax.make_jaxpr(lambda x: max_pool_3x3(x))(x)
  assert 'reduce_window' in str(program)


@pytest.mark.parametrize('name', ACTIVATIONS)
def test_activations_agree_with_their_formulas(name):
  x = np.linspace(-3, 3, 25)
  expected = {
    'relu': np.maximum(x, 0),
    'leaky_relu': np.where(x > 0, x, 0.01 * x),
    'relu6': np.clip(x, 0, 6),
    'swish': x / (1 + np.exp(-x)),
    'gelu': x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
  }[name]
  np.testing.assert_allclose(ACTIVATIONS[name](jnp.array(x)), expected, atol=1e-6)


def test_zero_pad_shortcut_takes_every_second_pixel_and_centres_the_channels():
  x = jax.random.normal(jax.random.key(0), (2, 5, 4, 3))
  y = zero_pad_shortcut(x, 8, stride=2)
  chex.assert_shape(y, (2, 3, 2, 8))
  chex.assert_trees_all_equal(y[..., 2:5], x[:, ::2, ::2])
  assert not np.any(y[..., :2])
  assert not np.any(y[..., 5:])


@pytest.mark.parametrize('rate', [0.0, 0.3])
def test_dropout_is_linens_to_the_bit_and_takes_a_traced_rate(rate):
  x = jax.random.normal(jax.random.key(0), (4, 6))
  keys = {'dropout': jax.random.key(1)}

  def drop(layer):
    return layer.apply({}, x, deterministic=False, rngs=keys)

  # Of one name, by which a layer's key is made.
  ours, linens = layers.Dropout(rate, name='a'), nn.Dropout(rate, name='a')
  chex.assert_trees_all_equal(drop(ours), drop(linens))
  chex.assert_trees_all_equal(ours.apply({}, x, deterministic=True), x)
  traced = jax.jit(lambda rate: drop(layers.Dropout(rate, name='a')))(rate)
  chex.assert_trees_all_close(traced, drop(linens), rtol=1e-6)


@pytest.mark.parametrize('shape', [(512, 3), (512, 2, 2, 3)])
def test_paths_are_dropped_for_whole_examples_and_keep_their_mean(shape):
  x = 1 + jax.random.uniform(jax.random.key(0), shape)
  keys = {'dropout': jax.random.key(1)}
  layer = layers.DropPath(0.3)
  y = layer.apply({}, x, deterministic=False, rngs=keys)
  kept = np.asarray(y).reshape(512, -1).any(1)
  expected = jnp.where(kept.reshape(-1, *[1] * (len(shape) - 1)), x / 0.7, 0)
  chex.assert_trees_all_close(y, expected, rtol=1e-6)
  assert abs(kept.mean() - 0.7) < 0.06  # three deviations
  chex.assert_trees_all_equal(layer.apply({}, x, deterministic=True), x)
  traced = jax.jit(
    lambda rate: layers.DropPath(rate).apply({}, x, deterministic=False, rngs=keys)
  )
  chex.assert_trees_all_close(traced(0.3), y, rtol=1e-6)
  assert jnp.any(traced(0.6) != y)


def test_no_path_is_dropped_at_a_rate_of_zero():
  x = jnp.ones((2, 3), jnp.bfloat16)  # and no key is needed
  y = layers.DropPath(0.0).apply({}, x, deterministic=False)
  chex.assert_trees_all_equal(y, x)


def test_rates_of_paths_rise_from_zero_also_when_traced():
  np.testing.assert_allclose(layers.path_rates(0.4, 5), [0, 0.1, 0.2, 0.3, 0.4])
  assert layers.path_rates(0.4, 1) == (0.0,)
  traced = jax.jit(lambda rate: layers.path_rates(rate, 3)[1:])(0.4)
  np.testing.assert_allclose(traced, [0.2, 0.4], rtol=1e-6)


def test_squeeze_excite_scales_whole_channels_by_gates_below_one():
  x = 1 + jax.random.uniform(jax.random.key(0), (2, 4, 4, 8))
  y, variables = SqueezeExcite(reduction=2).init_with_output(jax.random.key(1), x)
  gates = y / x
  chex.assert_trees_all_close(gates, jnp.broadcast_to(gates[:, :1, :1], x.shape))
  assert np.all((gates > 0) & (gates < 1))
  assert variables['params']['squeeze']['kernel'].shape == (8, 4)


def test_conv_unit_has_a_bias_or_a_batch_norm():
  x = jnp.ones((2, 4, 4, 3))

  def parameters(**fields):
    return ConvUnit(5, **fields).init(jax.random.key(0), x, train=False)['params']

  assert set(parameters(batch_norm=True)) == {'conv', 'bn'}
  assert set(parameters(batch_norm=True)['conv']) == {'kernel'}
  assert set(parameters(batch_norm=False)) == {'conv'}
  assert set(parameters(batch_norm=False)['conv']) == {'kernel', 'bias'}


def test_an_image_too_small_is_refused_in_one_line():
  with pytest.raises(UserError, match='SmallFiltersCNN .* at least 8x8 .* 8x7') as info:
    cnn.SmallFiltersCNN(10).init(jax.random.key(0), jnp.ones((1, 8, 7, 3)))
  assert '\n' not in str(info.value)
