"""CIFAR-100 with ResNet-18, 3x3 stem, 11.2 M parameters (row C15).

Twenty epochs, for a CPU: about five hours on one core. Not measured yet; on a GPU set
--config.dtype=bfloat16 and --config.epochs=150.

    python -m jaxvision.main --config=configs/cifar100_resnet18.py --config.seed=N
"""

from jaxvision.config import base_config


def get_config():
  config = base_config()
  config.data.name = 'cifar100'
  config.model.name = 'resnet18'
  config.batch_size = 256
  config.epochs = 20.0
  config.optimizer.learning_rate = 0.2
  config.optimizer.weight_decay = 5e-4
  config.schedule.name = 'cosine'
  config.schedule.warmup_epochs = 2.0
  config.augment.flip = True
  config.augment.crop_padding = 4
  config.augment.cutout = 8
  config.label_smoothing = 0.1
  return config
