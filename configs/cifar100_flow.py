"""CIFAR-100 by flow matching in the budget of `cifar100_dcgan`: parameters and steps.

531,468 parameters, 420 MFLOPs for each training image, 1.34 PFLOPs in 50,000 steps of 64: about
two and a half hours at 150 GFLOP/s. 50,000 samples take 0.28 PFLOPs more (20 steps of two
evaluations each). The network sees 16x16 patches of 2x2 pixels and has 64 channels everywhere,
from which on 3x3 convolutions are fast on a CPU. Not measured yet.

    python -m jaxvision.main --config=configs/cifar100_flow.py --config.seed=N
"""

from jaxvision.config import base_config


def get_config():
  config = base_config()
  config.task = 'flow_matching'
  config.data.name = 'cifar100'
  config.model.name = 'unet'
  config.model.width = 64
  config.model.multipliers = (1, 1)
  config.model.embedding = 64
  config.model.patch = 2
  config.model.conditional = True
  config.steps = 50_000
  config.batch_size = 64
  config.eval_batch_size = 128
  config.optimizer.name = 'adam'
  config.optimizer.learning_rate = 1e-3
  config.schedule.name = 'cosine'
  config.schedule.warmup_steps = 1_000
  config.grad_clip = 1.0
  config.ema_decay = 0.999
  config.augment.flip = True
  config.evaluation.reference = 'train'
  config.evaluation.samples = 50_000
  config.eval_every_steps = 5_000
  return config
