"""Convolution by backend and shape.

On GPUs and TPUs XLA's convolution is the fastest there is. XLA:CPU's is not: a
convolution of few channels is faster as one matrix product over patches, and a 3x3 one
of many channels by Winograd's algorithm; a depthwise one is a sum of shifted images.
"""

import contextlib
import contextvars
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxvision.models.cpu import depthwise, winograd

# Up to so many input channels, patches: the gradient by the kernel is four to five
# times faster (3 -> 32 channels at 32x32, batch 128: 6 ms instead of 29), from about 8
# channels on it is even.
_FEW_CHANNELS = 4

# From so many channels, in and out, and so many tiles of 4x4 pixels on, Winograd: the
# transforms and what they write then cost less than the products they spare.
_MANY_CHANNELS = 64
_MANY_TILES = 64

_LAYOUT = ('NHWC', 'HWIO', 'NHWC')

_plain = contextvars.ContextVar('plain', default=False)


def are_plain() -> bool:
  """Returns whether `plain_convolutions` lasts."""
  return _plain.get()


@contextlib.contextmanager
def plain_convolutions() -> Iterator[None]:
  """While it lasts, what is traced has no product that an algorithm spares.

  That is how the FLOPs of a layer are counted, whatever computes it.
  """
  token = _plain.set(True)
  try:
    yield
  finally:
    _plain.reset(token)


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
  if not _is_ours(lhs, rhs, options):
    return jax.lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)
  strides = tuple(window_strides)
  if isinstance(padding, str):
    padding = jax.lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], strides, padding)
  padding = tuple((int(before), int(after)) for before, after in padding)
  if options.get('feature_group_count', 1) > 1:
    return depthwise.convolve(lhs, rhs, strides, padding)
  if lhs.shape[-1] <= _FEW_CHANNELS:
    return _by_patches(lhs, rhs, strides, padding, options)
  if lhs.dtype == jnp.float32:
    if _suits_winograd(lhs, rhs, strides, padding):
      return winograd.conv3x3(lhs, rhs)
    if rhs.shape[:2] == (1, 1) or max(strides) > 1:
      return _strided(lhs, rhs, strides, padding)
  return jax.lax.conv_general_dilated(lhs, rhs, strides, padding, **options)


def _is_ours(lhs: jax.Array, rhs: jax.Array, options: dict[str, Any]) -> bool:
  """Says whether this is a convolution of images, with no dilation, on a CPU.

  In one group, or depthwise with one filter for each channel.
  """
  return (
    jax.default_backend() == 'cpu'
    and not _plain.get()
    and lhs.ndim == 4
    and all(d == 1 for d in options.get('lhs_dilation') or (1,))
    and all(d == 1 for d in options.get('rhs_dilation') or (1,))
    and options.get('feature_group_count', 1) in (1, lhs.shape[-1])
    and (
      options.get('feature_group_count', 1) == 1 or rhs.shape[2:] == (1, lhs.shape[-1])
    )
    and options.get('batch_group_count', 1) == 1
  )


def _suits_winograd(
  lhs: jax.Array, rhs: jax.Array, strides: tuple[int, ...], padding: Any
) -> bool:
  batch, height, width, _ = lhs.shape
  return (
    rhs.shape[:2] == (3, 3)
    and strides == (1, 1)
    and padding == ((1, 1), (1, 1))
    and min(rhs.shape[2:]) >= _MANY_CHANNELS
    and batch * winograd.tiles(height) * winograd.tiles(width) >= _MANY_TILES
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _strided(images, kernel, strides, padding):
  """Convolves; the gradient by the kernel is a matrix product for each of its pixels.

  XLA:CPU would turn the images into planes of channels first, on one core: of a step
  of ResNet-18, the three strided convolutions took a sixth.
  """
  if kernel.shape[:2] == (1, 1) and not any(map(any, padding)):
    seen = images[:, :: strides[0], :: strides[1]]
    return jnp.einsum('bhwc,cf->bhwf', seen, kernel[0, 0])
  return jax.lax.conv_general_dilated(
    images, kernel, strides, padding, dimension_numbers=_LAYOUT
  )


def _strided_forward(images, kernel, strides, padding):
  return _strided(images, kernel, strides, padding), (images, kernel)


def _strided_backward(strides, padding, saved, gradient):
  images, kernel = saved

  def convolve(images):
    return jax.lax.conv_general_dilated(
      images, kernel, strides, padding, dimension_numbers=_LAYOUT
    )

  (by_images,) = jax.linear_transpose(convolve, images)(gradient)
  by_kernel = [
    jax.lax.dot_general(
      window.reshape(-1, window.shape[-1]),
      gradient.reshape(-1, gradient.shape[-1]),
      (((0,), (0,)), ((), ())),
    )
    for window in _windows(images, kernel.shape[:2], strides, padding)
  ]
  return by_images, jnp.stack(by_kernel).reshape(kernel.shape)


_strided.defvjp(_strided_forward, _strided_backward)


def _windows(images, size, strides, padding) -> list[jax.Array]:
  """Returns, for each pixel of a kernel in order, what it sees: [B, H', W', C]."""
  padded = jnp.pad(images, ((0, 0), *padding, (0, 0)))
  rows = (padded.shape[1] - size[0]) // strides[0] + 1
  columns = (padded.shape[2] - size[1]) // strides[1] + 1
  return [
    padded[
      :,
      i : i + (rows - 1) * strides[0] + 1 : strides[0],
      j : j + (columns - 1) * strides[1] + 1 : strides[1],
    ]
    for i in range(size[0])
    for j in range(size[1])
  ]


def _by_patches(lhs, rhs, strides, padding, options):
  """Convolves as one matrix product over all the windows side by side.

  The windows are laid out along the columns and then along the rows, which copies
  longer runs of memory than one step of all the kernel's pixels.
  """
  height, width = rhs.shape[:2]
  padded = jnp.pad(lhs, ((0, 0), *padding, (0, 0)))
  rows = (padded.shape[1] - height) // strides[0] + 1
  columns = (padded.shape[2] - width) // strides[1] + 1
  last = (columns - 1) * strides[1] + 1
  lines = jnp.concatenate(
    [padded[:, :, j : j + last : strides[1]] for j in range(width)], axis=-1
  )
  last = (rows - 1) * strides[0] + 1
  patches = jnp.concatenate(
    [lines[:, i : i + last : strides[0]] for i in range(height)], axis=-1
  )
  product = jax.lax.dot(
    patches.reshape(-1, patches.shape[-1]),
    rhs.reshape(-1, rhs.shape[-1]),
    precision=options.get('precision'),
    preferred_element_type=options.get('preferred_element_type'),
  )
  return product.reshape(*patches.shape[:3], -1)
