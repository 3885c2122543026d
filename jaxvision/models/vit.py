"""Vision transformers: an image as a sequence of patches.

Constructors here take `num_classes` and the fields of `VisionTransformer`. The first
parameters and FLOPs (those of `models.summary`, forward, for one image) are for ten
classes, 32x32x3 and patches of 4x4, the last two for 1,000 classes, 224x224x3 and
patches of 16x16:

  name       width  heads  parameters  GFLOPs   parameters  GFLOPs
  vit_tiny     192      3   5,362,762   0.730    5,717,416    2.51
  vit_small    384      6  21,342,346   2.841   22,050,664    9.20
  vit_base     768     12  85,152,010  11.202   86,567,656   35.13

All have 12 blocks.

References:
  Dosovitskiy et al. 2021, "An image is worth 16x16 words: transformers for image
  recognition at scale", https://arxiv.org/abs/2010.11929.
  Touvron et al. 2021, "Training data-efficient image transformers & distillation
  through attention", https://arxiv.org/abs/2012.12877; the sizes tiny and small.
  Beyer, Zhai and Kolesnikov 2022, "Better plain ViT baselines for ImageNet-1k",
  https://arxiv.org/abs/2205.01580; fixed positions, the mean for the class token.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.errors import UserError
from jaxvision.models.attention import Attention, TransformerBlock, check_heads
from jaxvision.models.biases import spread
from jaxvision.models.layers import (
  Classifier,
  Dropout,
  check_patches,
  head,
  layer_norm,
  path_rates,
)
from jaxvision.models.resnet import conv

# As in the authors' code.
_dense = functools.partial(
  nn.Dense,
  kernel_init=nn.initializers.xavier_uniform(),
  bias_init=nn.initializers.normal(1e-6),
)


def sincos2d(height: int, width: int, features: int) -> np.ndarray:
  """Returns fixed positions on a grid: sines and cosines of column and row.

  Each quarter of the features belongs to one of them, in the order sine and cosine of
  the column, sine and cosine of the row; within it the frequencies fall from 1 to
  1/10,000 in equal ratios.

  Args:
    height, width: of the grid.
    features: a multiple of 4.

  Returns:
    float32 [height * width, features], row by row.

  >>> sincos2d(2, 2, 4).round(2).tolist()[:2]
  [[0.0, 1.0, 0.0, 1.0], [0.8399999737739563, 0.5400000214576721, 0.0, 1.0]]
  """
  frequencies = 1e4 ** -np.linspace(0, 1, features // 4)
  rows, columns = np.mgrid[:height, :width]
  angles = [axis.reshape(-1, 1) * frequencies for axis in (columns, rows)]
  waves = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
  return np.concatenate(waves, axis=1).astype(np.float32)


class Embed(nn.Module):
  """Patches as tokens with their positions: [B, H, W, C] -> [B, N, width].

  Attributes:
    width: of a token.
    patch: side of a patch in pixels.
    token: whether a class token comes first, which is learned; it begins at 0.
    positions: 'learned', for the class token too, or 'sincos2d', for the patches.
    dtype: type of the computation.
  """

  width: int
  patch: int
  token: bool
  positions: str
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    x = conv(
      self.width,
      (self.patch, self.patch),
      strides=self.patch,
      padding=0,
      use_bias=True,
      kernel_init=nn.initializers.lecun_normal(),
      dtype=self.dtype,
      name='conv',
    )(images.astype(self.dtype))
    batch, *grid, _ = x.shape
    x = x.reshape(batch, -1, self.width)
    if self.positions == 'sincos2d':
      x = x + sincos2d(*grid, self.width).astype(self.dtype)
    if self.token:
      token = self.param('token', nn.initializers.zeros, (self.width,))
      token = spread(token, (batch, 1, self.width), self.dtype)
      x = jnp.concatenate([token, x], axis=1)
    if self.positions == 'learned':
      draw = nn.initializers.normal(0.02)
      positions = self.param('positions', draw, x.shape[1:])
      x = x + spread(positions, x.shape, self.dtype)
    return x


class EncoderBlock(TransformerBlock):
  """Attention, then two dense layers, each on normed tokens and added to its input.

  Attributes:
    heads, mlp_ratio, dropout, attention_dropout, drop_path, dtype: see
      `TransformerBlock`.
  """

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    attention = Attention(
      heads=self.heads,
      dropout=self.attention_dropout,
      dtype=self.dtype,
      name='attention',
    )
    y = attention(layer_norm(dtype=self.dtype, name='norm1')(x), train)
    x = x + self.branch(y, train)
    y = layer_norm(dtype=self.dtype, name='norm2')(x)
    return x + self.branch(self.mlp(y, train, _dense), train)


class VisionTransformer(Classifier):
  """The network of Dosovitskiy et al. 2021, its norms before the branches.

  Maps normalised images, float [B, H, W, C], to logits, float32 [B, num_classes].
  Learned positions belong to one size of images. The classifier begins at 0, so that
  the first logits are 0.

  Attributes:
    num_classes: number of logits.
    patch: side of a patch in pixels; divides H and W.
    width: of a token.
    depth: number of blocks.
    heads: of each attention; divides `width`.
    mlp_ratio: units between a block's two dense layers over `width`.
    pool: what goes into the classifier: 'token', a class token, normed; or 'mean', the
      mean of all normed tokens, of which none is a class token.
    positions: 'learned', or 'sincos2d': fixed, see `sincos2d`; `width` is a multiple of
      4 then, and a class token has no position.
    dropout: on the tokens with their positions, and in every block, see `EncoderBlock`.
    drop_path: rate of the last block's branches, see `layers.path_rates`.
    dtype: type of the computation; parameters, features and logits are float32.
  """

  num_classes: int
  patch: int = 16
  width: int = 192
  depth: int = 12
  heads: int = 3
  mlp_ratio: float = 4.0
  pool: str = 'token'
  positions: str = 'learned'
  dropout: float = 0.0
  drop_path: float = 0.0
  dtype: Any = jnp.float32

  def setup(self):
    self.head = head(self.num_classes, kernel_init=nn.initializers.zeros)

  @nn.compact
  def features(self, images: jax.Array, train: bool = False) -> jax.Array:
    """Returns the input of the classifier, float32 [B, width], for images [B, H, W, C].

    Raises:
      UserError: patches do not divide the image, heads the width, or 4 a width that
        'sincos2d' has to share among sines and cosines.
    """
    check_heads(self, self.width, self.heads)
    check_patches(self, images, self.patch)
    if self.positions == 'sincos2d' and self.width % 4:
      raise UserError(
        f'{type(self).__name__}: model.positions=sincos2d needs a model.width that is '
        f'a multiple of 4, got {self.width}'
      )
    with_token = self.pool == 'token'
    x = Embed(
      self.width, self.patch, with_token, self.positions, self.dtype, name='embed'
    )(images)
    x = Dropout(self.dropout)(x, deterministic=not train)
    for i, rate in enumerate(path_rates(self.drop_path, self.depth), start=1):
      block = EncoderBlock(
        heads=self.heads,
        mlp_ratio=self.mlp_ratio,
        dropout=self.dropout,
        drop_path=rate,
        dtype=self.dtype,
        name=f'block{i}',
      )
      x = block(x, train)
    x = x[:, 0] if with_token else x
    x = layer_norm(dtype=self.dtype, name='norm')(x)
    return x.astype(jnp.float32) if with_token else x.mean(1, dtype=jnp.float32)

  @nn.nowrap
  def token_map(self, image_shape: tuple[int, ...]) -> tuple[tuple[str, ...], int, int]:
    """Returns the layer whose last tokens are a map, and their rows and columns.

    A class token reads the others in the last attention, and no layer after it.

    Args:
      image_shape: (H, W, C).
    """
    rows, columns = (n // self.patch for n in image_shape[:2])
    read = (f'block{self.depth}', 'norm1') if self.pool == 'token' else ('norm',)
    return read, rows, columns


ViTTiny = VisionTransformer
ViTSmall = functools.partial(VisionTransformer, width=384, heads=6)
ViTBase = functools.partial(VisionTransformer, width=768, heads=12)
