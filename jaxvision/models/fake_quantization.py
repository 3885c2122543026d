"""Training in float32 as if the network were in int8: quantisation-aware training.

Kernels and the inputs of convolutions and dense layers are rounded as `jaxvision quantize`
rounds them, and gradients pass as if they were not (the straight-through estimator). A batch
norm that follows a convolution scales each output channel, as the range of its kernel is
scaled when it is folded in, so that folding changes no rounding.

Jacob et al. 2018, "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", https://arxiv.org/abs/1712.05877.
"""

import contextlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvision.models.paths import kernels


def fake_quantize_kernel(kernel: jax.Array) -> jax.Array:
  """Returns a kernel rounded to int8, symmetric, a range for each output channel.

  Args:
    kernel: float [..., F].

  Returns:
    As `kernel`; the gradient is that of the identity.

  >>> fake_quantize_kernel(jnp.array([[127.0, 254.0], [0.4, -3.0]])).tolist()
  [[127.0, 254.0], [0.0, -4.0]]
  """
  axes = tuple(range(kernel.ndim - 1))
  largest = jax.lax.stop_gradient(jnp.abs(kernel).max(axes, keepdims=True))
  scale = jnp.where(largest > 0, largest, 1) / 127
  return _rounded(kernel, jnp.round(kernel / scale) * scale)


def fake_quantize_activations(x: jax.Array) -> jax.Array:
  """Returns activations rounded to uint8 in the range of the batch, in which 0 is exact.

  Args:
    x: float, of any shape.

  Returns:
    As `x`; the gradient is that of the identity.

  >>> fake_quantize_activations(jnp.array([0.0, 0.3, 255.0])).tolist()
  [0.0, 0.0, 255.0]
  """
  low = jnp.minimum(jax.lax.stop_gradient(x.min()), 0)
  high = jnp.maximum(jax.lax.stop_gradient(x.max()), 0)
  scale = jnp.where(high > low, high - low, 1) / 255
  zero = jnp.round(-low / scale)
  level = jnp.clip(jnp.round(x / scale) + zero, 0, 255)
  return _rounded(x, (level - zero) * scale)


def _rounded(x: jax.Array, rounded: jax.Array) -> jax.Array:
  return x + jax.lax.stop_gradient(rounded - x)


def fake_quantize_params(params: Any) -> Any:
  """Returns parameters with every kernel rounded; biases, norms and positions stay."""
  return jax.tree.map(
    lambda leaf, is_kernel: fake_quantize_kernel(leaf) if is_kernel else leaf,
    params,
    kernels(params),
  )


def fake_quantized_inputs() -> contextlib.AbstractContextManager:
  """Within it, convolutions and dense layers that are applied round their inputs."""

  def interceptor(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    layer = isinstance(context.module, nn.Conv | nn.ConvTranspose | nn.Dense)
    if layer and context.method_name == '__call__' and args:
      args = (fake_quantize_activations(args[0]), *args[1:])
    return call(*args, **kwargs)

  return nn.intercept_methods(interceptor)
