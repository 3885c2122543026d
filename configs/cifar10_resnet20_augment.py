"""CIFAR-10 with the ResNet of 20 layers and augmentation (row C6), on a CPU.

The network and the recipe of cifar10_resnet20 with mirroring and padded crops, as in He
et al. 2015, section 4.2, who trained for 164 epochs and reached 91.25 %.

Measured with JAX 0.10 on one core of an AMD EPYC, in 20 epochs: 89.45 % test accuracy,
one seed (0), in 72 minutes beside other work that stopped it at times.

    python -m jaxvision.main --config=configs/cifar10_resnet20_augment.py --config.seed=N
"""

import runpy
from pathlib import Path

PLAIN = runpy.run_path(str(Path(__file__).with_name('cifar10_resnet20.py')))[
  'get_config'
]


def get_config():
  config = PLAIN()
  config.epochs = 20.0
  config.augment.flip = True
  config.augment.crop_padding = 4
  return config
