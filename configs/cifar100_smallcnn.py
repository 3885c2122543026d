"""CIFAR-100 with the SmallFiltersCNN of 57,332 parameters in 10,000 steps (row C11)."""

from jaxvision.config import base_config


def get_config():
  config = base_config()
  config.data.name = 'cifar100'
  config.model.name = 'small_filters_cnn'
  config.model.activation = 'swish'
  config.steps = 10_000
  config.batch_size = 256
  config.optimizer.name = 'adamw'
  config.optimizer.learning_rate = 8e-3
  config.optimizer.weight_decay = 1e-2
  config.schedule.name = 'one_cycle'
  config.augment.flip = True
  config.augment.crop_padding = 4
  config.eval_every_steps = 1000
  return config
