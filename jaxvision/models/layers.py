"""Building blocks that the model families share.

Images and features are NHWC. A block computes in its `dtype`; its parameters, and
the statistics of batch norm, are float32 whatever the `dtype`.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvision.config.limits import switched_on
from jaxvision.errors import UserError
from jaxvision.models.biases import spread
from jaxvision.models.cpu import conv_general_dilated, is_portable, native, on_cpu

# The values that a model's `activation` field may take.
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
  'relu': nn.relu,
  'relu6': nn.relu6,
  'leaky_relu': nn.leaky_relu,  # slope 0.01 below zero
  'swish': nn.swish,
  'gelu': nn.gelu,  # the tanh approximation
}

# Gain sqrt(2) keeps the variance of the forward pass through ReLU layers.
# He et al. 2015, "Delving deep into rectifiers", equation 10.
conv3x3 = functools.partial(
  nn.Conv,
  kernel_size=(3, 3),
  padding=((1, 1), (1, 1)),
  kernel_init=nn.initializers.he_normal(),
  conv_general_dilated=conv_general_dilated,
)

# PyTorch's default for kernels: uniform with bound 1 / sqrt(fan_in).
torch_default = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')

dense = functools.partial(nn.Dense, kernel_init=nn.initializers.he_normal())

# The linear classifier at the end of every model: logits are float32 in any dtype.
head = functools.partial(nn.Dense, dtype=jnp.float32, name='head')

# The running statistics forget a tenth per step: PyTorch's momentum of 0.1. Whether
# they are used is an argument of the call, as in `batch_norm(name='bn')(x,
# use_running_average=not train)`, so that `flax.linen.intercept_methods` can change it
# for some layers, such as frozen ones.
batch_norm = functools.partial(nn.BatchNorm, momentum=0.9, epsilon=1e-5)

# The variance is that of the differences from the mean, which rounds less than a
# difference of squares does.
layer_norm = functools.partial(nn.LayerNorm, epsilon=1e-6, use_fast_variance=False)

# The exact one, by the error function.
gelu = functools.partial(nn.gelu, approximate=False)


def max_pool_2x2(x: jax.Array) -> jax.Array:
  """Takes the maximum of each 2x2 window, stride 2.

  The values of `nn.max_pool(x, (2, 2), (2, 2))`, and its gradient, which the first of
  equal values has alone: an odd last row or column is dropped. It is written as the maximum
  of four strided slices because the gradient of XLA's window reduction,
  select-and-scatter, is some 30 times slower on CPU.

  Args:
    x: features [..., H, W, C], H and W at least 2.

  Returns:
    Features [..., H // 2, W // 2, C] of the same dtype.

  Example:
    >>> max_pool_2x2(jnp.arange(15.0).reshape(3, 5, 1))[..., 0]
    Array([[6., 8.]], dtype=float32)
  """
  if is_portable():  # one operator, whose gradient nobody takes
    return nn.max_pool(x, (2, 2), (2, 2))
  return _max_of_four(x)


@jax.custom_vjp
def _max_of_four(x):
  first, second, third, fourth = _four(x)
  return jnp.maximum(jnp.maximum(first, second), jnp.maximum(third, fourth))


def _four(x: jax.Array) -> list[jax.Array]:
  """Returns the pixels of each window, row by row: four of [..., H // 2, W // 2, C]."""
  height, width = x.shape[-3] // 2 * 2, x.shape[-2] // 2 * 2
  return [x[..., i:height:2, j:width:2, :] for i in (0, 1) for j in (0, 1)]


def _max_of_four_forward(x):
  return _max_of_four(x), x


def _max_of_four_backward(x, gradient):
  return (_to_the_largest(x, gradient),)


_max_of_four.defvjp(_max_of_four_forward, _max_of_four_backward)


@jax.custom_vjp
def _to_the_largest(x, gradient):
  """Returns the gradient by the images of that by the maxima."""
  if on_cpu() and native.suits_gradient(x):
    return native.max_pool_gradient(x, gradient)
  found = _largest(x)
  parts = [jnp.where(here, gradient, jnp.zeros_like(gradient)) for here in found]
  # Side by side, then row by row: one loop over memory, where sums of padded parts take four.
  rows = [jnp.stack(pair, axis=-2) for pair in (parts[:2], parts[2:])]
  whole = jnp.stack(rows, axis=-4)
  *batch, height, width, channels = gradient.shape
  whole = whole.reshape(*batch, 2 * height, 2 * width, channels)
  rest = [(0, full - part) for full, part in zip(x.shape, whole.shape)]
  return jnp.pad(whole, rest)


def _largest(x: jax.Array) -> list[jax.Array]:
  """Returns which pixel of each window is its maximum, the first of equal ones."""
  y = _max_of_four(x)
  first, second, third = (pixels == y for pixels in _four(x)[:3])
  return [first, second & ~first, third & ~(first | second), ~(first | second | third)]


def _to_the_largest_forward(x, gradient):
  return _to_the_largest(x, gradient), x


def _to_the_largest_backward(x, gradient):
  # It is linear in the gradient, and constant in the images but where two are equal.
  chosen = sum(
    jnp.where(here, pixels, jnp.zeros_like(pixels))
    for here, pixels in zip(_largest(x), _four(gradient))
  )
  return jnp.zeros_like(x), chosen


_to_the_largest.defvjp(_to_the_largest_forward, _to_the_largest_backward)


def max_pool_3x3(x: jax.Array) -> jax.Array:
  """Takes the maximum of each 3x3 window, stride 2, one pixel of padding on each side.

  The values of PyTorch's `MaxPool2d(3, stride=2, padding=1)`, which are those of
  `nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))`. That is what other backends than
  the CPU take. On a CPU it is the maximum along the columns, then along the rows, for
  the reason given in `max_pool_2x2`: value and gradient at [16, 112, 112, 64] take a
  quarter of the time. There, where values of a window tie, the gradient is shared
  among them.

  Args:
    x: features [..., H, W, C] of any H and W, floating.

  Returns:
    Features [..., ceil(H / 2), ceil(W / 2), C] of the same dtype.

  Example:
    >>> max_pool_3x3(jnp.arange(15.0).reshape(3, 5, 1))[..., 0]
    Array([[ 6.,  8.,  9.],
           [11., 13., 14.]], dtype=float32)
  """
  if not on_cpu():
    return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
  for axis in (x.ndim - 2, x.ndim - 3):
    # Window i covers pixels 2 i - 1, 2 i and 2 i + 1.
    centre = jax.lax.slice_in_dim(x, 0, None, 2, axis)
    odd = jax.lax.slice_in_dim(x, 1, None, 2, axis)
    missing = centre.shape[axis] - odd.shape[axis]  # 1 where the side is odd
    before = _pad_lowest(odd, axis, 1, missing - 1)
    after = _pad_lowest(odd, axis, 0, missing)
    x = jnp.maximum(jnp.maximum(before, centre), after)
  return x


def _pad_lowest(x: jax.Array, axis: int, low: int, high: int) -> jax.Array:
  """Pads an axis with -inf; a negative number takes away."""
  padding = [(0, 0, 0)] * x.ndim
  padding[axis] = (low, high, 0)
  return jax.lax.pad(x, jnp.array(-jnp.inf, x.dtype), padding)


def zero_pad_shortcut(x: jax.Array, features: int, stride: int = 1) -> jax.Array:
  """Fits the identity to a smaller, wider output without parameters.

  Option A of He et al. 2015, "Deep residual learning", section 4.2: every
  `stride`-th pixel, and channels of zeros, as many before as after the old ones.

  Args:
    x: features [B, H, W, C].
    features: channels of the result, at least C.
    stride: distance between the pixels that are kept.

  Returns:
    Features [B, ceil(H / stride), ceil(W / stride), features].
  """
  # `x[:, ::stride, ::stride]` would be a gather where the batch has no fixed size.
  x = jax.lax.slice(x, (0, 0, 0, 0), x.shape, (1, stride, stride, 1))
  missing = features - x.shape[-1]
  before = missing // 2
  return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (before, missing - before)))


def check_image_size(model: nn.Module, images: jax.Array, halvings: int) -> None:
  """Refuses images that `halvings` 2x2 poolings would leave without a pixel.

  Args:
    model: the model that pools; its class is named in the message.
    images: [B, H, W, C].
    halvings: how often the model halves height and width.

  Raises:
    UserError: if H or W is under 2 ** halvings.
  """
  height, width = images.shape[1:3]
  least = 2**halvings
  if min(height, width) < least:
    raise UserError(
      f'{type(model).__name__} halves the image {halvings} times and needs at least '
      f'{least}x{least} pixels, got {height}x{width}: set data.image_size or '
      'choose another model'
    )


def check_patches(
  model: nn.Module, images: jax.Array, side: int, field: str = 'patch'
) -> None:
  """Refuses images that squares of `side` pixels do not divide.

  Args:
    model: the model that cuts; its class is named in the message.
    images: [B, H, W, C].
    side: of a patch.
    field: of the model, which says how large a patch is.

  Raises:
    UserError: if H or W is no multiple of `side`.
  """
  height, width = images.shape[1:3]
  if height % side or width % side:
    raise UserError(
      f'{type(model).__name__} cuts the image into patches of {side}x{side} pixels, '
      f'which do not divide {height}x{width}: set data.image_size or model.{field}'
    )


class Classifier(nn.Module):
  """A network that is cut before its classifier.

  A subclass makes the layer `head` in its `setup`, and defines `features`, images float
  [B, H, W, C] -> float32 [B, D].
  """

  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    """Returns logits float32 [B, num_classes] of images [B, H, W, C]."""
    return self.classify(self.features(images, train))

  def classify(self, features: jax.Array) -> jax.Array:
    """Returns logits float32 [B, num_classes] of features float32 [B, D]."""
    return self.head(features)


class ConvUnit(nn.Module):
  """3x3 convolution, optional batch norm, activation: [B,H,W,C] -> [B,H,W,features].

  The convolution has a bias only where no batch norm follows that would cancel it.

  Attributes:
    features: output channels.
    activation: a key of `ACTIVATIONS`.
    batch_norm: whether to normalise between convolution and activation.
    dtype: type of the computation.
  """

  features: int
  activation: str = 'relu'
  batch_norm: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    use_bias = not self.batch_norm
    x = conv3x3(self.features, use_bias=use_bias, dtype=self.dtype, name='conv')(x)
    if self.batch_norm:
      norm = batch_norm(dtype=self.dtype, name='bn')
      x = norm(x, use_running_average=not train)
    return ACTIVATIONS[self.activation](x)


class Dropout(nn.Module):
  """Dropout whose rate may be an argument of a compiled program; linen's may not.

  Drops each input with the chance `rate` and divides the others by 1 - `rate`
  (Srivastava et al. 2014), drawing as linen's does from the key named 'dropout'.

  Attributes:
    rate: float in [0, 1), or a traced float32 scalar in it.
    deterministic: whether to pass the inputs through; here or in the call.
  """

  rate: float | jax.Array
  deterministic: bool | None = None

  @nn.compact
  def __call__(self, inputs: jax.Array, deterministic: bool | None = None) -> jax.Array:
    deterministic = nn.merge_param('deterministic', self.deterministic, deterministic)
    if deterministic or not switched_on(self.rate):
      return inputs
    keep = 1.0 - self.rate
    shape = self.choices(inputs)
    kept = jax.random.bernoulli(self.make_rng('dropout'), keep, shape)
    if isinstance(keep, jax.Array):
      keep = keep.astype(inputs.dtype)
    return jnp.where(kept, inputs / keep, jnp.zeros_like(inputs))

  @nn.nowrap
  def choices(self, inputs: jax.Array) -> tuple[int, ...]:
    """Returns the shape of what is drawn, which the inputs' broadcasts with."""
    return inputs.shape


class DropPath(Dropout):
  """Stochastic depth: drops a residual branch, for each example as a whole.

  In training, the branch [B, ...] is 0 for an example with the chance `rate`, so that
  its shortcut alone goes on, and divided by 1 - `rate` for the others. Huang, Sun, Liu,
  Sedra and Weinberger 2016, "Deep networks with stochastic depth",
  https://arxiv.org/abs/1603.09382; they multiply in inference by what this divides by
  in training. The fields and the call are those of `Dropout`.
  """

  @nn.nowrap
  def choices(self, inputs: jax.Array) -> tuple[int, ...]:
    return inputs.shape[:1] + (1,) * (inputs.ndim - 1)


def path_rates(last: float | jax.Array, depth: int) -> tuple[float | jax.Array, ...]:
  """Returns the rates of `DropPath` in `depth` blocks: from 0 on, rising linearly.

  The first block always stays, the last one is dropped with the chance `last`; a single
  block stays.

  Args:
    last: the rate of the last block; may be traced.
    depth: number of blocks.

  >>> path_rates(0.5, 3)
  (0.0, 0.25, 0.5)
  """
  return (0.0, *(last * (i / (depth - 1)) for i in range(1, depth)))


class SqueezeExcite(nn.Module):
  """Channel attention: scales each channel by a gate in (0, 1) computed from all.

  The mean over the pixels goes through a bottleneck of C // `reduction` units; C
  sigmoids of it multiply the channels. It adds 2 * C * S + S + C parameters, S being
  the bottleneck's width. Hu et al. 2018, "Squeeze-and-excitation networks".

  Attributes:
    reduction: how many times narrower than its input the bottleneck is.
    activation: a key of `ACTIVATIONS`, of the bottleneck.
    dtype: type of the computation.
  """

  reduction: int = 4
  activation: str = 'relu'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    channels = x.shape[-1]
    squeezed = x.mean((1, 2))
    units = max(1, channels // self.reduction)
    hidden = nn.Dense(units, dtype=self.dtype, name='squeeze')(squeezed)
    hidden = ACTIVATIONS[self.activation](hidden)
    gates = nn.sigmoid(nn.Dense(channels, dtype=self.dtype, name='excite')(hidden))
    return x * spread(gates[:, None, None, :], x.shape, x.dtype)
