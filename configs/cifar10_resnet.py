"""CIFAR-10 with the ResNet of 20 layers, without augmentation (row C5).

He et al. 2015, section 4.2: three stages of three blocks, shortcuts without parameters.
The width of 64 (4.3 M parameters) is for a GPU; --config.model.width=16 is the network of
the paper (0.27 M).

    python -m jaxvision.main --config=configs/cifar10_resnet.py --config.seed=N
"""

from jaxvision.config import base_config


def get_config():
  config = base_config()
  config.data.name = 'cifar10'
  config.model.name = 'resnet20'
  config.model.width = 64
  config.batch_size = 128
  config.epochs = 60.0
  config.dtype = 'bfloat16'
  config.optimizer.learning_rate = 0.1
  config.optimizer.weight_decay = 5e-4
  config.schedule.name = 'cosine'
  config.schedule.warmup_epochs = 1.0
  config.label_smoothing = 0.1
  return config
