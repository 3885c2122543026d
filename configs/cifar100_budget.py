"""CIFAR-100 in 57,332 parameters and 10,000 steps: 62.23 % +- 0.75 test accuracy (3 seeds).

Row C12, a small MobileNetV2. The budget is that of configs/cifar100_smallcnn.py, whose
parameters are nearly all in its dense layers. Here they are in inverted residuals of 24, 40
and 66 channels, at 16x16 and 8x8 pixels, and in one layer behind the mean over the pixels:
57,176 parameters, 10 MFLOPs.
Batches of 128, swish, flips and padded crops, SGD with Nesterov's momentum, one cycle.
61.73, 61.87 and 63.10 % (seeds 0 to 2), 67 % on the augmented training images; 37 minutes a
seed on AMD EPYC (1 core), other work on the other (JAX 0.10.2).

    python -m jaxvision.main --config=configs/cifar100_budget.py --config.seed=N
"""

from jaxvision.config import base_config


def get_config():
  config = base_config()
  config.data.name = 'cifar100'
  config.model.name = 'mobilenet_v2'
  config.model.stem_width = 16
  config.model.widths = (16, 24, 40, 66)
  config.model.depths = (1, 2, 3, 1)
  config.model.strides = (2, 1, 2, 1)
  config.model.expansions = (1, 3, 3, 3)
  config.model.last = False
  config.model.activation = 'swish'
  config.steps = 10_000
  config.batch_size = 128
  config.optimizer.learning_rate = 0.5
  config.optimizer.weight_decay = 2e-4
  config.schedule.name = 'one_cycle'
  config.augment.flip = True
  config.augment.crop_padding = 4
  config.eval_every_steps = 1000
  return config
