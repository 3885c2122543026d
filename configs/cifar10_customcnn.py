"""CIFAR-10 with three blocks of three convolutions, 1.79 M parameters (row C8).

Muon on the convolutions and eight epochs, as in cifar10_airbench94, 0.76 PFLOP: 93.33 % test
accuracy, one seed (0), float32, JAX 0.10.1, in 2 h 30 min on one core of an AMD EPYC
(AVX-512) beside other work.

    python -m jaxvision.main --config=configs/cifar10_customcnn.py --config.seed=N
"""

from jaxvision.config import base_config


def get_config():
  config = base_config()
  config.data.name = 'cifar10'
  config.model.name = 'custom_cnn'
  config.model.dropout = 0.1
  config.batch_size = 500
  config.epochs = 8.0
  config.optimizer.name = 'muon'  # of the kernels but the classifier's
  config.optimizer.learning_rate = 0.1
  config.optimizer.momentum = 0.8
  config.optimizer.groups.others = {
    'match': '.*(bias|scale)|head/kernel',
    'name': 'sgd',
    'momentum': 0.9,
    'learning_rate': 0.1,
    'weight_decay': 5e-4,
  }
  config.schedule.name = 'linear'
  config.augment.flip = True
  config.augment.flip_mode = 'alternating'
  config.augment.crop_padding = 4
  config.label_smoothing = 0.1
  return config
