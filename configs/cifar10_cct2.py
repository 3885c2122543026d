"""CIFAR-10 with CCT-2/3x2, a compact transformer of 0.28 M parameters (row C17).

The network of Hassani et al., "Escaping the big data paradigm with compact transformers",
2021, who reach 89.17 % in 200 epochs.

    python -m jaxvision.main --config=configs/cifar10_cct2.py --config.seed=N
"""

from jaxvision.config import base_config


def get_config():
  config = base_config()
  config.data.name = 'cifar10'
  config.model.name = 'cct_2_3x2'
  config.batch_size = 128
  config.epochs = 100.0
  config.optimizer.name = 'adamw'
  config.optimizer.learning_rate = 1e-3
  config.optimizer.weight_decay = 0.06
  config.schedule.name = 'cosine'
  config.schedule.warmup_epochs = 5.0
  config.grad_clip = 1.0
  config.augment.flip = True
  config.augment.crop_padding = 4
  config.augment.policy = 'trivial_augment'
  config.label_smoothing = 0.1
  return config
