"""CIFAR-10 speed run to 96 %: residual groups of three convolutions, 9.92 M parameters
(row C14).

The recipe: 96.03 % on average over 400 seeds in 34.7 s on an A100 (PyTorch 2.1), by
legacy/airbench96.py of https://github.com/KellerJordan/cifar10-airbench (March 2025).
Ours: not measured yet.

    python benchmarks/speedrun.py --config=configs/cifar10_airbench96.py --seeds=50

What cifar10_airbench94_sgd.py says of differences holds here too.
"""

import runpy
from pathlib import Path

SGD_RECIPE = runpy.run_path(str(Path(__file__).with_name('cifar10_airbench94_sgd.py')))[
  'get_config'
]


def get_config():
  config = SGD_RECIPE(
    rate=9.0, decay=0.012, epochs=37.0, warmup=0.1, end=0.0, model='airbench96'
  )
  config.augment.crop_padding = 4
  config.augment.cutout = 12
  config.augment.cutout_mode = 'inside'
  return config
