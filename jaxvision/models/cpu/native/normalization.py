"""Batch norm of oneDNN, by the statistics of its batch, with its gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

from jaxvision.models.cpu.native.build import has_bfloat16, library, target

_LANES = 16  # bfloat16 numbers that are converted at a time


def suits_norm(inputs: jax.Array) -> bool:
  """Returns whether oneDNN is at hand and can normalise such inputs.

  Of one device: the statistics are of the whole batch, which nobody adds up over devices.
  """
  if inputs.ndim < 2 or not inputs.size or jax.device_count() > 1 or not library():
    return False
  # Of other numbers of channels it has plain loops alone.
  whole = inputs.shape[-1] % _LANES == 0
  return inputs.dtype == jnp.float32 or (
    inputs.dtype == jnp.bfloat16 and whole and has_bfloat16()
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalize(
  inputs: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Normalises each channel by its mean and variance over all else.

  Args:
    inputs: float32 or bfloat16 [B, ..., C].
    scale, bias: float32 [C].
    epsilon: added to the variance.

  Returns:
    The outputs, of the shape and type of the inputs, and mean and variance (divided by the
    number of values, not by one less), float32 [C], through which no gradient flows.
  """
  return _normalize(epsilon)(inputs, scale, bias)


def _forward(inputs, scale, bias, epsilon):
  outputs, mean, variance = normalize(inputs, scale, bias, epsilon)
  return (outputs, mean, variance), (inputs, scale, mean, variance)


def _backward(epsilon, saved, gradients):
  inputs, scale, mean, variance = saved
  return _gradient(inputs, scale, mean, variance, gradients[0], epsilon)


normalize.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _gradient(inputs, scale, mean, variance, gradient, epsilon):
  return _normalize_gradient(epsilon)(inputs, scale, mean, variance, gradient)


def _gradient_forward(inputs, scale, mean, variance, gradient, epsilon):
  value = _gradient(inputs, scale, mean, variance, gradient, epsilon)
  return value, (inputs, scale, mean, variance, gradient)


def _gradient_backward(epsilon, saved, gradients):
  # A gradient of a gradient, as penalties of GANs have it: oneDNN has no operator for it.
  inputs, scale, mean, variance, gradient = saved
  plain = functools.partial(_plain_gradient, epsilon)
  _, pull = jax.vjp(plain, inputs, scale, gradient)
  by_inputs, by_scale, by_gradient = pull(gradients)
  nothing = jnp.zeros_like(mean)
  return by_inputs, by_scale, nothing, jnp.zeros_like(variance), by_gradient


_gradient.defvjp(_gradient_forward, _gradient_backward)


def _plain(epsilon, inputs, scale, bias):
  values = inputs.astype(jnp.float32)
  axes = tuple(range(inputs.ndim - 1))
  mean = values.mean(axes)
  variance = jnp.square(values - mean).mean(axes)
  outputs = (values - mean) * (jax.lax.rsqrt(variance + epsilon) * scale) + bias
  return outputs.astype(inputs.dtype), mean, variance


def _plain_gradient(epsilon, inputs, scale, gradient):
  def outputs(inputs, scale, bias):
    return _plain(epsilon, inputs, scale, bias)[0]

  return jax.vjp(outputs, inputs, scale, jnp.zeros_like(scale))[1](gradient)


@functools.cache
def _normalize(epsilon):
  @custom_vmap
  def call(inputs, scale, bias):
    assert library(), 'see `suits_norm`'
    channel = jax.ShapeDtypeStruct(scale.shape, jnp.float32)
    result = (jax.ShapeDtypeStruct(inputs.shape, inputs.dtype), channel, channel)
    return tuple(
      jax.ffi.ffi_call(target('Normalize'), result)(
        inputs, scale, bias, epsilon=np.float32(epsilon)
      )
    )

  _plain_under_vmap(call, functools.partial(_plain, epsilon))
  return call


@functools.cache
def _normalize_gradient(epsilon):
  @custom_vmap
  def call(inputs, scale, mean, variance, gradient):
    assert library(), 'see `suits_norm`'
    channel = jax.ShapeDtypeStruct(scale.shape, jnp.float32)
    result = (jax.ShapeDtypeStruct(inputs.shape, inputs.dtype), channel, channel)
    return tuple(
      jax.ffi.ffi_call(target('NormalizeGradient'), result)(
        inputs, scale, mean, variance, gradient, epsilon=np.float32(epsilon)
      )
    )

  def plain(inputs, scale, mean, variance, gradient):
    return _plain_gradient(epsilon, inputs, scale, gradient)

  _plain_under_vmap(call, plain)
  return call


def _plain_under_vmap(call, plain) -> None:
  """Has `vmap` take XLA's operators, which batch as they are."""

  @call.def_vmap
  def batched(size, are_batched, *arguments):
    axes = tuple(0 if is_batched else None for is_batched in are_batched)
    return jax.vmap(plain, axes, axis_size=size)(*arguments), (True, True, True)
