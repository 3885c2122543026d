"""Depthwise convolution on a CPU: sums of shifted images.

XLA:CPU convolves group by group. A sum over the pixels of the kernel of shifted images,
times one number per channel, is one loop over memory (96 channels at 16x16, batch 64: 1 ms
instead of 40). The gradient by the kernel sums over the batch by halves, which is as fast,
and not by one reduction (8 ms instead of 67).

Of large kernels that takes long to compile, and to run where the image is large, too. Their
gradient is made of matrix products, one for each channel and row of the kernel: every
column of the images times every column of the gradient, of which a diagonal is summed for
each pixel of the kernel (7x7, 40 channels at 16x16, batch 32: 7 ms instead of 33, and
0.4 s instead of 1.7 to compile).
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.models.cpu.windows import Pads, pad, windows

# Kernels from this many pixels on are large.
_MANY_PIXELS = 49


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(
  images: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: Pads
) -> jax.Array:
  """Convolves each channel with its own kernel.

  Args:
    images: float [B, H, W, C].
    kernel: float [h, w, 1, C].
    strides: along H and W.
    padding: zeros before and after, along H and W; below 0 it cuts.

  Returns:
    [B, H', W', C], H' = (H + padding - h) // stride + 1.
  """
  parts = windows(images, kernel.shape[:2], strides, padding)
  places = np.ndindex(*kernel.shape[:2])
  parts = [part * kernel[i, j, 0] for part, (i, j) in zip(parts, places)]
  return sum(parts[1:], start=parts[0])


def _forward(images, kernel, strides, padding):
  return convolve(images, kernel, strides, padding), (images, kernel)


def _backward(strides, padding, saved, gradient):
  images, kernel = saved
  if strides == (1, 1) and math.prod(kernel.shape[:2]) >= _MANY_PIXELS:
    by_kernel = _products(images, gradient, kernel.shape[:2], padding)
  else:
    by_kernel = jnp.stack(
      [
        _sum(part * gradient)
        for part in windows(images, kernel.shape[:2], strides, padding)
      ]
    )
  # By the images: the gradient, spread out by the stride, with the kernel rotated.
  zero = jnp.zeros((), gradient.dtype)
  spread = jax.lax.pad(
    gradient, zero, [(0, 0, 0), *((0, 0, stride - 1) for stride in strides), (0, 0, 0)]
  )
  back = tuple(
    (side - 1 - before, size - length + before)
    for side, size, length, (before, _) in zip(
      kernel.shape[:2], images.shape[1:3], spread.shape[1:3], padding
    )
  )
  by_images = convolve(spread, kernel[::-1, ::-1], (1, 1), back)
  return by_images, by_kernel.reshape(kernel.shape).astype(kernel.dtype)


def _products(
  images: jax.Array, gradient: jax.Array, size: tuple[int, int], padding: Pads
) -> jax.Array:
  """Returns the gradient by a kernel that was applied without strides: [h, w, C]."""
  _, rows, columns, channels = gradient.shape
  padded = pad(images, padding).transpose(3, 1, 0, 2)
  gradient = gradient.transpose(3, 1, 0, 2).reshape(channels, -1, columns)
  # [C, columns of the padded images, columns], for each row of the kernel.
  products = [
    jax.lax.dot_general(
      padded[:, i : i + rows].reshape(channels, -1, padded.shape[-1]),
      gradient,
      (((1,), (1,)), ((0,), (0,))),
      preferred_element_type=jnp.float32,
    )
    for i in range(size[0])
  ]
  flat = jnp.stack(products).reshape(size[0], channels, -1)
  step = columns + 1  # to the next on a diagonal
  return jnp.stack(
    [flat[..., j * columns :: step][..., :columns].sum(-1) for j in range(size[1])],
    axis=1,
  )


def _sum(values: jax.Array) -> jax.Array:
  """Sums [B, H, W, C] to [C]."""
  while values.shape[0] > 1:
    half = values.shape[0] // 2
    rest = values[2 * half :]
    values = values[:half] + values[half : 2 * half]
    if len(rest):
      values = values.at[0].add(rest[0])
  return values[0].sum((0, 1))


convolve.defvjp(_forward, _backward)
