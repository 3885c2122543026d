"""Residual networks: ResNet-18 to 152, and the 6n+2 family for CIFAR.

Constructors here take `num_classes` and the fields of `ResNet`. The first parameters
and FLOPs (those of `models.summary`, forward, for one image) are for ten classes and
32x32x3, with the stem 'cifar', the last two for 1,000 classes and 224x224x3, with the
stem 'imagenet':

  name       blocks         shortcut  parameters  GFLOPs   parameters  GFLOPs
  resnet18   2, 2, 2, 2     B         11,173,962   1.111   11,689,512    3.63
  resnet34   3, 4, 6, 3     B         21,282,122   2.319   21,797,672    7.33
  resnet50   3, 4, 6, 3     B         23,520,842   2.596   25,557,032    8.18
  resnet101  3, 4, 23, 3    B         42,512,970   5.020   44,549,160   15.60
  resnet152  3, 8, 36, 3    B         58,156,618   7.444   60,192,808   23.03
  resnet20   3, 3, 3        A            269,722   0.081
  resnet32   5, 5, 5        A            464,154   0.138
  resnet44   7, 7, 7        A            658,586   0.194
  resnet56   9, 9, 9        A            853,018   0.251
  resnet110  18, 18, 18     A          1,727,962   0.506

Shortcut B adds 2,752 to each of the last five. Paddings are explicit, (1, 1) around
a 3x3 kernel also where it strides, which SAME would make (0, 1): the layout of
PyTorch's networks, whose weights fit these. So do the bottleneck's stride, on its
3x3 convolution, and the channels of zeros on both sides in option A.

References:
  He, Zhang, Ren and Sun 2015, "Deep residual learning for image recognition",
  https://arxiv.org/abs/1512.03385; section 4.2 for CIFAR.
  Goyal et al. 2017, "Accurate, large minibatch SGD", section 5.1: zero-initialised
  last scale.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvision.models.cpu import conv_general_dilated
from jaxvision.models.layers import (
  ACTIVATIONS,
  Classifier,
  batch_norm,
  head,
  max_pool_3x3,
  zero_pad_shortcut,
)

# Explicit padding and the variance of the backward pass, as PyTorch's ResNets have.
conv = functools.partial(
  nn.Conv,
  use_bias=False,
  conv_general_dilated=conv_general_dilated,
  kernel_init=nn.initializers.variance_scaling(2.0, 'fan_out', 'normal'),
)


class Block(nn.Module):
  """What residual blocks share: their fields, their convolutions, the projection.

  A block maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), width *
  expansion]. A subclass says where norms, activations and the shortcut are.

  Attributes:
    width: channels of all convolutions but the last, which has `width * expansion`.
    stride: stride of the first 3x3 convolution.
    activation: a key of `ACTIVATIONS`.
    dtype: type of the computation.
  """

  kernels = (3, 3)  # sides of the kernels, in order
  expansion = 1

  width: int
  stride: int = 1
  activation: str = 'relu'
  dtype: Any = jnp.float32

  @nn.nowrap
  def conv(self, i: int, x: jax.Array) -> jax.Array:
    """Applies the i-th convolution, from 1."""
    side = self.kernels[i - 1]
    last = i == len(self.kernels)
    return conv(
      self.width * (self.expansion if last else 1),
      (side, side),
      strides=self.stride if i == self.kernels.index(3) + 1 else 1,
      padding=side // 2,
      dtype=self.dtype,
      name=f'conv{i}',
    )(x)

  @nn.nowrap
  def norm(self, name: str, x: jax.Array, train: bool, **fields: Any) -> jax.Array:
    """Applies a batch norm, whose further `fields` are linen's."""
    layer = batch_norm(dtype=self.dtype, name=name, **fields)
    return layer(x, use_running_average=not train)

  @nn.nowrap
  def project(self, x: jax.Array, features: int) -> jax.Array:
    """Fits the input to the output's shape by a 1x1 convolution."""
    return conv(
      features,
      (1, 1),
      strides=self.stride,
      padding=0,
      dtype=self.dtype,
      name='shortcut_conv',
    )(x)


class BasicBlock(Block):
  """Two 3x3 convolutions with batch norm; the shortcut joins before the activation.

  Attributes:
    width, stride, activation, dtype: see `Block`.
    shortcut: 'A' or 'B', see `ResNet`.
    zero_init: whether the scale of the last batch norm starts at zero.
  """

  shortcut: str = 'B'
  zero_init: bool = False

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    act = ACTIVATIONS[self.activation]
    y, last = x, len(self.kernels)
    for i in range(1, last):
      y = act(self.norm(f'bn{i}', self.conv(i, y), train))
    scale = nn.initializers.zeros if self.zero_init else nn.initializers.ones
    y = self.norm(f'bn{last}', self.conv(last, y), train, scale_init=scale)
    if x.shape != y.shape:
      if self.shortcut == 'A':
        x = zero_pad_shortcut(x, y.shape[-1], self.stride)
      else:
        x = self.norm('shortcut_bn', self.project(x, y.shape[-1]), train)
    return act(y + x)


class BottleneckBlock(BasicBlock):
  """A `BasicBlock` of 1x1, 3x3 and 1x1 convolutions, the last four times as wide."""

  kernels = (1, 3, 1)
  expansion = 4


class ResidualNet(Classifier):
  """What residual networks share: stem, stages of blocks, mean, linear classifier.

  Maps normalised images, float [B, H, W, C] of any size, to logits, float32
  [B, num_classes]. Stage k (from 0) has `stage_sizes[k]` blocks, the first of stride 2
  in all stages but the first. Batch statistics are in collection 'batch_stats'.

  Attributes:
    num_classes: number of logits.
    stage_sizes: number of blocks in each stage.
    block: class of the blocks.
    width: channels of the stem.
    stem: 'cifar', a 3x3 convolution, or 'imagenet', a 7x7 convolution and a 3x3 max
      pool, each of stride 2; batch norm and activation follow the convolution.
    stages: how many of the stages are built, the first ones; 4, where there are fewer:
      all.
    activation: a key of `layers.ACTIVATIONS`.
    dtype: type of the computation; parameters, features and logits are float32.
  """

  num_classes: int
  stage_sizes: tuple[int, ...]
  block: type[Block]
  width: int = 64
  stem: str = 'cifar'
  stages: int = 4
  activation: str = 'relu'
  dtype: Any = jnp.float32

  def setup(self):
    self.head = head(self.num_classes)

  @nn.compact
  def features(self, images: jax.Array, train: bool = False) -> jax.Array:
    """Returns the input of the classifier, float32 [B, D], for images [B, H, W, C].

    D is the channels of the last stage, over whose pixels the mean is taken.
    """
    x = images.astype(self.dtype)
    imagenet = self.stem == 'imagenet'
    side, stride = (7, 2) if imagenet else (3, 1)
    x = conv(
      self.width,
      (side, side),
      strides=stride,
      padding=side // 2,
      dtype=self.dtype,
      name='stem_conv',
    )(x)
    x = self.norm_act('stem_bn', x, train)
    if imagenet:
      x = max_pool_3x3(x)
    for stage, size in enumerate(self.stage_sizes[: self.stages]):
      for j in range(size):
        block = self.block(
          stride=2 if stage > 0 and j == 0 else 1,
          activation=self.activation,
          dtype=self.dtype,
          name=f'stage{stage + 1}_block{j + 1}',
          **self.block_fields(stage, j),
        )
        x = block(x, train)
    x = self.after_stages(x, train)
    return x.mean((1, 2), dtype=jnp.float32)

  @nn.nowrap
  def norm_act(self, name: str, x: jax.Array, train: bool) -> jax.Array:
    """Applies a batch norm and the activation."""
    x = batch_norm(dtype=self.dtype, name=name)(x, use_running_average=not train)
    return ACTIVATIONS[self.activation](x)

  @nn.nowrap
  def block_fields(self, stage: int, j: int) -> dict[str, Any]:
    """Returns the other fields of block j of a stage, both from 0."""
    return {'width': self.width * 2**stage}

  @nn.nowrap
  def after_stages(self, x: jax.Array, train: bool) -> jax.Array:
    """Applies what stands between the last block and the mean."""
    return x


class ResNet(ResidualNet):
  """The network of He et al. 2015; blocks of stage k have width `width` * 2**k.

  Attributes:
    num_classes, stage_sizes, width, stem, stages, activation, dtype: see
      `ResidualNet`.
    block: `BasicBlock` or `BottleneckBlock`.
    shortcut: where a block changes its input's shape, 'A' is every stride-th pixel
      and channels of zeros, without parameters, and 'B' a 1x1 convolution with batch
      norm.
    zero_init: whether the last batch norm of each block starts with scale zero, so
      that each block starts as its shortcut.
  """

  shortcut: str = 'B'
  zero_init: bool = False

  @nn.nowrap
  def block_fields(self, stage: int, j: int) -> dict[str, Any]:
    own = {'shortcut': self.shortcut, 'zero_init': self.zero_init}
    return super().block_fields(stage, j) | own


ResNet18 = functools.partial(ResNet, stage_sizes=(2, 2, 2, 2), block=BasicBlock)
ResNet34 = functools.partial(ResNet, stage_sizes=(3, 4, 6, 3), block=BasicBlock)
ResNet50 = functools.partial(ResNet, stage_sizes=(3, 4, 6, 3), block=BottleneckBlock)
ResNet101 = functools.partial(ResNet, stage_sizes=(3, 4, 23, 3), block=BottleneckBlock)
ResNet152 = functools.partial(ResNet, stage_sizes=(3, 8, 36, 3), block=BottleneckBlock)

# The 6n+2 family: three stages of n blocks, 16, 32 and 64 channels wide.
_CifarResNet = functools.partial(ResNet, block=BasicBlock, width=16, shortcut='A')
ResNet20 = functools.partial(_CifarResNet, stage_sizes=(3, 3, 3))
ResNet32 = functools.partial(_CifarResNet, stage_sizes=(5, 5, 5))
ResNet44 = functools.partial(_CifarResNet, stage_sizes=(7, 7, 7))
ResNet56 = functools.partial(_CifarResNet, stage_sizes=(9, 9, 9))
ResNet110 = functools.partial(_CifarResNet, stage_sizes=(18, 18, 18))
