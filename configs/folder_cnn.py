"""Your own image folder: --config.data.root=DIR with DIR/{train,test}/CLASS/*.jpg.

Without a test folder about a fifth of the images of each class is the test split.
Images are scaled and cropped to 64x64; for photographs that need more, raise
data.image_size and take a larger model.
"""

from jaxvision.config import base_config


def get_config():
  config = base_config()
  config.data.name = 'folder'
  config.data.image_size = 64
  config.model.name = 'original_cnn'
  config.batch_size = 64
  config.epochs = 30.0
  config.optimizer.name = 'adamw'
  config.optimizer.learning_rate = 2e-3
  config.optimizer.weight_decay = 0.05
  config.schedule.name = 'one_cycle'
  config.augment.flip = True
  config.augment.crop_padding = 8
  return config
