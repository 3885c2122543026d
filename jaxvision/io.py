"""Paths that users name, and writing files."""

import contextlib
import errno
import os
import re
import stat
import uuid
from collections.abc import Collection, Iterator, Mapping
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


def output_file(text: str | Path, what: str) -> Path:
  """Returns the file that a user named to be written.

  So that a mistake shows before the work whose result is to be written.

  Args:
    text, what: see `local_path`.

  Raises:
    UserError: see `local_path`; it is a directory, or in one that is not there.
  """
  path = local_path(text, what)
  if path.is_dir():
    raise UserError(f'{what}: {path} is a directory: name a file')
  if not path.parent.is_dir():
    raise UserError(
      f'{what}: {path} cannot be written: there is no directory {path.parent}'
    )
  return path


def output_directory(text: str | Path, what: str) -> Path:
  """Returns the directory that a user named for what is to be written; it may be new.

  Args:
    text, what: see `local_path`.

  Raises:
    UserError: see `local_path`; it is something else, or below something else.
  """
  path = local_path(text, what)
  there = next((p for p in (path, *path.parents) if os.path.lexists(p)), path)
  if os.path.lexists(there) and not there.is_dir():
    where = '' if there == path else f'{path}: '
    raise UserError(f'{what}: {where}{there} is no directory: name another')
  return path


@contextlib.contextmanager
def writing(path: Path, what: str) -> Iterator[None]:
  """Says in one line what the system says where an output cannot be written.

  Args:
    path: that is written.
    what: see `local_path`.

  Raises:
    UserError: there was an OSError within.
  """
  try:
    yield
  except OSError as error:
    raise UserError(
      f'{what}: {path} cannot be written ({error.strerror or error}): name another'
    ) from error


def write_whole(path: Path, content: str | bytes) -> None:
  """Writes a file such that it is either as before or complete, never in between.

  Of a symbolic link the file behind it is replaced, and the link stays. What goes into a
  pipe or a character device, such as a terminal, is written into it: to replace one would
  take it from other programs. Disks and directories are refused.

  Raises:
    OSError: it is a disk or a directory, or the system does not let it be written.
  """
  data = content.encode('utf-8') if isinstance(content, str) else content
  try:
    mode = path.stat().st_mode
  except FileNotFoundError:
    mode = stat.S_IFREG  # it is new, or a link to what is not there yet
  if stat.S_ISDIR(mode):
    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
  if stat.S_ISBLK(mode):
    raise OSError(errno.EINVAL, 'it is a disk', str(path))
  if not stat.S_ISREG(mode):
    # Without O_CREAT: what is gone by now must not come back as a regular file.
    with open(os.open(path, os.O_WRONLY), 'wb') as node:
      node.write(data)
    return
  target = Path(os.path.realpath(path))
  # Not by the number of the process: those of two machines that share a disk may be equal.
  temporary = target.with_name(f'.{target.name}.{uuid.uuid4().hex[:12]}.tmp')
  try:
    temporary.write_bytes(data)
    os.replace(temporary, target)
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
