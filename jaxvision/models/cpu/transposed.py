"""Transposed and strided convolution by backend and shape; the numbers are the same.

On GPUs and TPUs XLA's own convolutions are the fastest there are. XLA:CPU's gradient
of a transposed convolution by its kernel is not: in the generator of a DCGAN it took
ten times what the rest of the layer took. There both kinds of layer, and their
gradients, are matrix products: see `cells`.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvision.models.cpu import strided_conv as forms

_LAYOUT = ('NHWC', 'HWIO', 'NHWC')

Pads = tuple[tuple[int, int], tuple[int, int]]


def strided_conv(
  lhs: jax.Array,
  rhs: jax.Array,
  window_strides: Sequence[int],
  padding: Any,
  **options: Any,
) -> jax.Array:
  """Convolves as `jax.lax.conv_general_dilated`, for `flax.linen.Conv` to call.

  Args:
    lhs: images [B, H, W, C].
    rhs: kernel [h, w, C, F].
    window_strides, padding, options: as in `jax.lax`.

  Returns:
    [B, H', W', F].
  """
  if lhs.ndim == 4 and _is_plain(lhs, rhs, options):
    strides, size = tuple(window_strides), rhs.shape[:2]
    pads = _pads(
      jax.lax.padtype_to_pads(lhs.shape[1:3], size, strides, padding)
      if isinstance(padding, str)
      else padding
    )
    window = forms.Window(size, strides)
    small = _small_size(lhs.shape[1:3], window, pads)
    form = forms.choose(window, small, rhs.shape[2:])
    if form and min(small) > 0:
      return form.down(_fit(lhs, window, small, pads), rhs, window)
  return jax.lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)


def conv_transpose(
  lhs: jax.Array,
  rhs: jax.Array,
  strides: Sequence[int],
  padding: Any,
  rhs_dilation: Sequence[int] | None = None,
  transpose_kernel: bool = False,
  **options: Any,
) -> jax.Array:
  """Convolves as `jax.lax.conv_transpose` in its layout NHWC, HWIO.

  With kernel 4 and stride 2, 'SAME' is what PyTorch calls padding 1: it doubles height
  and width. PyTorch's kernel is this one turned by half a circle.

  Args:
    lhs: images [B, H, W, C].
    rhs: kernel [h, w, C, F]; with `transpose_kernel` [h, w, F, C] and turned.
    strides, padding, rhs_dilation, options: as in `jax.lax`.

  Returns:
    [B, H', W', F].
  """
  known = {'dimension_numbers': _LAYOUT, 'rhs_dilation': rhs_dilation, **options}
  if lhs.ndim == 4 and _is_plain(lhs, rhs, known):
    size, strides = rhs.shape[:2], tuple(strides)
    # What XLA would put around the images once zeros are between their pixels.
    pads = _pads(
      [_transposed_pads(k, s, padding) for k, s in zip(size, strides)]
      if isinstance(padding, str)
      else padding
    )
    # The same as what is cut off a strided convolution's large side.
    pads = _pads((k - 1 - a, k - 1 - b) for k, (a, b) in zip(size, pads))
    kernel = rhs.swapaxes(2, 3) if transpose_kernel else rhs[::-1, ::-1]
    window = forms.Window(size, strides)
    form = forms.choose(window, lhs.shape[1:3], kernel.shape[2:])
    if form:
      return _cut(form.up(lhs, kernel, window), pads)
  return jax.lax.conv_transpose(
    lhs,
    rhs,
    strides,
    padding,
    rhs_dilation=rhs_dilation,
    transpose_kernel=transpose_kernel,
    **options,
  )


class ConvTranspose(nn.ConvTranspose):
  """`flax.linen.ConvTranspose` by way of `conv_transpose`: same fields, parameters.

  Two spatial dimensions and one batch dimension take the fast road, without a mask,
  without circular padding; whatever else linen's layer does, it does here as well.

  >>> layer = ConvTranspose(8, (4, 4), strides=(2, 2), use_bias=False)
  >>> variables = layer.init(jax.random.key(0), jnp.ones((2, 5, 5, 3)))
  >>> layer.apply(variables, jnp.ones((2, 5, 5, 3))).shape
  (2, 10, 10, 8)
  """

  @nn.compact
  def __call__(self, inputs: jax.Array) -> jax.Array:
    """Maps [B, H, W, C] to [B, H', W', features]."""
    size, strides = self.kernel_size, self.strides
    if (
      isinstance(size, int)
      or len(size) != 2
      or inputs.ndim != 4
      or self.mask is not None
      or not (isinstance(self.padding, str) or _is_pairs(self.padding))
      or self.padding == 'CIRCULAR'
    ):
      return super().__call__(inputs)
    dilation = self.kernel_dilation
    channels = (inputs.shape[-1], self.features)
    shape = (*size, *(channels[::-1] if self.transpose_kernel else channels))
    kernel = self.param('kernel', self.kernel_init, shape, self.param_dtype)
    bias = None
    if self.use_bias:
      bias = self.param('bias', self.bias_init, (self.features,), self.param_dtype)
    inputs, kernel, bias = self.promote_dtype(inputs, kernel, bias, dtype=self.dtype)
    result = conv_transpose(
      inputs,
      kernel,
      _both(strides),
      self.padding,
      rhs_dilation=_both(dilation),
      transpose_kernel=self.transpose_kernel,
      precision=self.precision,
      preferred_element_type=self.preferred_element_type,
    )
    return result if bias is None else result + bias


def _both(value: int | Sequence[int] | None) -> tuple[int, ...]:
  if value is None:
    return (1, 1)
  return (value, value) if isinstance(value, int) else tuple(value)


def _is_pairs(padding: Any) -> bool:
  return not isinstance(padding, int) and all(not isinstance(p, int) for p in padding)


def _is_plain(lhs: jax.Array, rhs: jax.Array, options: dict[str, Any]) -> bool:
  """Says whether this is a float32 convolution on a CPU with nothing special to it."""
  return (
    jax.default_backend() == 'cpu'
    and lhs.dtype == rhs.dtype == jnp.float32
    and all(d == 1 for d in options.get('lhs_dilation') or ())
    and all(d == 1 for d in options.get('rhs_dilation') or ())
    and options.get('feature_group_count', 1) == 1
    and options.get('batch_group_count', 1) == 1
    and not options.get('use_consistent_padding')
    and options.get('precision') is None
    and options.get('preferred_element_type') is None
    and _is_nhwc(lhs, rhs, options.get('dimension_numbers'))
  )


def _is_nhwc(lhs: jax.Array, rhs: jax.Array, numbers: Any) -> bool:
  wanted = jax.lax.conv_dimension_numbers(lhs.shape, rhs.shape, _LAYOUT)
  return wanted == jax.lax.conv_dimension_numbers(lhs.shape, rhs.shape, numbers)


def _pads(pads: Any) -> Pads:
  (a, b), (c, d) = pads
  return (int(a), int(b)), (int(c), int(d))


def _transposed_pads(size: int, stride: int, padding: str) -> tuple[int, int]:
  """As jax.lax.conv_transpose has them: of the gradient of a convolution so padded."""
  if padding.upper() == 'VALID':
    whole = size + stride - 2 + max(size - stride, 0)
    return size - 1, whole - (size - 1)
  if padding.upper() != 'SAME':
    raise ValueError(f'padding must be SAME, VALID or pairs of integers: {padding!r}')
  whole = size + stride - 2
  before = size - 1 if stride > size - 1 else -(-whole // 2)
  return before, whole - before


def _small_size(
  large: Sequence[int], window: forms.Window, pads: Pads
) -> tuple[int, int]:
  """Returns how many windows fit: rows, columns."""
  rows, columns = (
    (n + sum(p) - k) // s + 1 for n, p, k, s in zip(large, pads, *window)
  )
  return rows, columns


def _fit(images: jax.Array, window: forms.Window, small: Sequence[int], pads: Pads):
  """Pads, or cuts, images to just what so many windows cover."""
  covered = [(n - 1) * s + k for n, k, s in zip(small, *window)]
  sizes = images.shape[1:3]
  return _cut(images, [(-p[0], p[0] + n - c) for p, n, c in zip(pads, sizes, covered)])


def _cut(images: jax.Array, by: Sequence[tuple[int, int]]) -> jax.Array:
  """Cuts so many pixels off each side, or adds zeros where the number is negative."""
  config = ((0, 0, 0), *((-a, -b, 0) for a, b in by), (0, 0, 0))
  return jax.lax.pad(images, jnp.zeros((), images.dtype), config)
