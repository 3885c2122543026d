"""What values a field of a config may have: each limit as a test and in words.

Every function but `switched_on` returns {'valid': value -> bool, 'limits': the same for
a message}.
"""

import numbers
from typing import Any


def switched_on(value: Any) -> bool:
  """Returns whether a number, for which 0 means off, is on.

  One that a compiled program takes as an argument is, whatever it will be.

  >>> switched_on(0.1), switched_on(0)
  (True, False)
  """
  return not isinstance(value, int | float) or value != 0


def at_least(low: float) -> dict[str, Any]:
  """A number from `low` on."""
  return {'valid': lambda v: v >= low, 'limits': f'at least {low}'}


def above_zero() -> dict[str, Any]:
  """A number above 0."""
  return {'valid': lambda v: v > 0, 'limits': 'above 0'}


def between(low: float, high: float, *, open_end: bool = False) -> dict[str, Any]:
  """A number from `low` to `high`, or to below it."""
  if open_end:
    return {
      'valid': lambda v: low <= v < high,
      'limits': f'at least {low} and below {high}',
    }
  return {'valid': lambda v: low <= v <= high, 'limits': f'from {low} to {high}'}


def one_of(*names: str) -> dict[str, Any]:
  """One of some words."""
  return {'valid': lambda v: v in names, 'limits': 'one of ' + ', '.join(names)}


def _is_number(value: Any) -> bool:
  return isinstance(value, numbers.Real) and not isinstance(value, bool)


def all_numbers(low: float) -> dict[str, Any]:
  """A tuple of numbers from `low` on."""
  return {
    'valid': lambda values: all(_is_number(v) and v >= low for v in values),
    'limits': f'a tuple of numbers, each at least {low}',
  }


def interval(high: float, *, may_be_empty: bool = False) -> dict[str, Any]:
  """Two numbers, the smaller first, above 0 and up to `high`."""

  def valid(values):
    if not values:
      return may_be_empty
    return (
      len(values) == 2
      and all(map(_is_number, values))
      and 0 < values[0] <= values[1] <= high
    )

  upper = '' if high == float('inf') else f', at most {high}'
  return {
    'valid': valid,
    'limits': f'two numbers above 0{upper}, the smaller first'
    + (', or empty' if may_be_empty else ''),
  }


def all_strings() -> dict[str, Any]:
  """A tuple of strings."""
  return {
    'valid': lambda values: all(isinstance(v, str) for v in values),
    'limits': 'a tuple of strings',
  }
