"""EfficientNet: inverted residuals with attention, scaled up in depth, width and pixels.

The blocks are those of MobileNetV2 with kernels of 3x3 and 5x5, with swish, and with
squeeze and excitation; B1 to B3 are B0 with more and wider layers. Lite0 is B0 without
attention and with ReLU6, for processors that have no fast sigmoid. The first parameters
and FLOPs (those of `models.summary`, forward, for one image) are for ten classes and
32x32x3, with the stem 'cifar', the last ones for 1,000 classes and the image that the
name was made for, with the stem 'imagenet':

  name                parameters  GFLOPs  image  parameters  GFLOPs
  efficientnet_b0      4,020,358   0.232    224   5,288,548   0.772
  efficientnet_b1      6,525,994   0.351    240   7,794,184   1.374
  efficientnet_b2      7,715,084   0.409    260   9,109,994   1.987
  efficientnet_b3     10,711,602   0.589    300  12,233,232   3.654
  efficientnet_lite0   3,383,818   0.231    224   4,652,008   0.770

The published weights of B0 to B3 are of two kinds: those that were trained in PyTorch pad
symmetrically and have an epsilon of 1e-5 in batch norm, which are the defaults; those that
were trained in TensorFlow want `padding` 'same' and `epsilon` 1e-3. Of Lite0 the latter are
the defaults.

References:
  Tan and Le 2019, "EfficientNet: rethinking model scaling for convolutional neural
  networks", https://arxiv.org/abs/1905.11946; table 1, and section 5 for dropout and
  stochastic depth.
  Liu 2020, "Higher accuracy on vision models with EfficientNet-Lite",
  https://blog.tensorflow.org/2020/03/higher-accuracy-on-vision-models-with-efficientnet-lite.html
"""

import functools
import math
from typing import Any

import flax.linen as nn

from jaxvision.models.mobilenet import MobileNetV2

_WIDTHS = (16, 24, 40, 80, 112, 192, 320)
_DEPTHS = (1, 2, 2, 3, 3, 4, 1)
_STEM_WIDTH = 32
_LAST_WIDTH = 1280


class EfficientNet(MobileNetV2):
  """The network of Tan and Le 2019; the tuples have an entry for each stage.

  Maps normalised images, float [B, H, W, C] of any size, to logits, float32
  [B, num_classes]. Batch statistics are in collection 'batch_stats'. The squeeze and
  excitation of a block has swish in its bottleneck.

  Attributes:
    num_classes, widths, depths, strides, expansions, stem_width, last, last_width, stem,
      activation, attention, dropout, drop_path, padding, epsilon, dtype: see
      `MobileNetV2`.
    kernels: height and width of the depthwise convolutions of each stage.
  """

  widths: tuple[int, ...] = _WIDTHS
  depths: tuple[int, ...] = _DEPTHS
  strides: tuple[int, ...] = (1, 2, 2, 2, 1, 2, 1)
  expansions: tuple[int, ...] = (1, 6, 6, 6, 6, 6, 6)
  kernels: tuple[int, ...] = (3, 3, 5, 3, 5, 5, 3)
  stem: str = 'imagenet'
  activation: str = 'swish'
  attention: bool = True
  dropout: float = 0.2
  drop_path: float = 0.2

  per_stage = (*MobileNetV2.per_stage, 'kernels')

  @nn.nowrap
  def block_fields(self, stage: int, j: int) -> dict[str, Any]:
    own = {'kernel': self.kernels[stage], 'attention_activation': 'swish'}
    return super().block_fields(stage, j) | own


def _scaled(width: float, depth: float) -> dict[str, Any]:
  """Returns the fields of B0 scaled as in section 3.3 of the paper.

  >>> _scaled(1.1, 1.2)['widths']
  (16, 24, 48, 88, 120, 208, 352)
  """
  return {
    'widths': tuple(_rounded(width * channels) for channels in _WIDTHS),
    'depths': tuple(math.ceil(depth * blocks) for blocks in _DEPTHS),
    'stem_width': _rounded(width * _STEM_WIDTH),
    'last_width': _rounded(width * _LAST_WIDTH),
  }


def _rounded(channels: float) -> int:
  """Returns the nearest multiple of 8, but not a tenth below the number.

  >>> _rounded(17.6), _rounded(11)
  (16, 16)
  """
  nearest = max(8, int(channels + 4) // 8 * 8)
  return nearest if nearest >= 0.9 * channels else nearest + 8


EfficientNetB0 = EfficientNet
EfficientNetB1 = functools.partial(EfficientNet, **_scaled(1.0, 1.1))
EfficientNetB2 = functools.partial(EfficientNet, **_scaled(1.1, 1.2), dropout=0.3)
EfficientNetB3 = functools.partial(EfficientNet, **_scaled(1.2, 1.4), dropout=0.3)
EfficientNetLite0 = functools.partial(
  EfficientNet, activation='relu6', attention=False, padding='same', epsilon=1e-3
)
