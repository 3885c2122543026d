"""The gradient of the maximum of windows of 2x2 pixels."""

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from jaxvision.models.cpu.native.build import library, target


def suits_pooling(images: jax.Array) -> bool:
  """Returns whether the operator is at hand for such images, of one device."""
  known = images.dtype in (jnp.float32, jnp.bfloat16)
  return known and bool(images.size) and jax.device_count() == 1 and bool(library())


@custom_vmap
def max_pool_gradient(images: jax.Array, gradient: jax.Array) -> jax.Array:
  """Gives the gradient of each window to the first of its largest pixels.

  Args:
    images: [..., H, W, C], float32 or bfloat16, H and W at least 2.
    gradient: by the maxima, [..., H // 2, W // 2, C] of the same type.

  Returns:
    That by the images, [..., H, W, C].
  """
  assert library(), 'see `suits_pooling`'
  result = jax.ShapeDtypeStruct(images.shape, images.dtype)
  return jax.ffi.ffi_call(target('MaxPoolGradient'), result)(images, gradient)


@max_pool_gradient.def_vmap
def _batched(size, are_batched, *arrays):
  whole = (
    x if is_batched else jnp.broadcast_to(x, (size, *x.shape))
    for x, is_batched in zip(arrays, are_batched)
  )
  return max_pool_gradient(*whole), True
