"""MNIST digits from a conditional DCGAN, 28x28 (row G1).

Not measured yet.

    python -m jaxvision.main --config=configs/mnist_dcgan.py --config.seed=N
"""

from jaxvision.config import base_config


def get_config():
  config = base_config()
  config.task = 'gan'
  config.data.name = 'mnist'
  config.model.name = 'dcgan'
  config.model.latent = 64
  config.model.width = 48
  config.model.discriminator_width = 32
  config.model.conditional = True
  config.batch_size = 64
  config.epochs = 8.0
  config.optimizer.name = 'adam'
  config.optimizer.learning_rate = 2e-4
  config.optimizer.options.b1 = 0.5
  config.schedule.name = 'linear'
  config.ema_decay = 0.999
  config.eval_every_steps = 938
  return config
