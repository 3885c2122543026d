"""Residual networks: ResNet-18, 34 and 50, and the 6n+2 family for CIFAR.

Constructors here take `num_classes` and the fields of `ResNet`; parameters are for
ten classes, FLOPs (those of `models.summary`) forward for one 32x32x3 image:

  name       blocks         shortcut  parameters  GFLOPs
  resnet18   2, 2, 2, 2     B         11,173,962   1.111
  resnet34   3, 4, 6, 3     B         21,282,122   2.319
  resnet50   3, 4, 6, 3     B         23,520,842   2.596
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

from jaxvision.models.layers import (
  ACTIVATIONS,
  batch_norm,
  head,
  zero_pad_shortcut,
)
from jaxvision.models.lowering import conv_general_dilated

# Explicit padding and the variance of the backward pass, as PyTorch's ResNets have.
conv = functools.partial(
  nn.Conv,
  use_bias=False,
  conv_general_dilated=conv_general_dilated,
  kernel_init=nn.initializers.variance_scaling(2.0, 'fan_out', 'normal'),
)


class BasicBlock(nn.Module):
  """Two 3x3 convolutions and a shortcut: [B,H,W,C] -> [B,H/stride,W/stride,width].

  Attributes:
    width: channels of both convolutions.
    stride: of the first convolution.
    shortcut: 'A' or 'B', see `ResNet`.
    zero_init: whether the scale of the last batch norm starts at zero.
    activation: a key of `ACTIVATIONS`.
    dtype: of the computation.
  """

  expansion = 1  # output channels per `width`

  width: int
  stride: int = 1
  shortcut: str = 'B'
  zero_init: bool = False
  activation: str = 'relu'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    act = ACTIVATIONS[self.activation]
    conv3 = functools.partial(conv, self.width, (3, 3), padding=1, dtype=self.dtype)
    norm = functools.partial(
      batch_norm, use_running_average=not train, dtype=self.dtype
    )
    y = conv3(strides=self.stride, name='conv1')(x)
    y = act(norm(name='bn1')(y))
    y = conv3(name='conv2')(y)
    y = norm(scale_init=_last_scale(self.zero_init), name='bn2')(y)
    return act(y + _shortcut(x, y, self.stride, self.shortcut, norm))


class BottleneckBlock(nn.Module):
  """1x1, 3x3 and 1x1 convolutions: [B,H,W,C] -> [B,H/stride,W/stride,4*width].

  Attributes:
    width: channels of the first two convolutions; the third has four times as many.
    stride: of the 3x3 convolution.
    shortcut: 'A' or 'B', see `ResNet`.
    zero_init: whether the scale of the last batch norm starts at zero.
    activation: a key of `ACTIVATIONS`.
    dtype: of the computation.
  """

  expansion = 4  # output channels per `width`

  width: int
  stride: int = 1
  shortcut: str = 'B'
  zero_init: bool = False
  activation: str = 'relu'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    act = ACTIVATIONS[self.activation]
    wide = self.width * self.expansion
    norm = functools.partial(
      batch_norm, use_running_average=not train, dtype=self.dtype
    )
    y = conv(self.width, (1, 1), dtype=self.dtype, name='conv1')(x)
    y = act(norm(name='bn1')(y))
    y = conv(
      self.width,
      (3, 3),
      strides=self.stride,
      padding=1,
      dtype=self.dtype,
      name='conv2',
    )(y)
    y = act(norm(name='bn2')(y))
    y = conv(wide, (1, 1), dtype=self.dtype, name='conv3')(y)
    y = norm(scale_init=_last_scale(self.zero_init), name='bn3')(y)
    return act(y + _shortcut(x, y, self.stride, self.shortcut, norm))


def _last_scale(zero_init: bool) -> nn.initializers.Initializer:
  return nn.initializers.zeros if zero_init else nn.initializers.ones


def _shortcut(
  x: jax.Array, y: jax.Array, stride: int, kind: str, norm: Any
) -> jax.Array:
  """Returns `x` in the shape of `y`; called inside a block's compact method."""
  if x.shape == y.shape:
    return x
  if kind == 'A':
    return zero_pad_shortcut(x, y.shape[-1], stride)
  x = conv(
    y.shape[-1], (1, 1), strides=stride, padding=0, dtype=y.dtype, name='shortcut_conv'
  )(x)
  return norm(name='shortcut_bn')(x)


class ResNet(nn.Module):
  """Stem, stages of residual blocks, mean over the pixels, linear classifier.

  Maps normalised images, float [B, H, W, C] of any size, to logits, float32
  [B, num_classes]. Stage k (from 0) has blocks of width `width` * 2**k, the first of
  stride 2 in all stages but the first. Batch statistics are in collection
  'batch_stats'.

  Attributes:
    num_classes: number of logits.
    stage_sizes: number of blocks in each stage.
    block: `BasicBlock` or `BottleneckBlock`.
    width: of the stem and of the first stage's blocks.
    stem: 'cifar', a 3x3 convolution, or 'imagenet', a 7x7 convolution and a 3x3 max
      pool, each of stride 2.
    shortcut: where a block changes its input's shape, 'A' is every stride-th pixel
      and channels of zeros, without parameters, and 'B' a 1x1 convolution with batch
      norm.
    zero_init: whether the last batch norm of each block starts with scale zero, so
      that each block starts as its shortcut.
    activation: a key of `layers.ACTIVATIONS`.
    dtype: of the computation; parameters and logits are float32.
  """

  num_classes: int
  stage_sizes: tuple[int, ...]
  block: type[BasicBlock] | type[BottleneckBlock]
  width: int = 64
  stem: str = 'cifar'
  shortcut: str = 'B'
  zero_init: bool = False
  activation: str = 'relu'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    x = images.astype(self.dtype)
    if self.stem == 'imagenet':
      stem = conv(self.width, (7, 7), 2, padding=3, dtype=self.dtype, name='stem_conv')
    else:
      stem = conv(self.width, (3, 3), padding=1, dtype=self.dtype, name='stem_conv')
    x = batch_norm(use_running_average=not train, dtype=self.dtype, name='stem_bn')(
      stem(x)
    )
    x = ACTIVATIONS[self.activation](x)
    if self.stem == 'imagenet':
      x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
    for i, size in enumerate(self.stage_sizes):
      for j in range(size):
        x = self.block(
          width=self.width * 2**i,
          stride=2 if i > 0 and j == 0 else 1,
          shortcut=self.shortcut,
          zero_init=self.zero_init,
          activation=self.activation,
          dtype=self.dtype,
          name=f'stage{i + 1}_block{j + 1}',
        )(x, train)
    return head(self.num_classes)(x.mean((1, 2), dtype=jnp.float32))


ResNet18 = functools.partial(ResNet, stage_sizes=(2, 2, 2, 2), block=BasicBlock)
ResNet34 = functools.partial(ResNet, stage_sizes=(3, 4, 6, 3), block=BasicBlock)
ResNet50 = functools.partial(ResNet, stage_sizes=(3, 4, 6, 3), block=BottleneckBlock)

# The 6n+2 family: three stages of n blocks, 16, 32 and 64 channels wide.
_CifarResNet = functools.partial(ResNet, block=BasicBlock, width=16, shortcut='A')
ResNet20 = functools.partial(_CifarResNet, stage_sizes=(3, 3, 3))
ResNet32 = functools.partial(_CifarResNet, stage_sizes=(5, 5, 5))
ResNet44 = functools.partial(_CifarResNet, stage_sizes=(7, 7, 7))
ResNet56 = functools.partial(_CifarResNet, stage_sizes=(9, 9, 9))
ResNet110 = functools.partial(_CifarResNet, stage_sizes=(18, 18, 18))
