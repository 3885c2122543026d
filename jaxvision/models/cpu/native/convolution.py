"""Convolutions of oneDNN, with their gradients, over several devices and under `vmap`."""

import enum
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from jaxvision.models.cpu.native.build import has_amx, has_bfloat16, library, target
from jaxvision.models.cpu.windows import Pads

# From this number of channels, in and out, and of tiles of 2x2 pixels, a third of the time
# of oneDNN's bfloat16 convolution is saved: milliseconds of the convolution, its gradient
# by the images and by the kernel, oneDNN's and Winograd's (AMD EPYC with AVX512-BF16,
# 2 cores, least of seven in turns):
#
#     64 x 16x16, 128 channels      11.5  10.7  15.3      7.6  7.4  10.4
#     64 x 8x8, 256 channels        10.3  11.3  13.0      6.9  8.1   9.0
#     128 x 32x32, 80 channels      37.1  38.7  46.1     24.8 25.6  34.7
#     128 x 16x16, 32 channels       1.5   1.6   2.4      1.5  1.5   2.3
#     16 x 4x4, 512 channels         3.6   2.7   3.9      2.9  2.9   3.3
#     8 x 4x4, 512 channels          2.4   1.8   3.3      2.2  2.3   2.9
_WINOGRAD_CHANNELS = 48
_WINOGRAD_TILES = 64
_WINOGRAD_LANES = 16  # channels come in multiples of it


class Kind(enum.Enum):
  """Which of the three arrays of a convolution is computed; the value is the handler."""

  RESULT = 'Forward'
  IMAGES = 'Images'
  KERNEL = 'Kernel'


class Geometry(NamedTuple):
  """What shapes alone do not say about a convolution.

  Attributes:
    size: height and width of the images.
    window: those of the kernel.
    strides, pads, dilation: along H and W; the dilation is that of the kernel.
    groups: of channels.
  """

  size: tuple[int, int]
  window: tuple[int, int]
  strides: tuple[int, int]
  pads: Pads
  dilation: tuple[int, int] = (1, 1)
  groups: int = 1

  def count(self) -> tuple[int, int]:
    """Returns height and width of the result."""
    height, width = (
      (n + sum(pad) - d * (k - 1) - 1) // s + 1
      for n, k, s, pad, d in zip(
        self.size, self.window, self.strides, self.pads, self.dilation
      )
    )
    return height, width


def suits(images: jax.Array, geometry: Geometry) -> bool:
  """Returns whether oneDNN is at hand and can convolve such images, or transposed."""
  dtype, pads = images.dtype, [pad for both in geometry.pads for pad in both]
  sizes = (*geometry.size, *geometry.count(), *images.shape)
  if min(pads) < 0 or min(sizes) < 1 or not library():
    return False
  return dtype == jnp.float32 or (dtype == jnp.bfloat16 and has_bfloat16())


def convolve(images: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
  """Convolves images [B, H, W, C] with a kernel [h, w, C / groups, F] to [B, H', W', F].

  Both are float32 or both bfloat16, as is the result; sums are float32 in both. Where
  Winograd's algorithm is taken, the transformed images and kernels are rounded to bfloat16
  as well.
  """
  return _bilinear(Kind.RESULT, geometry, images, kernel)


def transpose(result: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
  """Returns the gradient of `convolve` by the images: a transposed convolution.

  Args:
    result: [B, H', W', F].
    kernel: [h, w, C / groups, F].
    geometry: of the convolution.

  Returns:
    [B, H, W, C].
  """
  return _bilinear(Kind.IMAGES, geometry, result, kernel)


# The three are bilinear, and the gradients of each are the other two.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _bilinear(kind: Kind, geometry: Geometry, first: jax.Array, second: jax.Array):
  return _operator(kind, geometry)(first, second)


def _forward(kind, geometry, first, second):
  return _bilinear(kind, geometry, first, second), (first, second)


def _backward(kind, geometry, saved, gradient):
  first, second = saved
  if kind is Kind.RESULT:  # images, kernel
    return (
      _bilinear(Kind.IMAGES, geometry, gradient, second),
      _bilinear(Kind.KERNEL, geometry, first, gradient),
    )
  if kind is Kind.IMAGES:  # result, kernel
    return (
      _bilinear(Kind.RESULT, geometry, gradient, second),
      _bilinear(Kind.KERNEL, geometry, gradient, first),
    )
  return (  # images, result
    _bilinear(Kind.IMAGES, geometry, second, gradient),
    _bilinear(Kind.RESULT, geometry, first, gradient),
  )


_bilinear.defvjp(_forward, _backward)


@functools.cache
def _operator(kind: Kind, geometry: Geometry):
  """Returns the custom call, with what it is under `vmap` and over several devices."""

  @custom_partitioning
  def partitioned(first, second):
    return _call(kind, geometry, first, second)

  by_kernel = kind is Kind.KERNEL

  def partition(mesh, arguments, returned):
    # Only the batch is split. The gradient by the kernel is then a sum over devices.
    batch = next(iter(arguments[0].sharding.spec), None)
    split = NamedSharding(mesh, PartitionSpec(batch))
    whole = NamedSharding(mesh, PartitionSpec())

    def lower(first, second):
      found = _call(kind, geometry, first, second)
      return jax.lax.psum(found, batch) if by_kernel and batch else found

    if by_kernel:
      return mesh, lower, whole, (split, split)
    return mesh, lower, split, (split, whole)

  images, kernel, result = 'batch h w c', 'k l i o', 'batch y x f'
  arrays = {
    Kind.RESULT: (images, kernel, result),
    Kind.IMAGES: (result, kernel, images),
    Kind.KERNEL: (images, result, kernel),
  }[kind]
  # Each factor once, in the order of the rule, as the partitioner wants them.
  others = dict.fromkeys(name for array in arrays for name in array.split())
  del others['batch']
  partitioned.def_partition(
    partition,
    sharding_rule='{}, {} -> {}'.format(*arrays),
    need_replication_factors=tuple(others),
    reduction_factors=('batch',) if by_kernel else (),
  )
  operator = custom_vmap(partitioned)

  @operator.def_vmap
  def batched(size, are_batched, first, second):
    if are_batched == [True, False] and kind is not Kind.KERNEL:
      # Images of all examples are one larger batch.
      flat = operator(first.reshape(-1, *first.shape[2:]), second)
      return flat.reshape(size, -1, *flat.shape[1:]), True
    first, second = (
      x if is_batched else jnp.broadcast_to(x, (size, *x.shape))
      for x, is_batched in zip((first, second), are_batched)
    )
    return jax.lax.map(lambda pair: operator(*pair), (first, second)), True

  return operator


def _call(kind: Kind, geometry: Geometry, first: jax.Array, second: jax.Array):
  assert library(), 'see `suits`'
  size, window, strides, pads, dilation, groups = geometry
  if kind is Kind.RESULT:
    shape = (len(first), *geometry.count(), second.shape[-1])
  elif kind is Kind.IMAGES:
    shape = (len(first), *size, second.shape[2] * groups)
  else:
    shape = (*window, first.shape[-1] // groups, second.shape[-1])
  if kind is Kind.KERNEL:
    channels = first.shape[-1], second.shape[-1]
  else:
    channels = second.shape[2:]
  result = jax.ShapeDtypeStruct(shape, first.dtype)
  if first.dtype == jnp.bfloat16 and _suits_winograd(geometry, len(first), channels):
    return jax.ffi.ffi_call(target(f'Winograd{kind.value}'), result)(first, second)
  low, high = zip(*pads)
  integers = {'strides': strides, 'dilation': dilation, 'low': low, 'high': high}
  return jax.ffi.ffi_call(target(kind.value), result)(
    first,
    second,
    groups=np.int64(groups),
    **{name: np.asarray(value, np.int64) for name, value in integers.items()},
  )


def _suits_winograd(geometry: Geometry, batch: int, channels: tuple[int, ...]) -> bool:
  """Returns whether Winograd's algorithm is faster than the plain one in bfloat16."""
  height, width = geometry.size
  return (
    geometry == Geometry(geometry.size, (3, 3), (1, 1), ((1, 1), (1, 1)))
    and min(channels) >= _WINOGRAD_CHANNELS
    and not any(count % _WINOGRAD_LANES for count in channels)
    and batch * -(-height // 2) * -(-width // 2) >= _WINOGRAD_TILES
    and not has_amx()
  )
