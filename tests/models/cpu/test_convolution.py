"""The CPU's own form of a convolution has the numbers of XLA's."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.models.cpu import conv_general_dilated
from jaxvision.training.mesh import make_mesh, over_batch

pytestmark = [pytest.mark.long, pytest.mark.usefixtures('without_onednn')]

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


def _both(shape, features, size, strides, padding, dtype=jnp.float32):
  """Returns (value, gradients) by our lowering and by XLA's convolution."""
  keys = jax.random.split(jax.random.key(1), 3)
  images = jax.random.normal(keys[0], shape, dtype)
  weights = jax.random.normal(keys[1], (*size, shape[-1], features), dtype)

  def value_and_gradients(convolve):
    def out(images, weights):
      return convolve(images, weights, strides, padding, dimension_numbers=NHWC)

    value, pull = jax.vjp(out, images, weights)
    return value, *pull(jax.random.normal(keys[2], value.shape, dtype))

  return (
    jax.jit(value_and_gradients, static_argnums=0)(convolve)
    for convolve in (conv_general_dilated, jax.lax.conv_general_dilated)
  )


def _check(ours, plain, tolerance):
  for mine, theirs in zip(ours, plain, strict=True):
    chex.assert_equal_shape([mine, theirs])
    assert jnp.abs(mine - theirs).max() <= tolerance * jnp.abs(theirs).max()


@pytest.mark.parametrize('features', [64, pytest.param(72, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
  'shape',
  [
    (64, 4, 4, 64),
    (16, 8, 8, 96),
    (4, 16, 16, 80),
    (7, 13, 17, 64),  # neither side is whole tiles
    (64, 1, 3, 64),  # smaller than a tile
    (2, 32, 32, 64),
  ],
)
def test_winograd_equals_xla(shape, features):
  ours, plain = _both(shape, features, (3, 3), (1, 1), ((1, 1), (1, 1)))
  # The rounding of F(4x4, 3x3) in float32 is some 1e-5 of the largest value.
  _check(ours, plain, 1e-4)


@pytest.mark.parametrize(
  ('size', 'strides', 'padding'),
  [
    ((3, 3), (2, 2), ((1, 1), (1, 1))),
    ((3, 3), (2, 2), 'SAME'),
    ((1, 1), (2, 2), ((0, 0), (0, 0))),
    ((1, 1), (1, 1), 'SAME'),
    ((1, 1), (1, 2), ((1, 0), (0, 1))),
    ((7, 7), (2, 2), ((3, 3), (3, 3))),
    ((5, 2), (3, 1), 'VALID'),
  ],
)
@pytest.mark.parametrize('side', [(8, 8), (9, 11)])
def test_strided_and_pointwise_equal_xla(side, size, strides, padding):
  ours, plain = _both((3, *side, 16), 24, size, strides, padding)
  _check(ours, plain, 1e-5)


def test_the_way_follows_shape_and_type():
  def products(shape, features, dtype=jnp.float32, size=(3, 3), padding='SAME'):
    images, weights = jnp.zeros(shape, dtype), jnp.zeros((*size, shape[-1], features))

    def convolve(x, w):
      return conv_general_dilated(
        x, w.astype(dtype), (1, 1), padding, dimension_numbers=NHWC
      )

    return str(jax.make_jaxpr(convolve)(images, weights)).count('dot_general')

  winograd = 6  # batches of six
  assert products((4, 16, 16, 64), 64) == winograd
  assert products((3, 16, 16, 64), 64) == 0  # too few tiles
  assert products((4, 16, 16, 32), 64) == 0
  assert products((4, 16, 16, 64), 32) == 0
  assert products((4, 16, 16, 64), 64, jnp.bfloat16) == 0
  assert products((4, 16, 16, 64), 64, size=(5, 5)) == 0
  assert products((4, 16, 16, 64), 64, padding='VALID') == 0
  assert products((4, 16, 16, 64), 64, size=(1, 1)) == 1


def test_winograd_under_vmap_and_on_a_split_batch():
  kernels = jax.random.normal(jax.random.key(2), (2, 3, 3, 64, 64))
  images = jax.random.normal(jax.random.key(3), (8, 16, 16, 64))

  def convolve(kernel, images):
    return conv_general_dilated(images, kernel, (1, 1), 'SAME', dimension_numbers=NHWC)

  plain = [
    jax.lax.conv_general_dilated(images, k, (1, 1), 'SAME', dimension_numbers=NHWC)
    for k in kernels
  ]
  together = jax.vmap(convolve, (0, None))(kernels, images)
  _check(together, plain, 1e-4)
  split = over_batch(make_mesh())
  out = jax.jit(convolve)(kernels[0], jax.device_put(images, split))
  assert out.sharding.is_equivalent_to(split, out.ndim)
  _check([out], [plain[0]], 1e-4)
