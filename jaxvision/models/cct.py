"""Compact convolutional transformers: tokens from convolutions, for small data sets.

Constructors here take `num_classes` and the fields of `CCT`. A name tells the blocks,
the side of the kernels and the number of convolutions. Parameters are for ten classes,
FLOPs (those of `models.summary`) forward for one 32x32x3 image:

  name       width  heads  mlp_ratio  parameters  GFLOPs
  cct_2_3x2    128      2          1     283,723   0.071
  cct_4_3x2    128      2          1     482,123   0.100
  cct_6_3x1    256      4          2   3,233,803   2.028
  cct_7_3x1    256      4          2   3,760,139   2.363

Convolutions are drawn as He et al. 2015 do, dense kernels with deviation 0.02 and
positions with 0.2, as in the authors' code, which has the norms of a block where these
are.

Reference:
  Hassani, Walton, Shah, Abuduweili, Li and Shi 2021, "Escaping the big data paradigm
  with compact transformers", https://arxiv.org/abs/2104.05704; code:
  https://github.com/SHI-Labs/Compact-Transformers.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvision.models.attention import Attention, TransformerBlock, check_heads
from jaxvision.models.biases import spread
from jaxvision.models.layers import (
  Classifier,
  Dropout,
  head,
  layer_norm,
  max_pool_3x3,
  path_rates,
)
from jaxvision.models.resnet import conv

_INNER = 64  # channels of all convolutions but the last

# The authors cut the normal distribution off beyond 2, far from these deviations.
_narrow = nn.initializers.normal(0.02)
_dense = functools.partial(nn.Dense, kernel_init=_narrow)
_norm = functools.partial(layer_norm, epsilon=1e-5)


def _window(kernel: int) -> tuple[int, int]:
  """Returns the stride and the padding of convolutions: 1 and 1 for a kernel of 3."""
  return max(1, kernel // 2 - 1), max(1, kernel // 2)


class Tokenizer(nn.Module):
  """Convolution, ReLU and max pool, repeated: [B, H, W, C] -> [B, N, width].

  The pixels of the last map are the tokens, row by row; learned positions are added.

  Attributes:
    width: channels of the last convolution.
    convs: number of convolutions.
    kernel: side of their kernels.
    dtype: type of the computation.
  """

  width: int
  convs: int
  kernel: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    x = images.astype(self.dtype)
    stride, padding = _window(self.kernel)
    for i in range(1, self.convs + 1):
      x = conv(
        self.width if i == self.convs else _INNER,
        (self.kernel, self.kernel),
        strides=stride,
        padding=padding,
        kernel_init=nn.initializers.variance_scaling(2.0, 'fan_in', 'normal'),
        dtype=self.dtype,
        name=f'conv{i}',
      )(x)
      x = max_pool_3x3(nn.relu(x))
    x = x.reshape(x.shape[0], -1, self.width)
    positions = self.param('positions', nn.initializers.normal(0.2), x.shape[1:])
    return x + spread(positions, x.shape, self.dtype)


class CompactBlock(TransformerBlock):
  """Attention on normed tokens; then the sum is normed and two dense layers add to it.

  The shortcut of the dense layers starts after their norm.

  Attributes:
    heads, mlp_ratio, dropout, attention_dropout, drop_path, dtype: see
      `TransformerBlock`.
  """

  mlp_ratio: float = 1.0

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    attention = Attention(
      heads=self.heads,
      qkv_bias=False,
      qkv_kernel_init=_narrow,
      proj_kernel_init=_narrow,
      dropout=self.attention_dropout,
      dtype=self.dtype,
      name='attention',
    )
    y = attention(_norm(dtype=self.dtype, name='norm1')(x), train)
    x = _norm(dtype=self.dtype, name='norm2')(x + self.branch(y, train))
    return x + self.branch(self.mlp(x, train, _dense), train)


class SequencePool(nn.Module):
  """Mean of the tokens, weighted by a softmax over them: [B, N, D] -> float32 [B, D].

  The logits of the weights are a linear function of each token.

  Attributes:
    dtype: type of the linear function's computation.
  """

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    scores = _dense(1, dtype=self.dtype, name='score')(x)[..., 0]
    weights = nn.softmax(scores.astype(jnp.float32))
    return jnp.einsum('bn,bnd->bd', weights, x.astype(jnp.float32))


class CCT(Classifier):
  """The network of Hassani et al. 2021.

  Maps normalised images, float [B, H, W, C] of any size, to logits, float32
  [B, num_classes]. Positions are learned and belong to one size of images.

  Attributes:
    num_classes: number of logits.
    width: of a token.
    depth: number of blocks.
    heads: of each attention; divides `width`.
    mlp_ratio: units between a block's two dense layers over `width`.
    convs: convolutions that make the tokens, each followed by ReLU and a 3x3 max pool
      of stride 2; all but the last have 64 channels.
    kernel: side of their kernels; their stride is 1 up to 5, and kernel // 2 - 1
      beyond.
    dropout: on the tokens with their positions, and in every block, see `CompactBlock`.
    attention_dropout: on the weights of every attention.
    drop_path: rate of the last block's branches, see `layers.path_rates`.
    dtype: type of the computation; parameters, features and logits are float32.
  """

  num_classes: int
  width: int = 128
  depth: int = 2
  heads: int = 2
  mlp_ratio: float = 1.0
  convs: int = 2
  kernel: int = 3
  dropout: float = 0.0
  attention_dropout: float = 0.1
  drop_path: float = 0.1
  dtype: Any = jnp.float32

  def setup(self):
    self.head = head(self.num_classes, kernel_init=_narrow)

  @nn.compact
  def features(self, images: jax.Array, train: bool = False) -> jax.Array:
    """Returns the input of the classifier, float32 [B, width], for images [B, H, W, C].

    Raises:
      UserError: the heads do not divide the width.
    """
    check_heads(self, self.width, self.heads)
    x = Tokenizer(self.width, self.convs, self.kernel, self.dtype, name='tokenizer')(
      images
    )
    x = Dropout(self.dropout)(x, deterministic=not train)
    for i, rate in enumerate(path_rates(self.drop_path, self.depth), start=1):
      block = CompactBlock(
        heads=self.heads,
        mlp_ratio=self.mlp_ratio,
        dropout=self.dropout,
        attention_dropout=self.attention_dropout,
        drop_path=rate,
        dtype=self.dtype,
        name=f'block{i}',
      )
      x = block(x, train)
    x = _norm(dtype=self.dtype, name='norm')(x)
    return SequencePool(self.dtype, name='pool')(x)

  @nn.nowrap
  def token_map(self, image_shape: tuple[int, ...]) -> tuple[tuple[str, ...], int, int]:
    """Returns the layer whose last tokens are a map, and their rows and columns.

    Args:
      image_shape: (H, W, C).
    """
    stride, padding = _window(self.kernel)
    rows, columns = image_shape[:2]
    for _ in range(self.convs):
      rows, columns = (
        -(-((n + 2 * padding - self.kernel) // stride + 1) // 2)
        for n in (rows, columns)
      )
    return ('norm',), rows, columns


CCT2x3x2 = CCT
CCT4x3x2 = functools.partial(CCT, depth=4)
CCT6x3x1 = functools.partial(CCT, width=256, depth=6, heads=4, mlp_ratio=2.0, convs=1)
CCT7x3x1 = functools.partial(CCT, width=256, depth=7, heads=4, mlp_ratio=2.0, convs=1)
