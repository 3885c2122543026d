"""CIFAR-10 speed run to 95 %: wider and longer, 4.60 M parameters (row C14).

The recipe: 95.01 % on average over 200 seeds in 10.4 s on an A100 (PyTorch 2.1), by
legacy/airbench95.py of https://github.com/KellerJordan/cifar10-airbench (March 2025).
Ours: not measured yet.

    python benchmarks/speedrun.py --config=configs/cifar10_airbench95.py --seeds=50

What cifar10_airbench94_sgd.py says of differences holds here too.
"""

import runpy
from pathlib import Path

SGD_RECIPE = runpy.run_path(str(Path(__file__).with_name('cifar10_airbench94_sgd.py')))[
  'get_config'
]


def get_config():
  return SGD_RECIPE(rate=10.0, epochs=15.0, model='airbench95')
