"""From pixels to the network's input."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def normalize(
  images: jax.Array,
  mean: Sequence[float],
  std: Sequence[float],
  dtype: str | np.dtype = 'float32',
) -> jax.Array:
  """Returns (images / 255 - mean) / std, per channel, computed in float32.

  Args:
    images: [B, H, W, C] pixel values in [0, 255], uint8 or float.
    mean: C numbers in units of [0, 1].
    std: C positive numbers in the same units.
    dtype: of the result, 'float32' or 'bfloat16'.

  >>> normalize(jnp.array([0, 255], jnp.uint8).reshape(1, 1, 2, 1), [0.5], [0.25])
  Array([[[[-2.],
           [ 2.]]]], dtype=float32)
  """
  deviation = np.asarray(std, np.float64)
  scale = (1 / (255 * deviation)).astype(np.float32)
  shift = (np.asarray(mean, np.float64) / deviation).astype(np.float32)
  return (images.astype(jnp.float32) * scale - shift).astype(dtype)
