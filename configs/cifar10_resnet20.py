"""CIFAR-10 with the ResNet of 20 layers, without augmentation (row C5), on a CPU.

He et al. 2015, section 4.2: three stages of three blocks, shortcuts without parameters,
269,722 parameters.

Measured with JAX 0.10 on one core of an AMD EPYC, in 12 epochs: 85.10 % test accuracy,
one seed (0), in 30 minutes beside other work.

    python -m jaxvision.main --config=configs/cifar10_resnet20.py --config.seed=N
"""

from jaxvision.config import base_config


def get_config():
  config = base_config()
  config.data.name = 'cifar10'
  config.model.name = 'resnet20'
  config.batch_size = 128
  config.epochs = 12.0
  config.optimizer.learning_rate = 0.1
  config.optimizer.weight_decay = 5e-4
  config.schedule.name = 'cosine'
  config.schedule.warmup_epochs = 1.0
  config.label_smoothing = 0.1
  return config
