"""The configuration of a run: its fields, and how a file and overrides become one."""

from jaxvision.config.loading import (
  EXTENDABLE,
  base_config,
  call,
  changes,
  decisive,
  differences,
  documentation,
  fixed,
  freeze,
  from_json,
  load,
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
