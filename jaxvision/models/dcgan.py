"""The generator and the discriminator of a DCGAN.

Radford, Metz and Chintala 2015, "Unsupervised representation learning with deep
convolutional generative adversarial networks", https://arxiv.org/abs/1511.06434. Both
halve, or double, the image down to a side of 4 to 6 pixels: 32 - 16 - 8 - 4, 28 - 14 -
7 - 4. The one layer that is left has a kernel of the size of that side. Weights are drawn
from N(0, 0.02), and batch norm is as in the rest of the library.

What came later is there as switches, off by default: nearest-neighbour upsampling,
spectral normalisation, layers that see the whole batch, networks conditioned on the class.
With all of them off no convolution has a bias, and at 32x32x3 and width 32 there are
370,624 and 167,808 parameters.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvision.errors import UserError
from jaxvision.models.biases import spread
from jaxvision.models.cpu import conv_general_dilated, conv_transpose
from jaxvision.models.layers import batch_norm
from jaxvision.models.minibatch import append_stddev, closeness
from jaxvision.models.spectral import normalized

UPSAMPLES = ('transposed', 'resize')
NORMS = ('batch', 'spectral', 'none')
MINIBATCHES = ('none', 'discrimination', 'stddev')
CLASS_HEADS = ('projection', 'classifier')

_INITIAL = nn.initializers.normal(0.02)

# Measures of closeness that minibatch discrimination takes, and the length of each.
_MEASURES, _LENGTH = 16, 8


def sides(image_size: int) -> tuple[int, ...]:
  """Returns the sides that an image is halved to, the smallest, 4 to 6 pixels, first.

  Raises:
    UserError: where that leaves a remainder (7 pixels are halved to 4), or the image is
      smaller than 8.

  >>> sides(32), sides(28)
  ((4, 8, 16, 32), (4, 7, 14, 28))
  """
  found = [image_size]
  while found[0] == 7 or (found[0] > 6 and found[0] % 2 == 0):
    found.insert(0, (found[0] + 1) // 2)
  if image_size < 8 or not 4 <= found[0] <= 6:
    raise UserError(
      f'a DCGAN halves the image down to 4 to 6 pixels, and {image_size} does not halve '
      'so: set data.image_size to 28, 32, 48 or 64'
    )
  return tuple(found)


class ConvTranspose(nn.Module):
  """Transposed convolution without bias: [B, H, W, C] -> [B, H', W', features].

  The parameters are those of `flax.linen.ConvTranspose`.

  Attributes:
    features: output channels.
    kernel_size: height and width in pixels.
    strides: along height and width.
    padding: 'SAME' or 'VALID', as in `jax.lax.conv_transpose`.
    dtype: type of the computation.
  """

  features: int
  kernel_size: tuple[int, int]
  strides: tuple[int, int] = (1, 1)
  padding: str = 'SAME'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = (*self.kernel_size, x.shape[-1], self.features)
    kernel = self.param('kernel', _INITIAL, shape, jnp.float32)
    x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
    return conv_transpose(x, kernel, self.strides, self.padding)


class ResizeConv(nn.Module):
  """Doubles by nearest neighbour, convolves 3x3: [B,H,W,C] -> [B,2H,2W,features].

  Odena et al. 2016, "Deconvolution and checkerboard artifacts". Four pixels of one
  value under 3x3 taps are one pixel under 4x4, so that both steps are one transposed
  convolution, with a kernel that each tap enters four times: 4/9 of the products.

  Attributes:
    features: output channels.
    dtype: type of the computation.
  """

  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = (3, 3, x.shape[-1], self.features)
    kernel = self.param('kernel', _INITIAL, shape, jnp.float32)
    spread = sum(
      jnp.pad(kernel, ((i, 1 - i), (j, 1 - j), (0, 0), (0, 0)))
      for i in range(2)
      for j in range(2)
    )
    x, spread = x.astype(self.dtype), spread.astype(self.dtype)
    return conv_transpose(x, spread, (2, 2), 'SAME')


class ClassBatchNorm(nn.Module):
  """Batch norm with a gain and a bias for each class, 1 and 0 at first.

  De Vries et al. 2017, "Modulating early visual processing by language", section 3; in
  a generator Miyato and Koyama 2018, "cGANs with projection discriminator". The
  statistics are those of all classes.

  Attributes:
    num_classes: how many gains and biases there are.
    dtype: type of the computation.
  """

  num_classes: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, labels: jax.Array, use_running_average: bool
  ) -> jax.Array:
    """Maps features [B, H, W, C] and labels int32 [B] to [B, H, W, C]."""
    norm = batch_norm(use_scale=False, use_bias=False, dtype=self.dtype, name='norm')
    x = norm(x, use_running_average=use_running_average)
    shape = (self.num_classes, x.shape[-1])
    gains = self.param('scale', nn.initializers.ones, shape, jnp.float32)
    biases = self.param('bias', nn.initializers.zeros, shape, jnp.float32)
    gain, bias = (
      spread(_of_class(table, labels)[:, None, None], x.shape, self.dtype)
      for table in (gains, biases)
    )
    return x * gain + bias


def _of_class(table: jax.Array, labels: jax.Array) -> jax.Array:
  """Returns `table[labels]`, float32 [B, C].

  As a product: its gradient, unlike that of a lookup, adds up in a fixed order on GPUs.
  """
  chosen = jax.nn.one_hot(labels, len(table), dtype=jnp.float32)
  return jnp.dot(chosen, table, precision=jax.lax.Precision.HIGHEST)


class DCGANGenerator(nn.Module):
  """Noise, [B, latent] -> images in (-1, 1), float32 [B, image_size, image_size, C].

  The first transposed convolution makes the smallest image of the noise; each further
  one, 4x4 with stride 2, doubles it and halves the features. Batch norm and ReLU
  between, tanh last.

  Attributes:
    image_size: side of the images in pixels, see `sides`.
    channels: channels of the images.
    width: features of the last layer but one; the first has `width` times 4 at 28x28
      and 32x32, times 8 at 64x64.
    latent: length of the noise.
    upsample: what doubles the image: 'transposed', or 'resize', see `ResizeConv`.
    num_classes: 0, or the number of classes of a conditional generator; the labels
      enter in `ClassBatchNorm`.
    dtype: type of the computation; images are float32.
  """

  image_size: int = 32
  channels: int = 3
  width: int = 32
  latent: int = 100
  upsample: str = 'transposed'
  num_classes: int = 0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, noise: jax.Array, labels: jax.Array | None = None, train: bool = False
  ) -> jax.Array:
    """Makes images of noise and, where there are classes, labels int32 [B]."""
    if noise.ndim != 2 or noise.shape[1] != self.latent:
      raise ValueError(f'noise must be [B, {self.latent}], got {noise.shape}')
    _check(self, labels, upsample=UPSAMPLES)
    *smaller, last = sides(self.image_size)
    count = len(smaller)
    x = noise.astype(self.dtype)[:, None, None, :]
    for i, side in enumerate(smaller):
      features = self.width << (count - 1 - i)
      if i == 0:
        first = ConvTranspose(
          features, (side, side), padding='VALID', dtype=self.dtype, name='up1'
        )
        x = first(x)
      else:
        x = self._double(x, side, features, i + 1)
      if self.num_classes:
        norm = ClassBatchNorm(self.num_classes, dtype=self.dtype, name=f'bn{i + 1}')
        x = norm(x, labels, use_running_average=not train)
      else:
        norm = batch_norm(dtype=self.dtype, name=f'bn{i + 1}')
        x = norm(x, use_running_average=not train)
      x = nn.relu(x)
    x = self._double(x, last, self.channels, count + 1)
    return jnp.tanh(x.astype(jnp.float32))

  def _double(self, x: jax.Array, side: int, features: int, number: int) -> jax.Array:
    if self.upsample == 'resize':
      layer = ResizeConv(features, dtype=self.dtype, name=f'conv{number}')
    else:
      layer = ConvTranspose(
        features, (4, 4), strides=(2, 2), dtype=self.dtype, name=f'up{number}'
      )
    return layer(x)[:, :side, :side]  # twice 4 is a pixel more than 7


class DCGANDiscriminator(nn.Module):
  """Images, [B, H, W, C] in [-1, 1] -> logits of being real, float32 [B].

  Each convolution, 4x4 with stride 2, halves the image and doubles the features; the
  last one covers what is left. Leaky ReLU of slope 0.2, batch norm before all but the
  first. A pass in training mode takes the statistics of its own batch: give it real
  images and generated ones one after the other.

  Attributes:
    width: features of the first convolution.
    norm: 'batch'; 'spectral': no batch norm, biases, and the kernel of every layer
      divided by its largest singular value, which each pass in training mode follows
      by one step of power iteration from the vectors in 'batch_stats', see `spectral`;
      'none': no batch norm, biases, for penalties on the gradient at each image
      (Gulrajani et al. 2017, "Improved training of Wasserstein GANs", section 4).
    minibatch: 'none', or what the last layer also takes of the batch as a whole, in
      training mode or not: 'discrimination', 16 measures of `closeness` of learned
      features of length 8; 'stddev', the channel of `append_stddev`.
    num_classes: 0, or the number of classes, which enter by `class_head`.
    class_head: 'projection': the projection of the last features, summed over the
      pixels, on a learned vector of the label's class is added to the logit (Miyato and
      Koyama 2018, "cGANs with projection discriminator").
      'classifier': labels are ignored, and the logits of the classes are returned too,
      float32 [B, num_classes], computed from the last features, averaged over the pixels
      (Odena et al. 2017, "Conditional image synthesis with auxiliary classifier GANs").
    dtype: type of the computation; logits are float32.
  """

  width: int = 32
  norm: str = 'batch'
  minibatch: str = 'none'
  num_classes: int = 0
  class_head: str = 'projection'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, images: jax.Array, labels: jax.Array | None = None, train: bool = False
  ) -> jax.Array | tuple[jax.Array, jax.Array]:
    """Maps images and, where there are classes, their labels int32 [B] to logits."""
    height, width = images.shape[1:3]
    if height != width:
      raise UserError(f'a DCGAN takes square images, got {height}x{width}')
    _check(self, labels, norm=NORMS, minibatch=MINIBATCHES, class_head=CLASS_HEADS)
    last = len(sides(height))
    x = images.astype(self.dtype)
    for i in range(1, last):
      x = self._conv(
        x,
        f'conv{i}',
        self.width << (i - 1),
        train,
        kernel_size=(4, 4),
        strides=(2, 2),
        # PyTorch's padding of 1; a pixel more makes 4 of 7.
        padding=((1, 1 + x.shape[1] % 2), (1, 1 + x.shape[2] % 2)),
      )
      if i > 1 and self.norm == 'batch':
        norm = batch_norm(dtype=self.dtype, name=f'bn{i}')
        x = norm(x, use_running_average=not train)
      x = nn.leaky_relu(x, 0.2)
    inputs = append_stddev(x) if self.minibatch == 'stddev' else x
    logits = self._conv(
      inputs, f'conv{last}', 1, train, kernel_size=x.shape[1:3], padding='VALID'
    )
    logits = logits.astype(jnp.float32).reshape(-1)
    if self.minibatch == 'discrimination':
      logits += self._compare(x, train)
    if self.num_classes and self.class_head == 'classifier':
      pooled = x.astype(jnp.float32).mean((1, 2))
      return logits, self._linear(pooled, 'classifier', self.num_classes, train)
    if self.num_classes:
      logits += self._project(x, labels, train)
    return logits

  def _conv(self, x, name, features, train, **options) -> jax.Array:
    layer = nn.Conv(
      features,
      use_bias=self.norm != 'batch',
      kernel_init=_INITIAL,
      dtype=self.dtype,
      conv_general_dilated=self._product(conv_general_dilated, name, features, train),
      name=name,
      **options,
    )
    return layer(x)

  def _linear(self, x, name, features, train, **options) -> jax.Array:
    layer = nn.Dense(
      features,
      use_bias=False,
      kernel_init=_INITIAL,
      dot_general=self._product(jax.lax.dot_general, name, features, train),
      name=name,
      **options,
    )
    return layer(x)

  def _product(self, product, name, features, train) -> Callable[..., jax.Array]:
    if self.norm != 'spectral':
      return product
    u = self.variable(
      'batch_stats',
      f'{name}_u',
      lambda: jax.random.normal(self.make_rng('params'), (features,), jnp.float32),
    )
    return normalized(product, u, update=train)

  # Added to the last layer, which is equal to appending to its input.
  def _compare(self, x: jax.Array, train: bool) -> jax.Array:
    flat = x.reshape(x.shape[0], -1)
    size = _MEASURES * _LENGTH
    learned = self._linear(flat, 'minibatch', size, train, dtype=self.dtype)
    close = closeness(learned.reshape(-1, _MEASURES, _LENGTH))
    return self._linear(close, 'closeness', 1, train).reshape(-1)

  def _project(self, x: jax.Array, labels: jax.Array, train: bool) -> jax.Array:
    pooled = x.astype(jnp.float32).sum((1, 2))
    # One row for each class; as in `_of_class`, a product instead of a lookup.
    chosen = jax.nn.one_hot(labels, self.num_classes, dtype=jnp.float32)
    exact = jax.lax.Precision.HIGHEST
    vectors = self._linear(
      chosen, 'embedding', x.shape[-1], train, dtype=jnp.float32, precision=exact
    )
    return (pooled * vectors).sum(axis=-1)


def _check(model: nn.Module, labels: jax.Array | None, **choices: tuple[str, ...]):
  for field, known in choices.items():
    if getattr(model, field) not in known:
      raise ValueError(f'{field} must be one of {known}, got {getattr(model, field)!r}')
  if model.num_classes and labels is None:
    raise ValueError(f'a {type(model).__name__} of classes wants labels')
