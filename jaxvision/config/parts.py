"""Parts of a user's own in a config: `package.module:attribute` or `file.py:attribute`.

Wherever a config names a part (a model, a loss, an optimiser, ...) it takes the name of
one that the library has, or a name with a colon: of an importable module, or of a Python
file, relative to the directory of the config file and then to the working directory.
"""

import ast
import contextlib
import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import operator
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxvision.errors import UserError, closest

_PREFIX = 'jaxvision_part_'  # of the names of modules that were loaded from files


@dataclasses.dataclass(frozen=True)
class PartSource:
  """Where a part of a user's own comes from: its identity in a run.

  Attributes:
    name: as the config has it, 'net.py:Net'.
    file: the Python file that defines it, or None if there is none.
    sha256: of that file; of the source of the part where it has no file; '' if neither
      is known, as for something that was typed into an interpreter.
    installed: whether the file belongs to an installed package.
  """

  name: str
  file: str | None
  sha256: str
  installed: bool = False


def is_own(name: Any) -> bool:
  """Returns whether a name of a config means a part of the user's own.

  A digit behind the colon is the version of a TFDS set.

  >>> is_own('net.py:Net'), is_own('resnet18'), is_own('cifar10:3.0.2')
  (True, False, False)
  """
  if not isinstance(name, str) or ':' not in name:
    return False
  return not name.rpartition(':')[2][:1].isdigit()


def resolve(field: str, name: str, directory: str | Path | None = None) -> Any:
  """Returns the object that a name with a colon stands for.

  Args:
    field: the field of the config, for messages.
    name: 'package.module:attribute' or 'file.py:attribute'.
    directory: what a file is relative to, before the working directory.

  Raises:
    UserError: there is no such file, module or attribute, or importing it raises.
  """
  place, _, attribute = name.rpartition(':')
  if not place or not attribute:
    raise UserError(
      f'config: {field} is "{name}": write package.module:attribute or file.py:attribute'
    )
  check_importable(field, name)
  if place.endswith('.py'):
    module = load_file(find_file(field, place, directory))
  else:
    module = _import(field, place)
  found = module
  for key in attribute.split('.'):
    if not hasattr(found, key):
      public = [other for other in dir(found) if not other.startswith('_')]
      where = getattr(module, '__file__', place)
      raise UserError(
        f'config: {field}: {where} has no attribute "{key}"{closest(key, public)}'
      )
    found = getattr(found, key)
  return found


def check_importable(field: str, name: str) -> None:
  """Raises UserError where a name is that of something defined inside a function."""
  if '<locals>' in name or '<lambda>' in name:
    raise UserError(
      f'config: {field}: {name} is defined inside a function or is a lambda, where eval '
      'and predict cannot import it: define it at the top level of its file'
    )


def find_file(field: str, place: str, directory: str | Path | None) -> Path:
  """Returns the path of a file that a config names; raises UserError if there is none."""
  path = Path(place).expanduser()
  tried = [path] if path.is_absolute() else [Path(directory or '.') / path, path]
  for candidate in tried:
    if candidate.is_file():
      return candidate.resolve()
  folders = ' and '.join(dict.fromkeys(str(p.parent.resolve()) for p in tried))
  near = closest(path.name, [p.name for p in tried[0].parent.glob('*.py')])
  raise UserError(
    f'config: {field}: there is no file {place}{near} (looked in {folders})'
  )


def load_file(path: Path) -> Any:
  """Returns a Python file as a module, which the same content is imported as only once.

  Its directory is on the import path while it is imported, so that it finds the files
  beside it.

  Raises:
    UserError: the file raises while it is imported, or would train.
  """
  digest = hashlib.sha256(f'{path}\n'.encode() + path.read_bytes()).hexdigest()[:12]
  name = f'{_PREFIX}{path.stem}_{digest}'
  if name in sys.modules:
    return sys.modules[name]
  check_trains_nothing(path)
  spec = importlib.util.spec_from_file_location(name, path)
  assert spec
  assert spec.loader
  module = importlib.util.module_from_spec(spec)
  sys.modules[name] = module
  sys.path.insert(0, str(path.parent))
  try:
    spec.loader.exec_module(module)
  except (Exception, SystemExit) as error:
    del sys.modules[name]
    if isinstance(error, UserError):
      raise
    raise UserError(where_raised(error, path)) from error
  finally:
    sys.path.remove(str(path.parent))
  return module


def check_trains_nothing(path: Path) -> None:
  """Raises UserError where a file calls `train` when it is imported.

  Its run would train again whenever eval or predict import the network in the file.
  """
  try:
    tree = ast.parse(path.read_bytes())
  except (OSError, SyntaxError, ValueError):
    return  # importing it says what is wrong
  for node in _run_on_import(tree):
    if isinstance(node, ast.Call):
      called = node.func
      if getattr(called, 'attr', getattr(called, 'id', None)) == 'train':
        raise UserError(
          f'{path}:{node.lineno}: train() is called when the file is imported, which '
          "eval and predict do: put the call under if __name__ == '__main__':"
        )


def _run_on_import(node: ast.AST) -> Iterator[ast.AST]:
  """Yields the nodes outside functions, classes and tests of `__name__`."""
  for child in ast.iter_child_nodes(node):
    if isinstance(
      child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
    ):
      continue
    if isinstance(child, ast.If) and any(
      isinstance(name, ast.Name) and name.id == '__name__'
      for name in ast.walk(child.test)
    ):
      continue
    yield child
    yield from _run_on_import(child)


def _import(field: str, place: str) -> Any:
  try:
    return importlib.import_module(place)
  except ModuleNotFoundError as error:
    if error.name and (place == error.name or place.startswith(f'{error.name}.')):
      raise UserError(
        f'config: {field}: there is no module "{place}": install it, or name a file, as '
        'in file.py:attribute'
      ) from error
    raise UserError(f'config: {field}: importing {place}: {error}') from error
  except Exception as error:
    raise UserError(where_raised(error)) from error


def where_raised(error: BaseException, place: str | Path = '') -> str:
  """Returns 'FILE:LINE: ErrorType: text' for an error out of a user's code.

  Args:
    error: what was raised.
    place: the file whose line is wanted; '': the innermost line that belongs neither to
      this package nor to an installed one.
  """
  mine = _frames(error, place)
  line = mine[-1].lineno if mine else getattr(error, 'lineno', None)
  file = mine[-1].filename if mine else str(place)
  where = f'{file}:{line}: ' if file and line else f'{file}: ' if file else ''
  text = ' '.join(str(error).split())
  return f'{where}{type(error).__name__}: {text[:300]}'


def _frames(error: BaseException, place: str | Path = '') -> list[Any]:
  """Returns the frames of an error in a file, or in code that is not installed."""
  frames = traceback.extract_tb(error.__traceback__)
  if place:
    return [f for f in frames if f.filename == str(place)]
  return [f for f in frames if not _is_installed(f.filename)]


_HERE = str(Path(__file__).resolve().parent.parent)
_INSTALLED = tuple(
  {
    str(Path(sysconfig.get_path(key)).resolve())
    for key in ('stdlib', 'purelib', 'platlib')
  }
)


def _is_installed(file: str) -> bool:
  if file.startswith('<'):
    return True
  path = str(Path(file).resolve())
  return path.startswith((_HERE, *_INSTALLED)) or 'site-packages' in path


def call(what: str, function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
  """Calls a user's function; what it raises becomes a UserError with its file and line.

  Where nothing in the user's files raised, as for a missing argument, it is the line that
  defines the function.

  Args:
    what: the field that names it, for the message.
    function: the user's.
    *args: passed on.
    **options: passed on.
  """
  try:
    return function(*args, **options)
  except UserError:
    raise
  except Exception as error:
    raised = where_raised(error)
    if not _frames(error):
      raised = f'{describe(function)}: {raised}'
    raise UserError(f'config: {what}: {raised}') from error


def source_of(part: Any, name: str = '') -> PartSource:
  """Returns where an object comes from.

  Args:
    part: a class, a function, or an instance, which counts as its class.
    name: as a config has it; '': the name by which a config could have it.
  """
  subject = inspect.unwrap(part)  # of jax.jit and its like
  if not (inspect.isclass(subject) or inspect.isroutine(subject)):
    subject = getattr(part, 'func', type(part))  # a partial is its function
  module = inspect.getmodule(subject)
  file: str | None
  try:
    file = _loaded_from(part, name) or inspect.getsourcefile(subject)
  except TypeError:
    file = getattr(module, '__file__', None)
  if file and not Path(file).is_file():
    file = None
  installed = bool(file and _is_installed(file))
  if file:
    digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
  else:
    try:
      digest = hashlib.sha256(inspect.getsource(subject).encode()).hexdigest()
    except (OSError, TypeError):
      digest = ''
  if not name:
    qualified = getattr(subject, '__qualname__', type(part).__name__)
    place = getattr(module, '__name__', '')
    if file and (not installed or place == '__main__'):
      place = Path(file).name
    name = f'{place}:{qualified}'
  return PartSource(name, file, digest, installed)


def _loaded_from(part: Any, name: str) -> str | None:
  """Returns the file that `load_file` took a part from, which may not define it."""
  place, _, attribute = name.rpartition(':')
  for key, module in list(sys.modules.items()):
    if key.startswith(f'{_PREFIX}{Path(place).stem}_'):
      with contextlib.suppress(AttributeError):
        if operator.attrgetter(attribute)(module) is part:
          return module.__file__
  return None


def describe(part: Any) -> str:
  """Returns the name of a function or class with its file and line, for messages."""
  name = getattr(part, '__name__', type(part).__name__)
  try:
    file, line = inspect.getsourcefile(part), inspect.getsourcelines(part)[1]
  except (OSError, TypeError):
    return name
  return f'{name} ({file}:{line})'
