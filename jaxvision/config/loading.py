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

import contextlib
import fnmatch
import importlib
import json
import linecache
import re
import runpy
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from jaxvision.config.hints import unknown
from jaxvision.config.schema import FIELDS, Field, Groups, Open
from jaxvision.config.values import parse, plain, typed
from jaxvision.errors import UserError, closest, shown


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


def _known(path: str) -> tuple[Field | dict[str, Any] | None, bool]:
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
  for path, value in _given(config):
    field, is_open = _known(path)
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
  field, is_open = _known(path)
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


def load(path: str | Path, overrides: Iterable[str] = ()) -> ConfigDict:
  """Reads a config file, applies overrides and validates the result.

  Args:
    path: a Python file with `get_config()`, or the config.json of a run.
    overrides: 'data.name=cifar10' each, as after `--config.`; a bare name sets a
      boolean to True.

  Raises:
    UserError: the file is missing or raises, or a field is wrong.
  """
  path = Path(path)
  if path.suffix == '.json':
    return override(_of_a_run(path), overrides)
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


def _of_a_run(path: Path) -> ConfigDict:
  """Returns the config that the config.json of a run holds."""
  if not path.is_file():
    raise UserError(f'config file {path} is not there')
  try:
    return from_json(path.read_text('utf-8'))
  except ValueError as error:
    raise UserError(
      f'config file {path} is not the config.json of a run: {shown(str(error), 200)}'
    ) from error


def call(path: Path, function: str, kind: str) -> Any:
  """Runs a Python file and returns what one of its functions returns.

  It may import the files beside it.

  Args:
    path: of the file.
    function: its name; it takes no arguments.
    kind: what messages call the file.

  Raises:
    UserError: the file is missing, raises, or has no such function.
  """
  if not path.is_file():
    near = ''
    if path.is_dir():
      near = ': it is a folder'
      if (path / 'config.json').is_file():
        near += f' with a run in it: go on with that by --workdir={path}'
    elif path.parent.is_dir():
      near = closest(path.name, [p.name for p in path.parent.glob('*.py')])
    raise UserError(f'{kind} {path} is not there{near}')
  try:
    with _importable(path.resolve().parent):
      found = runpy.run_path(str(path)).get(function)
      if not callable(found):
        raise UserError(f'{kind} {path} defines no function {function}()')
      return found()
  except UserError:
    raise
  except (Exception, SystemExit) as error:
    raise UserError(_raised(path, error, kind)) from error


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
  """Lets a file import those beside it; files of another folder may have their names."""
  before = set(sys.modules)
  sys.path.insert(0, str(folder))
  importlib.invalidate_caches()
  try:
    yield
  finally:
    with contextlib.suppress(ValueError):
      sys.path.remove(str(folder))
    for name in set(sys.modules) - before:
      file = getattr(sys.modules[name], '__file__', None)
      if file and Path(file).parent == folder:
        del sys.modules[name]


def _raised(path: Path, error: BaseException, kind: str) -> str:
  """Returns 'FILE:LINE: what' for an exception that a file or one beside it raised."""
  frames = traceback.extract_tb(error.__traceback__)
  near = (str(path.parent), str(path.resolve().parent))
  mine = [f for f in frames if str(Path(f.filename).parent) in near]
  file, line = (mine[-1].filename, mine[-1].lineno) if mine else (str(path), None)
  if isinstance(error, SyntaxError):
    file, line = error.filename or file, error.lineno
  where = f'{file}:{line}' if line else file
  text = ' '.join(str(error).split())
  # What ml_collections says of a field that there is not: the name in quotes.
  name = re.search(r'\w+', text)
  if (
    isinstance(error, AttributeError | KeyError)
    and 'ml_collections' in frames[-1].filename
    and name
  ):
    key = text.split('"')[1] if 'config is locked' in text else name[0]
    said = str(unknown(_path_in_source(file, line, key)))
    return f'{kind} {where}: {said.removeprefix("config: ")}'
  return f'{kind} {where}: {type(error).__name__}: {text[:250]}'


def _path_in_source(file: str, line: int | None, key: str) -> str:
  """Returns 'data.lr' for the key lr where the line of the source has config.data.lr."""
  source = linecache.getline(file, line) if line else ''
  found = re.search(rf'\w+\.((?:\w+\.)*{re.escape(key)})\b', source)
  return found[1] if found else key


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


def decisive(config: ConfigDict) -> dict[str, Any]:
  """Returns path -> value of the fields that change what a run computes."""
  found = {}
  for path, value in walk(config):
    field, _ = _known(path)
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
