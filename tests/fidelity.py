"""torch-fidelity's modules, imported without torchvision.

Its package imports torchvision for data sets and networks that no test needs; and the
torchvision that pip installs beside a PyTorch for CPUs is built for CUDA and cannot be
imported. So the package's `__init__` is not run, and empty modules stand in for
torchvision while the modules are imported.
"""

import contextlib
import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator

import pytest


def load(name: str) -> types.ModuleType:
  """Imports `torch_fidelity.<name>`; skips the test where torch-fidelity is missing.

  Args:
    name: of the module, such as 'metric_fid' or 'feature_extractor_inceptionv3'.
  """
  pytest.importorskip('torch')
  spec = importlib.util.find_spec('torch_fidelity')
  if spec is None:
    pytest.skip('torch-fidelity is not installed')
  with _stand_ins():
    if 'torch_fidelity' not in sys.modules:
      # With a path and no code: submodules are found, `__init__` is not run.
      package = importlib.util.module_from_spec(spec)
      sys.modules['torch_fidelity'] = package
      # The one name that a module takes from the package itself.
      wrapper = importlib.import_module('torch_fidelity.generative_model_modulewrapper')
      package.GenerativeModelModuleWrapper = wrapper.GenerativeModelModuleWrapper
    return importlib.import_module(f'torch_fidelity.{name}')


@contextlib.contextmanager
def _stand_ins() -> Iterator[None]:
  """Puts empty modules in torchvision's place, for as long as it lasts."""
  names = ('', '.datasets', '.transforms', '.transforms.functional')
  modules = {}
  for name in names:
    modules[f'torchvision{name}'] = types.ModuleType(f'torchvision{name}')
    parent, _, child = f'torchvision{name}'.rpartition('.')
    if parent:
      setattr(modules[parent], child, modules[f'torchvision{name}'])
  for data_set in ('CIFAR10', 'CIFAR100', 'STL10'):
    setattr(modules['torchvision.datasets'], data_set, type(data_set, (), {}))
  before = {
    name: sys.modules.pop(name)
    for name in list(sys.modules)
    if name.partition('.')[0] == 'torchvision'
  }
  sys.modules.update(modules)
  try:
    yield
  finally:
    for name in modules:
      sys.modules.pop(name, None)
    sys.modules.update(before)
