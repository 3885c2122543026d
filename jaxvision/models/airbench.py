"""The networks of the CIFAR-10 speed runs: a frozen whitening layer, then three groups.

The architecture of K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024
(arXiv 2404.00498) and of its code, https://github.com/KellerJordan/cifar10-airbench,
which descend from T. Swan's hlb-CIFAR10 and D. Page's "How to train your ResNet".
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvision.errors import UserError
from jaxvision.models import layers
from jaxvision.models.biases import spread
from jaxvision.models.cpu import conv_general_dilated

# Added to the eigenvalues before their root: directions of almost no variance, which
# hold little but noise, are not blown up.
_WHITENING_EPSILON = 5e-4

# Batch norm has an offset and no scale, for the next layer's weights make up for one.
_norm = functools.partial(layers.batch_norm, epsilon=1e-12, use_scale=False)


def dirac(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32):
  """Draws a kernel whose first filters hand their input channels through.

  Filter i of the first C holds 1 at its centre for channel i and 0 elsewhere; the rest
  are drawn as PyTorch draws them by default, uniform in +-1 / sqrt(h w C).

  Args:
    key: for the rest.
    shape: (h, w, C, F), h and w odd.
    dtype: type of the result.

  >>> kernel = dirac(jax.random.key(0), (3, 3, 2, 4))
  >>> kernel[1, 1, :, :2].tolist(), float(abs(kernel[..., :2]).sum())
  ([[1.0, 0.0], [0.0, 1.0]], 2.0)
  """
  height, width, channels, features = shape
  kernel = layers.torch_default(key, shape, dtype)
  same = jnp.zeros(shape, dtype)
  same = same.at[height // 2, width // 2].set(jnp.eye(channels, features, dtype=dtype))
  return jnp.where(jnp.arange(features) < channels, same, kernel)


def unit_std(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32):
  """Draws a kernel as PyTorch does by default and scales it to standard deviation 1."""
  kernel = layers.torch_default(key, shape, dtype)
  return kernel / jnp.std(kernel, ddof=1)


def whitening_kernel(images: jax.Array, size: int = 2) -> jax.Array:
  """Returns filters that decorrelate the patches of images, each with its negative.

  With eigenvectors v and eigenvalues s of the second moments of the patches, the filters
  are v / sqrt(s + 5e-4) and their negatives, so that the outputs of the first half have
  about the identity as their second moments.

  Args:
    images: float32 [n, H, W, C], normalised.
    size: side of the patches, in pixels.

  Returns:
    float32 [size, size, C, 2 size**2 C].
  """
  height, width = (n - size + 1 for n in images.shape[1:3])
  channels = images.shape[-1]
  patches = jnp.concatenate(
    [
      images[:, i : i + height, j : j + width] for i in range(size) for j in range(size)
    ],
    axis=-1,
  ).reshape(-1, size * size * channels)
  # Full precision: eigenvectors of a rounded matrix would not decorrelate.
  moments = jnp.matmul(patches.T, patches, precision='highest') / len(patches)
  values, vectors = jnp.linalg.eigh(moments)
  filters = vectors / jnp.sqrt(jnp.maximum(values, 0) + _WHITENING_EPSILON)
  filters = jnp.concatenate([filters, -filters], axis=1)
  return filters.reshape(size, size, channels, -1)


class AirbenchNet(nn.Module):
  """Whitening, groups of convolutions, a maximum over what is left, a linear head.

  A group halves the image: convolution, 2x2 maximum, batch norm, GELU, then
  `convs - 1` times convolution, batch norm, GELU; with three convolutions, the input
  of the second is added before the last GELU. Convolutions have no bias and begin as
  the identity (`dirac`). The whitening kernel is set by `init_from_data` and never
  trained.

  Two forms differ in how they begin: 'muon' draws a head of standard deviation 1,
  divides the logits by its width and draws the whitening bias; 'sgd' draws PyTorch's
  default head, divides the logits by 9 and begins with whitening bias 0.

  Attributes:
    num_classes: number of logits.
    widths: channels of the groups.
    convs: convolutions in a group, 2 or 3.
    form: 'muon' or 'sgd'.
    bn_momentum: share of the running statistics kept at each step. They are the biased
      variance of the batch, where PyTorch keeps the unbiased one.
    dtype: type of the computation.
  """

  num_classes: int
  widths: tuple[int, ...] = (64, 256, 256)
  convs: int = 2
  form: str = 'muon'
  bn_momentum: float = 0.6
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    """Returns logits float32 [B, num_classes] of images [B, H, W, C].

    Raises:
      UserError: the image is too small to be halved so often.
    """
    height, width, channels = images.shape[1:]
    least = 2 ** len(self.widths) + 1
    if min(height, width) < least:
      raise UserError(
        f'AirbenchNet halves the image {len(self.widths)} times and needs at least '
        f'{least}x{least} pixels, got {height}x{width}: set data.image_size or choose '
        'another model'
      )
    x = Whitening(8 * channels, self.form == 'muon', self.dtype, name='whiten')(images)
    x = layers.gelu(x)
    for i, features in enumerate(self.widths):
      group = ConvGroup(
        features, self.convs, self.bn_momentum, self.dtype, name=f'group{i + 1}'
      )
      x = group(x, train)
    # All that is left is 3x3 for images of 32x32.
    x = jnp.max(x, axis=(1, 2))
    muon = self.form == 'muon'
    head = layers.head(
      self.num_classes,
      use_bias=False,
      kernel_init=unit_std if muon else layers.torch_default,
    )
    return head(x) * (1 / x.shape[-1] if muon else 1 / 9)

  @nn.nowrap
  def init_from_data(self, params: Any, images: jax.Array) -> Any:
    """Returns `params` with the whitening kernel of these images.

    Args:
      params: the model's.
      images: float32 [n, H, W, C], normalised; the recipe takes 5,000.
    """
    kernel = whitening_kernel(images).astype(params['whiten']['kernel'].dtype)
    return {**params, 'whiten': {**params['whiten'], 'kernel': kernel}}


class Whitening(nn.Module):
  """2x2 convolution with a frozen kernel: [B, H, W, C] -> [B, H-1, W-1, features].

  Attributes:
    features: output channels.
    draw_bias: whether the bias is drawn as PyTorch draws it, or begins at 0.
    dtype: type of the computation.
  """

  features: int
  draw_bias: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    channels = x.shape[-1]
    bound = (4 * channels) ** -0.5 if self.draw_bias else 0.0

    def draw(key, shape, dtype=jnp.float32):
      return jax.random.uniform(key, shape, dtype, -bound, bound)

    shape = (2, 2, channels, self.features)
    kernel = jax.lax.stop_gradient(self.param('kernel', layers.torch_default, shape))
    bias = self.param('bias', draw, (self.features,))
    out = conv_general_dilated(
      x.astype(self.dtype),
      kernel.astype(self.dtype),
      (1, 1),
      'VALID',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    return out + spread(bias, out.shape, self.dtype)


class ConvGroup(nn.Module):
  """Halves and widens: [B, H, W, C] -> [B, H // 2, W // 2, features].

  Attributes:
    features: output channels.
    convs: convolutions, 2 or 3; of three, the last two are a residual branch.
    bn_momentum: share of the running statistics kept at each step.
    dtype: type of the computation.
  """

  features: int
  convs: int = 2
  bn_momentum: float = 0.6
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    def conv(i, x):
      return layers.conv3x3(
        self.features,
        use_bias=False,
        kernel_init=dirac,
        dtype=self.dtype,
        name=f'conv{i}',
      )(x)

    def norm(i, x):
      layer = _norm(momentum=self.bn_momentum, dtype=self.dtype, name=f'norm{i}')
      return layer(x, use_running_average=not train)

    x = layers.gelu(norm(1, layers.max_pool_2x2(conv(1, x))))
    shortcut = x
    for i in range(2, self.convs + 1):
      x = norm(i, conv(i, x))
      if i == self.convs > 2:
        x = x + shortcut
      x = layers.gelu(x)
    return x


Airbench94 = AirbenchNet
Airbench95 = functools.partial(AirbenchNet, widths=(128, 384, 384), form='sgd')
# Its batch norm forgets slowly: PyTorch's default momentum.
Airbench96 = functools.partial(
  AirbenchNet, widths=(128, 384, 512), convs=3, form='sgd', bn_momentum=0.9
)
