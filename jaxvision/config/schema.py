"""Every field of a config: its default, its meaning, its limits.

`jaxvision train --help-config` prints this table.
"""

from typing import Any

from jaxvision.config.data_fields import (
  AUGMENT_FIELDS,
  DATA_FIELDS,
  EVALUATION_FIELDS,
)
from jaxvision.config.field import Field, Groups, Open
from jaxvision.config.limits import (
  STEPS,
  above_zero,
  all_strings,
  at_least,
  between,
  file_name,
  one_of,
)
from jaxvision.config.optimizer_fields import OPTIMIZER_FIELDS, SCHEDULE_FIELDS

__all__ = ['FIELDS', 'Field', 'Groups', 'Open']

# Contract names (scripts set them by hand) are never renamed. Order is the order of
# `config.json` and of the table of `jaxvision train --help-config`.
FIELDS: dict[str, Any] = {
  'name': Field(
    '',
    'Name of the run; empty: the stem of the config file.',
    free=True,
    **file_name(),
  ),
  'task': Field(
    'classification',
    'What is trained: classification, multilabel, regression, gan or flow_matching, or a '
    'class of your own, package.module:Task.',
  ),
  'directory': Field(
    '',
    'Directory that file.py:attribute names are relative to; set by the config file.',
    free=True,
  ),
  'seed': Field(
    0,
    'Seeds initialisation, data order, augmentation and dropout.',
    traced=True,
    **between(0, 2**63, open_end=True),
  ),
  'batch_size': Field(
    128,
    'Images per optimiser step, over all devices; in a GAN for each of `gan.d_steps`.',
    **at_least(1, 1_000_000),
  ),
  'eval_batch_size': Field(
    500,
    'Images per evaluation step, over all devices; while it is 500, fewer where large '
    'images would take over a gigabyte on a CPU.',
    **at_least(1, 1_000_000),
  ),
  'steps': Field(
    0, 'Optimiser steps to train; 0: from `epochs`.', **at_least(0, STEPS)
  ),
  'epochs': Field(
    10.0,
    'Passes over the training split, where `steps` is 0.',
    **above_zero(1_000_000),
  ),
  'dtype': Field(
    'float32',
    'Type of the computation; parameters and statistics stay float32.',
    **one_of('float32', 'bfloat16'),
  ),
  'label_smoothing': Field(
    0.0,
    'Share of the target that is spread evenly over all classes; in a GAN, how far '
    'below 1 the target of real images lies.',
    traced=True,
    **between(0, 1, open_end=True),
  ),
  'ema_decay': Field(
    0.0,
    'Decay per step of the exponential moving average of the weights that '
    'evaluation uses; 0: none.',
    traced=True,
    **between(0, 1, open_end=True),
  ),
  'quantization_aware': Field(
    False,
    'Train with kernels and the inputs of layers rounded as `quantize` rounds them to int8, '
    'which is for fine-tuning a run (init.pretrained=RUN) that loses accuracy by it; '
    'evaluation stays in float.',
  ),
  'gan': {
    'loss': Field(
      'bce',
      'bce: binary cross-entropy, non-saturating; hinge; least_squares; wasserstein.',
      **one_of('bce', 'hinge', 'least_squares', 'wasserstein'),
    ),
    'd_steps': Field(
      1, 'Steps of the discriminator to one of the generator.', **at_least(1, 1000)
    ),
    'd_learning_rate': Field(
      0.0,
      "Peak learning rate of the discriminator; 0: the generator's.",
      **at_least(0),
    ),
    'two_sided_smoothing': Field(
      False, 'The target of generated images lies as far above 0 (`label_smoothing`).'
    ),
    'r1': Field(
      0.0,
      'Weight of half the squared gradient at real images (R1); 0: off.',
      **at_least(0),
    ),
    'gradient_penalty': Field(
      0.0,
      'Weight of the penalty that holds the gradient between real and generated images '
      'to length 1 (WGAN-GP); 0: off.',
      **at_least(0),
    ),
    'class_weight': Field(
      1.0,
      "Weight of the class loss in the generator's loss (model.class_head classifier).",
      **at_least(0),
    ),
    'diffaugment': Field(
      (),
      'Augmentation of the images that the discriminator sees, real and generated '
      '(DiffAugment): color, translation, cutout.',
      **all_strings(),
    ),
  },
  'flow': {
    'time': Field(
      'logit_normal',
      'Distribution of the times that are trained on, from 0, only noise, to 1, only the '
      'image: uniform, or logit_normal, the sigmoid of a standard normal number, which '
      'prefers the middle.',
      **one_of('uniform', 'logit_normal'),
    ),
    'label_dropout': Field(
      0.1,
      'Chance that a training image is shown without its class, where the model is '
      'conditional; flow.guidance needs some.',
      **between(0, 1, open_end=True),
    ),
    'sampler': Field(
      'midpoint',
      'Solver that goes from noise to images: euler, with one evaluation of the network a '
      'step, heun or midpoint, with two.',
      **one_of('euler', 'heun', 'midpoint'),
    ),
    'steps': Field(
      20, 'Steps of the solver from noise to images.', **at_least(1, 1000)
    ),
    'guidance': Field(
      1.0,
      'How far the class moves the velocity away from that of any class; 1: that of the '
      'class alone, 0: that of any class; above 1 samples look more like their class and '
      'are less varied.',
      **at_least(0, 100),
    ),
  },
  'lookahead': {
    'every': Field(
      0,
      'Steps between pulls of the weights to their slow average, which evaluation '
      'uses; 0: none.',
      **at_least(0, STEPS),
    ),
    'decay': Field(
      0.95**5,
      'Share of the slow average that is kept at a pull at the end of the run; it grows '
      'with the cube of the share of the run that is done.',
      **between(0, 1),
    ),
  },
  'init': {
    'pretrained': Field(
      '',
      'Weights to start from: a .safetensors or .pth file in the names of torchvision or '
      'timm, a Hugging Face repository (ORGANISATION/NAME, and @REVISION), '
      "efficientnet_lite0 (of the extra 'pretrained'), or another run's workdir; empty: "
      'random.',
      path=True,
    ),
    'teacher': Field(
      '',
      "Another run's workdir, whose outputs this one learns from, see distillation; "
      'empty: none.',
      path=True,
    ),
    'skip': Field(
      (),
      'Patterns of parameters that start at random instead: head, stage4_.*, or the '
      'names in the file (fc, layer4).',
      **all_strings(),
    ),
  },
  'distillation': {
    'weight': Field(
      0.9,
      'Share of the loss that is the distance from the outputs of init.teacher; the rest '
      'is the loss of the labels.',
      traced=True,
      **between(0, 1),
    ),
    'temperature': Field(
      4.0,
      'What logits are divided by before they become probabilities, of the teacher and '
      'of the student.',
      traced=True,
      **above_zero(1000),
    ),
  },
  'resize': {
    'size': Field(
      0,
      'Height and width in pixels that the model sees: images are resized in the step, '
      'after augmentation, and stay as small on the device as they are; 0: as in the '
      'data.',
      **at_least(0, 8192),
    ),
    'interpolation': Field(
      'bilinear', 'How they are resized.', **one_of('bilinear', 'bicubic')
    ),
    'progressive': Field(
      (),
      'Sizes that training goes through first, each for an equal share of the steps, such '
      'as (16, 24); empty: none.',
      valid=lambda v: all(type(x) is int and 1 <= x <= 8192 for x in v),
      limits='a tuple of whole numbers from 1 to 8,192',
    ),
    'until': Field(
      0.75,
      'Share of the steps at which the last of resize.progressive ends.',
      valid=lambda v: 0 < v < 1,
      limits='between 0 and 1',
    ),
  },
  'freeze': Field(
    (),
    'Patterns (regular expressions) of the paths of parameters that are not trained; '
    'their batch norm stays in inference mode.',
    **all_strings(),
  ),
  'grad_accumulation': Field(
    1,
    'Parts that a batch is split into; their gradients are added up before the step.',
    **at_least(1, 1_000_000),
  ),
  'grad_clip': Field(
    0.0,
    'Largest global norm of the gradient; 0: no limit.',
    traced=True,
    **at_least(0),
  ),
  'log_every_steps': Field(
    100, 'Steps between log points.', free=True, **at_least(1, STEPS)
  ),
  'eval_every_steps': Field(
    0, 'Steps between evaluations; 0: once an epoch.', free=True, **at_least(0, STEPS)
  ),
  'report': Field(
    True, 'Write the report at the end of the run; `eval` writes it later.', free=True
  ),
  'steps_per_dispatch': Field(
    0,
    'Steps in one compiled call; 0: 1 on CPU, up to `log_every_steps` on others.',
    **at_least(0, 1_000_000),
  ),
  'deterministic': Field(
    False, 'Use deterministic kernels only (GPU), so that two runs agree bit for bit.'
  ),
  'profile': Field(
    0,
    'Steps, after the first few, to trace with the profiler into WORKDIR/profile; 0: '
    'none.',
    free=True,
    **at_least(0, 1_000_000),
  ),
  'data': DATA_FIELDS,
  'evaluation': EVALUATION_FIELDS,
  'augment': AUGMENT_FIELDS,
  'model': Open(
    {
      'name': Field(
        'digits_cnn',
        'A model of `jaxvision.models`, or a linen module of your own, file.py:Net; '
        'model.* are its arguments.',
      )
    }
  ),
  'loss': Open(
    {
      'name': Field(
        '',
        'cross_entropy, focal, binary_cross_entropy, mean_squared_error, huber, or a '
        'function of your own, (logits, labels) -> float [B]; empty: that of the task; '
        'loss.* are its arguments. loss.class_weights, with any of them, weights the '
        'classes in the training loss: K numbers, or balanced.',
      )
    }
  ),
  'metrics': Field(
    (),
    'Further metrics: clu Metric classes of your own, file.py:Metric.',
    **all_strings(),
  ),
  'callbacks': Field(
    ('tensorboard',),
    'Loggers (tensorboard, wandb, mlflow, trackio) and callbacks of your own, '
    'file.py:Callback.',
    free=True,
    **all_strings(),
  ),
  'early_stopping': {
    'patience': Field(
      0,
      'Evaluations in a row without an improvement that end the run; 0: never.',
      free=True,
      **at_least(0),
    ),
    'measure': Field(
      '',
      'Measure of the evaluations, such as loss or accuracy; empty: the one that the '
      'best checkpoint is chosen by.',
      free=True,
    ),
    'mode': Field(
      'auto',
      'Whether lower or higher is better: min, max, or auto, which goes by the name of '
      'the measure.',
      free=True,
      **one_of('auto', 'min', 'max'),
    ),
    'min_delta': Field(
      0.0, 'Smallest change that is an improvement.', free=True, **at_least(0)
    ),
  },
  'optimizer': OPTIMIZER_FIELDS,
  'schedule': SCHEDULE_FIELDS,
  'checkpoint': {
    'every_steps': Field(
      0,
      'Steps between checkpoints; 0: at every evaluation.',
      free=True,
      **at_least(0, STEPS),
    ),
    'keep': Field(
      2,
      'Newest checkpoints kept, besides the best.',
      free=True,
      **at_least(1, 1_000_000),
    ),
  },
  'parallel': {
    'data': Field(
      -1,
      'Number of devices that share each batch; -1: all that parallel.fsdp leaves.',
      valid=lambda v: v == -1 or 1 <= v <= 100_000,
      limits='-1 or from 1 to 100,000',
      free=True,
    ),
    'fsdp': Field(
      1,
      'Number of devices that share each large parameter.',
      free=True,
      **at_least(1, 100_000),
    ),
    'norm_scope': Field(
      'global',
      'What the statistics of batch norm are of in training: the global batch, or the '
      'share of each device by itself, so that none waits for another in each layer.',
      **one_of('global', 'device'),
    ),
    'coordinator': Field(
      '',
      'HOST:PORT at which the processes of one run meet, that of process 0; empty: as the '
      "environment says: JAX's variables, Slurm, Open MPI.",
      free=True,
    ),
    'processes': Field(
      0,
      'Number of processes that meet at parallel.coordinator.',
      free=True,
      **at_least(0, 100_000),
    ),
    'process_id': Field(
      -1,
      'Which of them this process is, from 0.',
      valid=lambda v: -1 <= v < 100_000,
      limits='-1 or from 0 to 99,999',
      free=True,
    ),
    'timeout': Field(
      300.0,
      'Seconds in which all processes have to come.',
      valid=lambda v: 0 < v <= 86_400,
      limits='above 0, up to 86,400',
      free=True,
    ),
    'heartbeat_timeout': Field(
      30.0,
      'Seconds without a sign of life, after which the others end without a process; one '
      'that lives and takes no step, while the others wait, has 20 times as long.',
      valid=lambda v: 1 <= v <= 86_400,
      limits='from 1 to 86,400',
      free=True,
    ),
  },
}
