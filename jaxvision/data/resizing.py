"""Two ways to bring images to the size of Inception-v3, for distances between images.

How images are resized changes a Fréchet distance by more than many papers report as
progress, so the way has a name that goes with the number:

  clean       bicubic with antialiasing, not rounded afterwards: as clean-fid does.
  tensorflow  bilinear without antialiasing, pixel i taken at i H / size rather than
              at its centre: as TensorFlow 1's graph of the network does within itself,
              and so the numbers of the papers before clean-fid.

Both are pure functions of the pixels and run within compiled code.

References:
  Parmar, Zhang and Zhu 2022, "On aliased resizing and surprising subtleties in GAN
  evaluation", https://arxiv.org/abs/2104.11222: clean-fid.
  Keys 1981, "Cubic convolution interpolation for digital image processing": bicubic.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.errors import UserError, closest

# Keys' choice, of third order; OpenCV's and PyTorch's is -0.75.
_CUBIC = -0.5


def resize(images: jax.Array, name: str, size: int = 299) -> jax.Array:
  """Returns images at the size, and in the range, that Inception-v3 takes.

  Args:
    images: uint8, or floating in [0, 255], [B, H, W, C]; C is 3, or 1 for grey images,
      which become three equal channels.
    name: one of `RESIZERS`.
    size: pixels of height and width of the result.

  Returns:
    float32 [B, size, size, 3] in [-1, 1]: (pixels - 128) / 128.

  Raises:
    UserError: there is no resizer of that name; C is neither 1 nor 3.

  >>> images = jnp.array([[[[0], [255]]]], jnp.uint8)
  >>> resize(images, 'tensorflow', size=2)[0, 0, :, 0]
  Array([-1.       ,  0.9921875], dtype=float32)
  """
  if name not in _RESIZERS:
    raise UserError(
      f'there is no resizer "{name}"{closest(name, _RESIZERS)}; there are: '
      f'{", ".join(RESIZERS)}'
    )
  channels = images.shape[-1]
  if channels not in (1, 3):
    raise UserError(
      f'images of {channels} channels: Inception-v3 takes those of 3, or of 1 (grey)'
    )
  pixels = _RESIZERS[name](jnp.asarray(images, jnp.float32), size)
  pixels = (pixels - 128) / 128
  return jnp.broadcast_to(pixels, (*pixels.shape[:3], 3))


def _clean(pixels: jax.Array, size: int) -> jax.Array:
  """Multiplies rows and columns by the weights, and clips the overshoot of the cubic."""
  rows, columns = (_bicubic_matrix(n, size) for n in pixels.shape[1:3])
  highest = jax.lax.Precision.HIGHEST
  pixels = jnp.einsum('qw,bhwc->bhqc', columns, pixels, precision=highest)
  pixels = jnp.einsum('ph,bhqc->bpqc', rows, pixels, precision=highest)
  return jnp.clip(pixels, 0, 255)


def _bicubic_matrix(before: int, after: int) -> np.ndarray:
  """Returns the weights of `before` pixels in each of `after`, float32 [after, before].

  Those of Pillow's BICUBIC: where the image shrinks, the cubic is as many times wider;
  beyond the border there is nothing, and the weights that are left sum to one.
  """
  step = before / after
  wide = max(step, 1.0)
  centre = (np.arange(after)[:, None] + 0.5) * step
  distance = np.abs(np.arange(before) + 0.5 - centre) / wide
  weights = _cubic(distance)
  return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _cubic(x: np.ndarray) -> np.ndarray:
  """Keys' kernel, equation 3 of the 1981 paper, at distances of at least 0."""
  a = _CUBIC
  near = ((a + 2) * x - (a + 3)) * x**2 + 1
  far = a * (((x - 5) * x + 8) * x - 4)
  return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _tensorflow(pixels: jax.Array, size: int) -> jax.Array:
  """Interpolates between neighbours along the columns, then along the rows."""
  for axis in (2, 1):
    before = pixels.shape[axis]
    # In single precision, as in the original: where 299 divides, rounding decides
    # which pixels are the neighbours.
    place = np.arange(size, dtype=np.float32) * np.float32(before / size)
    low = place.astype(np.int32)
    high = np.minimum(low + 1, before - 1)
    shape = [1, 1, 1, 1]
    shape[axis] = size
    share = (place - low.astype(np.float32)).reshape(shape)
    first = jnp.take(pixels, low, axis, mode='clip')
    second = jnp.take(pixels, high, axis, mode='clip')
    pixels = first + (second - first) * share
  return pixels


_RESIZERS = {'clean': _clean, 'tensorflow': _tensorflow}
RESIZERS = tuple(_RESIZERS)
