"""CIFAR-10 from a DCGAN of 370,624 and 167,808 parameters, as published (row G3).

Not measured yet: it wants a GPU, and Inception's weights for its FID.

    python -m jaxvision.main --config=configs/cifar10_dcgan.py --config.seed=N
"""

from jaxvision.config import base_config


def get_config():
  config = base_config()
  config.task = 'gan'
  config.data.name = 'cifar10'
  config.model.name = 'dcgan'
  config.steps = 50_000
  config.batch_size = 64
  config.optimizer.name = 'adam'
  config.optimizer.learning_rate = 2e-4
  config.optimizer.options.b1 = 0.5
  config.schedule.name = 'constant'
  config.evaluation.reference = 'train'
  config.evaluation.samples = 50_000
  config.eval_every_steps = 2_500
  return config
