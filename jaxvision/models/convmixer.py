"""ConvMixer: patches, mixed in space by depthwise, in channels by 1x1 convolutions.

The map keeps its size and its channels from the first layer to the last. Parameters are
for ten classes, FLOPs (those of `models.summary`) forward for one 32x32x3 image:

  name              kernel  patch  parameters  GFLOPs
  conv_mixer_256_8       5      2     594,186   0.296
  conv_mixer_256_8       9      1     706,570   1.415

Its numbers are width and depth. Kernels and biases are drawn as PyTorch draws them by
default, as in the authors' code.

Reference:
  Trockman and Kolter 2022, "Patches are all you need?",
  https://arxiv.org/abs/2201.09792.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvision.models import resnet
from jaxvision.models.layers import (
  Classifier,
  batch_norm,
  check_patches,
  gelu,
  head,
  torch_default,
)


def _conv(features: int, side: int, inputs: int, **options: Any) -> nn.Module:
  """Returns a convolution with a bias; `inputs` is the channels that a filter reads."""
  bound = (inputs * side**2) ** -0.5

  def draw(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return resnet.conv(
    features,
    (side, side),
    use_bias=True,
    kernel_init=torch_default,
    bias_init=draw,
    **options,
  )


class MixerBlock(nn.Module):
  """Depthwise convolution with a shortcut, then a 1x1 convolution, on [B, H, W, C].

  Either is followed by GELU and a batch norm; the shortcut joins after that norm.

  Attributes:
    kernel: side of the depthwise kernels.
    dtype: type of the computation.
  """

  kernel: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    width = x.shape[-1]
    make = functools.partial(_conv, width, dtype=self.dtype)

    def norm(name, y):
      return _norm(name, gelu(y), train, self.dtype)

    y = make(
      self.kernel, 1, padding='SAME', feature_group_count=width, name='depthwise_conv'
    )(x)
    x = x + norm('depthwise_bn', y)
    return norm('pointwise_bn', make(1, width, padding=0, name='pointwise_conv')(x))


class ConvMixer(Classifier):
  """The network of Trockman and Kolter 2022.

  Maps normalised images, float [B, H, W, C], to logits, float32 [B, num_classes]. Batch
  statistics are in collection 'batch_stats'.

  Attributes:
    num_classes: number of logits.
    width: channels.
    depth: number of blocks.
    kernel: side of the depthwise kernels.
    patch: side of a patch in pixels; divides H and W.
    dtype: type of the computation; parameters, features and logits are float32.
  """

  num_classes: int
  width: int = 256
  depth: int = 8
  kernel: int = 5
  patch: int = 2
  dtype: Any = jnp.float32

  def setup(self):
    self.head = head(self.num_classes)

  @nn.compact
  def features(self, images: jax.Array, train: bool = False) -> jax.Array:
    """Returns the input of the classifier, float32 [B, width], for images [B, H, W, C].

    Raises:
      UserError: patches do not divide the image.
    """
    check_patches(self, images, self.patch)
    x = _conv(
      self.width,
      self.patch,
      images.shape[-1],
      strides=self.patch,
      padding=0,
      dtype=self.dtype,
      name='stem_conv',
    )(images.astype(self.dtype))
    x = _norm('stem_bn', gelu(x), train, self.dtype)
    for i in range(1, self.depth + 1):
      x = MixerBlock(self.kernel, self.dtype, name=f'block{i}')(x, train)
    return x.mean((1, 2), dtype=jnp.float32)


def _norm(name: str, x: jax.Array, train: bool, dtype: Any) -> jax.Array:
  return batch_norm(dtype=dtype, name=name)(x, use_running_average=not train)


ConvMixer256x8 = ConvMixer
