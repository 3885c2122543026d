"""Augmentation in the compiled step: pure functions of (key, images), batched."""

from jaxvision.data.augment.geometric import (
  CROP_MODES,
  alternating_flips,
  apply_crop,
  apply_cutout,
  apply_flip,
  apply_resized_crop,
  apply_rotation,
  cutout,
  random_crop,
  random_flip,
  random_rotation,
)
from jaxvision.data.augment.mixing import mixes
from jaxvision.data.augment.normalization import normalize
from jaxvision.data.augment.pipeline import augments, check, make_augment, mix_batch

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
  'mix_batch',
  'mixes',
  'normalize',
  'random_crop',
  'random_flip',
  'random_rotation',
]
