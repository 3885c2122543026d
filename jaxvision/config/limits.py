"""What values a field of a config may have: each limit as a test and in words.

Every function but `switched_on` returns {'valid': value -> bool, 'limits': the same for
a message}.
"""

import numbers
from typing import Any

# What int32 counts: the steps of a run, on a device.
STEPS = 2**31 - 1


def switched_on(value: Any) -> bool:
  """Returns whether a number, for which 0 means off, is on.

  One that a compiled program takes as an argument is, whatever it will be.

  >>> switched_on(0.1), switched_on(0)
  (True, False)
  """
  return not isinstance(value, int | float) or value != 0


def at_least(low: float, most: float | None = None) -> dict[str, Any]:
  """A number from `low` on, up to `most`, beyond which it is a slip of the hand.

  >>> at_least(1, 100_000)['limits']
  'at least 1 and at most 100,000'
  """
  if most is None:
    return {'valid': lambda v: v >= low, 'limits': f'at least {low}'}
  return {
    'valid': lambda v: low <= v <= most,
    'limits': f'at least {low} and at most {most:,}',
  }


def above_zero(most: float) -> dict[str, Any]:
  """A number above 0, up to `most`."""
  return {'valid': lambda v: 0 < v <= most, 'limits': f'above 0 and at most {most:,}'}


def between(low: float, high: float, *, open_end: bool = False) -> dict[str, Any]:
  """A number from `low` to `high`, or to below it.

  Below 1 means below it in float32 too, in which it is computed with: a decay of 1 would
  keep an average where it began.
  """
  if open_end:
    nearest = high - 1e-7 if high == 1 else high
    return {
      'valid': lambda v: low <= v < nearest,
      'limits': f'at least {low} and below {high}',
    }
  return {'valid': lambda v: low <= v <= high, 'limits': f'from {low} to {high}'}


def one_of(*names: str) -> dict[str, Any]:
  """One of some words.

  >>> one_of('', 'flip')['limits']
  'one of flip, or empty'
  """
  words = ', '.join(filter(None, names)) + (', or empty' if '' in names else '')
  return {'valid': lambda v: v in names, 'limits': f'one of {words}'}


def _is_number(value: Any) -> bool:
  return isinstance(value, numbers.Real) and not isinstance(value, bool)


def all_numbers(low: float, high: float) -> dict[str, Any]:
  """A tuple of up to 3 numbers, one a channel, each from `low` to `high`."""
  return {
    'valid': lambda values: (
      len(values) <= 3 and all(_is_number(v) and low <= v <= high for v in values)
    ),
    'limits': f'a tuple of numbers, one a channel, each from {low} to {high}',
  }


def interval(low: float, high: float, *, may_be_empty: bool = False) -> dict[str, Any]:
  """Two numbers, the smaller first, from `low` to `high`."""

  def valid(values):
    if not values:
      return may_be_empty
    return (
      len(values) == 2
      and all(map(_is_number, values))
      and low <= values[0] <= values[1] <= high
    )

  return {
    'valid': valid,
    'limits': f'two numbers from {low} to {high}, the smaller first'
    + (', or empty' if may_be_empty else ''),
  }


def all_strings() -> dict[str, Any]:
  """A tuple of strings, none of them empty."""
  return {
    'valid': lambda values: all(isinstance(v, str) and v for v in values),
    'limits': 'a tuple of strings, none of them empty',
  }


def file_name() -> dict[str, Any]:
  """What can be the name of a folder, or nothing."""
  return {
    'valid': lambda v: '/' not in v and v not in ('.', '..') and len(v.encode()) <= 200,
    'limits': 'the name of a folder: without /, and at most 200 bytes long',
  }
