"""CIFAR-100 with ResNet-18, 3x3 stem, 11.2 M parameters (row C15).

Not measured yet: it wants a GPU.

    python -m jaxvision.main --config=configs/cifar100_resnet18.py --config.seed=N
"""

from jaxvision.config import base_config


def get_config():
  config = base_config()
  config.data.name = 'cifar100'
  config.model.name = 'resnet18'
  config.batch_size = 128
  config.epochs = 150.0
  config.dtype = 'bfloat16'
  config.optimizer.learning_rate = 0.1
  config.optimizer.weight_decay = 5e-4
  config.schedule.name = 'cosine'
  config.schedule.warmup_epochs = 2.0
  config.augment.flip = True
  config.augment.crop_padding = 4
  config.augment.cutout = 8
  config.label_smoothing = 0.1
  return config
