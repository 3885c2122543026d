"""CIFAR-10 with the network of cifar10_basiccnn and augmentation (rows C4, S3)."""

from jaxvision.config import base_config


def get_config():
  config = base_config()
  config.data.name = 'cifar10'
  config.model.name = 'basic_cnn'
  config.model.dropout = 0.1
  config.batch_size = 128
  config.epochs = 15.0
  config.optimizer.name = 'adamw'
  config.optimizer.learning_rate = 3e-3
  config.optimizer.weight_decay = 0.05
  config.schedule.name = 'one_cycle'
  config.augment.flip = True
  config.augment.crop_padding = 4
  return config
