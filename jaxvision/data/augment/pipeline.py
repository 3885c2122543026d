"""The augmentation of a config: a function of (key, images) for the compiled step.

Images are [B, H, W, C]: uint8 pixel values in [0, 255] for as long as nothing needs
fractions (flip, crop), then float32 on the same scale (rotation, colour jitter), then
normalised.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxvision.config import parts
from jaxvision.data.augment import operations
from jaxvision.data.augment.color import color_jitter
from jaxvision.data.augment.erasing import gaussian_noise, random_blur, random_erasing
from jaxvision.data.augment.geometric import (
  CROP_MODES,
  apply_flip,
  cutout,
  random_crop,
  random_flip,
  random_rotation,
)
from jaxvision.data.augment.mixing import mix, mixes
from jaxvision.data.augment.normalization import normalize
from jaxvision.data.augment.policies import POLICIES
from jaxvision.errors import UserError, closest

# Each augmentation folds its own number into the key, so that switching one on leaves
# the others' draws as they were. Numbers are never reused; the user's own come last.
_FLIP, _CROP, _ROTATION, _COLOR, _CUTOUT = range(5)
_POLICY, _ERASING, _BLUR, _NOISE, _MIX = range(5, 10)
_OPERATIONS = 20
_CUSTOM = 1000


def make_augment(
  augment_config: ConfigDict,
  mean: Sequence[float],
  std: Sequence[float],
  dtype: str | np.dtype = 'float32',
  custom: Sequence[Callable[[jax.Array, jax.Array], jax.Array]] = (),
) -> Callable[..., jax.Array]:
  """Returns the function that turns a batch of pixels into the network's input.

  In order: flip, crop, policy, single operations (grey, posterize, solarize, equalize,
  autocontrast, sharpness), rotation, colour jitter, blur, noise, functions of the user's
  own, normalise, cutout (whose 0 is then the mean colour), erasing. What is off costs
  nothing; with all off it is `normalize`. Mixing comes after it: `mix_batch`.

  Args:
    augment_config: the config's `augment` fields, as `check` passes them.
    mean: per channel, in units of [0, 1].
    std: per channel, in units of [0, 1].
    dtype: of the result, 'float32' or 'bfloat16'.
    custom: functions (key, images [B, H, W, C] in [0, 255], uint8 or float32) -> images
      of the same shape.

  Returns:
    (key, images uint8 [B, H, W, C], flips) -> [B, H, W, C] of `dtype`. Equal keys give
    equal images; each augmentation's draws depend on the key only, not on which others
    are on. With flip_mode 'alternating', bool [B] `flips` says which images to mirror:
    `alternating_flips`.
  """
  c = augment_config
  jitter = (c.brightness, c.contrast, c.saturation, c.hue)

  def augment(
    key: jax.Array, images: jax.Array, flips: jax.Array | None = None
  ) -> jax.Array:
    if flips is not None:
      images = apply_flip(images, flips)
    elif c.flip:
      images = random_flip(jax.random.fold_in(key, _FLIP), images)
    if c.crop_padding:
      crop_key = jax.random.fold_in(key, _CROP)
      images = random_crop(crop_key, images, c.crop_padding, c.crop_mode)
    if c.policy:
      images = _policy(c)(jax.random.fold_in(key, _POLICY), images)
    for number, (field, name, value) in enumerate(_single(c), start=_OPERATIONS):
      if c[field]:
        images = _sometimes(
          jax.random.fold_in(key, number), images, name, c[field], value
        )
    if c.rotation:
      images = random_rotation(jax.random.fold_in(key, _ROTATION), images, c.rotation)
    if any(jitter):
      images = color_jitter(jax.random.fold_in(key, _COLOR), images, *jitter)
    if c.blur:
      blur_key = jax.random.fold_in(key, _BLUR)
      images = random_blur(blur_key, images, c.blur, c.blur_probability)
    if c.noise:
      images = gaussian_noise(jax.random.fold_in(key, _NOISE), images, c.noise)
    for number, function in enumerate(custom, start=_CUSTOM):
      images = _own(function, jax.random.fold_in(key, number), images)
    images = normalize(images, mean, std, dtype)
    if c.cutout:
      cutout_key = jax.random.fold_in(key, _CUTOUT)
      images = cutout(cutout_key, images, c.cutout, c.cutout_mode)
    if c.erasing:
      images = random_erasing(
        jax.random.fold_in(key, _ERASING),
        images,
        c.erasing,
        c.erasing_area,
        c.erasing_ratio,
        c.erasing_mode,
      )
    return images

  return augment


def mix_batch(
  augment_config: ConfigDict, key: jax.Array, images: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Mixes augmented images as the config's `augment` fields say; see `mixing.mix`."""
  c = augment_config
  key = jax.random.fold_in(key, _MIX)
  return mix(key, images, c.mixup, c.cutmix, c.mix_probability, c.cutmix_share)


def _policy(c: ConfigDict) -> Callable[[jax.Array, jax.Array], jax.Array]:
  if c.policy == 'rand_augment':
    return functools.partial(
      POLICIES[c.policy], num_ops=c.num_ops, magnitude=c.magnitude
    )
  return POLICIES[c.policy]


def _single(c: ConfigDict) -> tuple[tuple[str, str, float], ...]:
  """Returns (field of the probability, operation, value) of the single operations."""
  return (
    ('grayscale', 'color', 0.0),
    ('posterize', 'posterize', c.posterize_bits),
    ('solarize', 'solarize', c.solarize_threshold),
    ('equalize', 'equalize', 0.0),
    ('autocontrast', 'autocontrast', 0.0),
    ('sharpness', 'sharpness', c.sharpness_factor),
  )


def _sometimes(
  key: jax.Array, images: jax.Array, name: str, chance: float, value: float
) -> jax.Array:
  """Applies an operation to some of the images, uint8 [B, H, W, C]."""
  on = jax.random.uniform(key, images.shape[:1]) < chance
  number, identity = (operations.NAMES.index(n) for n in (name, 'identity'))
  which = jnp.where(on, number, identity)
  values = jnp.full(images.shape[:1], value, jnp.float32)
  return operations.apply(images, which, values, (name,))


def _own(function: Callable, key: jax.Array, images: jax.Array) -> jax.Array:
  """Applies a user's augmentation, or raises UserError where the shape changes."""
  changed = function(key, images)
  if getattr(changed, 'shape', None) != images.shape:
    raise UserError(
      f'config: augment.custom: {parts.describe(function)} returned shape '
      f'{getattr(changed, "shape", None)} for images of shape {images.shape}: the shape '
      'must stay'
    )
  return changed


def augments(augment_config: ConfigDict) -> bool:
  """Returns whether the `augment` fields change any image."""
  c = augment_config
  amounts = (c.crop_padding, c.rotation, c.brightness, c.contrast, c.saturation, c.hue)
  chances = (c[field] for field, _, _ in _single(c))
  whole = (c.flip, c.resized_crop, c.cutout, c.policy, c.blur, c.noise, c.erasing)
  return any(map(bool, (*whole, *amounts, *chances))) or mixes(c)


def check(augment_config: ConfigDict, image_shape: Sequence[int]) -> None:
  """Raises UserError, in one line, if the `augment` fields do not suit the images.

  Args:
    augment_config: the config's `augment` fields, of the right types.
    image_shape: (H, W, C).
  """
  c = augment_config
  height, width, channels = image_shape
  side, size = min(height, width), f'{height}x{width} images'
  if c.crop_mode not in CROP_MODES:
    raise UserError(
      f'augment.crop_mode must be one of {", ".join(CROP_MODES)}, got "{c.crop_mode}"'
      + closest(c.crop_mode, CROP_MODES)
    )
  for name, limit, why in (
    ('crop_padding', side - 1, f'pixels, less than the side of {size}'),
    ('cutout', side, f'pixels, at most the side of {size}'),
    ('rotation', 180, 'degrees, either way'),
    ('brightness', math.inf, ''),
    ('contrast', math.inf, ''),
    ('saturation', math.inf, ''),
    ('hue', 0.5, 'turns of the colour wheel, either way'),
  ):
    value = c[name]
    if not 0 <= value <= limit or math.isinf(value):
      allowed = 'at least 0' if limit == math.inf else f'between 0 (off) and {limit}'
      why = f' ({why})' if why else ''
      raise UserError(f'augment.{name} must be {allowed}{why}, got {value}')
  if c.resized_crop:
    _check_resized_crop(c, height, width)
  coloured = [f'augment.policy {c.policy}'] if c.policy else []
  coloured += [f'augment.{field}' for field, _, _ in _single(c) if c[field]]
  if channels not in (1, 3) and coloured:
    raise UserError(
      f'{coloured[0]} needs images of 1 or 3 channels, not {channels}: switch it off'
    )
  if channels not in (1, 3) and any((c.brightness, c.contrast, c.saturation, c.hue)):
    raise UserError(
      'augment.brightness, contrast, saturation and hue need images of 1 or 3 '
      f'channels, not {channels}: set them to 0'
    )


def _check_resized_crop(c: ConfigDict, height: int, width: int) -> None:
  if c.crop_padding:
    raise UserError(
      f'augment.resized_crop and augment.crop_padding {c.crop_padding} are two random '
      'crops: set one of them, and the other to () or 0'
    )
  low, high = c.resized_crop_ratio
  thinnest = math.sqrt(c.resized_crop[0] * height * width / max(high, 1 / low))
  if thinnest < 1:
    raise UserError(
      f'augment.resized_crop takes crops of {c.resized_crop[0]} of the area with '
      f'resized_crop_ratio {tuple(c.resized_crop_ratio)}: less than a pixel of '
      f'{height}x{width} images; raise the smaller share'
    )
