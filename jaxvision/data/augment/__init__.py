"""Augmentation in the compiled step: pure functions of (key, images), batched."""

from jaxvision.data.augment.pipeline import (
  CROP_MODES,
  alternating_flips,
  apply_crop,
  apply_cutout,
  apply_flip,
  apply_resized_crop,
  apply_rotation,
  augments,
  check,
  cutout,
  make_augment,
  normalize,
  random_crop,
  random_flip,
  random_rotation,
)

__all__ = [
  'CROP_MODES',
  'alternating_flips',
  'apply_crop',
  'apply_cutout',
  'apply_flip',
  'apply_resized_crop',
  'apply_rotation',
  'augments',
  'check',
  'cutout',
  'make_augment',
  'normalize',
  'random_crop',
  'random_flip',
  'random_rotation',
]
