"""Whether worker processes can start: each imports the program that the user started."""

import ast
import sys
from pathlib import Path
from types import FrameType

from jaxvision.errors import UserError


def check_main_guard() -> None:
  """Raises UserError where the program calls this without a guard around the call.

  A worker process imports the program, and would start it once more from its top.
  """
  main = sys.modules.get('__main__')
  path = getattr(main, '__file__', None)
  frame: FrameType | None = sys._getframe()
  while frame and not (
    frame.f_globals is getattr(main, '__dict__', None)
    and frame.f_code.co_name == '<module>'
  ):
    frame = frame.f_back
  # A notebook or a prompt has no file, and workers do not import it.
  if path is None or frame is None or frame.f_code.co_filename != path:
    return
  try:
    guarded = is_guarded(Path(path).read_text('utf-8'), frame.f_lineno)
  except (OSError, ValueError, SyntaxError):
    return
  if not guarded:
    raise UserError(
      f'{path}, line {frame.f_lineno}: worker processes import this program and would '
      'run it again: put what starts the training behind "if __name__ == '
      "'__main__':\", or read the images without them: config.data.workers = 0"
    )


def is_guarded(source: str, line: int) -> bool:
  """Returns whether an `if` about `__name__` comes before a line of a program, or holds it.

  >>> is_guarded("if __name__ == '__main__':\\n  train()", line=2)
  True
  >>> is_guarded('log = logging.getLogger(__name__)\\ntrain()', line=2)
  False
  """
  return any(
    isinstance(node, ast.If)
    and node.lineno <= line
    and any(isinstance(n, ast.Name) and n.id == '__name__' for n in ast.walk(node.test))
    for node in ast.walk(ast.parse(source))
  )
