"""What a field that there is not was meant to be."""

import difflib
from typing import Any

from jaxvision.config.schema import FIELDS, Field
from jaxvision.errors import UserError

# What other libraries call a field, and fields of models, too far in spelling to be found.
_SYNONYMS = {
  'lr': 'optimizer.learning_rate',
  'wd': 'optimizer.weight_decay',
  'opt': 'optimizer.name',
  'arch': 'model.name',
  'dataset': 'data.name',
  'data_dir': 'data.dir',
  'batch': 'batch_size',
  'bs': 'batch_size',
  'num_epochs': 'epochs',
  'num_workers': 'data.workers',
  'pretrained': 'init.pretrained',
  'dropout': 'model.dropout',
  'activation': 'model.activation',
}


def _paths(fields: dict, prefix: str = '') -> list[str]:
  found = []
  for key, field in fields.items():
    if isinstance(field, dict):
      found += _paths(field, f'{prefix}{key}.')
    else:
      found.append(prefix + key)
  return found


def meant(path: str) -> str | None:
  """Returns the path of the field that was probably meant, or None.

  It is what other libraries call so; near in spelling in the same part of the config; or
  of the same last name in another part.

  >>> meant('data.nmae'), meant('learning_rate'), meant('data.lr'), meant('zzz')
  ('data.name', 'optimizer.learning_rate', 'optimizer.learning_rate', None)
  """
  section, _, last = path.rpartition('.')
  if last in _SYNONYMS:
    return _SYNONYMS[last]
  paths = _paths(FIELDS)
  if path in paths:
    return path
  beside = {p.rpartition('.')[2]: p for p in paths if p.rpartition('.')[0] == section}
  near = difflib.get_close_matches(last, beside, n=1, cutoff=0.7)
  if near:
    return beside[near[0]]
  same = [p for p in paths if p.rpartition('.')[2] == last]
  if len(same) == 1:
    return same[0]
  return next(iter(difflib.get_close_matches(path, same, n=1, cutoff=0.7)), None)


def unknown(path: str) -> UserError:
  """Returns the error for a field that there is not."""
  name = ' '.join(path.split())
  name = name if len(name) <= 100 else f'{name[:60]}...{name[-30:]}'
  found = meant(path)
  near = f', did you mean "{found}"?' if found else ' (train --help-config lists all)'
  return UserError(f'config: there is no field "{name}"{near}')


def kind_of(path: str) -> type | None:
  """Returns the type of the field at a path, or None where there is no such field.

  >>> kind_of('seed'), kind_of('sede')
  (<class 'int'>, None)
  """
  node: Any = FIELDS
  for key in path.split('.'):
    node = node.get(key) if isinstance(node, dict) else None
  return type(node.default) if isinstance(node, Field) else None
