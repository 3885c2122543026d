"""CIFAR-10 with a wide ResNet of 20 layers and augmentation (row C6).

The network of cifar10_resnet20_augment four times as wide, 4.3 M parameters, for a GPU.
Not measured yet.

    python -m jaxvision.main --config=configs/cifar10_resnet_augment.py --config.seed=N
"""

import runpy
from pathlib import Path

NARROW = runpy.run_path(str(Path(__file__).with_name('cifar10_resnet20_augment.py')))[
  'get_config'
]


def get_config():
  config = NARROW()
  config.model.width = 64
  config.epochs = 120.0
  config.dtype = 'bfloat16'
  return config
