"""The errors that the command line turns into exit codes.

`UserError` (2) and `TrainingDiverged` (3) each carry one line for the user; any
other exception is a fault of the library (1) and keeps its traceback.
"""

import difflib
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
