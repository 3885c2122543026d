"""Values of fields: read from the command line, brought to their type, checked."""

import ast
import math
import numbers
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from jaxvision.config.field import Field
from jaxvision.errors import UserError, shown
from jaxvision.io import local_path

_LARGEST_INT = 2**63 - 1  # of 64 bits
_LARGEST_FLOAT = 3.4e38  # of float32, which is computed in
_LONGEST = 250  # characters of a name, which messages repeat
_LONGEST_PATH = 4000


def plain(path: str, value: Any) -> Any:
  """Returns a value as config.json keeps it: a list is a tuple, a NumPy scalar a number.

  Args:
    path: of the field, for messages.
    value: of any type.

  Raises:
    UserError: it is no finite number, string, boolean, None or tuple of these.

  >>> plain('model.features', [8, (16, 32)])
  (8, (16, 32))
  """
  if hasattr(value, 'item') and getattr(value, 'shape', None) == ():
    value = value.item()
  if value is None or isinstance(value, bool):
    return value
  if isinstance(value, str):
    return _text(path, value)
  if isinstance(value, numbers.Integral):
    value = int(value)
    if abs(value) > _LARGEST_INT:
      raise UserError(
        f'config: {path} must be at most {_LARGEST_INT} and at least '
        f'-{_LARGEST_INT}, not {shown(value)}'
      )
    return value
  if isinstance(value, numbers.Real):
    try:
      number = float(value)
    except OverflowError:
      number = math.inf
    if math.isnan(number):
      raise UserError(f'config: {path} is not a number (NaN)')
    if abs(number) > _LARGEST_FLOAT:
      raise UserError(
        f'config: {path} must be finite and below {_LARGEST_FLOAT:g}, the largest '
        f'number of float32, not {shown(value)}'
      )
    return number
  if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
    return tuple(plain(path, part) for part in value)
  raise UserError(
    f'config: {path} takes a number, a string, True, False or a tuple of these, not '
    f'{shown(value)}'
  )


def _text(path: str, value: str) -> str:
  """Returns a string without control characters, which no name and no path needs."""
  if any(unicodedata.category(c) in ('Cc', 'Cs', 'Zl', 'Zp') for c in value):
    raise UserError(
      f'config: {path} must be one line of text without control characters, not '
      f'{shown(value)}'
    )
  if len(value) > _LONGEST_PATH:
    raise UserError(
      f'config: {path} must have at most {_LONGEST_PATH} characters, not {len(value):,}'
    )
  return str(value)


def typed(path: str, value: Any, field: Field) -> Any:
  """Returns a value as the type of a field's default.

  Raises:
    UserError: it is of another type, or the field cannot have it.
  """
  kind = type(field.default)
  if isinstance(value, Mapping):
    raise UserError(f'config: {path} is one field, not a group: {shown(value)}')
  value = plain(path, value)
  if isinstance(value, bool) or kind is bool:
    good = isinstance(value, bool) and kind is bool
  elif kind is float:
    good = isinstance(value, int | float)
  else:
    good = isinstance(value, kind)
  if not good:
    raise UserError(
      f'config: {path} takes a value of type {kind.__name__} such as '
      f'{field.default!r}, not {shown(value)}'
    )
  value = kind(value)
  if field.path and value:
    value = str(local_path(value, f'config: {path}'))
  elif kind is str and len(value) > _LONGEST:
    raise UserError(
      f'config: {path} must have at most {_LONGEST} characters, not {len(value):,}'
    )
  if not field.valid(value):
    raise UserError(f'config: {path} must be {field.limits}, not {shown(value)}')
  return value


def parse(path: str, text: str, field: Field | None) -> Any:
  """Returns the text of a command line as the type of a field.

  Args:
    path: of the field.
    text: behind the equals sign.
    field: None: one of an open part, which takes what the text looks like.

  Raises:
    UserError: see `typed`.

  >>> parse('model.features', '[8, 16]', None), parse('model.stem', 'cifar', None)
  ((8, 16), 'cifar')
  """
  if field is None:
    return plain(path, _literal(text))
  if isinstance(field.default, str):
    return typed(path, text, field)
  value = _literal(text)
  if isinstance(field.default, tuple) and not isinstance(value, tuple | list):
    value = (value,) if text else ()
  return typed(path, value, field)


def _literal(text: str) -> Any:
  known = {'true': True, 'false': False}.get(text.lower())
  if known is not None:
    return known
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
    return text


def check_option(where: str, value: Any, default: Any, strict: bool = True) -> None:
  """Checks an argument of a function against the type of its default.

  Args:
    where: the field and what takes it, for the message.
    value: of the config.
    default: of the parameter; one that is no boolean, number or string says nothing.
    strict: whether a whole number by default takes no other numbers.

  Raises:
    UserError: it is of another type.
  """
  number = isinstance(value, int | float) and not isinstance(value, bool)
  if isinstance(default, bool):
    good, wanted = isinstance(value, bool), 'True or False'
  elif isinstance(default, int) and strict:
    good, wanted = number and isinstance(value, int), 'a whole number'
  elif isinstance(default, int | float):
    good, wanted = number, 'a number'
  elif isinstance(default, str):
    good, wanted = isinstance(value, str), 'a string'
  else:
    return
  if not good:
    raise UserError(f'config: {where} must be {wanted}, not {shown(value)}')
