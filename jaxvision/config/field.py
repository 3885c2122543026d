"""A field of a config, and parts of a config that take further fields."""

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Field:
  """One field: its default (whose type is the field's type), meaning and limits.

  Attributes:
    default: the value when nobody sets it.
    doc: the meaning, with units.
    valid: whether a value of the right type is possible.
    limits: the same in words, for the error message.
    free: whether it may change between the parts of a resumed run, because it says
      where and how a run happens and not what it computes.
    path: whether it names a file or a folder: `~` is expanded, and a URL refused.
    traced: whether a compiled program can take it as an argument, so that runs that
      differ in it share the program.
  """

  default: Any
  doc: str
  valid: Callable[[Any], bool] = lambda _: True
  limits: str = ''
  free: bool = False
  path: bool = False
  traced: bool = False


class Open(dict):
  """Default of a part that takes further fields, checked by whoever owns them."""


class Groups(Open):
  """Default of a part that takes further parts by any name, each with such fields."""
