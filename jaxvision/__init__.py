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
  'benchmark': 'jaxvision.api',
  'evaluate': 'jaxvision.api',
  'evaluate_weights': 'jaxvision.api',
  'compare': 'jaxvision.api',
  'compare_folders': 'jaxvision.api',
  'explore': 'jaxvision.api',
  'export': 'jaxvision.api',
  'load_config': 'jaxvision.api',
  'load_generator': 'jaxvision.api',
  'load_run': 'jaxvision.api',
  'sample': 'jaxvision.api',
  'sweep': 'jaxvision.api',
  'train': 'jaxvision.api',
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
