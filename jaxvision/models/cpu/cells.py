"""Strided convolutions and their transposes as matrix products over cells of pixels.

A strided convolution maps a large image to a small one, a transposed one the small image
to the large one. There are three forms of both:

  dot       the small image is one pixel: one product.
  patches   the stride divides the kernel: pixels are gathered into cells of stride x
            stride. A strided convolution is one product with the cells of its windows
            side by side, a transposed one a product whose windows are summed where they
            overlap.
  winograd  a window is 2x2 cells, as in a kernel of 4 with stride 2: a 2x2 convolution
            of cells, which Winograd's F(2x2, 2x2) does with nine products instead of
            sixteen. Lavin and Gray 2015, "Fast algorithms for convolutional neural
            networks", https://arxiv.org/abs/1509.09308.

Linear maps and their transposes are each other's gradient, so that these forms can be
differentiated any number of times, in reverse mode only.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxvision.models.cpu.windows import Pads, pad

# With fewer channels, in or out, the transforms of Winograd cost more than they save.
_WINOGRAD_CHANNELS = 16

# XLA:CPU would fuse gathers and sums into what reads them, once for each reader and pixel
# by pixel; as separate arrays they are two to four times faster.
_apart = jax.lax.optimization_barrier


class Window(NamedTuple):
  """The windows of a strided convolution on the large image.

  Attributes:
    kernel: height and width of a window in pixels.
    strides: pixels between windows, along H and W.
  """

  kernel: tuple[int, int]
  strides: tuple[int, int]

  @property
  def cells(self) -> tuple[int, int]:
    """Rows and columns of cells in a window, where the stride divides the kernel."""
    return self.kernel[0] // self.strides[0], self.kernel[1] // self.strides[1]

  def count(self, large: Sequence[int], pads: Pads) -> tuple[int, int]:
    """Returns rows and columns of windows: the size of the small image."""
    rows, columns = (
      (n + sum(p) - k) // s + 1 for n, p, k, s in zip(large, pads, *self)
    )
    return rows, columns

  def fit(self, images: jax.Array, small: Sequence[int], pads: Pads) -> jax.Array:
    """Pads or cuts images to exactly the pixels that the windows cover."""
    covered = [(n - 1) * s + k for n, k, s in zip(small, *self)]
    sizes = images.shape[1:3]
    return pad(images, [(p[0], c - n - p[0]) for p, n, c in zip(pads, sizes, covered)])


class Form(NamedTuple):
  """Two linear maps; with the channels of the kernel exchanged each is the transpose.

  Attributes:
    down: maps the large image, exactly covered by windows, to the small one, given a
      kernel [h, w, channels in, channels out].
    up: maps the small image to the large one, likewise.
  """

  down: Callable[[jax.Array, jax.Array, Window], jax.Array]
  up: Callable[[jax.Array, jax.Array, Window], jax.Array]


def choose(
  window: Window, small: Sequence[int], channels: Sequence[int], plain: bool = False
) -> Form | None:
  """Returns the form for a layer, or None where none is faster than XLA's convolution.

  Args:
    window: kernel and strides.
    small: height and width of the small image.
    channels: channels in and out.
    plain: whether every product must be there, for counting FLOPs.
  """
  if tuple(small) == (1, 1):
    return _DOT
  if window.strides == (1, 1) or any(k % s for k, s in zip(*window)):
    return None
  if (
    window.cells == (2, 2)
    and not plain
    and not any(n % 2 for n in small)
    and min(channels) >= _WINOGRAD_CHANNELS
  ):
    return _WINOGRAD
  return _PATCHES


def _adjoint(forward: Callable, backward: Callable) -> tuple[Callable, Callable]:
  """Makes two linear functions, each the transpose and the gradient of the other."""

  def linear(value, static):
    return forward(value, static)

  def transpose(value, static):
    return backward(value, static)

  first = jax.custom_vjp(linear, nondiff_argnums=(1,))
  second = jax.custom_vjp(transpose, nondiff_argnums=(1,))
  first.defvjp(lambda v, s: (forward(v, s), None), lambda s, _, g: (second(g, s),))
  second.defvjp(lambda v, s: (backward(v, s), None), lambda s, _, g: (first(g, s),))
  return first, second


# --- dot: the one window is the whole large image.


def _dot_down(images, kernel, window):
  batch, features = images.shape[0], kernel.shape[-1]
  product = images.reshape(batch, -1) @ kernel.reshape(-1, features)
  return product.reshape(batch, 1, 1, features)


def _dot_up(images, kernel, window):
  batch = images.shape[0]
  height, width, channels, features = kernel.shape
  flat = kernel.transpose(2, 0, 1, 3).reshape(channels, -1)
  product = images.reshape(batch, channels) @ flat
  return product.reshape(batch, height, width, features)


_DOT = Form(_dot_down, _dot_up)


# --- cells: [B, H * s, W * t, C] <-> [B, H, W, s * t * C].


def _to_cells(images, strides):
  batch, height, width, channels = images.shape
  s, t = strides
  rows = _apart(images).reshape(batch, height // s, s, width // t, t * channels)
  cells = _apart(jnp.stack([rows[:, :, i] for i in range(s)], axis=3))
  return cells.reshape(batch, height // s, width // t, -1)


def _from_cells(cells, strides):
  batch, height, width, size = cells.shape
  s, t = strides
  cells = cells.reshape(batch, height, width, s, -1)
  rows = jnp.stack([cells[:, :, :, i] for i in range(s)], axis=2)
  return rows.reshape(batch, height * s, width * t, size // (s * t))


_to_cells, _from_cells = _adjoint(_to_cells, _from_cells)


def _cells_down(kernel, window):
  """[h, w, C, F] -> [rows of cells, columns of cells, s * t * C, F]."""
  (rows, columns), (s, t) = window.cells, window.strides
  channels, features = kernel.shape[2:]
  cells = kernel.reshape(rows, s, columns, t, channels, features)
  return cells.transpose(0, 2, 1, 3, 4, 5).reshape(rows, columns, -1, features)


def _cells_up(kernel, window):
  """[h, w, C, F] -> [rows of cells, columns of cells, C, s * t * F]."""
  (rows, columns), (s, t) = window.cells, window.strides
  channels, features = kernel.shape[2:]
  cells = kernel.reshape(rows, s, columns, t, channels, features)
  return cells.transpose(0, 2, 4, 1, 3, 5).reshape(rows, columns, channels, -1)


# --- patches: [B, H, W, K] <-> [B, h, w, cells of a window, K].


def _gather(cells, window_cells):
  rows, columns = window_cells
  height, width = cells.shape[1] - rows + 1, cells.shape[2] - columns + 1
  windows = [
    cells[:, i : i + height, j : j + width] for i in range(rows) for j in range(columns)
  ]
  return _apart(jnp.stack(windows, axis=3))


def _overlap(patches, window_cells):
  rows, columns = window_cells
  shifted = [
    jnp.pad(
      patches[:, :, :, i * columns + j],
      ((0, 0), (i, rows - 1 - i), (j, columns - 1 - j), (0, 0)),
    )
    for i in range(rows)
    for j in range(columns)
  ]
  return sum(shifted[1:], start=shifted[0])


_gather, _overlap = _adjoint(_gather, _overlap)


def _patches_down(images, kernel, window):
  patches = _gather(_to_cells(images, window.strides), window.cells)
  batch, height, width = patches.shape[:3]
  features = kernel.shape[-1]
  # With the kernel transposed beforehand, its gradient transposes the small image in
  # memory and not the patches.
  turned = _apart(_cells_down(kernel, window).reshape(-1, features).T)
  product = jax.lax.dot_general(
    patches.reshape(-1, turned.shape[1]), turned, (((1,), (1,)), ((), ()))
  )
  return product.reshape(batch, height, width, features)


def _patches_up(images, kernel, window):
  batch, height, width, channels = images.shape
  rows, columns = window.cells
  flat = _cells_up(kernel, window).transpose(2, 0, 1, 3).reshape(channels, -1)
  product = images.reshape(-1, channels) @ flat
  patches = product.reshape(batch, height, width, rows * columns, -1)
  return _from_cells(_overlap(patches, window.cells), window.strides)


_PATCHES = Form(_patches_down, _patches_up)


# --- winograd: two neighbours of the small image, y0 and y1, from three of the large one,
# d0 to d2, by g0 and g1: y0 = d0 g0 + d1 g1 = m0 + m1 and y1 = d1 g0 + d2 g1 = m1 - m2
# with m0 = (d0 - d1) g0, m1 = d1 (g0 + g1), m2 = (d1 - d2) g1; and so for the columns
# of the rows. The nine arrays are ordered by row, then by column.


def _nine(transform: Callable, rows: Sequence[Sequence[Any]]) -> list:
  """Applies a transform of a sequence to the columns and then to the rows."""
  columns = [transform(column) for column in zip(*rows)]
  return [transform(row) for row in zip(*columns)]


def _square(flat: Sequence[Any]) -> list[Sequence[Any]]:
  return [flat[0:3], flat[3:6], flat[6:9]]


def _tiles(cells, _):
  """[B, 2h + 1, 2w + 1, K] -> nine of [B, h, w, K]."""

  def three(array, axis):
    size = array.shape[axis] - 1
    d0, d1, d2 = (
      jax.lax.slice_in_dim(array, i, size + i - 1, 2, axis) for i in range(3)
    )
    return [d0 - d1, d1, d1 - d2]

  rows = _apart(three(cells, axis=1))
  return tuple(_apart([tile for row in rows for tile in three(row, axis=2)]))


def _untiles(tiles, _):
  def cells(m):
    return m[0], m[1] + m[2] - m[0], -m[2]

  def merge(d, axis):
    def pad(array, before, after):
      widths = [(0, 0)] * 4
      widths[axis] = (before, after)
      return jnp.pad(array, widths)

    # The last cell of a tile is the first of the next.
    even, odd = pad(d[0], 0, 1) + pad(d[2], 1, 0), pad(d[1], 0, 1)
    shape = list(even.shape)
    shape[axis] *= 2
    both = jnp.stack(_apart([even, odd]), axis + 1).reshape(shape)
    return jax.lax.slice_in_dim(both, 0, shape[axis] - 1, axis=axis)

  columns = zip(*_nine(cells, _square(tiles)))
  return merge([merge(column, axis=1) for column in columns], axis=2)


def _results(products, _):
  """Nine of [B, h, w, F] -> [B, 2h, 2w, F]."""
  rows = _nine(lambda m: (m[0] + m[1], m[1] - m[2]), _square(products))
  rows = _apart(rows)
  whole = jnp.stack([jnp.stack(row, axis=3) for row in rows], axis=2)
  batch, height, _, width, _, features = whole.shape
  return whole.reshape(batch, 2 * height, 2 * width, features)


def _unresults(small, _):
  batch, height, width, features = small.shape
  pairs = small.reshape(batch, height // 2, 2, width // 2, 2, features)
  rows = [[pairs[:, :, i, :, j] for j in range(2)] for i in range(2)]
  nine = _nine(lambda y: (y[0], y[0] + y[1], -y[1]), rows)
  return tuple(_apart([m for row in nine for m in row]))


_tiles, _untiles = _adjoint(_tiles, _untiles)
_results, _unresults = _adjoint(_results, _unresults)


def _multiply(arrays, cells):
  """Multiplies nine of [B, h, w, C] by the nine that the 2x2 cells of a kernel make."""
  kernel = _nine(lambda g: (g[0], g[0] + g[1], g[1]), [list(row) for row in cells])
  weights = [weight for row in kernel for weight in row]
  batch, height, width, channels = arrays[0].shape
  return tuple(
    (array.reshape(-1, channels) @ weight).reshape(batch, height, width, -1)
    for array, weight in zip(arrays, weights)
  )


def _winograd_down(images, kernel, window):
  tiles = _tiles(_to_cells(images, window.strides), None)
  return _results(_multiply(tiles, _cells_down(kernel, window)), None)


def _winograd_up(images, kernel, window):
  tiles = _multiply(_unresults(images, None), _cells_up(kernel, window))
  return _from_cells(_untiles(tiles, None), window.strides)


_WINOGRAD = Form(_winograd_down, _winograd_up)
