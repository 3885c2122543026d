"""CIFAR-10 with six convolutions, batch norm and dropout, 1.18 M parameters (row C7).

Not measured in full: it wants a GPU. On a CPU, with --config.dtype=float32, a batch of 32
and a learning rate of 0.02, the test loss is 1.94 after 60 steps.

    python -m jaxvision.main --config=configs/cifar10_originalcnn.py --config.seed=N
"""

from jaxvision.config import base_config


def get_config():
  config = base_config()
  config.data.name = 'cifar10'
  config.model.name = 'original_cnn'
  config.batch_size = 128
  config.epochs = 100.0
  config.dtype = 'bfloat16'
  config.optimizer.learning_rate = 0.1
  config.optimizer.weight_decay = 5e-4
  config.schedule.name = 'cosine'
  config.schedule.warmup_epochs = 5.0
  config.augment.flip = True
  config.augment.crop_padding = 4
  config.augment.cutout = 8
  config.label_smoothing = 0.1
  return config
