"""The configuration of a run: its fields, and how a file and overrides become one."""

from jaxvision.config.loading import (
  base_config,
  call,
  decisive,
  differences,
  documentation,
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
  'FIELDS',
  'base_config',
  'call',
  'decisive',
  'differences',
  'documentation',
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
