"""The configuration of a run: its fields, and how a file and overrides become one."""

from jaxvision.config.comparing import (
  EXTENDABLE,
  changes,
  decisive,
  differences,
  fixed,
)
from jaxvision.config.files import call, load
from jaxvision.config.loading import (
  base_config,
  documentation,
  freeze,
  from_json,
  override,
  put,
  thaw,
  to_json,
  validate,
  walk,
)
from jaxvision.config.schema import FIELDS

__all__ = [
  'EXTENDABLE',
  'FIELDS',
  'base_config',
  'call',
  'changes',
  'decisive',
  'differences',
  'documentation',
  'fixed',
  'freeze',
  'from_json',
  'load',
  'override',
  'put',
  'thaw',
  'to_json',
  'validate',
  'walk',
]
