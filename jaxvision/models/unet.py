"""A U-Net: images, a time and a class to a field of the images' shape.

It is what diffusion models and flow matching train: a network that sees an image under
noise, knows how much noise there is, and says for every pixel where to go.

Residual blocks of two 3x3 convolutions, each after a group norm and SiLU. The second norm
is scaled and shifted by a vector that holds the time and, where there are classes, the
class. Sides are halved by means over 2x2 pixels and doubled by repeating pixels, neither of
which has parameters; a block on the way up also sees what its counterpart on the way down
returned. The last convolution of every block, and of the network, begins at zero, so that
blocks begin as the identity and the network at a velocity of 0.

References:
  Ronneberger, Fischer and Brox 2015, "U-Net: convolutional networks for biomedical image
  segmentation", https://arxiv.org/abs/1505.04597.
  Ho, Jain and Abbeel 2020, "Denoising diffusion probabilistic models",
  https://arxiv.org/abs/2006.11239; the network with time.
  Dhariwal and Nichol 2021, "Diffusion models beat GANs on image synthesis",
  https://arxiv.org/abs/2105.05233; norms that are scaled and shifted.
  Hoogeboom, Heek and Salimans 2023, "simple diffusion", https://arxiv.org/abs/2301.11093;
  patches before the first convolution.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvision.errors import UserError
from jaxvision.models.attention import Attention, check_heads
from jaxvision.models.biases import spread
from jaxvision.models.layers import Dropout, conv3x3

_GROUPS, _FEWEST = 8, 4  # groups of channels in a norm at most, and channels in each
_PERIODS = 10_000.0  # the longest wave of the time over the shortest
_SCALE = 1000.0  # of times in [0, 1], so that the shortest wave tells hundredths apart

_conv3x3 = functools.partial(conv3x3, kernel_init=nn.initializers.lecun_normal())
# Nothing comes of it at first, see the module.
_zero_conv3x3 = functools.partial(conv3x3, kernel_init=nn.initializers.zeros)


def sides(image_size: int, patch: int, levels: int) -> tuple[int, ...]:
  """Returns the sides of the features, in pixels, the largest first.

  Args:
    image_size: side of the images.
    patch: side of the squares that are one pixel of the first features.
    levels: how many sides there are, each half of the one before.

  Raises:
    UserError: where the side does not divide so.

  >>> sides(32, 2, 3)
  (16, 8, 4)
  """
  divisor = patch << (levels - 1)
  if image_size % divisor:
    raise UserError(
      f'config: a "unet" with model.patch {patch} and {levels} model.multipliers takes '
      f'images whose side is a multiple of {divisor}, and the data are '
      f'{image_size}x{image_size}: set data.image_size, model.patch or model.multipliers'
    )
  return tuple(image_size // patch >> level for level in range(levels))


def time_waves(times: jax.Array, features: int) -> jax.Array:
  """Returns cosines and sines of times in [0, 1]: float [B] -> float32 [B, features].

  Half of the features each; the frequencies fall in equal ratios (Vaswani et al. 2017,
  section 3.5).

  Args:
    times: float [B].
    features: an even number.
  """
  half = features // 2
  frequencies = jnp.exp(-math.log(_PERIODS) * jnp.arange(half) / half)
  angles = _SCALE * times.astype(jnp.float32)[:, None] * frequencies
  return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def _norm(x: jax.Array, name: str, dtype: Any) -> jax.Array:
  channels = x.shape[-1]
  possible = range(1, 1 + max(1, min(_GROUPS, channels // _FEWEST)))
  groups = max(number for number in possible if channels % number == 0)
  return nn.GroupNorm(num_groups=groups, epsilon=1e-5, dtype=dtype, name=name)(x)


class ResidualBlock(nn.Module):
  """Two convolutions that know the time and the class, added to their input.

  Attributes:
    features: output channels; where the input has others, a dense layer fits it.
    dropout: before the second convolution.
    dtype: type of the computation.
  """

  features: int
  dropout: float | jax.Array = 0.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, embedding: jax.Array, train: bool) -> jax.Array:
    """Maps features [B, H, W, C] and embeddings [B, E] to [B, H, W, features]."""
    y = nn.silu(_norm(x, 'norm1', self.dtype))
    y = _conv3x3(self.features, dtype=self.dtype, name='conv1')(y)
    change = nn.Dense(2 * self.features, dtype=self.dtype, name='embed')(embedding)
    scale, shift = (
      spread(part, y.shape, y.dtype)
      for part in jnp.split(change[:, None, None, :], 2, axis=-1)
    )
    y = nn.silu(_norm(y, 'norm2', self.dtype) * (1 + scale) + shift)
    y = Dropout(self.dropout)(y, deterministic=not train)
    y = _zero_conv3x3(self.features, dtype=self.dtype, name='conv2')(y)
    if x.shape[-1] != self.features:
      x = nn.Dense(self.features, dtype=self.dtype, name='shortcut')(x)
    return x + y


class AttentionBlock(nn.Module):
  """Attention among all pixels, added to its input: [B, H, W, C] -> [B, H, W, C].

  Attributes:
    heads: number of heads; divides C.
    dtype: type of the computation.
  """

  heads: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    tokens = _norm(x, 'norm', self.dtype).reshape(x.shape[0], -1, x.shape[-1])
    attention = Attention(
      self.heads,
      proj_kernel_init=nn.initializers.zeros,
      dtype=self.dtype,
      name='attention',
    )
    return x + attention(tokens, train).reshape(x.shape)


class UNet(nn.Module):
  """Images [B, H, W, C], times [B] and labels [B] -> a field, float32 [B, H, W, C].

  Attributes:
    width: channels of the first features; even.
    multipliers: channels over `width` at each side, the largest side first.
    blocks: residual blocks at each side, on the way down and again on the way up.
    attention: sides, in pixels of the features, at which attention follows every block.
    heads: of the attention.
    embedding: length of the vector of time and class; 0: four times the width.
    patch: side of the squares of pixels that are one pixel of the first features, with
      their pixels as channels; 1: pixels as they are.
    dropout: in every residual block.
    num_classes: 0, or the number of classes. The label `num_classes` stands for an image
      of any class.
    dtype: type of the computation; the field is float32.
  """

  width: int = 32
  multipliers: Sequence[int] = (1, 2)
  blocks: int = 1
  attention: Sequence[int] = ()
  heads: int = 1
  embedding: int = 0
  patch: int = 1
  dropout: float | jax.Array = 0.0
  num_classes: int = 0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    images: jax.Array,
    times: jax.Array,
    labels: jax.Array | None = None,
    train: bool = False,
  ) -> jax.Array:
    """Maps images in any range, times in [0, 1] and labels int32 to a field."""
    batch, height, width, channels = images.shape
    sides_down = sides(height, self.patch, len(self.multipliers))
    embedding = self._embed(times, labels)
    x = images.astype(self.dtype)
    x = x.reshape(batch, height // self.patch, self.patch, -1, self.patch, channels)
    x = x.swapaxes(2, 3).reshape(batch, height // self.patch, width // self.patch, -1)
    x = _conv3x3(self.width, dtype=self.dtype, name='first')(x)
    kept = []
    for level, side in enumerate(sides_down):
      if level:
        x = x.reshape(batch, side, 2, -1, 2, x.shape[-1]).mean((2, 4))
      for block in range(1, self.blocks + 1):
        x = self._block(x, level, side, f'down{level + 1}_{block}', embedding, train)
        kept.append(x)
    x = self._block(x, level, side, 'middle', embedding, train)
    for level, side in reversed(list(enumerate(sides_down))):
      for block in range(1, self.blocks + 1):
        x = jnp.concatenate([x, kept.pop()], axis=-1)
        x = self._block(x, level, side, f'up{level + 1}_{block}', embedding, train)
      if level:
        x = x.repeat(2, axis=1).repeat(2, axis=2)
    x = nn.silu(_norm(x, 'norm', self.dtype))
    outputs = channels * self.patch**2
    x = _zero_conv3x3(outputs, dtype=self.dtype, name='last')(x)
    x = x.reshape(*x.shape[:3], self.patch, self.patch, channels).swapaxes(2, 3)
    return x.reshape(images.shape).astype(jnp.float32)

  def _embed(self, times: jax.Array, labels: jax.Array | None) -> jax.Array:
    """Returns the vector of time and class, [B, E]."""
    size = self.embedding or 4 * self.width
    dense = functools.partial(nn.Dense, size, dtype=self.dtype)
    x = dense(name='time1')(time_waves(times, self.width).astype(self.dtype))
    x = dense(name='time2')(nn.silu(x))
    if self.num_classes:
      if labels is None:
        raise ValueError('a UNet of classes wants labels')
      # A product, not a lookup: its gradient adds up in a fixed order on GPUs.
      chosen = jax.nn.one_hot(labels, self.num_classes + 1, dtype=self.dtype)
      x += dense(use_bias=False, kernel_init=nn.initializers.normal(1.0), name='label')(
        chosen
      )
    return nn.silu(x)

  def _block(
    self,
    x: jax.Array,
    level: int,
    side: int,
    name: str,
    embedding: jax.Array,
    train: bool,
  ) -> jax.Array:
    """Applies a residual block and, where the config asks for it, attention."""
    features = self.width * self.multipliers[level]
    block = ResidualBlock(features, self.dropout, self.dtype, name=name)
    x = block(x, embedding, train)
    if side in self.attention:
      x = AttentionBlock(self.heads, self.dtype, name=f'{name}_attention')(x, train)
    return x


def check_unet(model: UNet, image_size: int) -> None:
  """Raises UserError where a U-Net and the side of the images do not fit."""
  found = sides(image_size, model.patch, len(model.multipliers))
  if model.width % 2:
    raise UserError(f'config: model.width of "unet" must be even, got {model.width}')
  for side in model.attention:
    if side not in found:
      raise UserError(
        f'config: model.attention of "unet" names side {side}, and its features have the '
        f'sides {", ".join(map(str, found))}: choose among these'
      )
    check_heads(model, model.width * model.multipliers[found.index(side)], model.heads)
