"""Checks the values that a config gives to the fields of a model."""

import numbers
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.config.limits import above_zero
from jaxvision.errors import UserError, closest, quoted, shown
from jaxvision.models import dcgan
from jaxvision.models.layers import ACTIVATIONS
from jaxvision.models.mobilenet import PADDINGS

DTYPES = ('float32', 'bfloat16')

# Fields of these names take one of these values, in every model that has them.
_CHOICES: dict[str, tuple[str, ...]] = {
  'activation': tuple(ACTIVATIONS),
  'shortcut': ('A', 'B'),
  'stem': ('cifar', 'imagenet'),
  'padding': PADDINGS,
  'form': ('muon', 'sgd'),
  'upsample': dcgan.UPSAMPLES,
  'discriminator_norm': dcgan.NORMS,
  'minibatch': dcgan.MINIBATCHES,
  'class_head': dcgan.CLASS_HEADS,
  'pool': ('token', 'mean'),
  'positions': ('learned', 'sincos2d'),
}

# Fields of these names are numbers of this kind; all other floats are rates.
_NUMBERS = {'mlp_ratio': above_zero(100), 'layer_scale': above_zero(1)}

# The largest whole number of a field: beyond, it is a slip of the hand.
_MOST = {
  'stages': 4,
  'multipliers': 100,
  'blocks': 100,
  'depth': 100,
  'depths': 100,
  'convs': 100,
  'kernel': 100,
  'strides': 100,
  'expansions': 1000,
  'kernels': 100,
}
_LARGEST = 65_536
_LONGEST = 100  # numbers in a tuple
_NAMED = 16  # in a message

_Entry = TypeVar('_Entry')


def look_up(kind: str, name: str, table: Mapping[str, _Entry]) -> _Entry:
  """Returns `table[name]`, or raises a `UserError` that names the nearest `kind`.

  >>> look_up('model.name', 'resnet19', {'resnet20': 1})
  Traceback (most recent call last):
  ...
  jaxvision.errors.UserError: config: there is no model.name "resnet19", did you mean \
"resnet20"?
  """
  if name not in table:
    hint = closest(name, table) if isinstance(name, str) else ''
    some = [*list(table)[:_NAMED], *(['...'] if len(table) > _NAMED else [])]
    hint = hint or f'; known: {", ".join(some)} (the README lists all)'
    raise UserError(f'config: there is no {kind} {quoted(name)}{hint}')
  return table[name]


def check_fields(
  name: str, values: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns `values` in the types of `defaults`.

  A list is as good as a tuple, an int as a float. A whole number is at least 1, or 0
  where that is the default, and at most 65,536. A tuple is empty only where the default is.

  Args:
    name: the model's.
    values: field -> value.
    defaults: all fields of the model -> default.

  Raises:
    UserError: for a field that the model lacks, or a value that it cannot have.
  """
  for field in values:
    if field not in defaults:
      hint = closest(field, defaults) or f'; its fields: {", ".join(defaults)}'
      raise UserError(f'config: model "{name}" has no field "{field}"{hint}')
  return {
    field: _checked(f'config: model.{field} of "{name}"', field, value, defaults[field])
    for field, value in values.items()
  }


def check_num_classes(num_classes: Any) -> int:
  """Returns the number of classes as an int; raises a `UserError` under 1."""
  if not _is_int(num_classes) or num_classes < 1:
    raise UserError(
      f'num_classes must be a whole number from 1, got {shown(num_classes)}'
    )
  return int(num_classes)


def check_dtype(dtype: Any) -> np.dtype:
  """Returns the type to compute in; raises a `UserError` if it is none of `DTYPES`."""
  _check_choice('dtype', dtype, DTYPES)
  return jnp.dtype(dtype)


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
    least, most = min(default, 1), _MOST.get(field, _LARGEST)
    if _is_int(value) and least <= value <= most:
      return int(value)
    expected = f'a whole number from {least} to {most:,}'
  elif isinstance(default, tuple):
    most = _MOST.get(field, _LARGEST)
    if (
      isinstance(value, (tuple, list))
      and min(len(default), 1) <= len(value) <= _LONGEST
      and all(_is_int(item) and 1 <= item <= most for item in value)
    ):
      return tuple(int(item) for item in value)
    expected = f'up to {_LONGEST} whole numbers from 1 to {most:,} such as {default}'
  elif field in _NUMBERS:
    if _is_number(value) and _NUMBERS[field]['valid'](value):
      return float(value)
    expected = f'a number {_NUMBERS[field]["limits"]}'
  else:  # a rate
    if isinstance(value, jax.Array):
      return value  # an argument of a compiled program, checked before it came to it
    if _is_number(value) and 0 <= value < 1:
      return float(value)
    expected = 'a number from 0 to below 1'
  raise UserError(f'{where} must be {expected}, got {shown(value)}')


def _check_choice(where: str, value: Any, choices: tuple[str, ...]) -> None:
  if value not in choices:
    hint = closest(value, choices) if isinstance(value, str) else ''
    known = ', '.join(f'"{choice}"' for choice in choices)
    raise UserError(f'{where} must be one of {known}, got {shown(value)}{hint}')


def _is_int(value: Any) -> bool:
  return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
  return isinstance(value, numbers.Real) and not isinstance(value, bool)
