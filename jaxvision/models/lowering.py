"""How a convolution is put to XLA, by backend and shape; the numbers are the same."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

# On XLA:CPU the gradient by a kernel with so few input channels is four to five times
# slower as a convolution than as a matrix product over patches (3 -> 32 channels at
# 32x32, batch 128: 29 against 6 ms); from about 8 channels on the convolution is even.
_FEW_CHANNELS = 4


def conv_general_dilated(
  lhs: jax.Array,
  rhs: jax.Array,
  window_strides: Sequence[int],
  padding: Any,
  **options: Any,
) -> jax.Array:
  """Convolves as `jax.lax.conv_general_dilated`, for `flax.linen.Conv` to call.

  Args:
    lhs: images [B, H, W, C].
    rhs: kernel [h, w, C, F].
    window_strides, padding, options: as in `jax.lax`.

  Returns:
    [B, H', W', F].
  """
  plain = (
    all(d == 1 for d in options.get('lhs_dilation') or (1,))
    and all(d == 1 for d in options.get('rhs_dilation') or (1,))
    and options.get('feature_group_count', 1) == 1
    and lhs.ndim == 4
  )
  if not (plain and jax.default_backend() == 'cpu' and lhs.shape[-1] <= _FEW_CHANNELS):
    return jax.lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)
  height, width, channels, features = rhs.shape
  if isinstance(padding, str):
    padding = jax.lax.padtype_to_pads(
      lhs.shape[1:3], (height, width), window_strides, padding
    )
  padded = jnp.pad(lhs, ((0, 0), *padding, (0, 0)))
  rows = (padded.shape[1] - height) // window_strides[0] + 1
  columns = (padded.shape[2] - width) // window_strides[1] + 1
  patches = jnp.concatenate(
    [
      padded[
        :,
        i : i + (rows - 1) * window_strides[0] + 1 : window_strides[0],
        j : j + (columns - 1) * window_strides[1] + 1 : window_strides[1],
      ]
      for i in range(height)
      for j in range(width)
    ],
    axis=-1,
  )
  product = jax.lax.dot(
    patches.reshape(math.prod((lhs.shape[0], rows, columns)), -1),
    rhs.reshape(height * width * channels, features),
    precision=options.get('precision'),
    preferred_element_type=options.get('preferred_element_type'),
  )
  return product.reshape(lhs.shape[0], rows, columns, features)
