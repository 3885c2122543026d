"""The configuration of a run: override, validate, read and write. Fields: `schema.py`.

Files are read by `files.py`, configs compared by `comparing.py`.

Everything here works without JAX, so that a mistake shows before any work begins.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from jaxvision.config.hints import unknown
from jaxvision.config.schema import FIELDS, Field, Groups, Open
from jaxvision.config.values import parse, plain, typed
from jaxvision.errors import UserError, shown


def _defaults(fields: Mapping[str, Any]) -> ConfigDict:
  config = ConfigDict()
  for key, field in fields.items():
    config[key] = _defaults(field) if isinstance(field, dict) else field.default
  return config


def _lock(config: ConfigDict, fields: Mapping[str, Any]) -> None:
  for key, field in fields.items():
    if isinstance(field, dict):
      _lock(config[key], field)
  if isinstance(fields, Open):
    config.unlock()
  else:
    object.__setattr__(config, '_locked', True)


def base_config() -> ConfigDict:
  """Returns the config with every field at its default.

  Fields are fixed: a misspelt one raises. `model` and `optimizer.options` take
  further fields, which the model and the optimiser check.

  >>> config = base_config()
  >>> config.batch_size
  128
  >>> config.model.activation = 'swish'
  """
  config = _defaults(FIELDS)
  _lock(config, FIELDS)
  return config


def walk(config: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
  """Yields ('data.name', value) for every field, depth first.

  >>> dict(walk({'a': 1, 'b': {'c': 2}}))
  {'a': 1, 'b.c': 2}
  """
  for key in config:
    value = config[key]
    if isinstance(value, Mapping | ConfigDict):
      yield from walk(value, f'{prefix}{key}.')
    else:
      yield prefix + key, value


def documentation() -> str:
  """Returns every field with its default and meaning, a line each."""
  lines = []
  for path, field in walk(FIELDS):
    limits = f' ({field.limits})' if field.limits else ''
    lines.append(f'{path} = {field.default!r}: {field.doc}{limits}')
  lines.append('model.*: any field of the model; `jaxvision summary` shows them.')
  lines.append('loss.*: any further argument of the loss, such as loss.gamma of focal.')
  lines.append('optimizer.options.*: any further argument of the optax optimiser.')
  lines.append(
    'optimizer.groups.NAME.*: match (regular expression for whole parameter paths), and '
    'what differs there: name, learning_rate, weight_decay, momentum, nesterov, '
    'options.*, until, stop, start (shares of the run).'
  )
  return '\n'.join(lines)


_GROUP: dict[str, Any] = {'match': Field('', 'Pattern of the paths of parameters.')}


def field_at(path: str) -> tuple[Field | dict[str, Any] | None, bool]:
  """Returns the field or part at `path`, and whether an open part may take it."""
  node: Any = FIELDS
  keys = path.split('.')
  for i, key in enumerate(keys):
    if not isinstance(node, dict) or key not in node:
      left = keys[i:]
      if not isinstance(node, Open) or not all(map(str.isidentifier, left)):
        return None, False
      if not isinstance(node, Groups):
        return None, len(left) == 1
      if len(left) == 1:  # GROUP, which has GROUP.FIELD and GROUP.options.OPTION
        return _GROUP, False
      if left[1] == 'options':
        return (Open(), False) if len(left) == 2 else (None, len(left) == 3)
      return None, len(left) == 2
    node = node[key]
  return node, False


def _is_group(path: str, part: dict[str, Any], value: Any) -> UserError:
  return UserError(
    f'config: {path} is a group of fields, of which each is set by itself, such as '
    f'{path}.{next(iter(part), "NAME")}, not {shown(value)}'
  )


def validate(config: ConfigDict) -> ConfigDict:
  """Checks every field of `config` and returns a complete and typed copy.

  A frozen config has been checked before and is returned as it is. Missing fields take
  their defaults. Raises UserError, in one line, for the first unknown field, wrong type
  or impossible value.
  """
  if isinstance(config, FrozenConfigDict):
    return config
  full = complete(config)
  _cross_checks(full)
  return full


def freeze(config: ConfigDict) -> FrozenConfigDict:
  """Validates a config and returns it immutable, so that nobody need check it again."""
  if isinstance(config, FrozenConfigDict):
    return config
  return FrozenConfigDict(validate(config))


def thaw(config: ConfigDict) -> ConfigDict:
  """Returns a mutable copy of a valid config, without checking it again."""
  full = base_config()
  for path, value in walk(config):
    put(full, path, value)
  return full


def complete(config: ConfigDict) -> ConfigDict:
  """Does what `validate` does, field by field: fields may still contradict others."""
  full = base_config()
  for path, value in _given(config):
    field, is_open = field_at(path)
    if isinstance(field, dict):
      if value == {} and field is not _GROUP:
        continue
      raise _is_group(path, field, value)
    if field is None and not is_open:
      raise unknown(path)
    put(full, path, plain(path, value) if field is None else typed(path, value, field))
  return full


def _given(config: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
  """Does what `walk` does with the config of a user, and yields empty groups as {}."""
  where = prefix[:-1] or 'it'
  try:
    keys = list(config)
  except TypeError:  # they are sorted, and not all of them are strings
    raise UserError(
      f'config: {where} has a name of a field that is no string: write names in quotes'
    ) from None
  if not keys and prefix:
    yield prefix[:-1], {}
  for key in keys:
    if not isinstance(key, str):
      raise UserError(
        f'config: {where} has a field named {shown(key)}: a name must be a string'
      )
    value = config[key]
    if isinstance(value, Mapping | ConfigDict):
      yield from _given(value, f'{prefix}{key}.')
    else:
      yield prefix + key, value


def put(config: ConfigDict, path: str, value: Any) -> None:
  """Sets a field, whatever its type; makes the groups on the way that are not there.

  Raises:
    UserError: there is no such field.
  """
  field, is_open = field_at(path)
  if field is None and not is_open:
    raise unknown(path)
  *parents, key = path.split('.')
  node = config
  for part in parents:
    if part not in node:
      node[part] = ConfigDict()
    node = node[part]
  if key in node and type(node[key]) is type(value):
    node[key] = value
    return
  # Its type was checked before. Slow: it visits all that the node holds.
  with node.ignore_type():
    node[key] = value


# What a model is given by itself, and how it is set.
_GIVEN = {
  'num_classes': 'it is the number of classes of the data',
  'dtype': 'set dtype, of all that is computed',
}


def _cross_checks(config: ConfigDict) -> None:
  for field, instead in _GIVEN.items():
    if field in config.model:
      raise UserError(f'config: model.{field} is no field to set: {instead}')
  if config.batch_size % config.grad_accumulation:
    raise UserError(
      f'config: batch_size {config.batch_size} does not divide into '
      f'grad_accumulation {config.grad_accumulation} equal parts'
    )
  if config.lookahead.every and config.ema_decay:
    raise UserError(
      'config: lookahead.every and ema_decay both say which weights evaluation uses: '
      'set one of them to 0'
    )
  if config.optimizer.schedule_free:
    _check_schedule_free(config)
  if bool(config.data.mean) != bool(config.data.std):
    raise UserError('config: set data.mean and data.std together, or neither')
  if config.data.name == 'folder' and not config.data.root:
    raise UserError(
      'config: data.name is folder: say which with --config.data.root=DIR '
      '(DIR/{train,test}/CLASS/*.png|jpg|webp, or DIR/CLASS/*)'
    )


def _check_schedule_free(config: ConfigDict) -> None:
  averages = {
    'ema_decay': config.ema_decay,
    'lookahead.every': config.lookahead.every,
  }
  for path, value in averages.items():
    if value:
      raise UserError(
        f'config: optimizer.schedule_free and {path} both say which weights evaluation '
        'uses: switch one of them off'
      )
  if config.schedule.name != 'constant':
    raise UserError(
      'config: optimizer.schedule_free averages the weights instead of letting the '
      f'learning rate fall, and schedule.name is {shown(config.schedule.name)}: set it to '
      'constant (schedule.warmup_steps may be set)'
    )


def override(config: ConfigDict, assignments: Iterable[str]) -> ConfigDict:
  """Returns a valid config with 'path=value' assignments applied and checked.

  >>> override(base_config(), ['data.name=mnist', 'seed=3']).data.name
  'mnist'
  """
  config = thaw(config)
  for assignment in assignments:
    path, equals, text = assignment.partition('=')
    field, is_open = field_at(path)
    if isinstance(field, dict):
      raise UserError(
        f'config: {path} is a group of fields: set one of them, such as '
        f'--config.{path}.{next(iter(field), "NAME")}=VALUE'
      )
    if field is None and not is_open:
      raise unknown(path)
    if not equals:
      if field is not None and not isinstance(field.default, bool):
        raise UserError(f'config: --config.{path} needs a value: --config.{path}=VALUE')
      text = 'True'
    put(config, path, parse(path, text, field))
  _cross_checks(config)
  return config


def to_json(config: ConfigDict) -> str:
  """Returns the config as indented JSON; `from_json` reads it back equal."""
  return json.dumps(config.to_dict(), indent=2) + '\n'


def from_json(text: str) -> ConfigDict:
  """Returns the validated config that `to_json` wrote.

  >>> config = base_config()
  >>> from_json(to_json(config)) == config
  True
  """
  found = json.loads(text)
  if not isinstance(found, dict):
    raise ValueError(f'it holds {shown(found)} and no fields')
  return validate(ConfigDict(found))
