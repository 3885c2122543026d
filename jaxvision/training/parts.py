"""The parts of a run that are the user's own: found, recorded, recognised again.

A run directory keeps parts.json, the name and the SHA-256 of each part's source, and a
copy of the files that belong to no installed package under parts/. A run whose parts have
changed is refused, as a run whose config has.
"""

import inspect
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvision import models
from jaxvision.config import parts as parts_lib
from jaxvision.config.parts import PartSource, is_own, source_of
from jaxvision.errors import UserError, closest
from jaxvision.tasks.base import Parts
from jaxvision.training import processes
from jaxvision.training.callbacks import Callback, EarlyStopping
from jaxvision.training.loggers import LOGGERS
from jaxvision.training.run_directory import RunDirectory

# Field of the config -> field of `Parts`, of one part each.
_SINGLE = {
  'task': 'task',
  'model.name': 'model',
  'loss.name': 'loss',
  'optimizer.name': 'optimizer',
  'schedule.name': 'schedule',
  'data.name': 'data',
}
_LISTS = {'augment.custom': 'augment', 'metrics': 'metrics'}


def _get(config: ConfigDict, path: str) -> Any:
  for key in path.split('.'):
    config = config[key]
  return config


def own_names(config: ConfigDict) -> dict[str, str]:
  """Returns field -> name of every part of the user's own that a config names.

  Callbacks are left out: they may change between the parts of a resumed run.
  """
  found = {}
  for path in _SINGLE:
    if is_own(_get(config, path)):
      found[path] = _get(config, path)
  for path in _LISTS:
    for name in _get(config, path):
      if not is_own(name):
        raise UserError(
          f'config: {path} takes parts of your own, package.module:attribute or '
          f'file.py:attribute, not "{name}"'
        )
      found[f'{path} {name}'] = name
  return found


def resolve_parts(config: ConfigDict, given: Mapping[str, Any] | None = None) -> Parts:
  """Returns the parts that a config names, as objects.

  Args:
    config: valid.
    given: field of `Parts` -> object passed from Python, which holds instead.

  Raises:
    UserError: a part is not there, or is not what it should be.
  """
  given = dict(given or {})
  found: dict[str, Any] = {}
  for path, field in _SINGLE.items():
    name = _get(config, path)
    if given.get(field) is not None:
      found[field] = given[field]
    elif is_own(name):
      found[field] = parts_lib.resolve(path, name, config.directory)
      if field != 'data' and not callable(found[field]):
        raise UserError(f'config: {path}: {name} is not callable')
  if not found.get('model'):
    models.defaults(config.model.name)  # refuses a name that no model has
  own_names(config)  # refuses what is no name of a part of one's own in a list
  augment = given.get('augment') or [
    parts_lib.resolve('augment.custom', name, config.directory)
    for name in config.augment.custom
  ]
  metrics = given.get('metrics') or {
    _measure_name(name): parts_lib.resolve('metrics', name, config.directory)
    for name in config.metrics
  }
  return Parts(
    augment=tuple(augment),
    metrics=dict(metrics),
    callbacks=tuple(given.get('callbacks') or ()),
    **found,
  )


def _measure_name(name: str) -> str:
  """Returns what a metric is logged as: its class, in lower case."""
  return name.rpartition(':')[2].lower()


def make_callbacks(config: ConfigDict, best: tuple[str, str]) -> list[Callback]:
  """Returns the loggers and callbacks that a config names, as new objects.

  Args:
    config: of the run.
    best: the measure that the best checkpoint is chosen by, and 'min' or 'max'.
  """
  found: list[Callback] = []
  if config.early_stopping.patience:
    found.append(_early_stopping(config.early_stopping, best))
  for name in config.callbacks:
    if is_own(name):
      part = parts_lib.resolve('callbacks', name, config.directory)
    elif name in LOGGERS:
      part = LOGGERS[name]
    else:
      raise UserError(
        f'config: there is no callback "{name}"{closest(name, LOGGERS)} (known: '
        f'{", ".join(LOGGERS)}, or file.py:Callback)'
      )
    made = parts_lib.call(f'callbacks {name}', part) if isinstance(part, type) else part
    if not isinstance(made, Callback):
      raise UserError(
        f'config: callbacks: {parts_lib.describe(part)} is no '
        'jaxvision.training.callbacks.Callback'
      )
    found.append(made)
  return found


def _early_stopping(section: ConfigDict, best: tuple[str, str]) -> EarlyStopping:
  measure, mode = section.measure or best[0], section.mode
  if mode == 'auto':
    falls = any(word in measure for word in ('loss', 'error', 'fd'))
    mode = best[1] if measure == best[0] else 'min' if falls else 'max'
  return EarlyStopping(measure, mode, section.patience, section.min_delta)


def sources(config: ConfigDict, parts: Parts) -> dict[str, PartSource]:
  """Returns field -> where its part comes from, for every part of the user's own."""
  found = {}
  for path, field in _SINGLE.items():
    part = getattr(parts, field)
    if part is not None and is_own(_get(config, path)):
      found[path] = source_of(part, _get(config, path))
  for name, part in zip(config.augment.custom, parts.augment):
    found[f'augment.custom {name}'] = source_of(part, name)
  for name, part in zip(config.metrics, parts.metrics.values()):
    found[f'metrics {name}'] = source_of(part, name)
  return found


def record(directory: RunDirectory, config: ConfigDict, parts: Parts) -> None:
  """Writes parts.json, and copies of the files that belong to no installed package."""
  found = sources(config, parts)
  if not found:
    return
  entries = {}
  for path, source in found.items():
    entries[path] = {'name': source.name, 'sha256': source.sha256, 'file': None}
    if source.file and not source.installed and processes.is_writer():
      file = Path(source.file)
      copy = directory.parts / f'{source.sha256[:12]}-{file.name}'
      directory.parts.mkdir(exist_ok=True)
      shutil.copyfile(file, copy)
      entries[path]['file'] = copy.name
  directory.write(directory.parts_file, entries)


def check_unchanged(directory: RunDirectory, config: ConfigDict, parts: Parts) -> None:
  """Raises UserError where the source of a part is not what the run began with."""
  recorded = directory.read_parts()
  if recorded is None:
    return
  for path, source in sources(config, parts).items():
    before = recorded.get(path)
    if before and before['sha256'] and before['sha256'] != source.sha256:
      raise UserError(
        f'workdir {directory.path} holds a run that began with another version of '
        f'{path.split()[0]} {source.name} (sha256 {before["sha256"][:12]}, now '
        f'{source.sha256[:12]}; its copy is in {directory.parts}): choose another '
        'directory with --workdir=DIR, or replace that run with --overwrite'
      )


def resolve_recorded(directory: RunDirectory, config: ConfigDict) -> Parts:
  """Returns the parts of a finished run: as they are now, or from the run's copies.

  A file that is gone, or that has changed since, is taken from the run directory.

  Raises:
    UserError: a part is neither there nor kept.
  """
  recorded = directory.read_parts() or {}
  given: dict[str, Any] = {}
  for path, name in own_names(config).items():
    part = _recorded_part(directory, config, path, name, recorded.get(path))
    field = _SINGLE.get(path) or _LISTS[path.split()[0]]
    if field == 'augment':
      given.setdefault(field, []).append(part)
    elif field == 'metrics':
      given.setdefault(field, {})[_measure_name(name)] = part
    elif field != 'data':
      given[field] = part
  if is_own(config.data.name):
    # What it was trained on is not needed to predict; `eval` loads it.
    given['data'] = _Deferred(directory, config, recorded.get('data.name'))
  return resolve_parts(config, given)


class _Deferred:
  """A data function that is found when it is called."""

  def __init__(self, directory: RunDirectory, config: ConfigDict, entry: Any):
    self._args = directory, config, 'data.name', config.data.name, entry

  def __call__(self, *args: Any) -> Any:
    return _recorded_part(*self._args)(*args)


def _recorded_part(
  directory: RunDirectory,
  config: ConfigDict,
  path: str,
  name: str,
  entry: dict[str, Any] | None,
) -> Any:
  field, attribute = path.split()[0], name.rpartition(':')[2]
  try:
    part = parts_lib.resolve(field, name, config.directory)
    if not entry or source_of(part, name).sha256 == entry['sha256']:
      return part
  except UserError:
    if not entry or not entry['file']:
      raise
  if not entry['file']:
    return part
  copy = directory.parts / entry['file']
  if not copy.is_file():
    raise UserError(
      f'{directory.path}: {field} {name} has changed since the run was trained, and its '
      f'copy {copy} is gone: restore the file as it was'
    )
  return parts_lib.resolve(field, f'{copy}:{attribute}')


def names_of(given: Mapping[str, Any]) -> dict[str, Any]:
  """Returns path -> name for parts that were passed from Python as objects.

  Args:
    given: field of `Parts` -> object.

  Raises:
    UserError: eval and predict could not import a part: it is defined in a function, or
      in a script that trains when it is imported.
  """
  found: dict[str, Any] = {}
  for path, field in _SINGLE.items():
    if given.get(field) is not None and field != 'data':
      found[path] = _name_of(path, given[field])
  for path, field in _LISTS.items():
    if given.get(field):
      each = given[field].values() if field == 'metrics' else given[field]
      found[path] = tuple(_name_of(path, part) for part in each)
  return found


def _name_of(path: str, part: Any) -> str:
  plain = inspect.unwrap(part)
  if not (inspect.isclass(plain) or inspect.isroutine(plain)):
    raise UserError(
      f'config: {path}: {part!r:.100} has no name by which eval and predict could import '
      'it: pass a function or a class, and its arguments as fields of the config'
    )
  source = source_of(part)
  parts_lib.check_importable(path, source.name)
  if source.file and not source.installed:
    parts_lib.check_trains_nothing(Path(source.file))
  return source.name
