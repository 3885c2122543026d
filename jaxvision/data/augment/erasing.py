"""Random erasing, noise and blur: pure functions of (key, images) on a batch."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxvision.data.augment.geometric import span
from jaxvision.data.augment.resized_crop import TRIES


def random_erasing(
  key: jax.Array,
  images: jax.Array,
  probability: float,
  area: Sequence[float] = (0.02, 1 / 3),
  ratio: Sequence[float] = (0.3, 10 / 3),
  mode: str = 'noise',
) -> jax.Array:
  """Fills a random box of some images with noise, or with 0.

  A box has a share of the image's area that is uniform in `area`, and a ratio of height
  to width that is log-uniform in `ratio`; one that does not fit into the image is drawn
  anew up to nine times, and then left out.

  Args:
    key: PRNG key.
    images: float [B, H, W, C], normalised, so that 0 is the mean colour.
    probability: of an image to get a box.
    area: smallest and largest share of the area.
    ratio: smallest and largest ratio of height to width.
    mode: 'noise' (standard normal, each pixel and channel) or 'mean' (0).

  Returns:
    [B, H, W, C] of the same dtype.

  References:
    Zhong et al., "Random erasing data augmentation", 2020; timm's RandomErasing, modes
    pixel and const.
  """
  batch, height, width, _ = images.shape
  key_on, key_area, key_ratio, key_top, key_left, key_noise = jax.random.split(key, 6)
  shape = (batch, TRIES)
  share = jax.random.uniform(key_area, shape, minval=area[0], maxval=area[1])
  low, high = math.log(ratio[0]), math.log(ratio[1])
  aspect = jnp.exp(jax.random.uniform(key_ratio, shape, minval=low, maxval=high))
  tall = jnp.round(jnp.sqrt(share * height * width * aspect)).astype(jnp.int32)
  wide = jnp.round(jnp.sqrt(share * height * width / aspect)).astype(jnp.int32)
  fits = (tall < height) & (wide < width)
  first = jnp.argmax(fits, axis=1)[:, None]
  tall, wide = (jnp.take_along_axis(a, first, 1)[:, 0] for a in (tall, wide))
  on = jax.random.uniform(key_on, (batch,)) < probability
  on &= fits.any(axis=1)
  top = jax.random.randint(key_top, (batch,), 0, jnp.maximum(height - tall, 0) + 1)
  left = jax.random.randint(key_left, (batch,), 0, jnp.maximum(width - wide, 0) + 1)
  rows, columns = span(height, top, tall), span(width, left, wide)
  box = (rows[:, :, None] & columns[:, None, :] & on[:, None, None])[..., None]
  if mode == 'noise':
    fill = jax.random.normal(key_noise, images.shape, images.dtype)
  else:
    fill = jnp.zeros((), images.dtype)
  return jnp.where(box, fill, images)


def gaussian_noise(key: jax.Array, images: jax.Array, std: float) -> jax.Array:
  """Adds normal noise to pixel values in [0, 255]; float32, clipped.

  Args:
    key: PRNG key.
    images: [B, H, W, C] pixel values in [0, 255], uint8 or float.
    std: in units of [0, 1], as in torchvision's GaussianNoise.
  """
  noise = 255 * std * jax.random.normal(key, images.shape)
  return jnp.clip(images.astype(jnp.float32) + noise, 0, 255)


def random_blur(
  key: jax.Array, images: jax.Array, sigma: float, probability: float = 0.5
) -> jax.Array:
  """Blurs some images by a Gaussian of a standard deviation uniform in [0.1, sigma].

  Args:
    key: PRNG key.
    images: [B, H, W, C] pixel values, uint8 or float.
    sigma: largest standard deviation, in pixels.
    probability: of an image to be blurred.

  Returns:
    float32 [B, H, W, C], not rounded.
  """
  key_on, key_sigma = jax.random.split(key)
  shape = images.shape[:1]
  sigmas = jax.random.uniform(key_sigma, shape, minval=min(0.1, sigma), maxval=sigma)
  on = jax.random.uniform(key_on, shape) < probability
  radius = blur_radius(sigma, images.shape)
  blurred = gaussian_blur(images, sigmas, radius)
  return jnp.where(on[:, None, None, None], blurred, images.astype(jnp.float32))


def blur_radius(sigma: float, shape: Sequence[int]) -> int:
  """Returns the radius in pixels, three deviations, less than the sides of the images."""
  return min(math.ceil(3 * sigma), min(shape[1:3]) - 1)


def gaussian_blur(images: jax.Array, sigmas: jax.Array, radius: int) -> jax.Array:
  """Blurs each image by a Gaussian, cut off at `radius`, over mirrored borders.

  Args:
    images: [B, H, W, C] pixel values, uint8 or float.
    sigmas: float [B], standard deviations in pixels, above 0.
    radius: of the kernel in pixels, less than H and W.

  Returns:
    float32 [B, H, W, C], not rounded; as torchvision's `gaussian_blur` with a kernel of
    2 radius + 1.
  """
  place = jnp.arange(-radius, radius + 1)
  weights = jnp.exp(-0.5 * jnp.square(place / sigmas[:, None]))
  weights /= weights.sum(axis=1, keepdims=True)
  images = images.astype(jnp.float32)
  for axis in (1, 2):
    size = images.shape[axis]
    padding = [(0, 0)] * 4
    padding[axis] = (radius, radius)
    padded = jnp.pad(images, padding, mode='reflect')
    blurred = jnp.zeros_like(images)
    for first, weight in enumerate(weights.T):
      part = jax.lax.slice_in_dim(padded, first, first + size, axis=axis)
      blurred += weight[:, None, None, None] * part
    images = blurred
  return images
