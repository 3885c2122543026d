"""What tests compare with of torchvision: its transforms and networks, in Python."""

import importlib
import importlib.util
import sys
import types

import pytest


def torchvision(module):
  """Returns `torchvision.<module>`; skips the test where torchvision is missing.

  The torchvision that pip installs beside a PyTorch for CPUs is built for CUDA. Its
  operators are missing then, and the module that registers their shapes cannot be
  imported; what is compared with needs neither, and an empty module stands in for it.
  """
  for needed in ('torch', 'torchvision'):
    if importlib.util.find_spec(needed) is None:
      pytest.skip(f'{needed} is not installed')
  stand_in = types.ModuleType('torchvision._meta_registrations')
  sys.modules.setdefault(stand_in.__name__, stand_in)
  return importlib.import_module(f'torchvision.{module}')
