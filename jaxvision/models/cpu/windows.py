"""Padding, and the windows of a convolution as slices of the images."""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

Pads = tuple[tuple[int, int], tuple[int, int]]


def to_pads(
  padding: Any, size: Sequence[int], kernel: Sequence[int], strides: Sequence[int]
) -> Pads:
  """Returns pixels to add before and after, along H and W, for any spelling of `padding`."""
  if isinstance(padding, str):
    padding = jax.lax.padtype_to_pads(size, kernel, strides, padding)
  (top, bottom), (left, right) = padding
  return (int(top), int(bottom)), (int(left), int(right))


def pad(images: jax.Array, pads: Iterable[tuple[int, int]]) -> jax.Array:
  """Adds zeros around images [B, H, W, C], or cuts pixels off where a pad is negative."""
  edges = [(0, 0, 0), *((*both, 0) for both in pads), (0, 0, 0)]
  return jax.lax.pad(images, jnp.zeros((), images.dtype), edges)


def windows(
  images: jax.Array, kernel: Sequence[int], strides: Sequence[int], pads: Pads
) -> list[jax.Array]:
  """Returns, for each pixel of a kernel in order, its inputs: [B, H', W', C]."""
  padded = pad(images, pads) if any(map(any, pads)) else images
  last = [(n - k) // s * s + 1 for n, k, s in zip(padded.shape[1:3], kernel, strides)]
  return [
    padded[:, i : i + last[0] : strides[0], j : j + last[1] : strides[1]]
    for i in range(kernel[0])
    for j in range(kernel[1])
  ]
