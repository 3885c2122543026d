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
  DropPath,
  SqueezeExcite,
  batch_norm,
  head,
)
from jaxvision.models.resnet import conv

# 'symmetric' adds as many pixels before as after, as PyTorch's networks do; 'same' is
# TensorFlow's SAME, which at stride 2 adds one less before than after an even side.
PADDINGS = ('symmetric', 'same')


def conv_norm(
  name: str,
  x: jax.Array,
  features: int,
  side: int,
  *,
  train: bool,
  activation: str | None,
  padding: str,
  epsilon: float,
  dtype: Any,
  **options: Any,
) -> jax.Array:
  """Applies a convolution, a batch norm and an activation, within a compact method.

  Args:
    name: what the names of the two layers begin with: `name`_conv, `name`_bn.
    x: [B, H, W, C].
    features: channels of the result.
    side: height and width of the kernel.
    train: whether batch norm normalises by the batch.
    activation: a key of `layers.ACTIVATIONS`, or None.
    padding: one of `PADDINGS`.
    epsilon: added to the variance in batch norm.
    dtype: type of the computation.
    **options: of the convolution, such as `strides`.

  Returns:
    [B, ceil(H / stride), ceil(W / stride), features].
  """
  pads = 'SAME' if padding == 'same' else 2 * (((side - 1) // 2, side // 2),)
  x = conv(
    features, (side, side), padding=pads, dtype=dtype, name=f'{name}_conv', **options
  )(x)
  norm = batch_norm(epsilon=epsilon, dtype=dtype, name=f'{name}_bn')
  x = norm(x, use_running_average=not train)
  return x if activation is None else ACTIVATIONS[activation](x)


class InvertedResidual(nn.Module):
  """1x1 to `expansion` times the channels, depthwise, 1x1 to `width`; batch norms.

  Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), width]. The input is added
  where it has the shape of the output. With expansion 1 the first convolution is left
  out.

  Attributes:
    width: channels of the output.
    stride: stride of the depthwise convolution.
    expansion: channels between over those of the input.
    kernel: height and width of the depthwise convolution.
    activation: a key of `layers.ACTIVATIONS`, after the first and the second norm.
    attention: whether to gate the channels between by squeeze and excitation, whose
      bottleneck has a quarter of the channels of the input.
    attention_activation: a key of `layers.ACTIVATIONS`, in that bottleneck.
    drop_path: chance that an example goes through the shortcut alone in training.
    padding: one of `PADDINGS`.
    epsilon: added to the variances in batch norm.
    dtype: type of the computation.
  """

  width: int
  stride: int = 1
  expansion: int = 6
  kernel: int = 3
  activation: str = 'relu'
  attention: bool = False
  attention_activation: str = 'relu'
  drop_path: float = 0.0
  padding: str = 'symmetric'
  epsilon: float = 1e-5
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    unit = functools.partial(
      conv_norm,
      train=train,
      padding=self.padding,
      epsilon=self.epsilon,
      dtype=self.dtype,
    )
    act, between = self.activation, x.shape[-1] * self.expansion
    y = x
    if self.expansion > 1:
      y = unit('expand', y, between, 1, activation=act)
    y = unit(
      'depthwise',
      y,
      between,
      self.kernel,
      activation=act,
      strides=self.stride,
      feature_group_count=between,
    )
    if self.attention:
      y = SqueezeExcite(
        reduction=4 * self.expansion,
        activation=self.attention_activation,
        dtype=self.dtype,
        name='attention',
      )(y)
    y = unit('project', y, self.width, 1, activation=None)
    if x.shape != y.shape:
      return y
    return x + DropPath(self.drop_path, name='drop_path')(y, deterministic=not train)


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
    drop_path: chance that an example goes through the shortcut of a block alone in
      training, growing in proportion to the depth from 0 to nearly this.
    padding: one of `PADDINGS`.
    epsilon: added to the variances in batch norm.
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
  drop_path: float = 0.0
  padding: str = 'symmetric'
  epsilon: float = 1e-5
  dtype: Any = jnp.float32

  per_stage = (
    'widths',
    'depths',
    'strides',
    'expansions',
  )  # the fields that are tuples

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
    lengths = [len(getattr(self, field)) for field in self.per_stage]
    if len(set(lengths)) > 1:
      raise UserError(
        f'{type(self).__name__}: {", ".join(self.per_stage[:-1])} and '
        f'{self.per_stage[-1]} must be equally long, got {", ".join(map(str, lengths))}'
      )
    unit = functools.partial(conv_norm, train=train, **self._shared())
    x = images.astype(self.dtype)
    strides = 2 if self.stem == 'imagenet' else 1
    x = unit('stem', x, self.stem_width, 3, strides=strides)
    for stage, depth in enumerate(self.depths):
      for j in range(depth):
        name = f'stage{stage + 1}_block{j + 1}'
        x = InvertedResidual(name=name, **self.block_fields(stage, j))(x, train)
    if self.last:
      x = unit('last', x, self.last_width, 1)
    return x.mean((1, 2), dtype=jnp.float32)

  @nn.nowrap
  def block_fields(self, stage: int, j: int) -> dict[str, Any]:
    """Returns the fields of block j of a stage, both from 0."""
    stride = self.strides[stage] if j == 0 else 1
    before = sum(self.depths[:stage]) + j
    return self._shared() | {
      'width': self.widths[stage],
      'stride': 1 if stage == 1 and self.stem == 'cifar' else stride,
      'expansion': self.expansions[stage],
      'attention': self.attention,
      'drop_path': self.drop_path * before / sum(self.depths),
    }

  @nn.nowrap
  def _shared(self) -> dict[str, Any]:
    """Returns the fields that all blocks and the units around them have in common."""
    fields = ('activation', 'padding', 'epsilon', 'dtype')
    return {field: getattr(self, field) for field in fields}
