"""The configuration of a run: load, override, validate, compare. Fields: `schema.py`.

A config file is a Python file with a docstring that makes the claim and a function
`get_config()` that returns `base_config()` with what differs:

    from jaxvision.config import base_config

    def get_config():
      config = base_config()
      config.data.name = 'cifar100'
      config.model.name = 'small_filters_cnn'
      return config

Everything here works without JAX, so that a mistake shows before any work begins.
"""

import ast
import difflib
import json
import numbers
import runpy
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from jaxvision.config.schema import FIELDS, Field, Groups, Open
from jaxvision.errors import UserError, closest


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


def _known(path: str) -> tuple[Field | dict[str, Any] | None, bool]:
  """Returns the field or part at `path`, and whether an open part may take it."""
  node: Any = FIELDS
  keys = path.split('.')
  for i, key in enumerate(keys):
    if not isinstance(node, dict) or key not in node:
      left = len(keys) - i
      if isinstance(node, Groups):  # GROUP.FIELD, or GROUP.options.OPTION
        return None, left == 2 or (left == 3 and keys[i + 1] == 'options')
      return None, isinstance(node, Open) and left == 1
    node = node[key]
  return node, False


# What other libraries call a field, too far in spelling to be found by it.
_SYNONYMS = {
  'lr': 'optimizer.learning_rate',
  'wd': 'optimizer.weight_decay',
  'opt': 'optimizer.name',
  'arch': 'model.name',
  'dataset': 'data.name',
  'num_epochs': 'epochs',
  'num_workers': 'data.workers',
}


def _unknown(path: str) -> UserError:
  names = [name for name, _ in walk(FIELDS)]
  last = path.rsplit('.', 1)[-1]
  if last in _SYNONYMS:
    return UserError(
      f'config: there is no field "{path}", did you mean "{_SYNONYMS[last]}"?'
    )
  # The last part alone, as in --config.learning_rate.
  whole = {name.rsplit('.', 1)[-1]: name for name in names}
  near = f', did you mean "{whole[path]}"?' if path in whole else closest(path, names)
  if not near:
    hits = difflib.get_close_matches(last, whole, n=1)
    near = f', did you mean "{whole[hits[0]]}"?' if hits else ''
  return UserError(f'config: there is no field "{path}"{near}')


def _typed(path: str, value: Any, default: Any) -> Any:
  """Returns `value` as the type of `default`, or raises UserError."""
  kind = type(default)
  if isinstance(value, bool) or kind is bool:
    good = isinstance(value, bool) and kind is bool
  elif kind is float:
    good = isinstance(value, numbers.Real)
  elif kind is int:
    good = isinstance(value, numbers.Integral)
  elif kind is tuple:
    good = isinstance(value, Sequence) and not isinstance(value, str)
  else:
    good = isinstance(value, kind)
  if not good:
    raise UserError(
      f'config: {path} takes a value of type {kind.__name__} such as {default!r}, '
      f'not {value!r}'
    )
  if kind is float and value != value:
    raise UserError(f'config: {path} is not a number (NaN)')
  return kind(value)


def validate(config: ConfigDict) -> ConfigDict:
  """Checks every field of `config` and returns a complete and typed copy.

  A frozen config has been checked before and is returned as it is. Missing fields take
  their defaults. Raises UserError, in one line, for the first unknown field, wrong type
  or impossible value.
  """
  if isinstance(config, FrozenConfigDict):
    return config
  full = _complete(config)
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


def _complete(config: ConfigDict) -> ConfigDict:
  """Does what `validate` does, field by field: fields may still contradict others."""
  full = base_config()
  for path, value in walk(config):
    field, is_open = _known(path)
    if isinstance(field, dict):
      if isinstance(field, Open) and not value:
        continue
      raise UserError(
        f'config: {path} is a group of fields (such as {path}.{next(iter(field))}), '
        f'not {value!r}'
      )
    if field is None and not is_open:
      raise _unknown(path)
    if field is not None:
      value = _possible(path, _typed(path, value, field.default), field)
    put(full, path, value)
  return full


def put(config: ConfigDict, path: str, value: Any) -> None:
  """Sets a field, whatever its type; makes the groups on the way that are not there.

  Raises:
    UserError: there is no such field.
  """
  field, is_open = _known(path)
  if field is None and not is_open:
    raise _unknown(path)
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


def _cross_checks(config: ConfigDict) -> None:
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
  if bool(config.data.mean) != bool(config.data.std):
    raise UserError('config: set data.mean and data.std together, or neither')
  if any(s == 0 for s in config.data.std):
    raise UserError('config: data.std must be above 0')
  if config.data.name == 'folder' and not config.data.root:
    raise UserError(
      'config: data.name is folder: say which with --config.data.root=DIR '
      '(DIR/{train,test}/CLASS/*.png|jpg|webp, or DIR/CLASS/*)'
    )


def load(path: str | Path, overrides: Iterable[str] = ()) -> ConfigDict:
  """Reads a config file, applies overrides and validates the result.

  Args:
    path: a Python file with `get_config()`.
    overrides: 'data.name=cifar10' each, as after `--config.`; a bare name sets a
      boolean to True.

  Raises:
    UserError: the file is missing or raises, or a field is wrong.
  """
  path = Path(path)
  config = call(path, 'get_config', 'config file')
  if not isinstance(config, ConfigDict):
    raise UserError(
      f'config file {path}: get_config() must return base_config() with changes, '
      f'not {type(config).__name__}'
    )
  config = _complete(config)
  config.name = config.name or path.stem
  config.directory = config.directory or str(path.resolve().parent)
  return override(config, overrides)


def call(path: Path, function: str, kind: str) -> Any:
  """Runs a Python file and returns what one of its functions returns.

  Args:
    path: of the file.
    function: its name; it takes no arguments.
    kind: what messages call the file.

  Raises:
    UserError: the file is missing, raises, or has no such function.
  """
  if not path.is_file():
    near = ''
    if path.parent.is_dir():
      near = closest(path.name, [p.name for p in path.parent.glob('*.py')])
    raise UserError(f'{kind} {path} is not there{near}')
  try:
    found = runpy.run_path(str(path)).get(function)
    if not callable(found):
      raise UserError(f'{kind} {path} defines no function {function}()')
    return found()
  except UserError:
    raise
  except (Exception, SystemExit) as error:
    raise UserError(_raised(path, error, kind)) from error


def _raised(path: Path, error: BaseException, kind: str) -> str:
  """Returns 'FILE:LINE: what' for an exception that a file raised."""
  line = next(
    (
      f.lineno
      for f in reversed(traceback.extract_tb(error.__traceback__))
      if f.filename == str(path)
    ),
    getattr(error, 'lineno', None),
  )
  where = f'{path}:{line}' if line else str(path)
  text = ' '.join(str(error).split())
  if isinstance(error, AttributeError | KeyError) and 'config is locked' in text:
    name = text.split('"')[1]
    matches = [p for p, _ in walk(FIELDS)]
    near = closest(name, {p.rsplit('.', 1)[-1] for p in matches} | set(matches))
    return f'{kind} {where}: there is no field "{name}"{near}'
  return f'{kind} {where}: {type(error).__name__}: {text}'


def override(config: ConfigDict, assignments: Iterable[str]) -> ConfigDict:
  """Returns a valid config with 'path=value' assignments applied and checked.

  >>> override(base_config(), ['data.name=mnist', 'seed=3']).data.name
  'mnist'
  """
  config = thaw(config)
  for assignment in assignments:
    path, equals, text = assignment.partition('=')
    field, is_open = _known(path)
    if isinstance(field, dict):
      raise UserError(
        f'config: {path} is a group of fields: set one of them, such as '
        f'--config.{path}.{next(iter(field), "NAME")}=VALUE'
      )
    if field is None and not is_open:
      raise _unknown(path)
    if not equals:
      if field is not None and not isinstance(field.default, bool):
        raise UserError(f'config: --config.{path} needs a value: --config.{path}=VALUE')
      text = 'True'
    value = _parse(path, text, field)
    put(config, path, value)
  _cross_checks(config)
  return config


def _parse(path: str, text: str, field: Field | None) -> Any:
  """Reads the text of a command line as the field's type."""
  if field is not None and isinstance(field.default, str):
    return _possible(path, text, field)
  lowered = {'true': True, 'false': False}.get(text.lower())
  if lowered is not None:
    value: Any = lowered
  else:
    try:
      value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError):
      value = text
  if field is None:
    return value
  if isinstance(field.default, tuple) and not isinstance(value, tuple | list):
    value = (value,)
  return _possible(path, _typed(path, value, field.default), field)


def _possible(path: str, value: Any, field: Field) -> Any:
  """Returns a value, or raises UserError where the field cannot have it."""
  if not field.valid(value):
    raise UserError(f'config: {path} must be {field.limits}, not {value!r}')
  return value


def to_json(config: ConfigDict) -> str:
  """Returns the config as indented JSON; `from_json` reads it back equal."""
  return json.dumps(config.to_dict(), indent=2) + '\n'


def from_json(text: str) -> ConfigDict:
  """Returns the validated config that `to_json` wrote.

  >>> config = base_config()
  >>> from_json(to_json(config)) == config
  True
  """

  def tuples(node):
    if isinstance(node, dict):
      return {k: tuples(v) for k, v in node.items()}
    return tuple(tuples(v) for v in node) if isinstance(node, list) else node

  return validate(ConfigDict(tuples(json.loads(text))))


def decisive(config: ConfigDict) -> dict[str, Any]:
  """Returns path -> value of the fields that change what a run computes."""
  found = {}
  for path, value in walk(config):
    field, _ = _known(path)
    if not (isinstance(field, Field) and field.free):
      found[path] = value
  return found


def differences(old: ConfigDict, new: ConfigDict) -> list[str]:
  """Returns 'path: old -> new' for each field that changes what a run computes."""
  before, after = decisive(old), decisive(new)
  return [
    f'{path}: {before.get(path)!r} -> {after.get(path)!r}'
    for path in sorted(before.keys() | after.keys())
    if before.get(path) != after.get(path)
  ]
