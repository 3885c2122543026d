"""Every field of a config: its default, its meaning, its limits.

`jaxvision train --help-config` prints this table.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxvision.config.limits import (
  above_zero,
  all_numbers,
  all_strings,
  at_least,
  between,
  interval,
  one_of,
)


@dataclasses.dataclass(frozen=True)
class Field:
  """One field: its default (whose type is the field's type), meaning and limits.

  Attributes:
    default: the value when nobody sets it.
    doc: the meaning, with units.
    valid: whether a value of the right type is possible.
    limits: the same in words, for the error message.
    free: whether it may change between the parts of a resumed run, because it says
      where and how a run happens and not what it computes.
    traced: whether a compiled program can take it as an argument, so that runs that
      differ in it share the program.
  """

  default: Any
  doc: str
  valid: Callable[[Any], bool] = lambda _: True
  limits: str = ''
  free: bool = False
  traced: bool = False


class Open(dict):
  """Default of a part that takes further fields, checked by whoever owns them."""


class Groups(Open):
  """Default of a part that takes further parts by any name, each with such fields."""


# Contract names (scripts set them by hand) are never renamed. Order is the order of
# `config.json` and of the table of `jaxvision train --help-config`.
FIELDS: dict[str, Any] = {
  'name': Field('', 'Name of the run; empty: the stem of the config file.'),
  'task': Field(
    'classification',
    'What is trained: classification, multilabel, regression or gan, or a class of your '
    'own, package.module:Task.',
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
    **at_least(1),
  ),
  'eval_batch_size': Field(
    500, 'Images per evaluation step, over all devices.', **at_least(1)
  ),
  'steps': Field(0, 'Optimiser steps to train; 0: from `epochs`.', **at_least(0)),
  'epochs': Field(
    10.0, 'Passes over the training split, where `steps` is 0.', **above_zero()
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
  'gan': {
    'loss': Field(
      'bce',
      'bce: binary cross-entropy, non-saturating; hinge; least_squares; wasserstein.',
      **one_of('bce', 'hinge', 'least_squares', 'wasserstein'),
    ),
    'd_steps': Field(
      1, 'Steps of the discriminator to one of the generator.', **at_least(1)
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
  'lookahead': {
    'every': Field(
      0,
      'Steps between pulls of the weights to their slow average, which evaluation '
      'uses; 0: none.',
      **at_least(0),
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
      'timm, a Hugging Face repository (ORGANISATION/NAME, and @REVISION), or another '
      "run's workdir; empty: random.",
    ),
    'skip': Field(
      (),
      'Patterns of parameters that start at random instead: head, stage4_.*, or the '
      'names in the file (fc, layer4).',
      **all_strings(),
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
    **at_least(1),
  ),
  'grad_clip': Field(
    0.0,
    'Largest global norm of the gradient; 0: no limit.',
    traced=True,
    **at_least(0),
  ),
  'log_every_steps': Field(100, 'Steps between log points.', free=True, **at_least(1)),
  'eval_every_steps': Field(
    0, 'Steps between evaluations; 0: once an epoch.', free=True, **at_least(0)
  ),
  'report': Field(
    True, 'Write the report at the end of the run; `eval` writes it later.', free=True
  ),
  'steps_per_dispatch': Field(
    0,
    'Steps in one compiled call; 0: 1 on CPU, up to `log_every_steps` on others.',
    **at_least(0),
  ),
  'deterministic': Field(
    False, 'Use deterministic kernels only (GPU), so that two runs agree bit for bit.'
  ),
  'profile': Field(
    0,
    'Steps, after the first few, to trace with the profiler into WORKDIR/profile; 0: '
    'none.',
    free=True,
    **at_least(0),
  ),
  'data': {
    'name': Field(
      'digits',
      'digits, folder, synthetic, any TFDS set, or a function of your own that returns '
      'a data set or arrays, file.py:function.',
    ),
    'dir': Field(
      '', 'TFDS directory; empty: $TFDS_DATA_DIR, then the default.', free=True
    ),
    'root': Field('', 'Directory of the images of data.name=folder.'),
    'cache_dir': Field(
      '',
      'Directory of decoded sets; empty: $JAXVISION_CACHE, then ~/.cache/jaxvision.',
      free=True,
    ),
    'train_fraction': Field(
      1.0,
      'Share of the training split that trains; the rest, stratified, is the '
      'validation split.',
      valid=lambda v: 0 < v <= 1,
      limits='above 0 and at most 1',
    ),
    'test_fraction': Field(
      0.2,
      'Share of the training images that becomes the test split where there is none.',
      valid=lambda v: 0 < v < 1,
      limits='above 0 and below 1',
    ),
    'split_seed': Field(
      0,
      'Seed of the splits, apart from `seed`, so that runs of several seeds share them.',
      **at_least(0),
    ),
    'examples_per_class': Field(
      0, 'Training images of each class, drawn by `split_seed`; 0: all.', **at_least(0)
    ),
    'image_size': Field(
      0,
      'Height and width to resize to, in pixels; 0: of the pretrained weights, else as '
      'stored.',
      **at_least(0),
    ),
    'crop_fraction': Field(
      0.0,
      'Side of the centre crop over the shorter side of the resized image (crop_pct of '
      'timm); 0: of the pretrained weights, else 1.',
      **between(0, 1),
    ),
    'interpolation': Field(
      'auto',
      'How images are resized; auto: as the pretrained weights want it, else bilinear.',
      **one_of('auto', 'bilinear', 'bicubic'),
    ),
    'channels': Field(
      0,
      '1: grey, 3: RGB, 0: as stored.',
      valid=lambda v: v in (0, 1, 3),
      limits='0, 1 or 3',
    ),
    'mean': Field(
      (),
      'Mean of each channel, in units of [0, 1]; empty: that of the pretrained weights, '
      'else measured on the training split.',
      **all_numbers(0),
    ),
    'std': Field(
      (),
      'Standard deviation of each channel, in units of [0, 1]; empty: as for data.mean.',
      **all_numbers(0),
    ),
    'pipeline': Field(
      'auto',
      'resident: uint8 on the device; streaming: decoded as it goes; auto: by size.',
      **one_of('auto', 'resident', 'streaming'),
    ),
    'resident_limit_mb': Field(
      2048, 'Largest set (decoded, MB) that auto keeps on the device.', **at_least(0)
    ),
    'workers': Field(
      -1,
      'Processes that decode a streamed set; -1: by the number of cores, 0: threads.',
      free=True,
      **at_least(-1),
    ),
    'skip_unreadable': Field(
      False, 'Skip and count unreadable images instead of stopping.'
    ),
    'synthetic_examples': Field(
      1024, 'Number of training images of data.name=synthetic.', **at_least(2)
    ),
    'synthetic_classes': Field(
      10, 'Number of classes of data.name=synthetic.', **at_least(2)
    ),
  },
  'evaluation': {
    'tta': Field(
      'none',
      'Test-time augmentation, whose logits are averaged: flip: the image and its mirror '
      'image; flip_shift: those of two shifts by a pixel too.',
      **one_of('none', 'flip', 'flip_shift'),
    ),
    'features': Field(
      '',
      'Feature extractor for the measures of a GAN: inception (its weights are '
      'downloaded), the file of these weights, or the workdir of a classifier; empty: '
      'none.',
      free=True,
    ),
    'reference': Field(
      'test',
      'Split that generated images are measured against.',
      free=True,
      **one_of('test', 'train', 'validation'),
    ),
    'samples': Field(
      10_000, 'Images generated for the measures at the end.', free=True, **at_least(2)
    ),
    'samples_while_training': Field(
      2_000,
      'Images generated for the measures while a GAN trains; 0: none.',
      free=True,
      valid=lambda v: v == 0 or v >= 2,
      limits='0 or at least 2',
    ),
    'resizer': Field(
      'clean',
      'How images become 299x299 for Inception: clean (clean-fid) or tensorflow (as the '
      'first implementation did).',
      free=True,
      **one_of('clean', 'tensorflow'),
    ),
    'classifier': Field(
      '',
      'Workdir of a classifier of the classes that a GAN draws; empty: that of '
      'evaluation.features, if it is one.',
      free=True,
    ),
  },
  'augment': {
    'flip': Field(False, 'Mirror half of the images left to right.'),
    'flip_mode': Field(
      'random',
      'random: half of each batch; alternating: each image in every other epoch.',
      **one_of('random', 'alternating'),
    ),
    'resized_crop': Field(
      (),
      'Smallest and largest share of the area of a random resized crop, such as '
      '(0.08, 1); empty: off.',
      **interval(1, may_be_empty=True),
    ),
    'resized_crop_ratio': Field(
      (0.75, 4 / 3),
      'Smallest and largest ratio of width to height of a random resized crop.',
      **interval(float('inf')),
    ),
    'crop_padding': Field(
      0,
      'Pixels of padding on each side before a random crop of the original size; 0: '
      'off.',
      **at_least(0),
    ),
    'crop_mode': Field(
      'reflect',
      'Padding of random crops: reflect, or constant (zeros).',
      **one_of('reflect', 'constant'),
    ),
    'cutout': Field(
      0,
      'Side in pixels of a square that is set to the mean colour; 0: off.',
      **at_least(0),
    ),
    'cutout_mode': Field(
      'clipped',
      'clipped: the centre lies anywhere in the image; inside: the whole square does.',
      **one_of('clipped', 'inside'),
    ),
    'rotation': Field(0.0, 'Largest random rotation in degrees.', **between(0, 180)),
    'brightness': Field(
      0.0, 'Strength of brightness jitter, as in torchvision.', **at_least(0)
    ),
    'contrast': Field(
      0.0, 'Strength of contrast jitter, as in torchvision.', **at_least(0)
    ),
    'saturation': Field(
      0.0, 'Strength of saturation jitter, as in torchvision.', **at_least(0)
    ),
    'hue': Field(
      0.0, 'Largest shift of the hue, in turns of the colour wheel.', **between(0, 0.5)
    ),
    'custom': Field(
      (),
      'Functions of your own, (key, images [B, H, W, C] in [0, 255]) -> images.',
      **all_strings(),
    ),
  },
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
        'loss.* are its arguments.',
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
  'optimizer': {
    'name': Field(
      'sgd',
      'An optimiser of optax, muon, or a constructor of your own, file.py:optimizer; '
      'optimizer.options.* are its arguments.',
    ),
    'learning_rate': Field(
      0.1, 'Learning rate at the peak of the schedule.', traced=True, **at_least(0)
    ),
    'weight_decay': Field(
      0.0,
      'Weight decay of kernels; biases and normalisation layers have none.',
      traced=True,
      **at_least(0),
    ),
    'momentum': Field(
      0.9,
      'Momentum of sgd, lars and muon; others take it in optimizer.options.',
      traced=True,
      **between(0, 1, open_end=True),
    ),
    'nesterov': Field(
      True,
      'Use Nesterov momentum (sgd, lars, muon); others take it in optimizer.options.',
    ),
    'layer_decay': Field(
      1.0,
      'Learning rate of each layer, as a fraction of that of the next one towards the '
      'head.',
      valid=lambda v: 0 < v <= 1,
      limits='above 0 and at most 1',
    ),
    'options': Open(),
    'groups': Groups(),
  },
  'schedule': {
    'name': Field(
      'cosine',
      'Learning rate over the run: constant, cosine, step, one_cycle, linear, or a '
      'function of your own, (peak, total_steps) -> optax schedule.',
    ),
    'warmup_steps': Field(0, 'Steps of linear warm-up from 0.', **at_least(0)),
    'warmup_epochs': Field(
      0.0,
      'Epochs of linear warm-up, where schedule.warmup_steps is 0.',
      **at_least(0),
    ),
    'start_factor': Field(
      0.0,
      'Learning rate at the start of the warm-up, as a fraction of the peak.',
      **between(0, 1),
    ),
    'end_factor': Field(
      0.0,
      'Learning rate at the end, as a fraction of the peak (cosine, linear).',
      **between(0, 1),
    ),
    'boundaries': Field(
      (0.3, 0.6, 0.8),
      'Shares of the run at which the schedule step multiplies the learning rate by '
      'schedule.factor.',
      valid=lambda v: (
        all(isinstance(b, int | float) and 0 < b < 1 for b in v)
        and list(v) == sorted(v)
      ),
      limits='a rising tuple of shares between 0 and 1',
    ),
    'factor': Field(
      0.2,
      'Factor of the learning rate at each of schedule.boundaries (step).',
      **between(0, 1),
    ),
    'peak': Field(
      0.3,
      'Share of the run at which the schedule one_cycle reaches its peak.',
      valid=lambda v: 0 < v < 1,
      limits='between 0 and 1',
    ),
  },
  'checkpoint': {
    'every_steps': Field(
      0, 'Steps between checkpoints; 0: at every evaluation.', free=True, **at_least(0)
    ),
    'keep': Field(
      2, 'Newest checkpoints kept, besides the best.', free=True, **at_least(1)
    ),
  },
  'parallel': {
    'data': Field(
      -1,
      'Number of devices that share each batch; -1: all that parallel.fsdp leaves.',
      valid=lambda v: v == -1 or v >= 1,
      limits='-1 or at least 1',
      free=True,
    ),
    'fsdp': Field(
      1, 'Number of devices that share each large parameter.', free=True, **at_least(1)
    ),
  },
}
