"""Inception-v3 as the Fréchet inception distance means it: TensorFlow's of 2015-12-05.

Published distances are taken in the features of this one network, which is not the
Inception-v3 of the model zoos: it has 1,008 logits (a thousand classes and eight that
mean nothing), no auxiliary classifier, averages that do not count the padding, and a
last block that takes a maximum where the paper has an average.

In inference a batch norm is a scale and a shift, and is here part of the convolution
before it (`jaxvision.weights.inception` reads it in), which leaves 23,833,744
of 23,850,960 parameters. 11.0 GFLOPs for an image of 299x299 pixels.

References:
  Szegedy et al. 2016, "Rethinking the Inception architecture for computer vision",
  https://arxiv.org/abs/1512.00567: figures 5 to 7 for the blocks.
  Heusel et al. 2017, "GANs trained by a two time-scale update rule converge to a local
  Nash equilibrium", https://arxiv.org/abs/1706.08500: the distance.
  https://github.com/mseitzer/pytorch-fid: what this network has unlike the paper's.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.models.cpu import conv_general_dilated

SIZE = 299  # pixels, height and width
NUM_FEATURES = 2048
NUM_LOGITS = 1008

# Features are compared with those that others took: nothing less than float32, where
# GPUs and TPUs would round what goes into a product.
_PRECISION = jax.lax.Precision.HIGHEST


class Outputs(NamedTuple):
  """What the network makes of B images.

  Attributes:
    features: float32 [B, 2048], the mean over the pixels after the last block. FID,
      KID, precision and recall are taken in these.
    logits: float32 [B, 1008].
    logits_unbiased: float32 [B, 1008], without the bias of the last layer. The
      inception score's first implementation left it out, and published scores do.
  """

  features: jax.Array
  logits: jax.Array
  logits_unbiased: jax.Array


class InceptionV3(nn.Module):
  """Maps images, float32 [B, 299, 299, 3] in [-1, 1], to `Outputs`; inference only.

  The range is that of (pixels - 128) / 128, for pixel values in [0, 255].
  """

  @nn.compact
  def __call__(self, images: jax.Array) -> Outputs:
    x = _conv('stem_1', 32, (3, 3), stride=2)(images)
    x = _conv('stem_2', 32, (3, 3), crop=True)(x)
    x = _conv('stem_3', 64, (3, 3))(x)
    x = _max_pool(x, stride=2)
    x = _conv('stem_4', 80, (1, 1))(x)
    x = _conv('stem_5', 192, (3, 3), crop=True)(x)
    x = _max_pool(x, stride=2)
    for i, pool_features in enumerate((32, 64, 64), start=1):
      x = Mixed35(pool_features, name=f'mixed35_{i}')(x)
    x = Reduce35(name='reduce35')(x)
    for i, width in enumerate((128, 160, 160, 192), start=1):
      x = Mixed17(width, name=f'mixed17_{i}')(x)
    x = Reduce17(name='reduce17')(x)
    x = Mixed8(_average_pool, name='mixed8_1')(x)
    x = Mixed8(_max_pool, name='mixed8_2')(x)
    features = x.mean((1, 2))
    head = nn.Dense(NUM_LOGITS, use_bias=False, precision=_PRECISION, name='head')
    unbiased = head(features)
    bias = self.param('head_bias', nn.initializers.zeros, (NUM_LOGITS,))
    return Outputs(features, unbiased + bias, unbiased)


class Mixed35(nn.Module):
  """Block of 35x35 pixels: [B, H, W, C] -> [B, H, W, 224 + pool_features]."""

  pool_features: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    single = _conv('branch1x1', 64, (1, 1))(x)
    wide = _conv('branch5x5_1', 48, (1, 1))(x)
    wide = _conv('branch5x5_2', 64, (5, 5))(wide)
    double = _conv('branch3x3dbl_1', 64, (1, 1))(x)
    double = _conv('branch3x3dbl_2', 96, (3, 3))(double)
    double = _conv('branch3x3dbl_3', 96, (3, 3))(double)
    pooled = _conv('branch_pool', self.pool_features, (1, 1))(_average_pool(x))
    return jnp.concatenate([single, wide, double, pooled], axis=-1)


class Reduce35(nn.Module):
  """From 35x35 pixels to 17x17: [B, H, W, C] -> [B, (H - 1) / 2, ..., C + 480]."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    single = _conv('branch3x3', 384, (3, 3), stride=2)(x)
    double = _conv('branch3x3dbl_1', 64, (1, 1))(x)
    double = _conv('branch3x3dbl_2', 96, (3, 3))(double)
    double = _conv('branch3x3dbl_3', 96, (3, 3), stride=2)(double)
    return jnp.concatenate([single, double, _max_pool(x, stride=2)], axis=-1)


class Mixed17(nn.Module):
  """Block of 17x17 pixels, 7x7 kernels taken apart: [B, H, W, C] -> [B, H, W, 768].

  Attributes:
    width: channels between the first and the last convolution of a branch.
  """

  width: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    row, column = (1, 7), (7, 1)
    single = _conv('branch1x1', 192, (1, 1))(x)
    wide = _conv('branch7x7_1', self.width, (1, 1))(x)
    wide = _conv('branch7x7_2', self.width, row)(wide)
    wide = _conv('branch7x7_3', 192, column)(wide)
    double = _conv('branch7x7dbl_1', self.width, (1, 1))(x)
    double = _conv('branch7x7dbl_2', self.width, column)(double)
    double = _conv('branch7x7dbl_3', self.width, row)(double)
    double = _conv('branch7x7dbl_4', self.width, column)(double)
    double = _conv('branch7x7dbl_5', 192, row)(double)
    pooled = _conv('branch_pool', 192, (1, 1))(_average_pool(x))
    return jnp.concatenate([single, wide, double, pooled], axis=-1)


class Reduce17(nn.Module):
  """From 17x17 pixels to 8x8: [B, H, W, C] -> [B, (H - 1) / 2, ..., C + 512]."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    single = _conv('branch3x3_1', 192, (1, 1))(x)
    single = _conv('branch3x3_2', 320, (3, 3), stride=2)(single)
    wide = _conv('branch7x7x3_1', 192, (1, 1))(x)
    wide = _conv('branch7x7x3_2', 192, (1, 7))(wide)
    wide = _conv('branch7x7x3_3', 192, (7, 1))(wide)
    wide = _conv('branch7x7x3_4', 192, (3, 3), stride=2)(wide)
    return jnp.concatenate([single, wide, _max_pool(x, stride=2)], axis=-1)


class Mixed8(nn.Module):
  """Block of 8x8 pixels, branches that fork at the end: [B, H, W, C] -> [B, H, W, 2048].

  Attributes:
    pool: the pooling of the pooled branch; the network's last block takes the maximum.
  """

  pool: Callable[[jax.Array], jax.Array]

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    single = _conv('branch1x1', 320, (1, 1))(x)
    fork = _conv('branch3x3_1', 384, (1, 1))(x)
    row = _conv('branch3x3_2a', 384, (1, 3))(fork)
    column = _conv('branch3x3_2b', 384, (3, 1))(fork)
    fork = _conv('branch3x3dbl_1', 448, (1, 1))(x)
    fork = _conv('branch3x3dbl_2', 384, (3, 3))(fork)
    double_row = _conv('branch3x3dbl_3a', 384, (1, 3))(fork)
    double_column = _conv('branch3x3dbl_3b', 384, (3, 1))(fork)
    pooled = _conv('branch_pool', 192, (1, 1))(self.pool(x))
    return jnp.concatenate(
      [single, row, column, double_row, double_column, pooled], axis=-1
    )


def _conv(
  name: str, features: int, kernel: tuple[int, int], stride: int = 1, crop: bool = False
) -> Callable[[jax.Array], jax.Array]:
  """Returns convolution and ReLU.

  Of stride 1 the result has the size of the input, or without a pixel at each side
  where `crop`; of stride 2 there is no padding.
  """
  layer = nn.Conv(
    features,
    kernel,
    strides=stride,
    padding='SAME' if stride == 1 else 'VALID',
    precision=_PRECISION,
    conv_general_dilated=conv_general_dilated,
    kernel_init=nn.initializers.he_normal(),
    name=name,
  )

  def apply(x: jax.Array) -> jax.Array:
    x = nn.relu(layer(x))
    # Rather than no padding: that takes XLA:CPU three to six times as long.
    return x[:, 1:-1, 1:-1] if crop else x

  return apply


def _max_pool(x: jax.Array, stride: int = 1) -> jax.Array:
  """Takes the maximum of 3x3 windows; of stride 1 it keeps the size."""
  return _pool(x, jnp.maximum, stride, padding=-jnp.inf if stride == 1 else None)


def _average_pool(x: jax.Array) -> jax.Array:
  """Takes the mean of 3x3 windows, of as many pixels as there are; keeps the size."""
  ones = np.ones((1, *x.shape[1:3], 1), x.dtype)
  counts = _pool(ones, np.add, padding=0.0)
  return _pool(x, jnp.add, padding=0.0) / counts


def _pool(x, combine, stride=1, padding=None):
  """Combines 3x3 windows, along the rows and then along the columns.

  Slices: XLA:CPU takes some four times as long for a reduction over windows.

  Args:
    x: [B, H, W, C].
    combine: function of two arrays.
    stride: between windows.
    padding: what there is one pixel of around the image; None: nothing.
  """
  if padding is not None:
    around = ((0, 0), (1, 1), (1, 1), (0, 0))
    x = (jnp if isinstance(x, jax.Array) else np).pad(
      x, around, constant_values=padding
    )
  height, width = x.shape[1] - 2, x.shape[2] - 2
  x = functools.reduce(combine, (x[:, i : i + height : stride] for i in range(3)))
  return functools.reduce(combine, (x[:, :, i : i + width : stride] for i in range(3)))
