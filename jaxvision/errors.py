"""The errors that the command line turns into exit codes.

`UserError` (2) and `TrainingDiverged` (3) each carry one line for the user; any
other exception is a fault of the library (1) and keeps its traceback.
"""

import difflib
import errno
import os
import re
import unicodedata
from collections.abc import Iterable

# Control characters, halves of surrogate pairs, ends of lines and of paragraphs.
_UNPRINTABLE = ('Cc', 'Cs', 'Zl', 'Zp')
_REORDERING = ('LRE', 'RLE', 'LRO', 'RLO', 'PDF', 'LRI', 'RLI', 'FSI', 'PDI')
# scheme://USER:PASSWORD@HOST, where the password may hold an @ or else spaces, and
# ?password=PASSWORD. The number of a port is none.
_PASSWORD = re.compile(
  r'(://[^\s/:@]*:)(?!\d{1,5}(?:[/\s,;)]|$))(?:\S*|[^@]*)(?=@)|([?&]\w*password=)[^\s&]*'
)


def printable(name: object) -> str:
  r"""Returns a name, or a line with names in it, as it may be shown.

  Names of files hold any bytes. Those that are not UTF-8 (which Python keeps as lone
  surrogates), control characters, among them the escapes that terminals obey, ends of
  lines and what turns the direction of text around become escapes of ASCII; whatever
  else there is stays. It is for every place where a name leaves the program: messages,
  the terminal, pages and JSON.

  Args:
    name: a text or a path.

  >>> print(printable('red \x1b[31m.png'), printable('a\udcff\n'))
  red \x1b[31m.png a\xff\n
  """
  text = str(name)
  return text if text.isprintable() else ''.join(map(_shown, text))


def _shown(character: str) -> str:
  if (
    '\udc80' <= character <= '\udcff'
  ):  # a byte that is not UTF-8, as os.fsdecode has it
    return f'\\x{ord(character) - 0xDC00:02x}'
  kind = unicodedata.category(character)
  if kind in _UNPRINTABLE or unicodedata.bidirectional(character) in _REORDERING:
    return character.encode('unicode_escape').decode('ascii')
  return character


def without_passwords(text: str) -> str:
  """Returns a text with the passwords of its URLs masked.

  >>> without_passwords('--storage=postgresql://me:secret@host/sweeps')
  '--storage=postgresql://me:***@host/sweeps'
  >>> without_passwords('http://host:80/web.tgz cannot be read: npm pack web@1.30')
  'http://host:80/web.tgz cannot be read: npm pack web@1.30'
  """
  return _PASSWORD.sub(lambda match: f'{match[1] or match[2]}***', text)


class UserError(Exception):
  """The user's mistake: one line that says what is wrong, where, how to mend it.

  A mistyped command may hold the URL of a database; its password is not repeated.
  """

  def __str__(self) -> str:
    return without_passwords(printable(super().__str__()))


class TrainingDiverged(Exception):
  """The loss became NaN or infinite; the last good checkpoint stays."""


def shown(value: object, length: int = 60) -> str:
  """Returns a value for a message: its `repr` in one line, cut in the middle if long.

  >>> shown('float61'), shown('a' * 99, 20)
  ("'float61'", "'aaaaaaaa...aaaaaaa'")
  """
  try:
    return short(repr(value), length)
  except ValueError:  # Python writes out no whole number of more than 4,300 digits
    return 'a whole number of more than 4,300 digits'


def short(text: str, length: int = 60) -> str:
  """Returns a text of somebody else's for a message: one line, cut in the middle.

  >>> short('conv1.weight'), short('a' * 99, 20)
  ('conv1.weight', 'aaaaaaaaa...aaaaaaaa')
  """
  text = without_passwords(printable(' '.join(text.split())))
  if len(text) <= length:
    return text
  kept = length - 3
  return f'{text[: kept - kept // 2]}...{text[len(text) - kept // 2 :]}'


def quoted(name: object) -> str:
  """Returns a name in double quotes, in one line, cut in the middle where it is long.

  >>> quoted('resnet19')
  '"resnet19"'
  """
  return f'"{shown(str(name))[1:-1]}"'


def closest(name: str, candidates: Iterable[str]) -> str:
  """Returns ', did you mean "x"?' for the candidate nearest to `name`, or ''.

  >>> closest('learning_rat', ['learning_rate', 'momentum'])
  ', did you mean "learning_rate"?'
  >>> closest('zzz', ['momentum'])
  ''
  """
  near = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.5)
  return f', did you mean "{near[0]}"?' if near else ''


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def disk_problem(error: BaseException | None) -> str | None:
  """Returns the one line for a full or forbidden disk, wherever in the chain it is."""
  room = 'make room, or choose another directory with --workdir=DIR'
  while error is not None:
    if isinstance(error, OSError):
      where = printable(error.filename or 'the workdir')
      what = f'{os.strerror(error.errno or 0)}: {where}'
      if error.errno in _NO_ROOM:
        return f'{what}: {room}'
      if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f'{what}: change its permissions, or choose another directory'
      if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EIO) and error.filename:
        return f'{what}: move it away, or choose another directory'
    # TensorStore, which writes the checkpoints, wraps the system's words in its own.
    for reason in map(os.strerror, _NO_ROOM):
      if reason in str(error):
        return f'{reason}: {room}'
    error = error.__cause__ or error.__context__
  return None
