"""CIFAR-100 from a DCGAN of 370,624 and 167,808 parameters, as published (row G2).

FD-cifar100_resnet20 7.16 after 50,000 steps, floor 0.09 (50,000 samples against the training
split, features of configs/cifar100_resnet20.py at 59.36 %); precision 0.813, recall 0.448. One
seed (0), 1:11 hours on one core of an AMD EPYC beside other work (JAX 0.10.2); measured later
than trained, out of experiments/generators. No FID: it wants Inception's weights.

    python -m jaxvision.main --config=configs/cifar100_dcgan.py --config.seed=N
"""

from jaxvision.config import base_config


def get_config():
  config = base_config()
  config.task = 'gan'
  config.data.name = 'cifar100'
  config.model.name = 'dcgan'
  config.steps = 50_000
  config.batch_size = 64
  config.optimizer.name = 'adam'
  config.optimizer.learning_rate = 2e-4
  config.optimizer.options.b1 = 0.5
  config.schedule.name = 'constant'
  config.evaluation.reference = 'train'
  config.evaluation.samples = 50_000
  config.eval_every_steps = 2_500
  return config
