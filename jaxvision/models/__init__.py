"""Models by name, and the fields that a config may set on them.

`create` makes a `flax.linen` module that maps normalised images, float [B, H, W, C],
and a flag `train` to logits, float32 [B, num_classes]. Its parameters are in the
collection 'params' and always float32; running statistics of batch norm, if it has
any, are in 'batch_stats'; dropout draws from the key named 'dropout'.

Residual networks are cut before their classifier by two methods: `features`, images to
float32 [B, D], and `classify`, features to logits, as in
`model.apply(variables, images, method='features')`.

>>> import jax, jax.numpy as jnp
>>> model = create('small_filters_cnn', num_classes=100, activation='swish')
>>> images = jnp.zeros([2, 32, 32, 3])
>>> variables = jax.eval_shape(model.init, jax.random.key(0), images)
>>> jax.eval_shape(model.apply, variables, images).shape
(2, 100)
"""

import dataclasses
import functools
import numbers
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxvision.errors import UserError, closest
from jaxvision.models import airbench, cnn, preact, resnet
from jaxvision.models.layers import ACTIVATIONS
from jaxvision.models.order import layer_order

__all__ = ['DTYPES', 'MODELS', 'create', 'fields', 'layer_order']

MODELS: dict[str, Callable[..., nn.Module]] = {
  'small_filters_cnn': cnn.SmallFiltersCNN,
  'sim_cnn': cnn.SimCNN,
  'basic_cnn': cnn.BasicCNN,
  'original_cnn': cnn.OriginalCNN,
  'custom_cnn': cnn.CustomCNN,
  'mnist_cnn': cnn.MnistCNN,
  'digits_cnn': cnn.DigitsCNN,
  'resnet18': resnet.ResNet18,
  'resnet34': resnet.ResNet34,
  'resnet50': resnet.ResNet50,
  'resnet101': resnet.ResNet101,
  'resnet152': resnet.ResNet152,
  'resnet20': resnet.ResNet20,
  'resnet32': resnet.ResNet32,
  'resnet44': resnet.ResNet44,
  'resnet56': resnet.ResNet56,
  'resnet110': resnet.ResNet110,
  'preact_resnet18': preact.PreActResNet18,
  'preact_resnet34': preact.PreActResNet34,
  'preact_resnet50': preact.PreActResNet50,
  'wide_resnet16_8': preact.WideResNet16x8,
  'wide_resnet28_10': preact.WideResNet28x10,
  'wide_resnet40_4': preact.WideResNet40x4,
  'airbench94': airbench.Airbench94,
  'airbench95': airbench.Airbench95,
  'airbench96': airbench.Airbench96,
}

DTYPES = ('float32', 'bfloat16')

# Fields of these names take one of these values, in every model that has them.
_CHOICES: dict[str, tuple[str, ...]] = {
  'activation': tuple(ACTIVATIONS),
  'shortcut': ('A', 'B'),
  'stem': ('cifar', 'imagenet'),
  'form': ('muon', 'sgd'),
}

# Set by `create` itself, or by linen.
_RESERVED = ('num_classes', 'dtype', 'parent', 'name')


def create(
  name: str, num_classes: int, dtype: str = 'float32', **fields: Any
) -> nn.Module:
  """Makes a model from the table.

  Args:
    name: a key of `MODELS`.
    num_classes: number of logits, at least 1.
    dtype: of the computation, 'float32' or 'bfloat16'.
    **fields: fields of the model, those of `fields(name)`; a list is as good as a
      tuple, an int as a float.

  Returns:
    A linen module, called as `model.apply(variables, images, train=...)`.

  Raises:
    UserError: for an unknown model or field, or a value that the field cannot have.

  Examples:
    >>> create('basic_cnn', num_classes=10, dropout=0.25).dropout
    0.25
    >>> create('resnet19', num_classes=10)
    Traceback (most recent call last):
    ...
    jaxvision.errors.UserError: unknown model "resnet19", did you mean "resnet18"?
  """
  defaults = _defaults(name)
  if not _is_int(num_classes) or num_classes < 1:
    raise UserError(f'num_classes must be a whole number from 1, got {num_classes!r}')
  _check_choice('dtype', dtype, DTYPES)
  for field in fields:
    if field not in defaults:
      hint = closest(field, defaults) or f'; its fields: {", ".join(defaults)}'
      raise UserError(f'model "{name}" has no field "{field}"{hint}')
  values = {
    field: _checked(f'model.{field} of "{name}"', field, value, defaults[field])
    for field, value in fields.items()
  }
  return MODELS[name](num_classes=int(num_classes), dtype=jnp.dtype(dtype), **values)


def fields(name: str) -> dict[str, Any]:
  """Returns the fields that `create(name, ...)` accepts, with their defaults.

  Raises:
    UserError: if no model has that name.

  Example:
    >>> fields('resnet20')['shortcut']
    'A'
  """
  return dict(_defaults(name))


# Under a second name, because `create` has an argument called `fields`.
def _defaults(name: str) -> dict[str, Any]:
  if name not in MODELS:
    hint = closest(name, MODELS) if isinstance(name, str) else ''
    hint = hint or f'; known: {", ".join(MODELS)}'
    raise UserError(f'unknown model "{name}"{hint}')
  constructor = MODELS[name]
  bound: dict[str, Any] = {}
  if isinstance(constructor, functools.partial):
    constructor, bound = constructor.func, constructor.keywords
  # A field without a default, such as the number of blocks, is what the name stands
  # for, and not the user's to change.
  return {
    field.name: bound.get(field.name, field.default)
    for field in dataclasses.fields(constructor)
    if field.name not in _RESERVED and field.default is not dataclasses.MISSING
  }


def _checked(where: str, field: str, value: Any, default: Any) -> Any:
  """Returns `value` in the type of `default`, or raises a `UserError`."""
  if field in _CHOICES:
    _check_choice(where, value, _CHOICES[field])
    return value
  if isinstance(default, bool):
    if isinstance(value, bool):
      return value
    expected = 'True or False'
  elif isinstance(default, int):
    if _is_int(value) and value >= 1:
      return int(value)
    expected = 'a whole number from 1'
  elif isinstance(default, tuple):
    if (
      isinstance(value, (tuple, list))
      and value
      and all(_is_int(item) and item >= 1 for item in value)
    ):
      return tuple(int(item) for item in value)
    expected = f'whole numbers from 1 such as {default}'
  else:  # a rate: the only kind of float field there is
    if (
      isinstance(value, numbers.Real) and not isinstance(value, bool) and 0 <= value < 1
    ):
      return float(value)
    expected = 'a number from 0 to below 1'
  raise UserError(f'{where} must be {expected}, got {value!r}')


def _check_choice(where: str, value: Any, choices: tuple[str, ...]) -> None:
  if value not in choices:
    hint = closest(value, choices) if isinstance(value, str) else ''
    known = ', '.join(f'"{choice}"' for choice in choices)
    raise UserError(f'{where} must be one of {known}, got {value!r}{hint}')


def _is_int(value: Any) -> bool:
  return isinstance(value, numbers.Integral) and not isinstance(value, bool)
