"""CIFAR-10 with six convolutions, batch norm and dropout, 1.18 M parameters (row C7).

Muon on the convolutions and the hidden layer, as in cifar10_airbench94, makes ten epochs
enough: 92.17 % test accuracy, one seed (0), float32, JAX 0.10.1, in 2 h 12 min on one core of
an Intel Xeon at 2.5 GHz beside other work. The trained network comes with the package
(`jaxvision models cifar10_originalcnn`).

    python -m jaxvision.main --config=configs/cifar10_originalcnn.py --config.seed=N
"""

from jaxvision.config import base_config


def get_config():
  config = base_config()
  config.data.name = 'cifar10'
  config.model.name = 'original_cnn'
  config.model.dropout = 0.1
  config.batch_size = 500
  config.epochs = 10.0
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
  config.augment.crop_padding = 2
  config.label_smoothing = 0.1
  return config
