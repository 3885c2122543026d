"""Residual networks with the norms before the convolutions, narrow and wide.

A block is norm, activation and convolution, repeated, and adds its input as it came: no
activation is on the path of the shortcuts. Constructors here take `num_classes` and
the fields of `PreActResNet`; parameters are for ten classes, FLOPs (those of
`models.summary`) forward for one 32x32x3 image:

  name              blocks      widen  parameters  GFLOPs
  preact_resnet18   2, 2, 2, 2      1  11,172,170   1.111
  preact_resnet34   3, 4, 6, 3      1  21,280,330   2.319
  preact_resnet50   3, 4, 6, 3      1  23,513,162   2.596
  wide_resnet16_8   2, 2, 2         8  10,961,370   3.096
  wide_resnet28_10  4, 4, 4        10  36,479,194  10.487
  wide_resnet40_4   6, 6, 6         4   8,949,210   2.597

The numbers of a Wide ResNet are its depth and how many times wider it is than the 16,
32 and 64 channels of the 6n+2 family. Kernels are drawn, and images padded, as in
`models.resnet`.

References:
  He, Zhang, Ren and Sun 2016, "Identity mappings in deep residual networks",
  https://arxiv.org/abs/1603.05027; figure 4(e) and the appendix.
  Zagoruyko and Komodakis 2016, "Wide residual networks",
  https://arxiv.org/abs/1605.07146; table 1, and section 2.4 for dropout.
"""

import functools
from typing import Any

import flax.linen as nn
import jax

from jaxvision.models.layers import ACTIVATIONS, Dropout
from jaxvision.models.resnet import Block, BottleneckBlock, ResidualNet


class PreActBlock(Block):
  """Norm, activation and 3x3 convolution, twice; the sum with the shortcut ends it.

  The shortcut is the input as it came. Where the block changes the shape it is a 1x1
  convolution, without norm, of the input after the first norm and activation.

  Attributes:
    width, stride, activation, dtype: see `resnet.Block`.
    dropout: probability that an input of the last convolution is dropped.
    activated: whether the input has been through a norm and an activation, so that
      the first ones are left out.
  """

  dropout: float = 0.0
  activated: bool = False

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    act = ACTIVATIONS[self.activation]
    active = x if self.activated else act(self.norm('bn1', x, train))
    y = self.conv(1, active)
    for i in range(2, len(self.kernels) + 1):
      y = act(self.norm(f'bn{i}', y, train))
      if i == len(self.kernels):
        y = Dropout(self.dropout)(y, deterministic=not train)
      y = self.conv(i, y)
    return y + (x if x.shape == y.shape else self.project(active, y.shape[-1]))


class PreActBottleneckBlock(PreActBlock):
  """A `PreActBlock` of 1x1, 3x3 and 1x1 convolutions, the last four times as wide."""

  kernels = BottleneckBlock.kernels
  expansion = BottleneckBlock.expansion


class PreActResNet(ResidualNet):
  """Blocks of stage k have width `width * widen` * 2**k; a norm before the mean.

  The stem's norm and activation are those of the first block, which goes without its
  own: in the paper both branches of that block start after them (appendix).

  Attributes:
    num_classes, stage_sizes, width, stem, activation, dtype: see `ResidualNet`.
    block: `PreActBlock` or `PreActBottleneckBlock`.
    widen: how many times wider than the stem the first stage's blocks are.
    dropout: probability that an input of a block's last convolution is dropped, in
      [0, 1).
  """

  widen: int = 1
  dropout: float = 0.0

  @nn.nowrap
  def block_fields(self, stage: int, j: int) -> dict[str, Any]:
    return {
      'width': self.width * self.widen * 2**stage,
      'dropout': self.dropout,
      'activated': stage == j == 0,
    }

  @nn.nowrap
  def after_stages(self, x: jax.Array, train: bool) -> jax.Array:
    return self.norm_act('final_bn', x, train)


PreActResNet18 = functools.partial(
  PreActResNet, stage_sizes=(2, 2, 2, 2), block=PreActBlock
)
PreActResNet34 = functools.partial(
  PreActResNet, stage_sizes=(3, 4, 6, 3), block=PreActBlock
)
PreActResNet50 = functools.partial(
  PreActResNet, stage_sizes=(3, 4, 6, 3), block=PreActBottleneckBlock
)

# A Wide ResNet of depth 6 n + 4 has three stages of n blocks.
_WideResNet = functools.partial(PreActResNet, block=PreActBlock, width=16)
WideResNet28x10 = functools.partial(_WideResNet, stage_sizes=(4, 4, 4), widen=10)
WideResNet40x4 = functools.partial(_WideResNet, stage_sizes=(6, 6, 6), widen=4)
WideResNet16x8 = functools.partial(_WideResNet, stage_sizes=(2, 2, 2), widen=8)
