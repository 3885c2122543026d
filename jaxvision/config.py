"""The configuration of a run: every field, its default, its meaning and its limits.

A config file is a Python file with a docstring that makes the claim and a function
`get_config()` that returns `base_config()` with what differs:

    from jaxvision.config import base_config

    def get_config():
      config = base_config()
      config.data.name = 'cifar100'
      config.model.name = 'small_filters_cnn'
      return config

Everything here works without JAX, so that a mistake is told before any work begins.
"""

import ast
import dataclasses
import json
import numbers
import runpy
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvision.errors import UserError, closest


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
  """

  default: Any
  doc: str
  valid: Callable[[Any], bool] = lambda _: True
  limits: str = ''
  free: bool = False


def _at_least(low: float) -> dict[str, Any]:
  return {'valid': lambda v: v >= low, 'limits': f'at least {low}'}


def _above_zero() -> dict[str, Any]:
  return {'valid': lambda v: v > 0, 'limits': 'above 0'}


def _between(low: float, high: float, *, open_end: bool = False) -> dict[str, Any]:
  if open_end:
    return {
      'valid': lambda v: low <= v < high,
      'limits': f'at least {low} and below {high}',
    }
  return {'valid': lambda v: low <= v <= high, 'limits': f'from {low} to {high}'}


def _one_of(*names: str) -> dict[str, Any]:
  return {'valid': lambda v: v in names, 'limits': 'one of ' + ', '.join(names)}


def _all_numbers(low: float) -> dict[str, Any]:
  def valid(values):
    return all(
      isinstance(v, numbers.Real) and not isinstance(v, bool) and v >= low
      for v in values
    )

  return {'valid': valid, 'limits': f'a tuple of numbers, each at least {low}'}


class Open(dict):
  """Default of a part that takes further fields, checked by whoever owns them."""


# Contract names (scripts set them by hand) are never renamed. Order is the order of
# `config.json` and of the table in `jaxvision --help-config`.
FIELDS: dict[str, Any] = {
  'name': Field('', 'Name of the run; empty: the stem of the config file.'),
  'task': Field('classification', 'What is trained.', **_one_of('classification')),
  'seed': Field(
    0,
    'Seeds initialisation, data order, augmentation and dropout.',
    **_between(0, 2**63, open_end=True),
  ),
  'batch_size': Field(
    128, 'Images per optimiser step, over all devices.', **_at_least(1)
  ),
  'eval_batch_size': Field(
    500, 'Images per evaluation step, over all devices.', **_at_least(1)
  ),
  'steps': Field(0, 'Optimiser steps to train; 0: from `epochs`.', **_at_least(0)),
  'epochs': Field(
    10.0, 'Passes over the training split, where `steps` is 0.', **_above_zero()
  ),
  'dtype': Field(
    'float32',
    'Type of the computation; parameters and statistics stay float32.',
    **_one_of('float32', 'bfloat16'),
  ),
  'label_smoothing': Field(
    0.0,
    'Share of the target spread evenly over all classes.',
    **_between(0, 1, open_end=True),
  ),
  'ema_decay': Field(
    0.0,
    'Decay per step of the exponential moving average of the weights that '
    'evaluation uses; 0: none.',
    **_between(0, 1, open_end=True),
  ),
  'grad_accumulation': Field(
    1, 'Parts that a batch is computed in, one after another.', **_at_least(1)
  ),
  'grad_clip': Field(
    0.0, 'Largest global norm of the gradient; 0: no limit.', **_at_least(0)
  ),
  'log_every_steps': Field(100, 'Steps between log points.', **_at_least(1)),
  'eval_every_steps': Field(
    0, 'Steps between evaluations; 0: once an epoch.', **_at_least(0)
  ),
  'steps_per_dispatch': Field(
    0,
    'Steps in one compiled call; 0: 1 on CPU, up to `log_every_steps` on others.',
    **_at_least(0),
  ),
  'deterministic': Field(
    False, 'Only deterministic kernels (GPU), so that two runs agree to the bit.'
  ),
  'data': {
    'name': Field('digits', 'digits, folder, synthetic, or any TFDS set.'),
    'dir': Field(
      '', 'TFDS directory; empty: $TFDS_DATA_DIR, then the default.', free=True
    ),
    'root': Field('', 'Image folder, for name=folder.'),
    'cache_dir': Field(
      '',
      'Decoded sets; empty: $JAXVISION_CACHE, then ~/.cache/jaxvision.',
      free=True,
    ),
    'train_fraction': Field(
      1.0,
      'Share of the training split that trains; the rest, stratified, is the '
      'validation split.',
      valid=lambda v: 0 < v <= 1,
      limits='above 0 and at most 1',
    ),
    'test_fraction': Field(
      0.2,
      'Share that becomes the test split of a set that has none.',
      valid=lambda v: 0 < v < 1,
      limits='above 0 and below 1',
    ),
    'split_seed': Field(
      0,
      'Seed of these splits, apart from `seed`, so that seeds share them.',
      **_at_least(0),
    ),
    'image_size': Field(
      0, 'Height and width to resize to, in pixels; 0: as stored.', **_at_least(0)
    ),
    'channels': Field(
      0,
      '1: grey, 3: RGB, 0: as stored.',
      valid=lambda v: v in (0, 1, 3),
      limits='0, 1 or 3',
    ),
    'mean': Field(
      (),
      'Per channel, in units of [0, 1]; empty: measured on the training split.',
      **_all_numbers(0),
    ),
    'std': Field((), 'As `mean`.', **_all_numbers(0)),
    'pipeline': Field(
      'auto',
      'resident: uint8 on the device; streaming: decoded as it goes; auto: by size.',
      **_one_of('auto', 'resident', 'streaming'),
    ),
    'resident_limit_mb': Field(
      2048, 'Largest set (decoded, MB) that auto keeps on the device.', **_at_least(0)
    ),
    'workers': Field(
      -1,
      'Processes that decode a streamed set; -1: by the cores, 0: none.',
      free=True,
      **_at_least(-1),
    ),
    'skip_unreadable': Field(
      False, 'Pass over and count unreadable images instead of stopping.'
    ),
    'synthetic_examples': Field(
      1024, 'Training images of name=synthetic.', **_at_least(2)
    ),
    'synthetic_classes': Field(10, 'Classes of name=synthetic.', **_at_least(2)),
  },
  'augment': {
    'flip': Field(False, 'Mirror half of the images left to right.'),
    'crop_padding': Field(
      0, 'Pad by so many pixels and crop back at random; 0: off.', **_at_least(0)
    ),
    'crop_mode': Field(
      'reflect', 'What the padding holds.', **_one_of('reflect', 'constant')
    ),
    'cutout': Field(
      0, 'Side in pixels of a square blanked at random; 0: off.', **_at_least(0)
    ),
    'rotation': Field(0.0, 'Largest rotation in degrees.', **_between(0, 180)),
    'brightness': Field(
      0.0, 'Strength, as in torchvision ColorJitter.', **_at_least(0)
    ),
    'contrast': Field(0.0, 'As `brightness`.', **_at_least(0)),
    'saturation': Field(0.0, 'As `brightness`.', **_at_least(0)),
    'hue': Field(0.0, 'Largest turn of the hue circle.', **_between(0, 0.5)),
  },
  'model': Open({'name': Field('digits_cnn', 'A name out of `jaxvision.models`.')}),
  'optimizer': {
    'name': Field('sgd', 'Any optimiser of optax by its name.'),
    'learning_rate': Field(0.1, 'The peak of the schedule.', **_at_least(0)),
    'weight_decay': Field(
      0.0, 'Never applied to biases and normalisation.', **_at_least(0)
    ),
    'momentum': Field(
      0.9, 'For optimisers that have it.', **_between(0, 1, open_end=True)
    ),
    'nesterov': Field(True, 'For optimisers that have it.'),
    'options': Open(),
  },
  'schedule': {
    'name': Field(
      'cosine',
      'How the learning rate goes over the run.',
      **_one_of('constant', 'cosine', 'step', 'one_cycle', 'linear'),
    ),
    'warmup_steps': Field(0, 'Steps of linear warm-up from 0.', **_at_least(0)),
    'warmup_epochs': Field(
      0.0, 'The same in epochs, where `warmup_steps` is 0.', **_at_least(0)
    ),
    'end_factor': Field(
      0.0, 'Final over peak learning rate (cosine, linear).', **_between(0, 1)
    ),
    'boundaries': Field(
      (0.3, 0.6, 0.8),
      'Where `step` multiplies by `factor`, as shares of the run.',
      valid=lambda v: (
        all(isinstance(b, numbers.Real) and 0 < b < 1 for b in v)
        and list(v) == sorted(v)
      ),
      limits='a rising tuple of shares between 0 and 1',
    ),
    'factor': Field(0.2, 'See `boundaries`.', **_between(0, 1)),
    'peak': Field(
      0.3,
      'Share of the run at which `one_cycle` peaks.',
      valid=lambda v: 0 < v < 1,
      limits='between 0 and 1',
    ),
  },
  'checkpoint': {
    'every_steps': Field(
      0, 'Steps between checkpoints; 0: at every evaluation.', **_at_least(0)
    ),
    'keep': Field(
      2, 'Newest checkpoints kept; the best is kept besides.', **_at_least(1)
    ),
  },
  'parallel': {
    'data': Field(
      -1,
      'Devices that share the batch; -1: all that are left.',
      valid=lambda v: v == -1 or v >= 1,
      limits='-1 or at least 1',
      free=True,
    ),
    'fsdp': Field(1, 'Devices that share each parameter.', free=True, **_at_least(1)),
  },
}


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
  lines.append('optimizer.options.*: any further argument of the optax optimiser.')
  return '\n'.join(lines)


def _known(path: str) -> tuple[Field | dict[str, Any] | None, bool]:
  """Returns the field or part at `path`, and whether an open part may take it."""
  node: Any = FIELDS
  keys = path.split('.')
  for i, key in enumerate(keys):
    if not isinstance(node, dict) or key not in node:
      is_open = isinstance(node, Open) and i == len(keys) - 1
      return None, is_open
    node = node[key]
  return node, False


def _unknown(path: str) -> UserError:
  names = [name for name, _ in walk(FIELDS)]
  near = closest(path, names)
  if not near:  # the last part alone, as in --config.learning_rate
    last = {name.rsplit('.', 1)[-1]: name for name in names}
    hit = closest(path.rsplit('.', 1)[-1], last)
    near = f', did you mean "{last[hit.split(chr(34))[1]]}"?' if hit else ''
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
  """Checks every field of `config` and returns it complete and typed.

  Missing fields take their defaults. Raises UserError, in one line, for the first
  unknown field, wrong type or impossible value.
  """
  full = base_config()
  for path, value in walk(config):
    field, is_open = _known(path)
    if isinstance(field, dict):
      if path in ('model', 'optimizer.options') and not value:
        continue
      raise UserError(
        f'config: {path} is a group of fields (such as {path}.{next(iter(field))}), '
        f'not {value!r}'
      )
    if field is None and not is_open:
      raise _unknown(path)
    if field is not None:
      value = _typed(path, value, field.default)
      if not field.valid(value):
        raise UserError(f'config: {path} must be {field.limits}, not {value!r}')
    parent, _, key = path.rpartition('.')
    node = full
    for part in filter(None, parent.split('.')):
      node = node[part]
    node[key] = value
  _cross_checks(full)
  return full


def _cross_checks(config: ConfigDict) -> None:
  if config.batch_size % config.grad_accumulation:
    raise UserError(
      f'config: batch_size {config.batch_size} does not divide into '
      f'grad_accumulation {config.grad_accumulation} equal parts'
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
  if not path.is_file():
    near = ''
    if path.parent.is_dir():
      near = closest(path.name, [p.name for p in path.parent.glob('*.py')])
    raise UserError(f'config file {path} is not there{near}')
  try:
    get_config = runpy.run_path(str(path)).get('get_config')
  except (Exception, SystemExit) as error:
    raise UserError(_raised(path, error)) from error
  if not callable(get_config):
    raise UserError(f'config file {path} defines no function get_config()')
  try:
    config = get_config()
  except UserError:
    raise
  except (Exception, SystemExit) as error:
    raise UserError(_raised(path, error)) from error
  if not isinstance(config, ConfigDict):
    raise UserError(
      f'config file {path}: get_config() must return base_config() with changes, '
      f'not {type(config).__name__}'
    )
  if not config.get('name'):
    config.name = path.stem
  return override(validate(config), overrides)


def _raised(path: Path, error: BaseException) -> str:
  """Returns 'FILE:LINE: what' for an exception that a config file raised."""
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
    return f'config file {where}: there is no field "{name}"{near}'
  return f'config file {where}: {type(error).__name__}: {text}'


def override(config: ConfigDict, assignments: Iterable[str]) -> ConfigDict:
  """Returns `config` with 'path=value' assignments applied and checked.

  >>> override(base_config(), ['data.name=mnist', 'seed=3']).data.name
  'mnist'
  """
  config = validate(config)
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
    parent, _, key = path.rpartition('.')
    node = config
    for part in filter(None, parent.split('.')):
      node = node[part]
    node[key] = value
  return validate(config)


def _parse(path: str, text: str, field: Field | None) -> Any:
  """Reads the text of a command line as the field's type."""
  if field is not None and isinstance(field.default, str):
    return text
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
  if isinstance(field.default, tuple) and not isinstance(value, tuple | list | str):
    value = (value,)
  value = _typed(path, value, field.default)
  if not field.valid(value):  # told here, or the type of the ConfigDict would object
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


def differences(old: ConfigDict, new: ConfigDict) -> list[str]:
  """Returns 'path: old -> new' for each field that changes what a run computes."""
  before, after = dict(walk(old)), dict(walk(new))
  lines = []
  for path in sorted(before.keys() | after.keys()):
    field, _ = _known(path)
    if isinstance(field, Field) and field.free:
      continue
    if before.get(path) != after.get(path):
      lines.append(f'{path}: {before.get(path)!r} -> {after.get(path)!r}')
  return lines
