"""Colour jitter: pure functions of (key, images) on a batch of pixel values.

Images are [B, H, W, C] in [0, 255], uint8 or float; results are float32 on the same
scale and are not rounded. Each `adjust_*` takes one parameter per image and has no
randomness; `color_jitter` draws the parameters.

Where channels mix, the arithmetic is on one plane [B, H, W] per channel: XLA's CPU
code for a reduction over an axis of three is many times slower.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

# Weights of ITU-R BT.601 luma, as in PIL's and torchvision's conversion to grey.
_LUMA = (0.299, 0.587, 0.114)


def adjust_brightness(images: jax.Array, factors: jax.Array) -> jax.Array:
  """Multiplies pixel values in [0, 255] by `factors` (float [B]); float32, clipped.

  >>> adjust_brightness(jnp.full((1, 1, 1, 1), 200), jnp.array([1.5])).item()
  255.0
  """
  factors = factors[:, None, None, None].astype(jnp.float32)
  return jnp.clip(factors * images.astype(jnp.float32), 0, 255)


def adjust_contrast(images: jax.Array, factors: jax.Array) -> jax.Array:
  """Scales the distance to the image's mean grey by `factors` (float [B]).

  Pixel values in [0, 255], uint8 or float; returns float32, clipped.

  >>> images = jnp.array([100, 200]).reshape(1, 1, 2, 1)
  >>> adjust_contrast(images, jnp.array([0.5])).reshape(2)
  Array([125., 175.], dtype=float32)
  """
  planes = _planes(images)
  return _blend(planes, _grey(planes).mean((1, 2), keepdims=True), factors)


def adjust_saturation(images: jax.Array, factors: jax.Array) -> jax.Array:
  """Scales the distance to each pixel's grey by `factors` (float [B]).

  Pixel values in [0, 255], uint8 or float; returns float32, clipped. Images of one
  channel have no colour and stay as they are.
  """
  if images.shape[-1] == 1:
    return images.astype(jnp.float32)
  planes = _planes(images)
  return _blend(planes, _grey(planes), factors)


def adjust_hue(images: jax.Array, turns: jax.Array) -> jax.Array:
  """Turns the hue by `turns` (float [B], of the whole circle), in HSV.

  Pixel values in [0, 255], uint8 or float; returns float32. Images of one channel
  have no colour and stay as they are.

  >>> red = jnp.array([255, 0, 0]).reshape(1, 1, 1, 3)
  >>> adjust_hue(red, jnp.array([1 / 3])).round().reshape(3)
  Array([  0., 255.,   0.], dtype=float32)
  """
  if images.shape[-1] == 1:
    return images.astype(jnp.float32)
  red, green, blue = _planes(images)
  value = jnp.maximum(jnp.maximum(red, green), blue)
  chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
  unit = jnp.where(chroma == 0, 1, chroma)
  sextant = jnp.where(
    value == red,
    (green - blue) / unit,
    jnp.where(value == green, 2 + (blue - red) / unit, 4 + (red - green) / unit),
  )
  sextant += 6 * turns.astype(jnp.float32)[:, None, None]
  # A channel falls from `value` by the chroma as the hue turns away from it; this is
  # the closed form of HSV to RGB, with 5, 3, 1 for red, green and blue.
  turned = []
  for offset in (5, 3, 1):
    k = sextant + offset
    k -= 6 * jnp.floor(k / 6)  # k mod 6; the % of floats is several times slower
    turned.append(value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1))
  return jnp.stack(turned, axis=-1)


def color_jitter(
  key: jax.Array,
  images: jax.Array,
  brightness: float = 0.0,
  contrast: float = 0.0,
  saturation: float = 0.0,
  hue: float = 0.0,
) -> jax.Array:
  """Changes each image's colours, with the factors of torchvision's ColorJitter.

  Brightness, contrast and saturation s draw a factor uniform in [max(0, 1 - s), 1 + s],
  hue h a turn uniform in [-h, h]. They apply in this order always (torchvision
  shuffles them), each clipping to [0, 255]; a strength of 0 leaves its step out.

  Args:
    key: PRNG key.
    images: [B, H, W, C] pixel values in [0, 255], uint8 or float; C is 1 or 3.
    brightness: strength, at least 0.
    contrast: strength, at least 0.
    saturation: strength, at least 0.
    hue: strength in [0, 0.5], of the whole circle.

  Returns:
    float32 [B, H, W, C] in [0, 255].
  """

  def draw(number: int, low: float, high: float) -> jax.Array:
    number_key = jax.random.fold_in(key, number)
    return jax.random.uniform(number_key, images.shape[:1], minval=low, maxval=high)

  images = images.astype(jnp.float32)
  if brightness:
    factors = draw(0, max(0.0, 1 - brightness), 1 + brightness)
    images = adjust_brightness(images, factors)
  if contrast:
    factors = draw(1, max(0.0, 1 - contrast), 1 + contrast)
    images = adjust_contrast(images, factors)
  if saturation:
    factors = draw(2, max(0.0, 1 - saturation), 1 + saturation)
    images = adjust_saturation(images, factors)
  if hue:
    images = adjust_hue(images, draw(3, -hue, hue))
  return images


def _planes(images: jax.Array) -> list[jax.Array]:
  """The channels of `images` as float32 [B, H, W] each."""
  images = images.astype(jnp.float32)
  return [images[..., c] for c in range(images.shape[-1])]


def _grey(planes: Sequence[jax.Array]) -> jax.Array:
  """Luma [B, H, W] of the planes of RGB, or of grey, images."""
  if len(planes) == 1:
    return planes[0]
  red, green, blue = (weight * plane for weight, plane in zip(_LUMA, planes))
  return red + green + blue


def _blend(
  planes: Sequence[jax.Array], base: jax.Array, factors: jax.Array
) -> jax.Array:
  """base + factor * (plane - base), clipped to [0, 255], as images again."""
  factors = factors[:, None, None].astype(jnp.float32)
  blended = [jnp.clip(base + factors * (p - base), 0, 255) for p in planes]
  return jnp.stack(blended, axis=-1)
