"""Handwritten digits from a small conditional DCGAN, at 16x16, on a CPU in a minute.

There are 1,438 training images; what the discriminator sees is shifted at random, or it
would know them by heart.

Not measured yet.

    python -m jaxvision.main --config=configs/digits_dcgan.py
"""

from jaxvision.config import base_config


def get_config():
  config = base_config()
  config.task = 'gan'
  config.data.image_size = 16
  config.model.name = 'dcgan'
  config.model.latent = 32
  config.model.conditional = True
  config.gan.diffaugment = ('translation',)
  config.steps = 3000
  config.batch_size = 64
  config.optimizer.name = 'adam'
  config.optimizer.learning_rate = 5e-4
  config.optimizer.options.b1 = 0.5
  config.schedule.name = 'linear'
  config.ema_decay = 0.995
  config.eval_every_steps = 250
  return config
