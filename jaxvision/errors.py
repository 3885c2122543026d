"""The errors that the command line turns into exit codes.

`UserError` (2) and `TrainingDiverged` (3) each carry one line for the user; any
other exception is a fault of the library (1) and keeps its traceback.
"""

import difflib
import errno
import os
from collections.abc import Iterable


class UserError(Exception):
  """The user's mistake: one line that says what is wrong, where, how to mend it."""


class TrainingDiverged(Exception):
  """The loss became NaN or infinite; the last good checkpoint stays."""


def closest(name: str, candidates: Iterable[str]) -> str:
  """Returns ', did you mean "x"?' for the candidate nearest to `name`, or ''.

  >>> closest('learning_rat', ['learning_rate', 'momentum'])
  ', did you mean "learning_rate"?'
  >>> closest('zzz', ['momentum'])
  ''
  """
  near = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.5)
  return f', did you mean "{near[0]}"?' if near else ''


def disk_problem(error: BaseException | None) -> str | None:
  """Returns the one line for a full or forbidden disk, wherever in the chain it is."""
  room = 'make room, or choose another directory with --workdir=DIR'
  while error is not None:
    if isinstance(error, OSError):
      what = f'{os.strerror(error.errno or 0)}: {error.filename or "the workdir"}'
      if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f'{what}: {room}'
      if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f'{what}: change its permissions, or choose another directory'
      if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EIO) and error.filename:
        return f'{what}: move it away, or choose another directory'
    # TensorStore, which writes the checkpoints, wraps the system's words in its own.
    for reason in ('No space left on device', 'Disk quota exceeded'):
      if reason in str(error):
        return f'{reason}: {room}'
    error = error.__cause__ or error.__context__
  return None
