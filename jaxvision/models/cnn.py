"""Small plain convolutional networks.

Every model maps normalised images, float [B, H, W, C], to logits, float32
[B, num_classes], for any H and W that its poolings allow (a `UserError` names the
least). FLOPs below are those of `models.summary`, forward, per image, ten classes
where nothing else is said. In all models

  activation  is a key of `layers.ACTIVATIONS`,
  batch_norm  puts a batch norm between each convolution and its activation,
  dropout     is the probability that a unit is dropped, in [0, 1),
  dtype       is that of the computation; parameters and logits are float32.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvision.errors import UserError
from jaxvision.models.layers import (
  ACTIVATIONS,
  ConvUnit,
  Dropout,
  SqueezeExcite,
  check_image_size,
  conv3x3,
  dense,
  head,
  max_pool_2x2,
  zero_pad_shortcut,
)


class SmallFiltersCNN(nn.Module):
  """Three narrow convolutions and one dense layer: 57,332 parameters, 1.7 MFLOPs.

  Each 3x3 convolution with bias is followed by the activation and a 2x2 max pool.
  On 32x32x3 images and 100 classes the defaults have 224 + 1,168 + 4,640 + 51,300
  parameters. What the switches add to them:

  activation  nothing.
  residual    nothing: the second and the third convolution add their input, its
              missing channels filled with zeros, before the activation.
  attention   742 (42 + 148 + 552): squeeze and excitation after each activation.

  Attributes:
    num_classes: number of logits.
    features: channels of the convolutions.
    activation: see the module.
    residual: whether to add shortcuts around the convolutions.
    attention: whether to gate the channels.
    dtype: see the module.
  """

  num_classes: int
  features: tuple[int, ...] = (8, 16, 32)
  activation: str = 'relu'
  residual: bool = False
  attention: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    check_image_size(self, images, len(self.features))
    if self.residual and sorted(self.features) != list(self.features):
      raise UserError(
        'SmallFiltersCNN with residual=True: features must not shrink, got '
        f'{self.features}'
      )
    x = images.astype(self.dtype)
    for i, features in enumerate(self.features, start=1):
      y = conv3x3(features, dtype=self.dtype, name=f'conv{i}')(x)
      if self.residual and i > 1:  # the image itself is no feature to carry on
        y = y + zero_pad_shortcut(x, features)
      y = ACTIVATIONS[self.activation](y)
      if self.attention:
        y = SqueezeExcite(dtype=self.dtype, name=f'attention{i}')(y)
      x = max_pool_2x2(y)
    return head(self.num_classes)(x.reshape(x.shape[0], -1))


class ConvDenseCNN(nn.Module):
  """Convolutions, each pooled, then one hidden dense layer and the classifier.

  Attributes:
    num_classes: number of logits.
    features: channels of the 3x3 convolutions, each followed by a 2x2 max pool.
    hidden: units of the hidden dense layer.
    activation, batch_norm, dtype: see the module.
    dropout: on the inputs of both dense layers.
  """

  num_classes: int
  features: tuple[int, ...] = (32, 64)
  hidden: int = 256
  activation: str = 'relu'
  batch_norm: bool = False
  dropout: float = 0.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    check_image_size(self, images, len(self.features))
    x = images.astype(self.dtype)
    for i, features in enumerate(self.features, start=1):
      unit = ConvUnit(
        features, self.activation, self.batch_norm, self.dtype, name=f'conv{i}'
      )
      x = max_pool_2x2(unit(x, train))
    x = x.reshape(x.shape[0], -1)
    x = Dropout(self.dropout, deterministic=not train)(x)
    x = dense(self.hidden, dtype=self.dtype, name='hidden')(x)
    x = ACTIVATIONS[self.activation](x)
    x = Dropout(self.dropout, deterministic=not train)(x)
    return head(self.num_classes)(x)


class SimCNN(ConvDenseCNN):
  """Two convolutions, two dense layers.

  1,070,794 parameters and 13.3 MFLOPs on 32x32x3 images and ten classes.
  The fields are those of `ConvDenseCNN`.
  """


class BasicCNN(ConvDenseCNN):
  """Three convolutions, one hidden dense layer.

  356,810 parameters and 21.2 MFLOPs on 32x32x3 images and ten classes.
  The fields are those of `ConvDenseCNN`.
  """

  features: tuple[int, ...] = (32, 64, 128)
  hidden: int = 128


class DigitsCNN(ConvDenseCNN):
  """For the digits of scikit-learn, 8x8x1: two convolutions with batch norm.

  53,098 parameters and 0.7 MFLOPs.
  The fields are those of `ConvDenseCNN`.
  """

  hidden: int = 128
  batch_norm: bool = True
  dropout: float = 0.2


class MnistCNN(nn.Module):
  """Five convolutions in three pooled stages.

  75,450 parameters and 11.1 MFLOPs on 28x28x1 images and ten classes.
  The first stage, at full resolution, has one convolution, each later one two; the
  classifier reads the last 3x3 map. Depth at low resolution buys more accuracy per
  FLOP than width at 28x28, which is what a run on CPU has to count.

  Attributes:
    num_classes: number of logits.
    features: channels of the stages, each ended by a 2x2 max pool.
    activation, batch_norm, dtype: see the module.
    dropout: on the input of the classifier.
  """

  num_classes: int
  features: tuple[int, ...] = (16, 32, 64)
  activation: str = 'relu'
  batch_norm: bool = True
  dropout: float = 0.2
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    check_image_size(self, images, len(self.features))
    x = images.astype(self.dtype)
    for i, features in enumerate(self.features, start=1):
      for j in range(1, 2 if i == 1 else 3):
        unit = ConvUnit(
          features, self.activation, self.batch_norm, self.dtype, name=f'conv{i}_{j}'
        )
        x = unit(x, train)
      x = max_pool_2x2(x)
    x = x.reshape(x.shape[0], -1)
    x = Dropout(self.dropout, deterministic=not train)(x)
    return head(self.num_classes)(x)


class OriginalCNN(nn.Module):
  """Three pooled pairs of convolutions with batch norm and dropout.

  1,180,490 parameters and 306 MFLOPs on 32x32x3 images and ten classes.
  The last map is averaged over its pixels, so that the parameters go into
  convolutions and their number does not depend on the image's size.

  Attributes:
    num_classes: number of logits.
    features: channels of the stages, two convolutions and a 2x2 max pool each.
    hidden: units of the hidden dense layer.
    activation, batch_norm, dtype: see the module.
    dropout: after each stage and before the classifier.
  """

  num_classes: int
  features: tuple[int, ...] = (64, 128, 256)
  hidden: int = 128
  activation: str = 'relu'
  batch_norm: bool = True
  dropout: float = 0.2
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    check_image_size(self, images, len(self.features))
    x = images.astype(self.dtype)
    for i, features in enumerate(self.features, start=1):
      for j in (1, 2):
        unit = ConvUnit(
          features, self.activation, self.batch_norm, self.dtype, name=f'conv{i}_{j}'
        )
        x = unit(x, train)
      x = max_pool_2x2(x)
      x = Dropout(self.dropout, deterministic=not train)(x)
    x = x.mean((1, 2))
    x = dense(self.hidden, dtype=self.dtype, name='hidden')(x)
    x = ACTIVATIONS[self.activation](x)
    x = Dropout(self.dropout, deterministic=not train)(x)
    return head(self.num_classes)(x)


class CustomCNN(nn.Module):
  """Three blocks of three convolutions.

  1,792,698 parameters and 637 MFLOPs on 32x32x3 images and ten classes.
  The second and third convolution of a block are bridged by a shortcut; a 2x2 max
  pool stands between blocks, and the last map is averaged over its pixels.

  Attributes:
    num_classes: number of logits.
    features: channels of the blocks.
    activation, batch_norm, dtype: see the module.
    residual: whether the shortcuts are there; they have no parameters.
    dropout: on the input of the classifier.
  """

  num_classes: int
  features: tuple[int, ...] = (80, 144, 224)
  activation: str = 'relu'
  batch_norm: bool = True
  residual: bool = True
  dropout: float = 0.1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    check_image_size(self, images, len(self.features) - 1)
    x = images.astype(self.dtype)
    for i, features in enumerate(self.features, start=1):
      if i > 1:
        x = max_pool_2x2(x)
      units = [
        ConvUnit(
          features, self.activation, self.batch_norm, self.dtype, name=f'conv{i}_{j}'
        )
        for j in (1, 2, 3)
      ]
      x = units[0](x, train)
      y = units[2](units[1](x, train), train)
      x = x + y if self.residual else y
    x = x.mean((1, 2), dtype=jnp.float32)
    x = Dropout(self.dropout, deterministic=not train)(x)
    return head(self.num_classes)(x)
