"""Convolution and transposed convolution, the algorithm chosen by backend and shape.

On GPUs and TPUs XLA's own convolutions are the fastest. XLA:CPU's are not, and there
the algorithms are, for float32 except where noted:

  native     oneDNN's and our own in C++, where the extra `onednn` is installed: bfloat16,
             few channels, strides, 1x1, groups and dilation; `native`.
  depthwise  one filter for each channel: a sum of shifted images (any dtype).
  cells      the stride divides the kernel, as in a DCGAN, or the result is one pixel:
             matrix products over cells of pixels, `cells`. Transposed ones too.
  patches    up to 4 input channels: one product over all windows (any dtype).
  winograd   3x3, stride 1, many channels: `winograd`.
  strided    1x1 kernels and other strides: XLA's, with another gradient by the kernel.

The numbers are those of `jax.lax` up to rounding.
"""

import contextlib
import contextvars
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxvision.models.cpu import cells, depthwise, native, winograd
from jaxvision.models.cpu.windows import Pads, pad, to_pads, windows

# Up to this number of input channels XLA:CPU's gradient by the kernel takes several times
# as long as one product over patches.
_FEW_CHANNELS = 4

# From this number of channels, in and out, and of tiles of 4x4 pixels, the products that
# Winograd's algorithm saves outweigh its transforms.
_MANY_CHANNELS = 64
_MANY_TILES = 64

# Below this number of channels oneDNN's product over all pixels of a kernel is faster than
# Winograd's algorithm with fewer products.
_WINOGRAD_CHANNELS = 96

_LAYOUT = ('NHWC', 'HWIO', 'NHWC')

_plain = contextvars.ContextVar('plain', default=False)
_portable = contextvars.ContextVar('portable', default=False)


@contextlib.contextmanager
def plain_convolutions() -> Iterator[None]:
  """Within it, what is traced has every product of a convolution, for counting FLOPs."""
  token = _plain.set(True)
  try:
    yield
  finally:
    _plain.reset(token)


@contextlib.contextmanager
def portable_operators() -> Iterator[None]:
  """Within it, what is traced is XLA's own operators, for programs that go elsewhere."""
  token = _portable.set(True)
  try:
    yield
  finally:
    _portable.reset(token)


def is_portable() -> bool:
  """Whether what is traced now goes elsewhere, see `portable_operators`."""
  return _portable.get()


def on_cpu() -> bool:
  """Whether what is traced now is made for a CPU, where XLA's operators are slow."""
  return jax.default_backend() == 'cpu' and not is_portable()


def conv_general_dilated(
  lhs: jax.Array,
  rhs: jax.Array,
  window_strides: Sequence[int],
  padding: Any,
  **options: Any,
) -> jax.Array:
  """Convolves as `jax.lax.conv_general_dilated`, for `flax.linen.Conv` to call.

  Args:
    lhs: images [B, H, W, C].
    rhs: kernel [h, w, C, F]; [h, w, 1, C] for a filter per channel.
    window_strides, padding, options: as in `jax.lax`. The precision is ignored on a CPU,
      which has only one.

  Returns:
    [B, H', W', F].
  """
  own = None
  if _is_ours(lhs, rhs, options):
    own = _convolve(lhs, rhs, _geometry(lhs, rhs, window_strides, padding, options))
  if own is not None:
    return own
  return jax.lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)


def _geometry(
  lhs: jax.Array,
  rhs: jax.Array,
  strides: Sequence[int],
  padding: Any,
  options: dict[str, Any],
) -> native.Geometry:
  size, window = lhs.shape[1:3], rhs.shape[:2]
  dilation = tuple(options.get('rhs_dilation') or (1, 1))
  covered = [d * (k - 1) + 1 for k, d in zip(window, dilation)]
  return native.Geometry(
    size,
    window,
    tuple(strides),
    to_pads(padding, size, covered, strides),
    dilation,
    options.get('feature_group_count', 1),
  )


def _convolve(
  lhs: jax.Array, rhs: jax.Array, geometry: native.Geometry
) -> jax.Array | None:
  """Convolves by the algorithm for the shape, or returns None where XLA's is as good."""
  plain, strides, pads = _plain.get(), geometry.strides, geometry.pads
  is_float32 = lhs.dtype == jnp.float32
  window = cells.Window(geometry.window, strides)
  small = window.count(geometry.size, pads)
  form = cells.choose(window, small, rhs.shape[2:], plain=plain)
  if (
    not plain
    and not _has_better(lhs, rhs, geometry, form)
    and native.suits(lhs, geometry)
  ):
    return native.convolve(lhs, rhs, geometry)
  if geometry.dilation != (1, 1):
    return None
  if geometry.groups > 1:
    is_depthwise = rhs.shape[2:] == (1, geometry.groups)
    if plain or not is_depthwise:
      return None
    return depthwise.convolve(lhs, rhs, strides, pads)
  if form and is_float32 and min(small) > 0:
    return form.down(window.fit(lhs, small, pads), rhs, window)
  if form or plain:
    return None
  if lhs.shape[-1] <= _FEW_CHANNELS:
    return _by_patches(lhs, rhs, strides, pads)
  if is_float32 and _suits_winograd(lhs, rhs, strides, pads):
    return winograd.conv3x3(lhs, rhs)
  if is_float32 and (rhs.shape[:2] == (1, 1) or max(strides) > 1):
    return _strided(lhs, rhs, strides, pads)
  return None


def _has_better(
  lhs: jax.Array, rhs: jax.Array, geometry: native.Geometry, form: cells.Form | None
) -> bool:
  """Returns whether an algorithm here was measured to be faster than oneDNN's."""
  channels = (lhs.shape[-1], rhs.shape[-1])
  if lhs.dtype != jnp.float32:
    # oneDNN has no vector form of a filter per channel with strides.
    return geometry.groups == lhs.shape[-1] > 1 and max(geometry.strides) > 1
  if geometry.groups > 1 or geometry.dilation != (1, 1):
    return False
  if _suits_winograd(lhs, rhs, geometry.strides, geometry.pads):
    # Its transforms are of the images, and of the kernel: few channels or few tiles do not
    # pay for them.
    count = winograd.tiles(geometry.size[0]) * winograd.tiles(geometry.size[1])
    return min(channels) >= _WINOGRAD_CHANNELS and len(lhs) * count >= max(channels)
  return form is not None and min(channels) > _FEW_CHANNELS


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

  With kernel 4 and stride 2, 'SAME' is PyTorch's padding 1: it doubles height and width.
  PyTorch's kernel is this one rotated by half a turn.

  Args:
    lhs: images [B, H, W, C].
    rhs: kernel [h, w, C, F]; with `transpose_kernel` [h, w, F, C] and rotated.
    strides, padding, rhs_dilation, options: as in `jax.lax`; see `conv_general_dilated`.

  Returns:
    [B, H', W', F].
  """
  known = {'dimension_numbers': _LAYOUT, 'rhs_dilation': rhs_dilation, **options}
  if _is_ours(lhs, rhs, known) and all(d == 1 for d in rhs_dilation or ()):
    size = rhs.shape[:2]
    if isinstance(padding, str):
      pads = [_transposed_pads(k, s, padding) for k, s in zip(size, strides)]
    else:
      pads = padding  # what XLA adds around images with zeros between their pixels
    own = _transpose(lhs, rhs, tuple(strides), pads, transpose_kernel)
    if own is not None:
      return own
  return jax.lax.conv_transpose(
    lhs,
    rhs,
    strides,
    padding,
    rhs_dilation=rhs_dilation,
    transpose_kernel=transpose_kernel,
    **options,
  )


def _transpose(
  lhs: jax.Array,
  rhs: jax.Array,
  strides: tuple[int, int],
  pads: Sequence[tuple[int, int]],
  transpose_kernel: bool,
) -> jax.Array | None:
  """Convolves transposed by the algorithm for the shape; None where XLA's is as good."""
  window = cells.Window(rhs.shape[:2], strides)
  # That of the convolution whose transpose this is.
  kernel = rhs if transpose_kernel else rhs[::-1, ::-1].swapaxes(2, 3)
  sides = list(zip(window.kernel, lhs.shape[1:3], strides, pads))
  geometry = native.Geometry(
    tuple((n - 1) * s + 2 - k + a + b for k, n, s, (a, b) in sides),
    window.kernel,
    strides,
    tuple((k - 1 - a, k - 1 - b) for k, _, _, (a, b) in sides),
  )
  form = cells.choose(window, lhs.shape[1:3], kernel.shape[3:1:-1], plain=_plain.get())
  is_float32 = lhs.dtype == jnp.float32
  is_better = form and is_float32 and min(kernel.shape[2:]) > _FEW_CHANNELS
  if not _plain.get() and not is_better and native.suits(lhs, geometry):
    return native.transpose(lhs, kernel, geometry)
  if not form or not is_float32:
    return None
  # Its result has all pixels that a window covers: those beyond the pads are cut.
  cut = ((a - k + 1, b - k + 1) for k, (a, b) in zip(window.kernel, pads))
  return pad(form.up(lhs, kernel.swapaxes(2, 3), window), cut)


def _is_ours(lhs: jax.Array, rhs: jax.Array, options: dict[str, Any]) -> bool:
  """Returns whether this is a convolution on a CPU that the algorithms here may do.

  That is one of images in NHWC, of one type, without zeros between their pixels.
  """
  numbers = options.get('dimension_numbers')
  return (
    on_cpu()
    and lhs.ndim == 4
    and lhs.dtype == rhs.dtype
    and all(d == 1 for d in options.get('lhs_dilation') or ())
    and options.get('batch_group_count', 1) == 1
    and not options.get('use_consistent_padding')
    and options.get('preferred_element_type') in (None, lhs.dtype)
    and jax.lax.conv_dimension_numbers(lhs.shape, rhs.shape, numbers)
    == jax.lax.conv_dimension_numbers(lhs.shape, rhs.shape, _LAYOUT)
  )


def _transposed_pads(size: int, stride: int, padding: str) -> tuple[int, int]:
  """Returns the pads of `jax.lax.conv_transpose` for a name of padding."""
  if padding.upper() == 'VALID':
    whole = size + stride - 2 + max(size - stride, 0)
    return size - 1, whole - (size - 1)
  if padding.upper() != 'SAME':
    raise ValueError(f'padding must be SAME, VALID or pairs of integers: {padding!r}')
  whole = size + stride - 2
  before = size - 1 if stride > size - 1 else -(-whole // 2)
  return before, whole - before


def _suits_winograd(
  lhs: jax.Array, rhs: jax.Array, strides: tuple[int, int], pads: Pads
) -> bool:
  batch, height, width, _ = lhs.shape
  return (
    rhs.shape[:2] == (3, 3)
    and strides == (1, 1)
    and pads == ((1, 1), (1, 1))
    and min(rhs.shape[2:]) >= _MANY_CHANNELS
    and batch * winograd.tiles(height) * winograd.tiles(width) >= _MANY_TILES
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _strided(images, kernel, strides, pads):
  """Convolves; the gradient by the kernel is a matrix product for each of its pixels.

  XLA:CPU would first transpose the images to channels first, on one core, which took a
  sixth of a training step of ResNet-18 in its three strided convolutions.
  """
  if kernel.shape[:2] == (1, 1) and not any(map(any, pads)):
    pixels = images[:, :: strides[0], :: strides[1]]
    return jnp.einsum('bhwc,cf->bhwf', pixels, kernel[0, 0])
  return jax.lax.conv_general_dilated(
    images, kernel, strides, pads, dimension_numbers=_LAYOUT
  )


def _strided_forward(images, kernel, strides, pads):
  return _strided(images, kernel, strides, pads), (images, kernel)


def _strided_backward(strides, pads, saved, gradient):
  images, kernel = saved

  def convolve(images):
    return jax.lax.conv_general_dilated(
      images, kernel, strides, pads, dimension_numbers=_LAYOUT
    )

  (by_images,) = jax.linear_transpose(convolve, images)(gradient)
  by_kernel = [
    jax.lax.dot_general(
      pixels.reshape(-1, pixels.shape[-1]),
      gradient.reshape(-1, gradient.shape[-1]),
      (((0,), (0,)), ((), ())),
    )
    for pixels in windows(images, kernel.shape[:2], strides, pads)
  ]
  return by_images, jnp.stack(by_kernel).reshape(kernel.shape)


_strided.defvjp(_strided_forward, _strided_backward)


def _by_patches(images, kernel, strides, pads):
  """Convolves as one matrix product over all windows.

  The windows are gathered along the columns and then along the rows, which copies longer
  runs of memory than gathering each pixel of the kernel.
  """
  height, width = kernel.shape[:2]
  lines = windows(images, (1, width), (1, strides[1]), pads)
  lines = jnp.concatenate(lines, axis=-1)
  rows = windows(lines, (height, 1), (strides[0], 1), ((0, 0), (0, 0)))
  patches = jnp.concatenate(rows, axis=-1)
  product = jax.lax.dot(
    patches.reshape(-1, patches.shape[-1]), kernel.reshape(-1, kernel.shape[-1])
  )
  return product.reshape(*patches.shape[:3], -1)
