"""3x3 convolution with a quarter of the multiplications: Winograd's F(4x4, 3x3).

A tile of 6x6 pixels is transformed, multiplied by the transformed kernel frequency by
frequency, which is 36 matrix products over the channels, and transformed back to 4x4
pixels of the result. Lavin and Gray 2015, "Fast algorithms for convolutional neural
networks", https://arxiv.org/abs/1509.09308, section 4.1, with the points 0, 1, -1, 2,
-2 and infinity.

The gradients take the same road: by the images it is the convolution with the turned
kernel, by the kernel a product of the transformed images and the transformed gradient.
Rounding is some ten times that of the plain sum in float32: about 1e-5 of the largest
value.
"""

import jax
import jax.numpy as jnp
import numpy as np

_TILE = 4  # pixels a side of the result that a tile gives
_PATCH = 6  # pixels a side that it reads

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

Grid = list[list[jax.Array]]


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
  seen = _image_tiles(images)
  wanted = _result_tiles(gradient)
  product = [
    [jax.lax.dot_general(s, w, (((0,), (0,)), ((), ()))) for s, w in zip(*rows)]
    for rows in zip(seen, wanted)
  ]
  by_kernel = _transform(_KERNEL.T, product)
  return by_images, jnp.stack([jnp.stack(row) for row in by_kernel])


conv3x3.defvjp(_forward, _backward)


def _convolve(images: jax.Array, kernel: jax.Array, contract: int) -> jax.Array:
  """Returns the convolution; `contract` says which channels of the kernel it sums."""
  batch, height, width, _ = images.shape
  rows, columns = tiles(height), tiles(width)
  seen = _image_tiles(images)
  weights = _transform(_KERNEL, [list(row) for row in kernel])
  product = [
    [jax.lax.dot_general(s, w, (((1,), (contract,)), ((), ()))) for s, w in zip(*pair)]
    for pair in zip(seen, weights)
  ]
  result = [
    [tile.reshape(batch, rows, columns, -1) for tile in row]
    for row in _transform(_RESULT, product)
  ]
  whole = jnp.stack([jnp.stack(row, axis=3) for row in result], axis=2)
  whole = whole.reshape(batch, rows * _TILE, columns * _TILE, -1)
  return whole[:, :height, :width]


def _image_tiles(images: jax.Array) -> Grid:
  """Returns the transformed patches: 6 x 6 arrays of [B * rows * columns, C]."""
  _, height, width, channels = images.shape
  rows, columns = tiles(height), tiles(width)
  rest = [(1, n * _TILE + 1 - size) for n, size in ((rows, height), (columns, width))]
  padded = jnp.pad(images, ((0, 0), *rest, (0, 0)))
  patches = [
    [
      padded[
        :,
        i : i + (rows - 1) * _TILE + 1 : _TILE,
        j : j + (columns - 1) * _TILE + 1 : _TILE,
      ]
      for j in range(_PATCH)
    ]
    for i in range(_PATCH)
  ]
  return _flat(_transform(_IMAGE, patches), channels)


def _result_tiles(gradient: jax.Array) -> Grid:
  """Returns the gradient by the products: 6 x 6 arrays of [B * rows * columns, F]."""
  _, height, width, features = gradient.shape
  rest = [(0, tiles(size) * _TILE - size) for size in (height, width)]
  if any(after for _, after in rest):
    gradient = jnp.pad(gradient, ((0, 0), *rest, (0, 0)))
  parts = [
    [gradient[:, i::_TILE, j::_TILE] for j in range(_TILE)] for i in range(_TILE)
  ]
  return _flat(_transform(_RESULT.T, parts), features)


def _flat(grid: Grid, channels: int) -> Grid:
  return [[array.reshape(-1, channels) for array in row] for row in grid]


def _transform(matrix: np.ndarray, grid: Grid) -> Grid:
  """Returns matrix @ grid @ matrix.T, whose elements are arrays."""
  columns = [_combine(matrix, column) for column in zip(*grid)]
  return [_combine(matrix, row) for row in zip(*columns)]


def _combine(matrix: np.ndarray, arrays) -> list[jax.Array]:
  """Returns matrix @ arrays, leaving out what is multiplied by 0, and by 1."""
  combined = []
  for row in matrix:
    terms = [
      array if factor == 1 else array * array.dtype.type(factor)
      for factor, array in zip(row, arrays)
      if factor
    ]
    combined.append(sum(terms[1:], start=terms[0]))
  return combined
