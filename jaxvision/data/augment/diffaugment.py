"""Differentiable augmentation of the images of a discriminator, real and generated.

Zhao et al. 2020, "Differentiable augmentation for data-efficient GAN training",
https://arxiv.org/abs/2006.10738, with the strengths of its authors' code. Gradients
pass through to the images, so that the generator learns from augmented ones too.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxvision.data.augment import apply_crop, apply_cutout
from jaxvision.errors import UserError, closest


def apply_color(
  images: jax.Array,
  brightness: jax.Array,
  saturation: jax.Array,
  contrast: jax.Array,
) -> jax.Array:
  """Changes the colours of each image: brightness, then saturation, then contrast.

  Saturation scales the distance of each pixel to the mean of its channels, contrast
  the distance to the mean of the image. Nothing is clipped.

  Args:
    images: float [B, H, W, C] in [-1, 1].
    brightness: float [B], added.
    saturation: float [B], a factor; of one channel there is none to change.
    contrast: float [B], a factor.

  Returns:
    float [B, H, W, C].

  >>> two, one = jnp.array([[[[0.0, 1.0]]]]), jnp.ones(1)
  >>> apply_color(two, 0 * one, 2 * one, one).reshape(2)
  Array([-0.5,  1.5], dtype=float32)
  """
  planes = [images[..., c] for c in range(images.shape[-1])]
  brightness, saturation, contrast = (
    factor[:, None, None].astype(images.dtype)
    for factor in (brightness, saturation, contrast)
  )
  grey = sum(planes[1:], planes[0]) / len(planes)
  mean = grey.mean(axis=(1, 2), keepdims=True)
  # Saturation leaves grey as it is, brightness moves all means alike: one formula.
  base = contrast * (grey - mean) + mean + brightness
  factor = contrast * saturation
  return jnp.stack([factor * (plane - grey) + base for plane in planes], axis=-1)


@jax.custom_vjp
def apply_translation(images: jax.Array, offsets: jax.Array) -> jax.Array:
  """Moves each image by whole pixels; what comes in is 0, grey.

  The gradient is the opposite move, four times as fast as that of the lookups. Reverse
  mode only.

  Args:
    images: float [B, H, W, C].
    offsets: int32 [B, 2], pixels downwards and to the right, less than H and W.

  Returns:
    [B, H, W, C] of the same dtype.

  >>> row = jnp.array([1.0, 2.0, 3.0]).reshape(1, 1, 3, 1)
  >>> apply_translation(row, jnp.array([[0, 1]])).reshape(3)
  Array([0., 1., 2.], dtype=float32)
  """
  padding = min(images.shape[1:3]) - 1
  return apply_crop(images, padding - offsets, padding, mode='constant')


apply_translation.defvjp(
  lambda images, offsets: (apply_translation(images, offsets), offsets),
  lambda offsets, gradient: (apply_translation(gradient, -offsets), None),
)


def _color(key: jax.Array, images: jax.Array) -> jax.Array:
  uniform = jax.random.uniform(key, (len(images), 3))
  # In [-0.5, 0.5], [0, 2] and [0.5, 1.5].
  brightness, saturation, contrast = uniform.T
  return apply_color(images, brightness - 0.5, 2 * saturation, contrast + 0.5)


def _translation(key: jax.Array, images: jax.Array) -> jax.Array:
  most = jnp.array([int(side / 8 + 0.5) for side in images.shape[1:3]])
  offsets = jax.random.randint(key, (len(images), 2), -most, most + 1)
  return apply_translation(images, offsets)


def _cutout(key: jax.Array, images: jax.Array) -> jax.Array:
  height, width = images.shape[1:3]
  size = int(min(height, width) / 2 + 0.5)
  # A square of even side has its centre between pixels, on either side of the image.
  beyond = jnp.array([height, width]) + 1 - size % 2
  centers = jax.random.randint(key, (len(images), 2), 0, beyond)
  return apply_cutout(images, centers, size)


# Applied in this order. The place of each is folded into the key, so that switching one
# on leaves the others' draws as they were.
_APPLY: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
  'color': _color,
  'translation': _translation,
  'cutout': _cutout,
}

POLICIES = tuple(_APPLY)


def diff_augment(key: jax.Array, images: jax.Array, policy: Sequence[str]) -> jax.Array:
  """Augments each image by draws of its own; differentiable with respect to `images`.

  Args:
    key: PRNG key; with equal keys the draws are equal, however a batch is split.
    images: float [B, H, W, C] in [-1, 1].
    policy: names out of `POLICIES`; what is left out costs nothing.
      'color': `apply_color` by up to 0.5, by a factor of 0 to 2, by one of 0.5 to 1.5.
      'translation': `apply_translation` by up to an eighth of the side each way.
      'cutout': a square of half the side becomes 0; its centre is anywhere.

  Returns:
    [B, H, W, C] of the same dtype.

  >>> images = jnp.ones((2, 8, 8, 1))
  >>> diff_augment(jax.random.key(0), images, ('translation', 'cutout')).shape
  (2, 8, 8, 1)
  """
  for number, (name, apply) in enumerate(_APPLY.items()):
    if name in policy:
      images = apply(jax.random.fold_in(key, number), images)
  return images


def check(policy: Sequence[str]) -> None:
  """Raises a `UserError` if a name is not one of `POLICIES`."""
  for name in policy:
    if name not in POLICIES:
      raise UserError(
        f'gan.diffaugment takes {", ".join(POLICIES)}, got "{name}"'
        + closest(name, POLICIES)
      )
