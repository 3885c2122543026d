"""Gradients of biases that are summed in float32 where a network computes in bfloat16.

The gradient of a bias is a sum over all pixels of a batch. XLA adds it up in the type of what
is summed, and on a CPU rounds to it after each addition: numbers of bfloat16 below a 256th of
what is there already are lost, and no loop is vectorised.
"""

import contextlib
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvision.models.cpu import native, on_cpu

_LAYERS = nn.Conv | nn.ConvTranspose | nn.Dense
_SHORT = (jnp.bfloat16, jnp.float16)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def spread(parameter: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
  """Broadcasts a parameter, or a gate, to what it is added to or multiplied with.

  Args:
    parameter: of a shape that broadcasts to `shape`.
    shape: of the features.
    dtype: of the features.

  Returns:
    [*shape] of `dtype`, whose gradient is summed in float32.

  >>> spread(jnp.arange(2.0), (3, 2), jnp.bfloat16).tolist()
  [[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]
  """
  return jnp.broadcast_to(parameter.astype(dtype), shape)


def _forward(parameter, shape, dtype):
  return spread(parameter, shape, dtype), parameter


def _backward(shape, dtype, parameter, gradient):
  del dtype
  before = (1,) * (len(shape) - parameter.ndim) + parameter.shape
  axes = tuple(i for i, (n, m) in enumerate(zip(before, shape)) if n == 1 and m != 1)
  if (
    axes == tuple(range(len(shape) - 1))
    and on_cpu()
    and native.suits_gradient(gradient)
  ):
    summed = native.sum_rows(gradient.reshape(-1, shape[-1]))
  else:
    summed = gradient.astype(jnp.float32).sum(axes)
  return (summed.reshape(parameter.shape).astype(parameter.dtype),)


spread.defvjp(_forward, _backward)


@contextlib.contextmanager
def float32_bias_gradients():
  """Within it, convolutions and dense layers of any network sum them in float32."""

  def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    module = context.module
    if (
      not isinstance(module, _LAYERS)
      or context.method_name != '__call__'
      or not module.use_bias
      or module.dtype is None
      or jnp.dtype(module.dtype) not in _SHORT
      or module.is_initializing()
    ):
      return call(*args, **kwargs)
    params = module.variables['params']
    plain = module.clone(use_bias=False, parent=None)
    kernel = {'params': {'kernel': params['kernel']}}
    y = plain.apply(kernel, *args, **kwargs)
    return y + spread(params['bias'], y.shape, y.dtype)

  with nn.intercept_methods(intercept):
    yield
