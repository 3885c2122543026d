"""The generator and the discriminator of a DCGAN.

Radford, Metz and Chintala 2015, "Unsupervised representation learning with deep
convolutional generative adversarial networks", https://arxiv.org/abs/1511.06434. Both
halve, or double, the image down to a side of 4 to 7 pixels: 32 - 16 - 8 - 4, 28 - 14 -
7. The one layer that is left has a kernel of the size of that side. No convolution has
a bias, weights are drawn from N(0, 0.02), and batch norm is as in the rest of the
library. At 32x32x3 and width 32 there are 370,624 and 167,808 parameters.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvision.errors import UserError
from jaxvision.models.layers import batch_norm
from jaxvision.models.lowering.transposed import ConvTranspose, strided_conv

_INITIAL = nn.initializers.normal(0.02)

_conv = functools.partial(
  nn.Conv, use_bias=False, kernel_init=_INITIAL, conv_general_dilated=strided_conv
)
_up = functools.partial(ConvTranspose, use_bias=False, kernel_init=_INITIAL)

# PyTorch's padding of 1 around a kernel of 4 with stride 2.
_PADDING = ((1, 1), (1, 1))


def halvings(image_size: int) -> int:
  """Returns how often a side halves down to 4, 5, 6 or 7 pixels.

  Raises:
    UserError: where that leaves a remainder, or the image is smaller than 8.

  >>> halvings(32), halvings(28), halvings(64)
  (3, 2, 4)
  """
  count, side = 0, image_size
  while side > 7 and side % 2 == 0:
    count, side = count + 1, side // 2
  if not count or not 4 <= side <= 7:
    raise UserError(
      f'a DCGAN halves the image down to 4 to 7 pixels, and {image_size} does not halve '
      'so: set data.image_size to 28, 32, 48 or 64, say'
    )
  return count


class DCGANGenerator(nn.Module):
  """Noise, [B, latent] -> images in (-1, 1), float32 [B, image_size, image_size, C].

  The first transposed convolution makes the smallest image of the noise; each further
  one, 4x4 with stride 2, doubles it and halves the features. Batch norm and ReLU
  between, tanh last.

  Attributes:
    image_size: side of the images in pixels, see `halvings`.
    channels: of the images.
    width: features of the last layer but one; the first has `width` times 4 at 32x32,
      times 2 at 28x28.
    latent: length of the noise.
    dtype: of the computation; images are float32.
  """

  image_size: int = 32
  channels: int = 3
  width: int = 32
  latent: int = 100
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, noise: jax.Array, train: bool = False) -> jax.Array:
    if noise.ndim != 2 or noise.shape[1] != self.latent:
      raise ValueError(f'noise must be [B, {self.latent}], got {noise.shape}')
    doublings = halvings(self.image_size)
    side = self.image_size >> doublings
    x = noise.astype(self.dtype)[:, None, None, :]
    for i in range(doublings):
      features = self.width << (doublings - 1 - i)
      layer = functools.partial(_up, features, dtype=self.dtype, name=f'up{i + 1}')
      if i == 0:
        x = layer(kernel_size=(side, side), padding='VALID')(x)
      else:
        x = layer(kernel_size=(4, 4), strides=(2, 2))(x)
      norm = batch_norm(dtype=self.dtype, name=f'bn{i + 1}')
      x = norm(x, use_running_average=not train)
      x = nn.relu(x)
    x = _up(
      self.channels, (4, 4), strides=(2, 2), dtype=self.dtype, name=f'up{doublings + 1}'
    )(x)
    return jnp.tanh(x.astype(jnp.float32))


class DCGANDiscriminator(nn.Module):
  """Images, [B, H, W, C] in [-1, 1] -> logits of being real, float32 [B].

  Each convolution, 4x4 with stride 2, halves the image and doubles the features; the
  last one covers what is left. Leaky ReLU of slope 0.2, batch norm before all but the
  first. A pass in training mode takes the statistics of its own batch: give it real
  images and generated ones one after the other.

  Attributes:
    width: features of the first convolution.
    dtype: of the computation; logits are float32.
  """

  width: int = 32
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    height, width = images.shape[1:3]
    if height != width:
      raise UserError(f'a DCGAN takes square images, got {height}x{width}')
    count = halvings(height)
    x = images.astype(self.dtype)
    for i in range(count):
      x = _conv(
        self.width << i,
        (4, 4),
        strides=(2, 2),
        padding=_PADDING,
        dtype=self.dtype,
        name=f'conv{i + 1}',
      )(x)
      if i:
        norm = batch_norm(dtype=self.dtype, name=f'bn{i + 1}')
        x = norm(x, use_running_average=not train)
      x = nn.leaky_relu(x, 0.2)
    x = _conv(
      1, x.shape[1:3], padding='VALID', dtype=self.dtype, name=f'conv{count + 1}'
    )(x)
    return x.astype(jnp.float32).reshape(-1)
