"""jaxvision: high-performance training of image models in JAX and Flax.

    import jaxvision
    config = jaxvision.load_config('configs/digits_cnn.py')
    summary = jaxvision.train(config, 'runs/digits')
    run = jaxvision.load_run('runs/digits')
    run.predict(images).labels

The names load on first use, so that importing the package costs nothing.
"""

import importlib
from typing import Any

__version__ = '0.1.0'

_HOME = {
  'base_config': 'jaxvision.config',
  'benchmark': 'jaxvision.commands',
  'evaluate': 'jaxvision.commands',
  'evaluate_weights': 'jaxvision.commands',
  'compare': 'jaxvision.commands',
  'compare_folders': 'jaxvision.commands',
  'explore': 'jaxvision.commands',
  'export': 'jaxvision.commands',
  'load_config': 'jaxvision.commands',
  'load_generator': 'jaxvision.commands',
  'load_run': 'jaxvision.commands',
  'sample': 'jaxvision.commands',
  'sweep': 'jaxvision.commands',
  'train': 'jaxvision.commands',
  'TrainingDiverged': 'jaxvision.errors',
  'UserError': 'jaxvision.errors',
  'data': None,
  'models': None,
}

__all__ = [*_HOME, '__version__']


def __getattr__(name: str) -> Any:
  if name not in _HOME:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  home = _HOME[name]
  if home is None:
    return importlib.import_module(f'{__name__}.{name}')
  return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
  return sorted(__all__)
