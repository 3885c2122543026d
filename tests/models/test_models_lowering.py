"""The CPU's own form of a convolution has the numbers of XLA's."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.models.lowering import conv_general_dilated

NHWC = ('NHWC', 'HWIO', 'NHWC')


@pytest.mark.parametrize(
  ('channels', 'strides', 'padding', 'kernel'),
  [
    (3, (1, 1), ((1, 1), (1, 1)), (3, 3)),
    (1, (1, 1), 'SAME', (3, 3)),
    (4, (2, 2), 'SAME', (3, 3)),
    (3, (2, 1), 'VALID', (2, 5)),
    (3, (1, 2), ((1, 1), (0, 2)), (4, 1)),
    (1, (1, 1), 'VALID', (1, 1)),
  ],
)
def test_values_and_gradients_equal_xla(channels, strides, padding, kernel):
  keys = jax.random.split(jax.random.key(0), 2)
  images = jax.random.normal(keys[0], (2, 9, 8, channels))
  weights = jax.random.normal(keys[1], (*kernel, channels, 5))

  def loss(convolve):
    def value(images, weights):
      out = convolve(images, weights, strides, padding, dimension_numbers=NHWC)
      return jnp.sum(jnp.sin(out)), out

    (_, out), grads = jax.value_and_grad(value, argnums=(0, 1), has_aux=True)(
      images, weights
    )
    return out, grads

  ours, plain = loss(conv_general_dilated), loss(jax.lax.conv_general_dilated)
  chex.assert_trees_all_close(ours, plain, rtol=1e-4, atol=1e-4)


def test_few_channels_take_no_convolution_on_a_cpu():
  def traced(channels, **options):
    images = jnp.zeros((1, 8, 8, channels))
    weights = jnp.zeros((3, 3, channels // options.get('feature_group_count', 1), 4))
    convolve = lambda x, w: conv_general_dilated(  # noqa: E731
      x, w, (1, 1), 'SAME', dimension_numbers=NHWC, **options
    )
    return str(jax.make_jaxpr(convolve)(images, weights))

  assert 'conv_general_dilated' not in traced(3)
  assert 'conv_general_dilated' in traced(16)
  assert 'conv_general_dilated' in traced(4, rhs_dilation=(2, 2))
  assert 'conv_general_dilated' in traced(4, feature_group_count=2)


def test_bfloat16_stays_bfloat16():
  images = jnp.ones((1, 8, 8, 3), jnp.bfloat16)
  weights = jnp.ones((3, 3, 3, 4), jnp.bfloat16)
  out = conv_general_dilated(images, weights, (1, 1), 'SAME', dimension_numbers=NHWC)
  assert out.dtype == jnp.bfloat16
  np.testing.assert_array_equal(out[0, 4, 4], np.full(4, 27.0))
