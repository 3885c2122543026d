"""Data sets from a user's function: `data.name = 'file.py:function'`."""

import inspect
import re
import traceback
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from jaxvision.data.dataset import Dataset
from jaxvision.data.sources.arrays import as_dataset
from jaxvision.errors import UserError

_NAME = re.compile(r'[^:]+:[A-Za-z_][\w.]*')


def is_function(name: str) -> bool:
  """Returns whether `data.name` means a function, not a version of a TFDS set.

  >>> is_function('mine.py:load'), is_function('package.module:load')
  (True, True)
  >>> is_function('cifar10:3.0.2'), is_function('digits')
  (False, False)
  """
  return _NAME.fullmatch(name) is not None


def call(function: Callable[..., Any], fields: ConfigDict) -> Dataset:
  """Calls a user's function and returns the data set that it makes.

  Args:
    function: takes no argument, or the `data` section of the config, and returns what
      `as_dataset` takes.
    fields: that section.

  Raises:
    UserError: the function raises (the message has its file and line), takes more
      arguments or returns something else.
  """
  name = getattr(function, '__name__', type(function).__name__)
  required = [
    p
    for p in inspect.signature(function).parameters.values()
    if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
  ]
  if len(required) > 1 or any(p.kind is p.KEYWORD_ONLY for p in required):
    raise UserError(
      f'data: {name} must take no argument or one, the data section of the config; it '
      f'takes {", ".join(p.name for p in required)}'
    )
  try:
    value = function(*(fields for _ in required))
  except UserError:
    raise
  except Exception as error:
    raise UserError(f'data: {name}: {_where(function, error)}') from error
  return as_dataset(value, f'data: what {name} returned')


def _where(function: Callable[..., Any], error: Exception) -> str:
  """Returns 'FILE:LINE: ErrorType: text', the line being the last one in the user's file."""
  text = f'{type(error).__name__}: {" ".join(str(error).split())[:300]}'
  subject = getattr(function, 'func', function)  # of a functools.partial
  if not (inspect.isclass(subject) or inspect.isroutine(subject)):
    subject = type(subject)
  try:
    file = inspect.getsourcefile(subject)
  except TypeError:
    return text
  frames = traceback.extract_tb(error.__traceback__)
  lines = [frame.lineno for frame in frames if frame.filename == file]
  return f'{file}:{lines[-1]}: {text}' if lines else f'{file}: {text}'
