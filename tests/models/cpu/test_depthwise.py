"""Depthwise convolution as sums of shifted images: the same as XLA's."""

import chex
import jax
import jax.numpy as jnp
import pytest

from jaxvision.models.cpu import conv_general_dilated, depthwise

pytestmark = [pytest.mark.long, pytest.mark.usefixtures('without_onednn')]

LAYOUT = ('NHWC', 'HWIO', 'NHWC')


def _values(shape, seed):
  return jax.random.normal(jax.random.key(seed), shape)


def _with_gradients(convolve, images, kernel):
  """Returns the result and the gradients of a sum of it, unequally weighted."""

  def total(images, kernel):
    result = convolve(images, kernel)
    weights = jnp.cos(jnp.arange(result.size, dtype=jnp.float32)).reshape(result.shape)
    return (result * weights).sum(), result

  grads, result = jax.jit(jax.grad(total, (0, 1), has_aux=True))(images, kernel)
  return result, grads


@pytest.mark.parametrize('batch', [1, 5])
@pytest.mark.parametrize('strides', [(1, 1), (2, 2), (1, 2)])
@pytest.mark.parametrize(
  'padding', [((1, 1), (1, 1)), ((0, 0), (2, 1)), ((0, 1), (0, 0))]
)
def test_the_result_and_both_gradients_are_those_of_xla(batch, strides, padding):
  images, kernel = _values((batch, 7, 8, 6), 0), _values((3, 3, 1, 6), 1)
  expected = _with_gradients(
    lambda x, w: jax.lax.conv_general_dilated(
      x, w, strides, padding, dimension_numbers=LAYOUT, feature_group_count=6
    ),
    images,
    kernel,
  )
  found = _with_gradients(
    lambda x, w: depthwise.convolve(x, w, strides, padding), images, kernel
  )
  chex.assert_trees_all_close(found, expected, atol=2e-5)


@pytest.mark.parametrize(
  ('size', 'padding'),
  [((7, 7), ((3, 3), (3, 3))), ((6, 9), ((-1, 4), (5, 2)))],
)
def test_large_kernels_have_the_gradients_of_xla(size, padding):
  images, kernel = _values((3, 8, 9, 4), 0), _values((*size, 1, 4), 1)
  expected = _with_gradients(
    lambda x, w: jax.lax.conv_general_dilated(
      x, w, (1, 1), padding, dimension_numbers=LAYOUT, feature_group_count=4
    ),
    images,
    kernel,
  )
  found = _with_gradients(
    lambda x, w: depthwise.convolve(x, w, (1, 1), padding), images, kernel
  )
  chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_gradient_by_a_large_kernel_is_summed_in_float32():
  images, kernel = jnp.ones((4, 24, 24, 1), jnp.bfloat16), _values((7, 7, 1, 1), 1)

  @jax.jit
  def by_kernel(kernel):
    _, back = jax.vjp(
      lambda w: depthwise.convolve(images, w, (1, 1), ((3, 3), (3, 3))), kernel
    )
    return back(images)[0]

  found = by_kernel(kernel.astype(jnp.bfloat16))
  assert found.dtype == jnp.bfloat16
  # As many ones as the images have pixels: in bfloat16 their sum would stop at 256.
  assert found[3, 3, 0, 0] == 2304


def test_other_groups_are_left_to_xla():
  images, kernel = _values((2, 6, 6, 8), 0), _values((3, 3, 2, 8), 1)
  options = {'dimension_numbers': LAYOUT, 'feature_group_count': 4}
  expected = jax.lax.conv_general_dilated(images, kernel, (1, 1), 'SAME', **options)
  found = conv_general_dilated(images, kernel, (1, 1), 'SAME', **options)
  chex.assert_trees_all_equal(found, expected)
  program = str(
    jax.make_jaxpr(
      lambda x: conv_general_dilated(x, kernel, (1, 1), 'SAME', **options)
    )(images)
  )
  assert 'conv_general_dilated' in program


def test_a_filter_for_each_channel_is_no_convolution_of_xla():
  images, kernel = _values((2, 6, 6, 8), 0), _values((3, 3, 1, 8), 1)

  def convolve(x, w):
    return conv_general_dilated(
      x, w, (1, 1), 'SAME', dimension_numbers=LAYOUT, feature_group_count=8
    )

  assert 'conv_general_dilated' not in str(jax.make_jaxpr(convolve)(images, kernel))
  expected = jax.lax.conv_general_dilated(
    images, kernel, (1, 1), 'SAME', dimension_numbers=LAYOUT, feature_group_count=8
  )
  chex.assert_trees_all_close(convolve(images, kernel), expected, atol=2e-5)
