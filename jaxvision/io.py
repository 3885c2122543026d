"""Paths that users name, and writing files."""

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from jaxvision.errors import UserError

# `Path` makes one slash of the two.
_URL = re.compile(r'([a-z][a-z0-9+.-]+):/', re.IGNORECASE)


def local_path(text: str | Path, what: str) -> Path:
  """Returns the path that a user named, with `~` and `~name` expanded.

  Args:
    text: of an option, a config field or an argument.
    what: the name of it, for the message, such as 'sample: --output'.

  Raises:
    UserError: it is a URL such as gs://bucket/run, there is no such home, or no file can
      have the name.

  >>> local_path('runs/digits', '--workdir').as_posix()
  'runs/digits'
  """
  name = str(text)
  if url := _URL.match(name):
    raise UserError(
      f'{what}: {name} is a URL, and only files of this machine are read and written: '
      f'name a path, of a mounted bucket too (a folder {url[1]}: here is ./{name})'
    )
  if '\0' in name:
    raise UserError(f'{what}: {name!r} holds a null byte, which no path can')
  expanded = os.path.expanduser(name)
  if expanded.startswith('~'):
    raise UserError(
      f'{what}: {name}: there is no such home directory (a folder of this name here is '
      f'./{name})'
    )
  path = Path(expanded)
  # `Path` drops the ./ of ./~ and ./gs:/x; with it, such a path stays what it is.
  return path.absolute() if str(path).startswith('~') or _URL.match(str(path)) else path


def write_whole(path: Path, content: str | bytes) -> None:
  """Writes a file such that it is either as before or complete, never in between."""
  data = content.encode('utf-8') if isinstance(content, str) else content
  temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
  try:
    temporary.write_bytes(data)
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def write_all(
  directory: Path, files: Mapping[str, str | bytes], optional: Collection[str] = ()
) -> None:
  """Writes files into a directory in their order, each by `write_whole`.

  Args:
    directory: is made where it is not there.
    files: name -> content.
    optional: names that an earlier call may have written; those without a content now
      are removed.
  """
  directory.mkdir(parents=True, exist_ok=True)
  for name, content in files.items():
    write_whole(directory / name, content)
  for name in set(optional) - files.keys():
    (directory / name).unlink(missing_ok=True)
