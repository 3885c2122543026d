"""MNIST digits from a DCGAN, 28x28 (row G1).

Not measured yet as it stands. What was tried on one core, seed 0, judged by
configs/mnist_cnn.py: with a discriminator of width 32 (two convolutions of 32 and 64
filters) the mean confidence stood at 0.882 after 9 of 15 epochs and no longer rose; told
the class (model.conditional) at 0.861 after 8 epochs, and the generator did not heed it.
This one has a wider discriminator and more epochs.

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
  config.model.discriminator_width = 64
  config.batch_size = 64
  config.epochs = 20.0
  config.optimizer.name = 'adam'
  config.optimizer.learning_rate = 2e-4
  config.optimizer.options.b1 = 0.5
  config.schedule.name = 'linear'
  config.ema_decay = 0.999
  config.eval_every_steps = 938
  return config
