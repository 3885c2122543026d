"""MobileNetV2: inverted residuals with depthwise convolutions.

An inverted residual widens its input by a 1x1 convolution, filters each channel by a
depthwise one, and narrows it again by a 1x1 convolution without activation; the shortcut
joins the narrow ends. Per parameter few networks are better. The first parameters and
FLOPs (those of `models.summary`, forward, for one image) are for ten classes and 32x32x3,
with the stem 'cifar', the last two for 1,000 classes and 224x224x3, with the stem
'imagenet':

  name          parameters  GFLOPs   parameters  GFLOPs
  mobilenet_v2   2,236,682   0.176    3,504,872   0.602

The stem 'cifar' has stride 1, and so has the second stage: the last features of a 32x32
image are 4x4.

References:
  Sandler, Howard, Zhu, Zhmoginov and Chen 2018, "MobileNetV2: inverted residuals and
  linear bottlenecks", https://arxiv.org/abs/1801.04381; table 2.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvision.errors import UserError
from jaxvision.models.layers import (
  ACTIVATIONS,
  Dropout,
  SqueezeExcite,
  batch_norm,
  head,
)
from jaxvision.models.resnet import conv


class InvertedResidual(nn.Module):
  """1x1 to `expansion` times the channels, depthwise 3x3, 1x1 to `width`; batch norms.

  Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), width]. The input is added
  where it has the shape of the output. With expansion 1 the first convolution is left
  out.

  Attributes:
    width: channels of the output.
    stride: stride of the depthwise convolution.
    expansion: channels between over those of the input.
    activation: a key of `layers.ACTIVATIONS`, after the first and the second norm.
    attention: whether to gate the channels between by squeeze and excitation.
    dtype: type of the computation.
  """

  width: int
  stride: int = 1
  expansion: int = 6
  activation: str = 'relu'
  attention: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    act = ACTIVATIONS[self.activation]
    y, between = x, x.shape[-1] * self.expansion

    def convolve(name, y, features, side, **options):
      return conv(
        features,
        (side, side),
        padding=side // 2,
        dtype=self.dtype,
        name=f'{name}_conv',
        **options,
      )(y)

    def norm(name, y):
      norm = batch_norm(dtype=self.dtype, name=f'{name}_bn')
      return norm(y, use_running_average=not train)

    if self.expansion > 1:
      y = act(norm('expand', convolve('expand', y, between, 1)))
    y = convolve(
      'depthwise', y, between, 3, strides=self.stride, feature_group_count=between
    )
    y = act(norm('depthwise', y))
    if self.attention:
      y = SqueezeExcite(
        reduction=4 * self.expansion, dtype=self.dtype, name='attention'
      )(y)
    y = norm('project', convolve('project', y, self.width, 1))
    return x + y if x.shape == y.shape else y


class MobileNetV2(nn.Module):
  """The network of Sandler et al. 2018; the tuples have an entry for each stage.

  Maps normalised images, float [B, H, W, C] of any size, to logits, float32
  [B, num_classes]. Batch statistics are in collection 'batch_stats'.

  Attributes:
    num_classes: number of logits.
    widths: channels of the stages.
    depths: blocks of the stages.
    strides: stride of the first block of each stage.
    expansions: expansion of the blocks of each stage.
    stem_width: channels of the 3x3 convolution at the start.
    last: whether a 1x1 convolution to `last_width` channels ends it.
    last_width: see `last`.
    stem: 'cifar': strides of 1 in the stem and the second stage, or 'imagenet': of 2.
    activation: a key of `layers.ACTIVATIONS`.
    attention: whether the blocks have squeeze and excitation.
    dropout: on the input of the classifier.
    dtype: type of the computation; parameters, features and logits are float32.
  """

  num_classes: int
  widths: tuple[int, ...] = (16, 24, 32, 64, 96, 160, 320)
  depths: tuple[int, ...] = (1, 2, 3, 4, 3, 3, 1)
  strides: tuple[int, ...] = (1, 2, 2, 2, 1, 2, 1)
  expansions: tuple[int, ...] = (1, 6, 6, 6, 6, 6, 6)
  stem_width: int = 32
  last: bool = True
  last_width: int = 1280
  stem: str = 'cifar'
  activation: str = 'relu6'
  attention: bool = False
  dropout: float = 0.0
  dtype: Any = jnp.float32

  def setup(self):
    self.head = head(self.num_classes)
    self.drop = Dropout(self.dropout)

  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    """Returns logits float32 [B, num_classes] of images [B, H, W, C]."""
    features = self.features(images, train)
    return self.classify(self.drop(features, deterministic=not train))

  def classify(self, features: jax.Array) -> jax.Array:
    """Returns logits float32 [B, num_classes] of features float32 [B, D]."""
    return self.head(features)

  @nn.compact
  def features(self, images: jax.Array, train: bool = False) -> jax.Array:
    """Returns the input of the classifier, float32 [B, D], for images [B, H, W, C].

    D is `last_width`, or without that convolution the channels of the last stage.

    Raises:
      UserError: the tuples are not equally long.
    """
    stages = (self.widths, self.depths, self.strides, self.expansions)
    if len(set(map(len, stages))) > 1:
      raise UserError(
        'MobileNetV2: widths, depths, strides and expansions must be equally long, got '
        + ', '.join(str(len(part)) for part in stages)
      )
    imagenet = self.stem == 'imagenet'
    x = images.astype(self.dtype)
    x = self._unit('stem', x, train, self.stem_width, 3, strides=2 if imagenet else 1)
    for stage, (width, depth, stride, expansion) in enumerate(zip(*stages)):
      if stage == 1 and not imagenet:
        stride = 1
      for j in range(depth):
        x = InvertedResidual(
          width=width,
          stride=stride if j == 0 else 1,
          expansion=expansion,
          activation=self.activation,
          attention=self.attention,
          dtype=self.dtype,
          name=f'stage{stage + 1}_block{j + 1}',
        )(x, train)
    if self.last:
      x = self._unit('last', x, train, self.last_width, 1)
    return x.mean((1, 2), dtype=jnp.float32)

  @nn.nowrap
  def _unit(self, name, x, train, features, side, **options):
    """Applies a convolution, a batch norm and the activation."""
    make = functools.partial(conv, dtype=self.dtype, name=f'{name}_conv', **options)
    x = make(features, (side, side), padding=side // 2)(x)
    norm = batch_norm(dtype=self.dtype, name=f'{name}_bn')
    return ACTIVATIONS[self.activation](norm(x, use_running_average=not train))
