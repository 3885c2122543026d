"""Packages that only some users need."""

import importlib
from typing import Any

from jaxvision.errors import UserError


def require(module: str, extra: str, what: str) -> Any:
  """Returns a module of an extra.

  Args:
    module: its name, such as 'onnxruntime'.
    extra: of ours, that installs it.
    what: needs it, for the message, such as 'export: ONNX'.

  Raises:
    UserError: it is not installed; the line has the command that installs it.

  >>> require('math', 'onnx', 'export').sqrt(4)
  2.0
  """
  try:
    return importlib.import_module(module)
  except ModuleNotFoundError as error:
    if (error.name or '').split('.')[0] != module.split('.')[0]:
      raise  # it is there, and lacks something itself
    raise UserError(
      f"{what} needs the package {module}: pip install 'jaxvision[{extra}]'"
    ) from error
