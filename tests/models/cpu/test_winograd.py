"""Winograd's convolution in parts of a batch, against the whole batch at once."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.models.cpu import winograd

CHANNELS, FILTERS = 5, 3


def arrays(batch, height, width):
  random = np.random.default_rng(0)
  return tuple(
    jnp.asarray(random.standard_normal(shape), jnp.float32)
    for shape in (
      (batch, height, width, CHANNELS),
      (3, 3, CHANNELS, FILTERS),
      (batch, height, width, FILTERS),
    )
  )


def value_and_gradients(convolve):
  """Returns a function of images, a kernel and the gradient of the result."""

  @jax.jit
  def function(images, kernel, gradient):
    result, back = jax.vjp(convolve, images, kernel)
    return result, *back(gradient)

  return function


def plain(images, kernel):
  return jax.lax.conv_general_dilated(
    images, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


def bytes_of(images, height, width):
  tiles = winograd.tiles(height) * winograd.tiles(width)
  return images * tiles * 36 * (CHANNELS + FILTERS) * 4


@pytest.mark.long
def test_parts_of_a_batch_give_what_the_whole_gives(monkeypatch, quick_compile):
  batch, at_a_time, parts = 7, 3, 3
  height, width = 9, 6
  given = arrays(batch, height, width)
  assert winograd._number_of_parts(given[0], FILTERS) == 1
  whole = value_and_gradients(winograd.conv3x3)(*given)
  jax.clear_caches()  # of what was traced with another limit
  monkeypatch.setattr(
    winograd, 'MOST_BYTES', int(at_a_time * bytes_of(1, height, width))
  )
  assert winograd._number_of_parts(given[0], FILTERS) == parts
  in_parts_function = value_and_gradients(winograd.conv3x3)
  assert str(jax.make_jaxpr(in_parts_function)(*given)).count('scan[') == 3
  in_parts = in_parts_function(*given)
  # Rounding is about 1e-5 of the largest value.
  largest = max(float(jnp.abs(array).max()) for array in whole)
  chex.assert_trees_all_close(in_parts, whole, rtol=0, atol=1e-5 * largest)
  chex.assert_trees_all_close(
    in_parts, value_and_gradients(plain)(*given), rtol=0, atol=1e-4 * largest
  )


@pytest.mark.long
def test_memory_of_a_batch_in_parts_is_less(monkeypatch, quick_compile):
  batch, size = 96, 32
  shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arrays(batch, size, size)]

  def temporary_bytes():
    lowered = value_and_gradients(winograd.conv3x3).lower(*shapes)
    return lowered.compile().memory_analysis().temp_size_in_bytes

  whole = temporary_bytes()
  monkeypatch.setattr(winograd, 'MOST_BYTES', bytes_of(8, size, size))
  jax.clear_caches()  # of what was traced with another limit
  assert temporary_bytes() < whole - bytes_of(batch // 4, size, size)
