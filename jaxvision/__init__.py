"""jaxvision: high-performance training of image models in JAX and Flax.

    import jaxvision
    config = jaxvision.load_config('configs/digits_cnn.py')
    summary = jaxvision.train(config, 'runs/digits')
    run = jaxvision.load_run('runs/digits')
    run.predict(images).labels

With a network and arrays of your own:

    config = jaxvision.base_config()
    data = jaxvision.data.from_arrays(train=(images, labels))
    jaxvision.train(config, 'runs/mine', model=Net, data=data)

The names load on first use, so that importing the package costs nothing and changes
nothing in the process.
"""

import importlib
from typing import Any

__version__ = '0.1.0'

_HOME = {
  'base_config': 'jaxvision.config',
  'benchmark': 'jaxvision.commands.benchmark',
  'compare': 'jaxvision.commands.compare',
  'compare_folders': 'jaxvision.commands.distance',
  'evaluate': 'jaxvision.commands.eval',
  'evaluate_weights': 'jaxvision.commands.eval',
  'explore': 'jaxvision.commands.explore',
  'export': 'jaxvision.commands.export',
  'export_web': 'jaxvision.commands.export_web',
  'load_config': 'jaxvision.config',
  'load_generator': 'jaxvision.inference.generator',
  'load_model': 'jaxvision.inference.loading',
  'load_run': 'jaxvision.inference.loading',
  'quantize': 'jaxvision.commands.quantize',
  'sample': 'jaxvision.commands.sample',
  'soup': 'jaxvision.commands.soup',
  'sweep': 'jaxvision.commands.sweep',
  'train': 'jaxvision.commands.train',
  'Callback': 'jaxvision.training.callbacks',
  'EarlyStopping': 'jaxvision.training.callbacks',
  'TrainingDiverged': 'jaxvision.errors',
  'UserError': 'jaxvision.errors',
  'data': None,
  'models': None,
}
# The functions that have other names in their modules.
_NAMES = {'load_config': 'load'}

__all__ = [*_HOME, '__version__']


def __getattr__(name: str) -> Any:
  if name not in _HOME:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  home = _HOME[name]
  if home is None:
    return importlib.import_module(f'{__name__}.{name}')
  return getattr(importlib.import_module(home), _NAMES.get(name, name))


def __dir__() -> list[str]:
  return sorted(__all__)
