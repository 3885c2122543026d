"""CIFAR-10 with two convolutions and two dense layers (row C2)."""

from jaxvision.config import base_config


def get_config():
  config = base_config()
  config.data.name = 'cifar10'
  config.model.name = 'sim_cnn'
  config.model.dropout = 0.3
  config.batch_size = 128
  config.epochs = 10.0
  config.optimizer.name = 'adamw'
  config.optimizer.learning_rate = 2e-3
  config.optimizer.weight_decay = 0.05
  config.schedule.name = 'one_cycle'
  config.augment.flip = True
  config.augment.crop_padding = 2
  return config
