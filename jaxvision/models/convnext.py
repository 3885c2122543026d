"""ConvNeXt: convolutional networks with what made transformers strong.

A block filters each channel by a 7x7 depthwise convolution, norms the channels of each
pixel and passes them through two dense layers; it has one norm and one activation.
Constructors here take `num_classes` and the fields of `ConvNeXt`. The first parameters
and FLOPs (those of `models.summary`, forward, for one image) are for ten classes,
32x32x3 and a `stem_patch` of 1, the last two for 1,000 classes, 224x224x3 and one of 4:

  name            widths             blocks      parameters  GFLOPs   parameters  GFLOPs
  convnext_atto   40, 80, 160, 320   2, 2, 6, 2   3,375,930   0.354    3,695,520    1.09
  convnext_femto  48, 96, 192, 384   2, 2, 6, 2   4,834,474   0.504    5,217,784    1.56
  convnext_tiny   96, 192, 384, 768  3, 3, 9, 3  27,823,498   2.900   28,589,128    8.91

The two small sizes are those of timm. Kernels are drawn with deviation 0.02.

References:
  Liu, Mao, Wu, Feichtenhofer, Darrell and Xie 2022, "A ConvNet for the 2020s",
  https://arxiv.org/abs/2201.03545.
  Wightman, "PyTorch Image Models", https://github.com/huggingface/pytorch-image-models;
  the sizes atto and femto.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvision.errors import UserError
from jaxvision.models import resnet
from jaxvision.models.biases import spread
from jaxvision.models.layers import (
  Classifier,
  DropPath,
  check_patches,
  gelu,
  head,
  layer_norm,
  path_rates,
)

# The authors cut the normal distribution off beyond 2, far from this deviation.
_narrow = nn.initializers.normal(0.02)
_conv = functools.partial(resnet.conv, use_bias=True, kernel_init=_narrow)
_dense = functools.partial(nn.Dense, kernel_init=_narrow)


class ConvNeXtBlock(nn.Module):
  """Depthwise 7x7, norm, dense to four times the channels, GELU, dense: a branch.

  Maps [B, H, W, C] to the same shape; the branch, each channel times a learned number,
  is added to the input.

  Attributes:
    layer_scale: what these numbers begin at.
    drop_path: rate of `layers.DropPath` on the branch.
    dtype: type of the computation.
  """

  layer_scale: float = 1e-6
  drop_path: float | jax.Array = 0.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    width = x.shape[-1]
    y = _conv(
      width,
      (7, 7),
      padding=3,
      feature_group_count=width,
      dtype=self.dtype,
      name='depthwise_conv',
    )(x)
    y = layer_norm(dtype=self.dtype, name='norm')(y)
    y = gelu(_dense(4 * width, dtype=self.dtype, name='dense1')(y))
    y = _dense(width, dtype=self.dtype, name='dense2')(y)
    begin = nn.initializers.constant(self.layer_scale)
    scale = self.param('layer_scale', begin, (width,))
    y = y * spread(scale, y.shape, self.dtype)
    return x + DropPath(self.drop_path)(y, deterministic=not train)


class Downsample(nn.Module):
  """Norm and 2x2 convolution of stride 2: [B, H, W, C] -> [B, H // 2, W // 2, width].

  Attributes:
    width: channels of the output.
    dtype: type of the computation.
  """

  width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = layer_norm(dtype=self.dtype, name='norm')(x)
    return _conv(
      self.width, (2, 2), strides=2, padding=0, dtype=self.dtype, name='conv'
    )(x)


class ConvNeXt(Classifier):
  """The network of Liu et al. 2022; the tuples have an entry for each stage.

  Maps normalised images, float [B, H, W, C], to logits, float32 [B, num_classes]. An
  odd last row or column is dropped where a stage halves.

  Attributes:
    num_classes: number of logits.
    widths: channels of the stages.
    depths: blocks of the stages.
    stem_patch: side of the patches that the first convolution makes pixels of; divides
      H and W. 1 or 2 suit images of 32x32.
    layer_scale: what the scales of the branches begin at, above 0 and at most 1.
    drop_path: rate of the last block's branch, see `layers.path_rates`.
    dtype: type of the computation; parameters, features and logits are float32.
  """

  num_classes: int
  widths: tuple[int, ...] = (96, 192, 384, 768)
  depths: tuple[int, ...] = (3, 3, 9, 3)
  stem_patch: int = 4
  layer_scale: float = 1e-6
  drop_path: float = 0.0
  dtype: Any = jnp.float32

  def setup(self):
    self.head = head(self.num_classes, kernel_init=_narrow)

  @nn.compact
  def features(self, images: jax.Array, train: bool = False) -> jax.Array:
    """Returns the input of the classifier, float32 [B, D], for images [B, H, W, C].

    D is the channels of the last stage, over whose pixels the mean is taken and normed.

    Raises:
      UserError: the tuples are not equally long, patches do not divide the image, or it
        is too small to be halved before each stage but the first.
    """
    if len(self.widths) != len(self.depths):
      raise UserError(
        f'{type(self).__name__}: widths and depths must be equally long, got '
        f'{len(self.widths)} and {len(self.depths)}'
      )
    check_patches(self, images, self.stem_patch, 'stem_patch')
    least = self.stem_patch * 2 ** (len(self.widths) - 1)
    height, width = images.shape[1:3]
    if min(height, width) < least:
      raise UserError(
        f'{type(self).__name__} needs at least {least}x{least} pixels, got '
        f'{height}x{width}: set data.image_size or a smaller model.stem_patch'
      )
    x = _conv(
      self.widths[0],
      (self.stem_patch, self.stem_patch),
      strides=self.stem_patch,
      padding=0,
      dtype=self.dtype,
      name='stem_conv',
    )(images.astype(self.dtype))
    x = layer_norm(dtype=self.dtype, name='stem_norm')(x)
    rates = iter(path_rates(self.drop_path, sum(self.depths)))
    for stage, (features, depth) in enumerate(zip(self.widths, self.depths), start=1):
      if stage > 1:
        x = Downsample(features, self.dtype, name=f'stage{stage}_down')(x)
      for j in range(1, depth + 1):
        block = ConvNeXtBlock(
          self.layer_scale, next(rates), self.dtype, name=f'stage{stage}_block{j}'
        )
        x = block(x, train)
    x = x.mean((1, 2), dtype=jnp.float32)
    return layer_norm(dtype=jnp.float32, name='norm')(x)


_Small = functools.partial(ConvNeXt, depths=(2, 2, 6, 2))
ConvNeXtAtto = functools.partial(_Small, widths=(40, 80, 160, 320))
ConvNeXtFemto = functools.partial(_Small, widths=(48, 96, 192, 384))
ConvNeXtTiny = ConvNeXt
