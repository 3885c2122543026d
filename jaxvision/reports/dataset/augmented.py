"""Training images before and after augmentation."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxvision.config.schema import FIELDS
from jaxvision.data import resident, streaming
from jaxvision.data.augment import alternating_flips
from jaxvision.data.augment.resized_crop import Crop
from jaxvision.data.dataset import Dataset, read_crops, read_many
from jaxvision.data.order import seed_words
from jaxvision.tasks.base import Task

# Fields that apply only where another field is set.
_MODES = {
  'flip_mode': 'flip',
  'resized_crop_ratio': 'resized_crop',
  'crop_mode': 'crop_padding',
  'cutout_mode': 'cutout',
  'num_ops': 'policy',
  'magnitude': 'policy',
  'posterize_bits': 'posterize',
  'solarize_threshold': 'solarize',
  'sharpness_factor': 'sharpness',
  'blur_probability': 'blur',
  'erasing_area': 'erasing',
  'erasing_ratio': 'erasing',
  'erasing_mode': 'erasing',
  'mix_probability': 'mixup',
  'cutmix_share': 'cutmix',
}


@dataclasses.dataclass(frozen=True, eq=False)
class Augmented:
  """Images before and after augmentation.

  Attributes:
    originals: uint8 [n, H, W, C].
    versions: uint8 [n, v, H, W, C]; v is 0 without augmentation.
    indices: int64 [n], positions in the training split.
    fields: the augmentations of the config, such as 'augment.flip = True'.
  """

  originals: np.ndarray
  versions: np.ndarray
  indices: np.ndarray
  fields: tuple[str, ...]


def enabled(config: ConfigDict) -> tuple[str, ...]:
  """Lists the fields that change training images, with their values.

  >>> from jaxvision.config import base_config, override
  >>> enabled(override(base_config(), ['augment.flip=True', 'augment.cutout=8']))
  ('augment.flip = True', 'augment.flip_mode = random', 'augment.cutout = 8', 'augment.cutout_mode = clipped')
  """
  fields, found = config.augment, []
  for name in FIELDS['augment']:
    if name in _MODES or not fields[name]:
      continue
    found.append(f'augment.{name} = {_short(fields[name])}')
    modes = (mode for mode, of in _MODES.items() if of == name)
    found += [f'augment.{mode} = {_short(fields[mode])}' for mode in modes]
  return tuple(found)


def _short(value: Any) -> str:
  if isinstance(value, tuple):
    return f'({", ".join(map(_short, value))})'
  return f'{value:.4g}' if isinstance(value, float) else str(value)


def augmented(
  task: Task, dataset: Dataset, indices: np.ndarray, versions: int
) -> Augmented:
  """Augments training images by the functions that the training step calls.

  Each version has its own random key and its own position in the run for the crop. The
  normalisation is undone afterwards.

  Args:
    task: the task, with its config.
    dataset: a data set with a training split.
    indices: int64 [n], positions in the training split.
    versions: number of versions of each image.
  """
  config = task.config
  source = dataset.splits['train']
  examples = read_many(source, indices.tolist())
  originals = np.stack([image for image, _ in examples])
  fields = (*enabled(config), *task.enabled_augmentations())
  if not fields:
    nothing = np.empty((len(indices), 0, *dataset.image_shape), np.uint8)
    return Augmented(originals, nothing, indices, fields)
  alternating = config.augment.flip and config.augment.flip_mode == 'alternating'
  words = jax.random.key_data(jax.random.key(config.seed))

  @jax.jit
  def change(version: jax.Array, images: jax.Array) -> jax.Array:
    key = jax.random.fold_in(jax.random.key(config.seed), version)
    flips = None
    if alternating:
      index = jnp.asarray(indices, jnp.int32)
      flips = alternating_flips(words, index, jnp.full_like(index, version))
    return task.augmented(key, images, flips)

  changed = []
  for version in range(versions):
    images = _cropped(config, dataset, originals, indices, version)
    changed.append(np.asarray(change(jnp.int32(version), images)))
  return Augmented(originals, np.stack(changed, axis=1), indices, fields)


def _cropped(
  config: ConfigDict,
  dataset: Dataset,
  originals: np.ndarray,
  indices: np.ndarray,
  version: int,
) -> np.ndarray:
  """Returns the images after the pipeline, which crops if anything does."""
  crop = Crop.of(config.augment)
  if crop is None:
    return originals
  if dataset.pipeline == 'streaming':
    count = len(indices)
    boxes = streaming.boxes_at(
      crop, config.seed, np.arange(version * count, (version + 1) * count)
    )
    source = dataset.splits['train']
    return np.stack([i for i, _ in read_crops(source, indices.tolist(), boxes)])
  split = {'image': jnp.asarray(originals), 'label': jnp.zeros(len(indices), jnp.int32)}
  batch = resident.train_batch(
    split,
    jnp.arange(len(indices), dtype=jnp.int32),
    jnp.int32(version),
    seed_words(config.seed),
    crop,
  )
  return np.asarray(batch['image'])
