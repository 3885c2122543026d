"""CIFAR-10 with a wide ResNet of 20 layers, without augmentation (row C5).

The network of cifar10_resnet20 four times as wide, 4.3 M parameters, for a GPU. Not
measured yet.

    python -m jaxvision.main --config=configs/cifar10_resnet.py --config.seed=N
"""

import runpy
from pathlib import Path

NARROW = runpy.run_path(str(Path(__file__).with_name('cifar10_resnet20.py')))[
  'get_config'
]


def get_config():
  config = NARROW()
  config.model.width = 64
  config.epochs = 60.0
  config.dtype = 'bfloat16'
  return config
