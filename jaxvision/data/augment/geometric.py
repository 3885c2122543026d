"""Flips, crops, cutout and rotation: pure functions of (key, images) on a batch.

Each `random_*` draws its parameters and hands them to an `apply_*`, which has no
randomness. All indexing keeps the batch as a batch dimension, so a batch that is split
over devices is augmented where it lies.
"""

import jax
import jax.numpy as jnp

from jaxvision.data.order import coin

CROP_MODES = ('reflect', 'constant')


def apply_flip(images: jax.Array, flips: jax.Array) -> jax.Array:
  """Mirrors images left to right where `flips` (bool [B]) is set; any dtype.

  >>> apply_flip(jnp.arange(6).reshape(2, 1, 3, 1), jnp.array([True, False]))[..., 0]
  Array([[[2, 1, 0]],
  <BLANKLINE>
         [[3, 4, 5]]], dtype=int32)
  """
  return jnp.where(flips[:, None, None, None], images[:, :, ::-1], images)


def random_flip(key: jax.Array, images: jax.Array) -> jax.Array:
  """Mirrors each image left to right with probability 1/2; dtype is kept."""
  return apply_flip(images, jax.random.bernoulli(key, 0.5, images.shape[:1]))


def alternating_flips(
  words: jax.Array, index: jax.Array, epoch: jax.Array
) -> jax.Array:
  """Returns which examples to mirror so that each is mirrored every other epoch.

  Half of the examples begin mirrored, by a bit of their own, and all turn over from
  epoch to epoch, so two epochs show every image both ways, which drawing anew does for
  half of them (K. Jordan, arXiv 2404.00498, section 3.6).

  Args:
    words: uint32 [2] or more, the same for the whole run; the first two decide.
    index: int [B], the examples.
    epoch: int [B], at each place of the batch.

  Returns:
    bool [B].

  >>> index = jnp.arange(4)
  >>> first = alternating_flips(jnp.zeros(2, jnp.uint32), index, 0 * index)
  >>> second = alternating_flips(jnp.zeros(2, jnp.uint32), index, 0 * index + 1)
  >>> bool((first == ~second).all())
  True
  """
  flips = (coin(words, index, xp=jnp) ^ epoch.astype(jnp.uint32)) & 1 == 1
  # As in `resident.train_indices`: a sort by place that changes nothing keeps XLA from
  # working the bit out anew for every pixel.
  place = jnp.arange(flips.shape[0], dtype=jnp.uint32)
  return jax.lax.sort((place, flips), num_keys=1)[1]


def apply_crop(
  images: jax.Array, offsets: jax.Array, padding: int, mode: str = 'reflect'
) -> jax.Array:
  """Pads each side by `padding` pixels and cuts [H, W] out again at `offsets`.

  Two gathers from the unpadded images: of the candidates (slices per image, one flat
  gather, selects among shifts, one-hot products) the fastest on a CPU, and a gather
  with a batch dimension, which stays on its device when the batch is split.

  Args:
    images: [B, H, W, C], any dtype.
    offsets: int32 [B, 2], row and column of the cut in the padded image, in
      [0, 2 * padding]; (padding, padding) gives the image back.
    padding: pixels, less than H and W.
    mode: 'reflect' (mirror without repeating the border pixel) or 'constant' (0).

  Returns:
    [B, H, W, C] of the same dtype.

  >>> row = jnp.array([1, 2, 3]).reshape(1, 1, 3, 1)
  >>> apply_crop(row.repeat(3, 1), jnp.array([[1, 0]]), 1)[0, 1, :, 0]
  Array([2, 1, 2], dtype=int32)
  """
  _, height, width, _ = images.shape
  rows = jnp.arange(height) + offsets[:, :1] - padding
  columns = jnp.arange(width) + offsets[:, 1:] - padding
  cropped = _take(images, _reflect(rows, height)[:, :, None, None], axis=1)
  cropped = _take(cropped, _reflect(columns, width)[:, None, :, None], axis=2)
  if mode == 'reflect':
    return cropped
  inside = ((rows >= 0) & (rows < height))[:, :, None, None]
  inside &= ((columns >= 0) & (columns < width))[:, None, :, None]
  return jnp.where(inside, cropped, jnp.zeros((), images.dtype))


def random_crop(
  key: jax.Array, images: jax.Array, padding: int, mode: str = 'reflect'
) -> jax.Array:
  """Shifts each image by up to `padding` pixels each way; see `apply_crop`.

  The padded crop of He et al., "Deep Residual Learning", 2015, section 4.2.
  """
  shape = (images.shape[0], 2)
  offsets = jax.random.randint(key, shape, 0, 2 * padding + 1)
  return apply_crop(images, offsets, padding, mode)


def apply_resized_crop(images: jax.Array, boxes: jax.Array) -> jax.Array:
  """Cuts a box out of each image and enlarges it to the size of the image, bilinearly.

  As Pillow's `resize(size, BILINEAR, box)`: pixel centres lie at halves, a box's border
  takes its neighbours in the image into account, and nothing lies beyond the image.
  Two gathers for each axis: on a CPU up to eight times as fast as products with
  matrices of weights.

  Args:
    images: uint8 [B, H, W, C].
    boxes: int32 [B, 4]: top, left, height, width, inside the image and so no larger
      than it: what is enlarged needs no filter against aliasing.

  Returns:
    uint8 [B, H, W, C], rounded.

  >>> row = jnp.array([0, 100, 200, 50], jnp.uint8).reshape(1, 1, 4, 1)
  >>> apply_resized_crop(row, jnp.array([[0, 0, 1, 2]]))[0, 0, :, 0]
  Array([  0,  25,  75, 125], dtype=uint8)
  """
  _, height, width, _ = images.shape
  above, share = _neighbours(boxes[:, 0], boxes[:, 2], height)
  above, share = above[:, :, None, None], share[:, :, None, None]
  upper = _take(images, above.clip(0), axis=1).astype(jnp.float32)
  lower = _take(images, (above + 1).clip(max=height - 1), axis=1).astype(jnp.float32)
  rows = upper + (lower - upper) * share
  before, share = _neighbours(boxes[:, 1], boxes[:, 3], width)
  before, share = before[:, None, :, None], share[:, None, :, None]

  def add_side(side: jax.Array, total: jax.Array) -> jax.Array:
    index = jnp.clip(before + side, 0, width - 1)
    return total + _take(rows, index, axis=2) * jnp.where(side == 0, 1 - share, share)

  # A loop, as in `apply_rotation`: XLA fuses what is simpler into a flip, and then does
  # it several times over.
  pixels = jax.lax.fori_loop(0, 2, add_side, jnp.zeros(images.shape, jnp.float32))
  return jnp.round(pixels).astype(jnp.uint8)


def _neighbours(
  start: jax.Array, length: jax.Array, side: int
) -> tuple[jax.Array, jax.Array]:
  """Returns [B, side]: the pixel before each place of a crop, and how far behind it."""
  scale = length.astype(jnp.float32)[:, None] / side
  place = start[:, None] + (jnp.arange(side) + 0.5) * scale - 0.5
  before = jnp.floor(place)
  return before.astype(jnp.int32), place - before


def apply_cutout(images: jax.Array, centers: jax.Array, size: int) -> jax.Array:
  """Sets a square of `size` pixels a side to 0, clipped at the borders.

  Args:
    images: [B, H, W, C], any dtype; normalised, so that 0 is the mean colour.
    centers: int32 [B, 2], row and column. The square starts `size // 2` before them.
    size: side in pixels.

  >>> images = jnp.ones((1, 1, 5, 1), jnp.int32)
  >>> apply_cutout(images, jnp.array([[0, 4]]), 3)[0, 0, :, 0]
  Array([1, 1, 1, 0, 0], dtype=int32)
  """
  _, height, width, _ = images.shape
  top, left = (centers - size // 2).T
  rows, columns = span(height, top, size), span(width, left, size)
  hole = (rows[:, :, None] & columns[:, None, :])[..., None]
  return jnp.where(hole, jnp.zeros((), images.dtype), images)


def span(size: int, first: jax.Array, length: jax.Array | int) -> jax.Array:
  """Returns which of `size` places lie in a span, clipped at both ends.

  Args:
    size: number of places.
    first: int [...], the first place of each span, maybe below 0.
    length: int, for all spans or for each.

  Returns:
    bool [..., size].

  >>> span(4, jnp.array(-1), 3)
  Array([ True,  True, False, False], dtype=bool)
  """
  place = jnp.arange(size) - first[..., None]
  return (place >= 0) & (place < jnp.asarray(length)[..., None])


def cutout(
  key: jax.Array, images: jax.Array, size: int, mode: str = 'clipped'
) -> jax.Array:
  """Blanks one square per image.

  With mode 'clipped' its centre is anywhere in the image (DeVries and Taylor, "Improved
  Regularization of Convolutional Neural Networks with Cutout", 2017): a centre near the
  border leaves only part of the square inside. With 'inside' all of it is.
  """
  batch, height, width, _ = images.shape
  sides = jnp.array([height, width])
  low, high = (
    (size // 2, sides - size + size // 2 + 1) if mode == 'inside' else (0, sides)
  )
  centers = jax.random.randint(key, (batch, 2), low, high)
  return apply_cutout(images, centers, size)


def apply_rotation(images: jax.Array, degrees: jax.Array) -> jax.Array:
  """Rotates images about their centre, counter-clockwise as seen, bilinearly.

  Pixels from outside the image count as 0 (black), also in the interpolation at its
  edge. The size is kept, so corners are lost.

  Args:
    images: [B, H, W, C] pixel values, uint8 or float.
    degrees: float [B].

  Returns:
    float32 [B, H, W, C], in the range of `images` and 0; not rounded.

  >>> images = jnp.arange(4).reshape(1, 2, 2, 1)
  >>> apply_rotation(images, jnp.array([90.0]))[0, ..., 0].round().astype(int)
  Array([[1, 3],
         [0, 2]], dtype=int32)
  """
  batch, height, width, channels = images.shape
  angles = jnp.deg2rad(degrees.astype(jnp.float32))[:, None, None]
  cos, sin = jnp.cos(angles), jnp.sin(angles)
  y = jnp.arange(height, dtype=jnp.float32)[:, None] - (height - 1) / 2
  x = jnp.arange(width, dtype=jnp.float32) - (width - 1) / 2
  # Where each output pixel comes from: the inverse rotation, rows pointing down.
  source_y = cos * y + sin * x + (height - 1) / 2
  source_x = cos * x - sin * y + (width - 1) / 2
  top, left = jnp.floor(source_y), jnp.floor(source_x)
  pixels = images.reshape(batch, height * width, channels)

  def add_corner(corner: jax.Array, total: jax.Array) -> jax.Array:
    row, column = top + corner // 2, left + corner % 2
    weight = (1 - jnp.abs(source_y - row)) * (1 - jnp.abs(source_x - column))
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    index = jnp.clip(row, 0, height - 1) * width + jnp.clip(column, 0, width - 1)
    index = index.astype(jnp.int32).reshape(batch, height * width, 1)
    values = _take(pixels, index, axis=1).reshape(images.shape)
    return total + values * jnp.where(inside, weight, 0)[..., None]

  # A loop, so that XLA cannot fuse the sum into the colour jitter and do it again for
  # every channel there, which costs three times as much.
  return jax.lax.fori_loop(0, 4, add_corner, jnp.zeros(images.shape, jnp.float32))


def random_rotation(key: jax.Array, images: jax.Array, max_degrees: float) -> jax.Array:
  """Rotates each image by an angle uniform in [-max_degrees, max_degrees] to float32."""
  shape = images.shape[:1]
  degrees = jax.random.uniform(key, shape, minval=-max_degrees, maxval=max_degrees)
  return apply_rotation(images, degrees)


def _take(array: jax.Array, index: jax.Array, axis: int) -> jax.Array:
  """`take_along_axis` for indices known to be inside, so that none is checked."""
  return jnp.take_along_axis(array, index, axis, mode='promise_in_bounds')


def _reflect(index: jax.Array, size: int) -> jax.Array:
  """Mirrors indices in (-size, 2 * size - 1) into [0, size) at the border pixels."""
  last = size - 1
  return last - jnp.abs(last - jnp.abs(index))
