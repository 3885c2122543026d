"""CIFAR-10 from a network that learned CIFAR-100: a run of ours as the start.

The 57,332 parameters of cifar100_smallcnn, but for its head, are where this run begins:

    python -m jaxvision.main --config=configs/cifar100_smallcnn.py
    python -m jaxvision.main --config=configs/cifar100_to_cifar10.py

--config.init.pretrained=WORKDIR names another run of the same network, and
--config.init.pretrained= --config.init.skip=() none.
"""

from jaxvision.config import base_config


def get_config():
  config = base_config()
  config.data.name = 'cifar10'
  config.init.pretrained = 'runs/cifar100_smallcnn'
  config.init.skip = ('head',)
  config.model.name = 'small_filters_cnn'
  config.model.activation = 'swish'
  config.batch_size = 128
  config.epochs = 10.0
  config.optimizer.name = 'adamw'
  config.optimizer.learning_rate = 2e-3
  config.optimizer.weight_decay = 0.01
  config.schedule.name = 'one_cycle'
  config.augment.flip = True
  config.augment.crop_padding = 2
  return config
