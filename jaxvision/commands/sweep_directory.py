"""The directory of a sweep, which is that of one study and of no other."""

import fcntl
import json
import os
import uuid
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import IO

from jaxvision.errors import UserError
from jaxvision.io import output_directory

# What a sweep writes and would take for its own.
_WRITTEN = ('trials', 'sweep.html', 'sweep.csv', 'sweep.json')


class SweepDirectory:
  """Whose trials a directory holds.

  Trials are numbered in each study from 0, so a study that took the trials of another
  for its own would skip some and delete the weights of others. Hence each directory has
  an identity, in a hidden file, and the database notes the identities of the directories
  that a study works in. Several machines may share a study, each in a directory of its
  own, and a database may hold several studies.

  Args:
    path: as the user named it; it need not be there.

  Raises:
    UserError: the path cannot be a directory, or a training run is there.
  """

  def __init__(self, path: str | Path):
    self.path = output_directory(path, 'sweep: workdir')
    self.database = self.path / 'sweep.db'
    self._identity_file = self.path / '.study'
    if (self.path / 'config.json').exists():
      raise UserError(
        f'workdir {self.path} holds a training run: choose another directory with '
        '--workdir=DIR'
      )

  def trial(self, number: int) -> Path:
    """Returns the run directory of a trial."""
    return self.path / 'trials' / f'{number:04d}'

  def lock(self, number: int) -> IO[str] | None:
    """Returns the open file whose lock is that of a trial; None if another process has it.

    The lock ends with the file or with the process. It is held for as long as a process
    has the trial, which begins before the training locks its run directory.
    """
    path = self.trial(number)
    path.mkdir(parents=True, exist_ok=True)
    file = (path / '.trial').open('w')
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
      file.close()
      return None
    return file

  def identity(self) -> str:
    """Returns the identity, '' where no sweep has begun in the directory."""
    try:
      return self._identity_file.read_text().strip()
    except FileNotFoundError:
      return ''

  def check(
    self, name: str, studies: Mapping[str, Collection[str]], own_database: bool
  ) -> None:
    """Raises UserError unless the directory is new or that of a study; changes nothing.

    Args:
      name: of the study.
      studies: in its database, name -> identities of the directories it works in.
      own_database: whether the database is the one in the directory.
    """
    known = studies.get(name)
    if identity := self.identity():
      if identity not in (known or ()):
        raise self._another()
      return
    if own_database and set(studies) - {name}:
      raise self._another()
    written = [n for n in _WRITTEN if os.path.lexists(self.path / n)]
    # Studies of earlier versions know no directories.
    is_older = known is not None and not known and self._reported() in ('', name)
    if written and not is_older:
      raise self._another()

  def claim(self, note: Callable[[str], None], known: Callable[[], set[str]]) -> None:
    """Makes the directory that of a study.

    Args:
      note: writes the identity of a directory into the study.
      known: reads those that are in it.

    Raises:
      UserError: another study has just taken it.
    """
    with self._identity_file.open('a+') as file:
      # Another process may begin in the same directory at the same time.
      fcntl.flock(file, fcntl.LOCK_EX)
      file.seek(0)
      identity = file.read().strip()
      if not identity:
        identity = uuid.uuid4().hex
        note(identity)
        file.write(f'{identity}\n')
    if identity not in known():
      raise self._another()

  def _reported(self) -> str:
    """Returns the name of the study whose report is there, '' where there is none."""
    try:
      return json.loads((self.path / 'sweep.json').read_text())['sweep']
    except FileNotFoundError:
      return ''
    except (ValueError, KeyError, TypeError, OSError):
      return '?'

  def _another(self) -> UserError:
    return UserError(
      f'sweep: workdir {self.path} holds another sweep, of which nothing is changed: '
      'choose another directory with --workdir=DIR'
    )
