"""3x3 convolution with a quarter of the multiplications: Winograd's F(4x4, 3x3).

A tile of 6x6 pixels is transformed, multiplied by the transformed kernel frequency by
frequency, which is 36 matrix products over the channels in six batches, and transformed
back to 4x4 pixels of the result. Lavin and Gray 2015, "Fast algorithms for convolutional neural
networks", https://arxiv.org/abs/1509.09308, section 4.1, with the points 0, 1, -1, 2,
-2 and infinity.

The gradients use the same transforms: by the images it is the convolution with the
turned kernel, by the kernel a product of the transformed images and the transformed gradient.
Rounding is about ten times that of the plain sum in float32: about 1e-5 of the largest
value.

Transformed tiles take 2.25 times the memory of the pixels that they come from. A batch
whose tiles are larger than `MOST_BYTES` is taken in parts, one after the other.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

_TILE = 4  # pixels a side of the result that a tile gives
_PATCH = 6  # pixels a side that it reads

# Of the transformed tiles of a part: those of its images and of its results. Batches of
# usual sizes are one part: 1,000 images of 32x32 pixels with 64 channels have 1.2 GB.
#
# Value and gradients at 64 channels, batch and pixels, with a limit of 2**29 bytes (AMD
# EPYC, 2 cores, JAX 0.10.1; the temporary memory is XLA's count, and seconds are medians
# of four in turns):
#
#                  tiles, MB   parts   temporary, MB   seconds
#     512x32x32          604       1            1135      1.00
#                                  2             781      1.24
#     16x224x224         925       1            1735      1.52
#                                  2            1196      1.67
MOST_BYTES = 2**31

# The transforms of images (B^T), kernels (G) and results (A^T).
_IMAGE = np.array(
  [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
  ],
  np.float64,
)
_KERNEL = np.array(
  [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
  ],
  np.float64,
)
_RESULT = np.array(
  [
    [1, 1, 1, 1, 1, 0],
    [0, 1, -1, 2, -2, 0],
    [0, 1, 1, 4, 4, 0],
    [0, 1, -1, 8, -8, 1],
  ],
  np.float64,
)


def tiles(size: int) -> int:
  """Returns how many tiles cover `size` pixels of the result."""
  return -(-size // _TILE)


@jax.custom_vjp
def conv3x3(images: jax.Array, kernel: jax.Array) -> jax.Array:
  """Convolves 3x3, stride 1, padding 1: [B,H,W,C], [3,3,C,F] -> [B,H,W,F].

  The value and the gradients of `jax.lax.conv_general_dilated`, as matrix products
  that XLA:CPU does well. Reverse-mode differentiation only.

  >>> images, kernel = jnp.ones((1, 5, 5, 1)), jnp.ones((3, 3, 1, 1))
  >>> [round(float(value), 3) for value in conv3x3(images, kernel)[0, 0, :, 0]]
  [4.0, 6.0, 6.0, 6.0, 4.0]
  """
  return _convolve(images, kernel, contract=0)


def _forward(images, kernel):
  return conv3x3(images, kernel), (images, kernel)


def _backward(saved, gradient):
  images, kernel = saved
  # Turned by half a circle; the channels change places in the product, for turning
  # them in memory costs more than all of the transform.
  by_images = _convolve(gradient, kernel[::-1, ::-1], contract=1)
  parts = _number_of_parts(images, gradient.shape[-1])
  if parts == 1:
    return by_images, _by_kernel(images, gradient)

  def add(sum_so_far, part):
    return sum_so_far + _by_kernel(*part), None

  divided = _divided(images, parts), _divided(gradient, parts)
  return by_images, jax.lax.scan(add, jnp.zeros_like(kernel), divided)[0]


def _by_kernel(images: jax.Array, gradient: jax.Array) -> jax.Array:
  """Returns the gradient by the kernel, [3,3,C,F]."""
  product = [
    jax.lax.dot_general(tiles, wanted, (((1,), (1,)), ((0,), (0,))))
    for tiles, wanted in zip(_image_tiles(images), _result_tiles(gradient), strict=True)
  ]
  columns = jnp.stack(_combine(_KERNEL.T, product), axis=1)
  return jnp.stack(_combine(_KERNEL.T, list(columns)))


conv3x3.defvjp(_forward, _backward)


def _convolve(images: jax.Array, kernel: jax.Array, contract: int) -> jax.Array:
  """Returns the convolution; `contract` says which channels of the kernel it sums."""
  weights = jnp.stack(_combine(_KERNEL, list(kernel)))
  weights = _combine(_KERNEL, [weights[:, j] for j in range(3)])
  convolve = functools.partial(_convolve_part, weights=weights, contract=contract)
  parts = _number_of_parts(images, kernel.shape[3 - contract])
  if parts == 1:
    return convolve(images)
  return _joined(jax.lax.map(convolve, _divided(images, parts)), images.shape[0])


def _convolve_part(
  images: jax.Array, weights: Sequence[jax.Array], contract: int
) -> jax.Array:
  """Returns the convolution with a transformed kernel."""
  batch, height, width, _ = images.shape
  rows, columns = tiles(height), tiles(width)
  product = [
    jax.lax.dot_general(tiles, weight, (((2,), (1 + contract,)), ((0,), (0,))))
    for tiles, weight in zip(_image_tiles(images), weights, strict=True)
  ]
  result = jnp.stack(_combine(_RESULT, product))
  result = jnp.stack(_combine(_RESULT, [result[:, i] for i in range(_PATCH)]))
  # [row in the tile, column in the tile, B, rows, columns, F] to [B, H, W, F].
  result = result.reshape(_TILE, _TILE, batch, rows, columns, -1)
  result = result.transpose(2, 3, 0, 4, 1, 5)
  result = result.reshape(batch, rows * _TILE, columns * _TILE, -1)
  return result[:, :height, :width]


def _number_of_parts(images: jax.Array, filters: int) -> int:
  """Returns in how many parts a batch is taken."""
  batch, height, width, channels = images.shape
  places = _PATCH**2 * tiles(height) * tiles(width) * (channels + filters)
  each = max(1, MOST_BYTES // (places * images.dtype.itemsize))
  return -(-batch // each)


def _divided(images: jax.Array, parts: int) -> jax.Array:
  """Returns [parts, n, H, W, C], filled up with zeros.

  Every part has images from all over the batch, so that devices which share the batch
  share each part.
  """
  size = -(-images.shape[0] // parts)
  rest = size * parts - images.shape[0]
  if rest:
    images = jnp.pad(images, ((0, rest), (0, 0), (0, 0), (0, 0)))
  return images.reshape(size, parts, *images.shape[1:]).swapaxes(0, 1)


def _joined(parts: jax.Array, batch: int) -> jax.Array:
  """Returns the images of `_divided` as they were, [B, H, W, C]."""
  joined = parts.swapaxes(0, 1)
  return joined.reshape(-1, *joined.shape[2:])[:batch]


def _image_tiles(images: jax.Array) -> list[jax.Array]:
  """Returns the transformed patches: for each column, [6, B * rows * columns, C]."""
  _, height, width, _ = images.shape
  rows, columns = tiles(height), tiles(width)
  rest = [(1, n * _TILE + 1 - size) for n, size in ((rows, height), (columns, width))]
  padded = jnp.pad(images, ((0, 0), *rest, (0, 0)))
  return _transform(_IMAGE, padded, rows, columns)


def _result_tiles(gradient: jax.Array) -> list[jax.Array]:
  """Returns the gradient by the products, as `_image_tiles` has the other factor."""
  _, height, width, _ = gradient.shape
  rows, columns = tiles(height), tiles(width)
  rest = [(0, n * _TILE - size) for n, size in ((rows, height), (columns, width))]
  if any(after for _, after in rest):
    gradient = jnp.pad(gradient, ((0, 0), *rest, (0, 0)))
  return _transform(_RESULT.T, gradient, rows, columns)


def _transform(
  matrix: np.ndarray, images: jax.Array, rows: int, columns: int
) -> list[jax.Array]:
  """Returns matrix @ patch @ matrix.T of the patches that begin at every tile.

  One direction after the other, the first of them written out: worked out within the
  second it would be done six times over, and take XLA ten times as long to compile.

  Args:
    matrix: [6, side of a patch].
    images: [B, H, W, C], with all the pixels that the patches have.
    rows, columns: number of tiles.

  Returns:
    For each of 6 columns, [6, B * rows * columns, C].
  """
  side = matrix.shape[1]
  last = (rows - 1) * _TILE + 1
  lines = _combine(matrix, [images[:, i : i + last : _TILE] for i in range(side)])
  stacked = jnp.stack(lines)
  last = (columns - 1) * _TILE + 1
  parts = [stacked[:, :, :, j : j + last : _TILE] for j in range(side)]
  return [
    part.reshape(_PATCH, -1, images.shape[-1]) for part in _combine(matrix, parts)
  ]


def _combine(matrix: np.ndarray, arrays: Sequence[jax.Array]) -> list[jax.Array]:
  """Returns matrix @ arrays, leaving out what is multiplied by 0, and by 1."""
  combined = []
  for row in matrix:
    terms = [
      array if factor == 1 else array * array.dtype.type(factor)
      for factor, array in zip(row, arrays, strict=True)
      if factor
    ]
    combined.append(sum(terms[1:], start=terms[0]))
  return combined
