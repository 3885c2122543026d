"""Config files: Python with a docstring that makes the claim, and a `get_config()`.

    from jaxvision.config import base_config

    def get_config():
      config = base_config()
      config.data.name = 'cifar100'
      config.model.name = 'small_filters_cnn'
      return config

The config.json of a run is one, too.
"""

import contextlib
import importlib
import linecache
import re
import runpy
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvision.config.hints import unknown
from jaxvision.config.loading import complete, from_json, override
from jaxvision.errors import UserError, closest, shown


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
  config = complete(config)
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
