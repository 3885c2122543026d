"""How the batch norms of a model work in training, whoever wrote the model.

A network says `nn.BatchNorm(...)(x, use_running_average=not train)`. What of it is frozen,
and which images its statistics are of, is a matter of the run: it is decided here, in calls
of `flax.linen.BatchNorm` that are intercepted.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxvision.errors import UserError
from jaxvision.models.cpu import native, on_cpu

Path = Sequence[str]

_frozen: contextvars.ContextVar[tuple[Callable[[Path], bool], ...]] = (
  contextvars.ContextVar('frozen', default=())
)


@contextlib.contextmanager
def frozen_norms(frozen: Callable[[Path], bool]) -> Iterator[None]:
  """Within it, some batch norms work as in inference.

  They normalise by their running statistics and leave them as they are.

  Args:
    frozen: path of a batch norm in the parameters -> whether it is one of them.
  """

  def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    if _is_norm(context) and frozen(context.module.path):
      kwargs = {**kwargs, 'use_running_average': True}
    return call(*args, **kwargs)

  token = _frozen.set((*_frozen.get(), frozen))
  try:
    with nn.intercept_methods(intercept):
      yield
  finally:
    _frozen.reset(token)


@contextlib.contextmanager
def training_norms(parts: int) -> Iterator[None]:
  """Within it, batch norms in training normalise each part of a batch by itself.

  The running statistics are the mean of those of the parts. Where the parts are those of
  the devices no device waits for another in a forward or a backward pass; and the noise
  of a smaller batch regularises. A whole batch is normalised by the fastest operator at
  hand, with the same numbers up to rounding.

  Args:
    parts: consecutive ones of equal size; 1: the batch is one.

  References:
    Goyal et al., `Accurate, Large Minibatch SGD <https://arxiv.org/abs/1706.02677>`_, 2017,
    section 3; Hoffer et al., `Train longer, generalize better
    <https://arxiv.org/abs/1705.08741>`_, 2017, section 4 (ghost batch norm)
  """

  def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    module = context.module
    if not _is_norm(context) or module.is_initializing():
      return call(*args, **kwargs)
    still = any(frozen(module.path) for frozen in _frozen.get())
    if still or _takes_running_average(module, *args, **kwargs):
      return call(*args, **kwargs)
    if parts > 1:
      return _normalize_parts(module, parts, *args, **kwargs)
    if _suits_native(module, *args, **kwargs):
      return _normalize_by_native(module, *args)
    return call(*args, **kwargs)

  with nn.intercept_methods(intercept):
    yield


def _is_norm(context: Any) -> bool:
  return isinstance(context.module, nn.BatchNorm) and context.method_name == '__call__'


def _takes_running_average(
  module: nn.BatchNorm, x: Any, use_running_average: bool | None = None, **_: Any
) -> bool:
  return bool(
    module.use_running_average if use_running_average is None else use_running_average
  )


def _normalize_parts(
  module: nn.BatchNorm, parts: int, x: jax.Array, *_: Any, mask: Any = None, **__: Any
) -> jax.Array:
  """Returns what a batch norm makes of features [B, ..., C], part by part."""
  name = '/'.join(module.path)
  if mask is not None or module.axis not in (-1, x.ndim - 1) or module.axis_name:
    raise UserError(
      f'config: parallel.norm_scope=device: batch norm {name} of the model has a mask, an '
      'axis_name or an axis other than the last: take parallel.norm_scope=global'
    )
  if len(x) % parts:
    raise UserError(
      f'config: parallel.norm_scope=device: batch norm {name} sees {len(x)} images, which '
      f'{parts} devices do not share evenly'
    )
  dtype = module.dtype or x.dtype
  split = x.reshape(parts, len(x) // parts, *x.shape[1:])
  split = split.astype(jnp.promote_types(x.dtype, jnp.float32))
  axes = tuple(range(1, split.ndim - 1))
  mean = split.mean(axes, keepdims=True)
  if module.use_fast_variance:
    square = jnp.square(split).mean(axes, keepdims=True)
    var = jnp.maximum(0.0, square - jnp.square(mean))
  else:
    var = jnp.square(split - mean).mean(axes, keepdims=True)
  axes = tuple(range(mean.ndim - 1))
  _update_running(module, mean.mean(axes), var.mean(axes))
  factor = jax.lax.rsqrt(var + module.epsilon)
  if module.use_scale:
    factor = factor * module.get_variable('params', 'scale')
  y = (split - mean) * factor
  if module.use_bias:
    y = y + module.get_variable('params', 'bias')
  return y.reshape(x.shape).astype(dtype)


def _update_running(module: nn.BatchNorm, mean: jax.Array, var: jax.Array) -> None:
  for kind, now in (('mean', mean), ('var', var)):
    before = module.get_variable('batch_stats', kind)
    new = module.momentum * before + (1 - module.momentum) * now
    module.put_variable('batch_stats', kind, new)


def _suits_native(
  module: nn.BatchNorm, x: jax.Array, *_: Any, mask: Any = None, **__: Any
) -> bool:
  """Returns whether oneDNN computes what the module would, at hand and on a CPU."""
  return (
    on_cpu()
    and mask is None
    and module.axis in (-1, x.ndim - 1)
    and module.axis_name is None
    and module.dtype in (None, x.dtype)
    and module.param_dtype == jnp.float32
    and module.force_float32_reductions
    and native.suits_norm(x)
  )


def _normalize_by_native(module: nn.BatchNorm, x: jax.Array, *_: Any) -> jax.Array:
  channels = x.shape[-1:]
  scale = (
    module.get_variable('params', 'scale') if module.use_scale else jnp.ones(channels)
  )
  bias = (
    module.get_variable('params', 'bias') if module.use_bias else jnp.zeros(channels)
  )
  outputs, mean, var = native.normalize(x, scale, bias, module.epsilon)
  _update_running(module, mean, var)
  return outputs
