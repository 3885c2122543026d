"""CIFAR-10 by flow matching, with a U-Net of the size that diffusion models have there.

Not measured yet: it wants a GPU, and Inception's weights for its FID.

    python -m jaxvision.main --config=configs/cifar10_flow.py --config.seed=N
"""

from jaxvision.config import base_config


def get_config():
  config = base_config()
  config.task = 'flow_matching'
  config.data.name = 'cifar10'
  config.model.name = 'unet'
  config.model.width = 128
  config.model.multipliers = (1, 2, 2, 2)
  config.model.blocks = 2
  config.model.attention = (16,)
  config.model.heads = 4
  config.model.dropout = 0.1
  config.model.conditional = True
  config.steps = 200_000
  config.batch_size = 128
  config.eval_batch_size = 500
  config.dtype = 'bfloat16'
  config.optimizer.name = 'adam'
  config.optimizer.learning_rate = 2e-4
  config.schedule.name = 'constant'
  config.schedule.warmup_steps = 5_000
  config.grad_clip = 1.0
  config.ema_decay = 0.9999
  config.augment.flip = True
  config.evaluation.reference = 'train'
  config.evaluation.samples = 50_000
  config.eval_every_steps = 10_000
  return config
