"""Configs beside each other: what differs, and what of it may change in a run."""

import fnmatch
from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict

from jaxvision.config.field import Field
from jaxvision.config.loading import field_at, walk
from jaxvision.errors import shown


def decisive(config: ConfigDict) -> dict[str, Any]:
  """Returns path -> value of the fields that change what a run computes."""
  found = {}
  for path, value in walk(config):
    field, _ = field_at(path)
    if not (isinstance(field, Field) and field.free):
      found[path] = value
  return found


def changes(old: ConfigDict, new: ConfigDict) -> dict[str, tuple[Any, Any]]:
  """Returns path -> (old, new) for each field that changes what a run computes."""
  before, after = decisive(old), decisive(new)
  return {
    path: (before.get(path), after.get(path))
    for path in sorted(before.keys() | after.keys())
    if before.get(path) != after.get(path)
  }


def differences(old: ConfigDict, new: ConfigDict) -> list[str]:
  """Returns the same in words, 'path: old -> new'."""
  return [f'{p}: {shown(a)} -> {shown(b)}' for p, (a, b) in changes(old, new).items()]


# What changes neither the shape of the state, nor the data or their order.
EXTENDABLE = (
  'steps',
  'epochs',
  'optimizer.learning_rate',
  'optimizer.weight_decay',
  'optimizer.momentum',
  'optimizer.sam',
  'optimizer.groups.*',
  'schedule.*',
  'gan.d_learning_rate',
  'label_smoothing',
  'distillation.*',
  'grad_clip',
  'early_stopping.*',
)


def fixed(paths: Iterable[str]) -> list[str]:
  """Returns the fields that `train --extend` cannot change in a run.

  >>> fixed(['epochs', 'schedule.name', 'steps_per_dispatch'])
  ['steps_per_dispatch']
  """
  return [
    path
    for path in paths
    if not any(fnmatch.fnmatchcase(path, pattern) for pattern in EXTENDABLE)
  ]
