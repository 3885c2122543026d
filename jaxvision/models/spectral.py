"""Spectral normalisation: a layer's kernel divided by its largest singular value.

Miyato et al. 2018, "Spectral normalization for generative adversarial networks". By
hand, as `flax.linen.SpectralNorm` also divides the weights that a network begins with,
and with that changes what a learning rate means.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def power_iteration(kernel: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns an estimate of a kernel's largest singular value, and the next vector.

  Algorithm 1 of the paper. The gradient takes both singular vectors for constants.

  Args:
    kernel: [..., F], taken as a matrix of F columns.
    u: float32 [F], of any length but 0; the result, passed again, does better.

  Returns:
    (float32 scalar, float32 [F] of length 1).

  >>> sigma, u = power_iteration(jnp.diag(jnp.array([3.0, 1.0])), jnp.ones(2))
  >>> float(power_iteration(jnp.diag(jnp.array([3.0, 1.0])), u)[0]).__round__(2)
  3.0
  """
  matrix = kernel.astype(jnp.float32).reshape(-1, kernel.shape[-1])
  fixed = jax.lax.stop_gradient(matrix)
  v = _unit(fixed @ jax.lax.stop_gradient(u))
  u = _unit(v @ fixed)
  return v @ matrix @ u, u


def normalized(
  product: Callable[..., jax.Array], u: nn.Variable, update: bool
) -> Callable[..., jax.Array]:
  """Returns `product` with its kernel spectrally normalised.

  Args:
    product: (inputs, kernel, ...) -> outputs, such as linen's layers take for
      `conv_general_dilated` and `dot_general`.
    u: float32 [F], the vector that iterates.
    update: whether the call leaves the next vector in `u`.
  """

  def normalized_product(
    inputs: jax.Array, kernel: jax.Array, *more: Any, **options: Any
  ) -> jax.Array:
    sigma, following = power_iteration(kernel, u.value)
    if update:
      u.value = following
    kernel = (kernel / jnp.maximum(sigma, 1e-12)).astype(kernel.dtype)
    return product(inputs, kernel, *more, **options)

  return normalized_product


def _unit(vector: jax.Array) -> jax.Array:
  return vector * jax.lax.rsqrt(jnp.sum(jnp.square(vector)) + 1e-24)
