"""The operations of AutoAugment and its successors, batched, on uint8 pixel values.

Images are uint8 [B, H, W, C] and stay so, with Pillow's rounding. What each image gets is
data, not program: `apply` takes one operation and one value per image, and computes all
images in the same three steps, so that a batch costs the same whatever was drawn:

1. an affine map with the nearest pixel: shear, translate, rotate;
2. a table of 256 values per image and channel: brightness, contrast, posterize,
   solarize, invert, autocontrast, equalize;
3. what looks at other channels or at neighbours: color, sharpness.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

NAMES = (
  'identity',
  'shear_x',
  'shear_y',
  'translate_x',
  'translate_y',
  'rotate',
  'brightness',
  'color',
  'contrast',
  'sharpness',
  'posterize',
  'solarize',
  'autocontrast',
  'equalize',
  'invert',
)
_NUMBER = {name: number for number, name in enumerate(NAMES)}


def apply(
  images: jax.Array,
  operations: jax.Array,
  values: jax.Array,
  names: Sequence[str] = NAMES,
) -> jax.Array:
  """Applies one operation to each image.

  The values, and what they mean in Pillow:

  - shear_x, shear_y: the shear, about the upper left corner; positive moves the content
    of lower rows to the left (of further columns up);
  - translate_x, translate_y: pixels that the content moves to the right (down);
    fractions are cut off;
  - rotate: degrees counter-clockwise about the centre; pixels from outside are black,
    as for the others;
  - brightness, color, contrast, sharpness: the factor of `ImageEnhance`, 1 for no change;
  - posterize: bits that are kept, 0 to 8;
  - solarize: pixel values from here on are inverted;
  - identity, autocontrast, equalize, invert: none.

  Args:
    images: uint8 [B, H, W, C]; C is 1 or 3.
    operations: int32 [B], places in `NAMES`.
    values: float32 [B].
    names: the operations that occur: what the others would need is not computed.

  Returns:
    uint8 [B, H, W, C].

  >>> images = jnp.array([100, 200], jnp.uint8).reshape(2, 1, 1, 1)
  >>> chosen = jnp.array([NAMES.index('brightness'), NAMES.index('invert')])
  >>> apply(images, chosen, jnp.array([1.5, 0.0])).reshape(2)
  Array([150,  55], dtype=uint8)
  """
  used = set(names)

  def is_(name: str) -> jax.Array:
    return operations == _NUMBER[name]

  if used & _GEOMETRIC:
    images = affine_nearest(images, _matrices(images.shape, operations, values))
  if used & _TABLES:
    images = _through_tables(images, operations, values, used)
  for name, changed in (('color', adjust_color), ('sharpness', adjust_sharpness)):
    if name in used:
      chosen = is_(name)
      factors = jnp.where(chosen, values, 1.0)
      images = jnp.where(chosen[:, None, None, None], changed(images, factors), images)
  return images


# Geometry.

_EDGE = 1e-4
_GEOMETRIC = {'shear_x', 'shear_y', 'translate_x', 'translate_y', 'rotate'}


def _matrices(
  shape: Sequence[int], operations: jax.Array, values: jax.Array
) -> jax.Array:
  """Returns float32 [B, 6] for `affine_nearest`."""
  _, height, width, _ = shape

  def value_of(name: str) -> jax.Array:
    return jnp.where(operations == _NUMBER[name], values, 0.0)

  angles = jnp.deg2rad(value_of('rotate'))
  cos, sin = jnp.cos(angles), jnp.sin(angles)
  x, y = width / 2, height / 2
  # Counter-clockwise as seen, rows pointing down: from an output back to its input.
  rows = [
    cos,
    -sin + value_of('shear_x'),
    x - cos * x + sin * y - jnp.trunc(value_of('translate_x')),
    sin + value_of('shear_y'),
    cos,
    y - sin * x - cos * y - jnp.trunc(value_of('translate_y')),
  ]
  return jnp.stack(rows, axis=-1)


def affine_nearest(images: jax.Array, matrices: jax.Array) -> jax.Array:
  """Maps images by affine matrices, with the nearest pixel, as Pillow's `transform`.

  Args:
    images: [B, H, W, C], any dtype.
    matrices: float32 [B, 6]: (a, b, c, d, e, f). The output at (x, y) is the input at
      (a x + b y + c, d x + e y + f), where the centre of a pixel lies at its half.

  Returns:
    [B, H, W, C] of the same dtype; 0 where the input lies outside.

  >>> row = jnp.array([1, 2, 3]).reshape(1, 1, 3, 1)
  >>> affine_nearest(row, jnp.array([[1.0, 0, 1, 0, 1, 0]]))[0, 0, :, 0]
  Array([2, 3, 0], dtype=int32)
  """
  batch, height, width, channels = images.shape
  a, b, c, d, e, f = (matrices[:, i, None, None] for i in range(6))
  y = jnp.arange(height, dtype=jnp.float32)[:, None] + 0.5
  x = jnp.arange(width, dtype=jnp.float32) + 0.5
  # What lies on the edge of a pixel belongs to it, and not, by a rounding error, to the
  # pixel before: a rotation by 90 degrees may put all of them there.
  column = jnp.floor(a * x + b * y + c + _EDGE).astype(jnp.int32)
  row = jnp.floor(d * x + e * y + f + _EDGE).astype(jnp.int32)
  inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
  index = row.clip(0, height - 1) * width + column.clip(0, width - 1)
  pixels = images.reshape(batch, height * width, channels)
  index = index.reshape(batch, height * width, 1)
  found = jnp.take_along_axis(pixels, index, axis=1, mode='promise_in_bounds')
  found = found.reshape(images.shape)
  return jnp.where(inside[..., None], found, jnp.zeros((), images.dtype))


# Tables: what becomes of a pixel value, [B, C, 256].

_TABLES = {
  'brightness',
  'contrast',
  'posterize',
  'solarize',
  'invert',
  'autocontrast',
  'equalize',
}


def _through_tables(
  images: jax.Array, operations: jax.Array, values: jax.Array, used: set[str]
) -> jax.Array:
  """Applies those operations that are functions of a pixel value."""
  batch, _, _, channels = images.shape
  level = jnp.arange(256, dtype=jnp.int32)
  each = values[:, None, None]
  tables = jnp.broadcast_to(level, (batch, channels, 256))
  makers = {
    'brightness': lambda: _blended(level, 0, each),
    'contrast': lambda: _blended(level, mean_grey(images)[:, None, None], each),
    'posterize': lambda: level & (256 - (1 << (8 - each.astype(jnp.int32)))),
    'solarize': lambda: jnp.where(level < each, level, 255 - level),
    'invert': lambda: 255 - level,
    'autocontrast': lambda: _autocontrast_tables(images),
    'equalize': lambda: _equalize_tables(images),
  }
  for name, make in makers.items():
    if name in used:
      chosen = (operations == _NUMBER[name])[:, None, None]
      tables = jnp.where(chosen, make(), tables)
  return through(images, tables.astype(jnp.uint8))


def through(images: jax.Array, tables: jax.Array) -> jax.Array:
  """Replaces each pixel value by its entry in a table.

  Args:
    images: uint8 [B, H, W, C].
    tables: uint8 [B, C, 256].

  Returns:
    uint8 [B, H, W, C].
  """
  batch, _, _, channels = images.shape
  planes = []
  for channel in range(channels):
    plane = images[..., channel].reshape(batch, -1).astype(jnp.int32)
    found = jnp.take_along_axis(
      tables[:, channel], plane, axis=1, mode='promise_in_bounds'
    )
    planes.append(found.reshape(images.shape[:3]))
  return jnp.stack(planes, axis=-1)


def posterize(images: jax.Array, bits: jax.Array) -> jax.Array:
  """Keeps the `bits` (int [B], 0 to 8) highest bits of each pixel value; uint8."""
  return _alone('posterize', images, bits)


def solarize(images: jax.Array, thresholds: jax.Array) -> jax.Array:
  """Inverts the pixel values from `thresholds` (float [B]) on; uint8."""
  return _alone('solarize', images, thresholds)


def autocontrast(images: jax.Array) -> jax.Array:
  """Stretches each channel of each image to [0, 255]; uint8."""
  return _alone('autocontrast', images, jnp.zeros(len(images)))


def equalize(images: jax.Array) -> jax.Array:
  """Makes the histogram of each channel of each image as even as it can be; uint8."""
  return _alone('equalize', images, jnp.zeros(len(images)))


def _alone(name: str, images: jax.Array, values: jax.Array) -> jax.Array:
  operations = jnp.full(len(images), _NUMBER[name])
  return apply(images, operations, values.astype(jnp.float32), (name,))


def _autocontrast_tables(images: jax.Array) -> jax.Array:
  low = images.min((1, 2)).astype(jnp.int32)[..., None]
  high = images.max((1, 2)).astype(jnp.int32)[..., None]
  level = jnp.arange(256, dtype=jnp.int32)
  stretched = (level - low) * 255 // jnp.maximum(high - low, 1)
  return jnp.where(high > low, stretched.clip(0, 255), level)


def _equalize_tables(images: jax.Array) -> jax.Array:
  """As `ImageOps.equalize`: the share of darker pixels, in steps of a 255th."""
  counts = histograms(images)
  level = jnp.arange(256, dtype=jnp.int32)
  brightest = images.max((1, 2)).astype(jnp.int32)[..., None]
  at_brightest = jnp.take_along_axis(counts, brightest, axis=-1)
  step = (counts.sum(-1, keepdims=True) - at_brightest) // 255
  below = jnp.cumsum(counts, axis=-1) - counts
  spread = (step // 2 + below) // jnp.maximum(step, 1)
  return jnp.where(step > 0, spread.clip(0, 255), level)


def histograms(images: jax.Array) -> jax.Array:
  """Counts the pixels of each value: int32 [B, C, 256] of uint8 [B, H, W, C]."""

  def count(values: jax.Array) -> jax.Array:
    zeros = jnp.zeros(256, jnp.int32)
    return zeros.at[values.astype(jnp.int32)].add(1, mode='promise_in_bounds')

  batch, _, _, channels = images.shape
  planes = images.reshape(batch, -1, channels)
  each = [jax.vmap(count)(planes[..., channel]) for channel in range(channels)]
  return jnp.stack(each, axis=1)


# What looks at other channels or at neighbours.


def grey(images: jax.Array) -> jax.Array:
  """Returns Pillow's luma, int32 [B, H, W] in [0, 255], of uint8 [B, H, W, C]."""
  if images.shape[-1] == 1:
    return images[..., 0].astype(jnp.int32)
  red, green, blue = (images[..., c].astype(jnp.int32) for c in range(3))
  return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16


def mean_grey(images: jax.Array) -> jax.Array:
  """Returns the mean luma of each image, int32 [B], rounded as in `ImageEnhance`."""
  _, height, width, _ = images.shape
  count = height * width
  total = grey(images).sum((1, 2))
  return (total + count // 2) // count


def adjust_color(images: jax.Array, factors: jax.Array) -> jax.Array:
  """Blends each image with its grey by `factors` (float [B]); uint8, cut off.

  Images of one channel have no colour and stay as they are.
  """
  if images.shape[-1] == 1:
    return images
  base, each = grey(images), factors[:, None, None]
  planes = [_blended(images[..., c].astype(jnp.int32), base, each) for c in range(3)]
  return jnp.stack(planes, axis=-1).astype(jnp.uint8)


def adjust_sharpness(images: jax.Array, factors: jax.Array) -> jax.Array:
  """Blends each image with a smooth one by `factors` (float [B]); uint8, cut off.

  The smooth image is that of Pillow's filter SMOOTH, (1 1 1, 1 5 1, 1 1 1) / 13, whose
  border is that of the image.
  """
  _, height, width, _ = images.shape
  if min(height, width) < 3:
    return images
  pixels = images.astype(jnp.int32)
  rows = pixels[:, :-2] + pixels[:, 1:-1] + pixels[:, 2:]
  around = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
  centre = pixels[:, 1:-1, 1:-1]
  smooth = (2 * (around + 4 * centre) + 13) // 26  # rounded, not cut off
  sharp = _blended(centre, smooth, factors[:, None, None, None])
  return images.at[:, 1:-1, 1:-1].set(sharp.astype(jnp.uint8))


def _blended(pixels: jax.Array, base: jax.Array | int, factors: jax.Array) -> jax.Array:
  """base + factor (pixels - base), int32, clipped and cut off as in `Image.blend`."""
  # Whole numbers stay so: a rounding error would cut them off at the one below.
  blended = base + factors * (pixels - base) + 1e-4
  return jnp.trunc(jnp.clip(blended, 0, 255)).astype(jnp.int32)
