"""Importing the package changes nothing in the process."""

import json
import subprocess
import sys
import tempfile

CHECK = """
import importlib, json, logging, os, pkgutil, sys, warnings

def state(jax):
  absl = logging.getLogger('absl')
  return {
    'environment': dict(os.environ),
    'warnings': [repr(entry) for entry in warnings.filters],
    'unraisablehook': repr(sys.unraisablehook),
    'excepthook': repr(sys.excepthook),
    'root handlers': [repr(h) for h in logging.getLogger().handlers],
    'absl filters': [repr(f) for f in absl.filters + logging.getLogger('jax').filters],
    'finders': [repr(finder) for finder in sys.meta_path],
    'jax': {name: repr(value) for name, value in sorted(jax.config.values.items())},
    'torch': 'torch' in sys.modules,
    'tensorflow': 'tensorflow' in sys.modules,
  }

"""

# What the packages that we import change by themselves.
OTHERS = """
import jax, flax.linen, optax, orbax.checkpoint, clu.metrics, ml_collections, grain
import matplotlib, optuna, sklearn, scipy.stats, PIL.Image, jinja2, safetensors, rich
import tensorboardX, huggingface_hub
"""

MODULES = """
import jaxvision
names = [m.name for m in pkgutil.walk_packages(jaxvision.__path__, 'jaxvision.')]
for name in names:
  importlib.import_module(name)
"""


def changes(before, imports):
  """Returns what imports change in a fresh interpreter: name -> (before, after)."""
  script = (
    CHECK
    + before
    + '\nbefore = state(jax)\n'
    + imports
    + '\nafter = state(jax)\n'
    + 'changed = {k: (before[k], after[k]) for k in before if before[k] != after[k]}\n'
    + 'print(json.dumps(changed))\n'
  )
  result = subprocess.run(
    [sys.executable, '-c', script], capture_output=True, text=True, check=False
  )
  assert result.returncode == 0, result.stderr
  return json.loads(result.stdout.splitlines()[-1])


def test_importing_every_module_changes_nothing_in_the_process():
  assert changes(OTHERS, MODULES) == {}


def test_train_imports_neither_pytorch_nor_tensorflow():
  found = changes('import jax', 'import jaxvision.commands.train')
  assert not {'torch', 'tensorflow', 'environment'} & set(found)


# What takes long to import, and no first step needs.
LATE = {
  *('grain', 'matplotlib', 'optuna', 'orbax', 'pandas', 'scipy', 'sklearn'),
  *('tensorboardX', 'tensorflow_datasets'),
}


def test_a_run_is_built_without_what_its_first_step_does_not_need():
  script = """
import sys
import jaxvision.main, jaxvision.cli, jaxvision.commands.train
from jaxvision import config, data
from jaxvision.data.info import DatasetInfo
from jaxvision.training.checkpoints import Checkpoints
from jaxvision.training.run import Run
given = config.load('configs/digits_cnn.py', ())
Run.build(given, DatasetInfo.of(data.load(given.data)))
assert Checkpoints(sys.argv[1]).restore({}) is None
print(*{name.partition('.')[0] for name in sys.modules})
"""
  with tempfile.TemporaryDirectory() as folder:
    result = subprocess.run(
      [sys.executable, '-c', script, folder],
      capture_output=True,
      text=True,
      check=False,
    )
  assert result.returncode == 0, result.stderr
  assert not LATE & set(result.stdout.split())
