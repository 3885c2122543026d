"""CIFAR-10 with the ResNet of 20 layers and augmentation (row C6).

The network and the recipe of cifar10_resnet with mirroring and padded crops, as in He et
al. 2015, section 4.2, and twice the epochs.

    python -m jaxvision.main --config=configs/cifar10_resnet_augment.py --config.seed=N
"""

import runpy
from pathlib import Path

PLAIN = runpy.run_path(str(Path(__file__).with_name('cifar10_resnet.py')))['get_config']


def get_config():
  config = PLAIN()
  config.epochs = 120.0
  config.augment.flip = True
  config.augment.crop_padding = 4
  return config
