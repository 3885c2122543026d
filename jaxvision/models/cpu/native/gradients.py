"""Gradients that go over memory once: of the maximum of 2x2 pixels, and of a bias."""

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from jaxvision.models.cpu.native.build import library, target


def suits_gradient(array: jax.Array) -> bool:
  """Returns whether the operators are at hand for such an array, of one device."""
  known = array.dtype in (jnp.float32, jnp.bfloat16)
  return known and bool(array.size) and jax.device_count() == 1 and bool(library())


@custom_vmap
def max_pool_gradient(images: jax.Array, gradient: jax.Array) -> jax.Array:
  """Gives the gradient of each window to the first of its largest pixels.

  Args:
    images: [..., H, W, C], float32 or bfloat16, H and W at least 2.
    gradient: by the maxima, [..., H // 2, W // 2, C] of the same type.

  Returns:
    That by the images, [..., H, W, C].
  """
  assert library(), 'see `suits_gradient`'
  result = jax.ShapeDtypeStruct(images.shape, images.dtype)
  return jax.ffi.ffi_call(target('MaxPoolGradient'), result)(images, gradient)


@max_pool_gradient.def_vmap
def _max_pool_gradient_batched(size, are_batched, *arrays):
  whole = (
    x if is_batched else jnp.broadcast_to(x, (size, *x.shape))
    for x, is_batched in zip(arrays, are_batched)
  )
  return max_pool_gradient(*whole), True


@custom_vmap
def sum_rows(array: jax.Array) -> jax.Array:
  """Sums [N, C], float32 or bfloat16, over its rows: float32 [C]."""
  assert library(), 'see `suits_gradient`'
  result = jax.ShapeDtypeStruct(array.shape[1:], jnp.float32)
  return jax.ffi.ffi_call(target('Sum'), result)(array)


@sum_rows.def_vmap
def _sum_rows_batched(size, are_batched, array):
  del size, are_batched
  return array.astype(jnp.float32).sum(1), True
