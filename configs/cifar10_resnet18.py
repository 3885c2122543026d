"""CIFAR-10 with ResNet-18, 3x3 stem, 11.17 M parameters (row C9).

The 26 epochs in batches of 500 with which Keller Jordan's ResNet-18 reaches 93.44 % plain
and 94.0 % with mirrored views: about seven hours on one core. Not measured yet; on a GPU
set --config.dtype=bfloat16 and --config.epochs=100.

    python -m jaxvision.main --config=configs/cifar10_resnet18.py --config.seed=N
"""

from jaxvision.config import base_config


def get_config():
  config = base_config()
  config.data.name = 'cifar10'
  config.model.name = 'resnet18'
  config.batch_size = 500
  config.epochs = 26.0
  config.optimizer.learning_rate = 0.2
  config.optimizer.weight_decay = 5e-4
  config.schedule.name = 'cosine'
  config.schedule.warmup_epochs = 5.0
  config.augment.flip = True
  config.augment.crop_padding = 4
  config.augment.cutout = 12
  config.label_smoothing = 0.1
  return config
