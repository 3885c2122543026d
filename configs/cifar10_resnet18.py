"""CIFAR-10 with ResNet-18, 3x3 stem, 11.17 M parameters (row C9).

Muon on the convolutions and nine epochs, 1.5 PFLOP: about five hours on one core. Not
measured yet; on a GPU set --config.dtype=bfloat16.

    python -m jaxvision.main --config=configs/cifar10_resnet18.py --config.seed=N
"""

from jaxvision.config import base_config


def get_config():
  config = base_config()
  config.data.name = 'cifar10'
  config.model.name = 'resnet18'
  config.batch_size = 500
  config.epochs = 9.0
  config.optimizer.name = 'muon'  # of the kernels but the classifier's
  config.optimizer.learning_rate = 0.08
  config.optimizer.momentum = 0.85
  config.optimizer.groups.others = {
    'match': '.*(bias|scale)|head/kernel',
    'name': 'sgd',
    'momentum': 0.9,
    'learning_rate': 0.1,
    'weight_decay': 5e-4,
  }
  config.schedule.name = 'cosine'
  config.augment.flip = True
  config.augment.flip_mode = 'alternating'
  config.augment.crop_padding = 4
  config.label_smoothing = 0.1
  return config
