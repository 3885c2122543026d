"""CIFAR-100 from the DCGAN of `cifar100_dcgan`, trained better (row G2).

The same networks, 370,624 and 167,808 parameters, and the same 50,000 steps of 64 images:
samples come from the average of the generator's weights, the learning rate starts higher
and falls to 0, real images are mirrored.

Not measured yet.

    python -m jaxvision.main --config=configs/cifar100_dcgan_plus.py --config.seed=N
"""

from jaxvision.config import base_config


def get_config():
  config = base_config()
  config.task = 'gan'
  config.data.name = 'cifar100'
  config.model.name = 'dcgan'
  config.steps = 50_000
  config.batch_size = 64
  config.optimizer.name = 'adam'
  config.optimizer.learning_rate = 3e-4
  config.optimizer.options.b1 = 0.5
  config.schedule.name = 'linear'
  config.ema_decay = 0.999
  config.augment.flip = True
  config.evaluation.reference = 'train'
  config.evaluation.samples = 50_000
  config.eval_every_steps = 2_500
  return config
