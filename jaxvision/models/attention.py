"""Multi-head self-attention, which the transformers share.

Reference:
  Vaswani et al. 2017, "Attention is all you need", https://arxiv.org/abs/1706.03762.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvision.errors import UserError
from jaxvision.models.layers import Dropout, DropPath, gelu

_xavier = nn.initializers.xavier_uniform()

# Three square matrices side by side, each drawn as `_xavier` draws one.
_xavier_of_three = nn.initializers.variance_scaling(1.0, 'fan_in', 'uniform')


def check_heads(model: nn.Module, width: int, heads: int) -> None:
  """Refuses a number of heads that does not divide the width.

  Raises:
    UserError: with the class of the model, both numbers and both fields.
  """
  if width % heads:
    raise UserError(
      f'{type(model).__name__} has {heads} heads, which do not divide its width of '
      f'{width}: set model.heads or model.width'
    )


class Attention(nn.Module):
  """Every token asks all for what they have: [B, N, D] -> [B, N, D].

  One projection gives queries, keys and values, side by side in this order; each is
  shared among the heads in equal parts. The softmax of query times key, divided by the
  root of a head's width, is taken in float32. A second projection follows.

  Attributes:
    heads: number of heads; divides D.
    qkv_bias: whether the first projection has a bias.
    qkv_kernel_init: of its kernel [D, 3 D].
    proj_kernel_init: of the second one's kernel [D, D].
    dropout: chance that a weight of the mean over the tokens is dropped.
    dtype: type of the computation.
  """

  heads: int
  qkv_bias: bool = True
  qkv_kernel_init: Callable[..., jax.Array] = _xavier_of_three
  proj_kernel_init: Callable[..., jax.Array] = _xavier
  dropout: float | jax.Array = 0.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    batch, tokens, width = x.shape
    qkv = nn.Dense(
      3 * width,
      use_bias=self.qkv_bias,
      kernel_init=self.qkv_kernel_init,
      dtype=self.dtype,
      name='qkv',
    )(x)
    qkv = qkv.reshape(batch, tokens, 3, self.heads, width // self.heads)
    query, key, value = (qkv[:, :, i] for i in range(3))
    scores = jnp.einsum(
      'bqhd,bkhd->bhqk',
      query * (width // self.heads) ** -0.5,
      key,
      preferred_element_type=jnp.float32,
    )
    weights = nn.softmax(scores).astype(self.dtype)
    weights = Dropout(self.dropout)(weights, deterministic=not train)
    mixed = jnp.einsum('bhqk,bkhd->bqhd', weights, value)
    return nn.Dense(
      width, kernel_init=self.proj_kernel_init, dtype=self.dtype, name='proj'
    )(mixed.reshape(batch, tokens, width))


class TransformerBlock(nn.Module):
  """What the blocks of transformers share: their fields, what they drop, the dense layers.

  A block maps tokens [B, N, D] to the same shape. A subclass says where its norms are.

  Attributes:
    heads: of the attention.
    mlp_ratio: units between the two dense layers over the width of a token.
    dropout: on what comes from the attention and from either dense layer.
    attention_dropout: on the weights of the attention.
    drop_path: on both branches.
    dtype: type of the computation.
  """

  heads: int
  mlp_ratio: float = 4.0
  dropout: float | jax.Array = 0.0
  attention_dropout: float | jax.Array = 0.0
  drop_path: float | jax.Array = 0.0
  dtype: Any = jnp.float32

  @nn.nowrap
  def branch(self, y: jax.Array, train: bool) -> jax.Array:
    """Returns a branch as it is added to its shortcut."""
    y = Dropout(self.dropout)(y, deterministic=not train)
    return DropPath(self.drop_path)(y, deterministic=not train)

  @nn.nowrap
  def mlp(
    self, x: jax.Array, train: bool, dense: Callable[..., nn.Module]
  ) -> jax.Array:
    """Applies two dense layers, made by `dense`, with the exact GELU between them."""
    width = x.shape[-1]
    hidden = max(1, int(width * self.mlp_ratio))
    y = gelu(dense(hidden, dtype=self.dtype, name='dense1')(x))
    y = Dropout(self.dropout)(y, deterministic=not train)
    return dense(width, dtype=self.dtype, name='dense2')(y)
