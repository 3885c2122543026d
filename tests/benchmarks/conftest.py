"""Shared by the tests of benchmarks/."""

import importlib
import sys

import pytest


@pytest.fixture
def module(monkeypatch, request):
  """Imports a file of benchmarks/ by its name."""
  monkeypatch.syspath_prepend(request.config.rootpath / 'benchmarks')
  known = set(sys.modules)
  yield importlib.import_module
  for name in set(sys.modules) - known:
    # Their names are plain, and another folder may have the same.
    if getattr(sys.modules[name], '__file__', None) and 'benchmarks' in str(
      sys.modules[name].__file__
    ):
      del sys.modules[name]
