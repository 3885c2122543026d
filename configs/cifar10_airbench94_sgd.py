"""CIFAR-10 speed run to 94 % with SGD and Lookahead, 1.97 M parameters (row C14).

The recipe: 94.01 % on average over 1,000 seeds in 3.83 s on an A100 (PyTorch 2.1), by
legacy/airbench94.py of https://github.com/KellerJordan/cifar10-airbench (March 2025);
K. Jordan, arXiv 2404.00498. Ours: not measured yet.

    python benchmarks/speedrun.py --config=configs/cifar10_airbench94_sgd.py --seeds=50

Random numbers, bfloat16 instead of float16, and epochs that take in the last, smaller
batch differ from the original; steps and images are as many. On a CPU set
--config.dtype=float32.
"""

import math

from jaxvision.config import base_config

BATCH_SIZE = 1024
STEPS_PER_EPOCH = 50_000 // BATCH_SIZE  # whole batches

# The recipe's knobs, per 1,024 images and freed from the momentum: with a constant
# gradient, Nesterov's step is 1 + 1 / (1 - momentum) times rate and gradient.
RATE = 11.5
DECAY = 0.0153
MOMENTUM = 0.85
BIAS_SCALER = 64.0
EPOCHS = 9.9
WHITEN_BIAS_EPOCHS = 3


def get_config(
  rate=RATE, decay=DECAY, epochs=EPOCHS, warmup=0.23, end=0.07, model='airbench94'
):
  steps = math.ceil(STEPS_PER_EPOCH * epochs)
  config = base_config()
  config.data.name = 'cifar10'
  config.data.mean = (0.4914, 0.4822, 0.4465)
  config.data.std = (0.2470, 0.2435, 0.2616)
  config.model.name = model
  config.model.form = 'sgd'
  config.dtype = 'bfloat16'
  config.batch_size = BATCH_SIZE
  config.eval_batch_size = 2000
  config.steps = steps
  config.eval_every_steps = steps  # at the end only
  config.label_smoothing = 0.2
  config.lookahead.every = 5
  config.lookahead.decay = 0.95**5

  # The recipe adds up the losses of a batch and the library takes their mean: the rate
  # is per image there, so times the batch size here.
  step_over_gradient = 1 + 1 / (1 - MOMENTUM)
  peak = rate / 1024 / step_over_gradient * BATCH_SIZE
  decayed = decay / 1024 * BATCH_SIZE / step_over_gradient  # per step, at the peak
  config.optimizer.name = 'sgd'
  config.optimizer.momentum = MOMENTUM
  config.optimizer.learning_rate = peak
  config.optimizer.weight_decay = decayed / peak
  groups = config.optimizer.groups
  groups.norm_biases = {
    'match': 'group./norm./bias',
    'learning_rate': peak * BIAS_SCALER,
    'weight_decay': decayed / (peak * BIAS_SCALER),
  }
  groups.whiten_bias = {
    'match': 'whiten/bias',
    'weight_decay': decayed / peak,
    'stop': WHITEN_BIAS_EPOCHS * STEPS_PER_EPOCH / steps,
  }
  config.schedule.name = 'linear'
  config.schedule.warmup_steps = int(warmup * steps)
  config.schedule.start_factor = 0.2
  config.schedule.end_factor = end
  config.freeze = ('whiten/kernel',)

  config.augment.flip = True
  config.augment.flip_mode = 'alternating'
  config.augment.crop_padding = 2
  config.evaluation.tta = 'flip_shift'
  return config
