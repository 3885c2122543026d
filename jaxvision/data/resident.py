"""The resident pipeline: a split lives on the device as uint8.

A batch is a gather by `example_index` inside the compiled step, so shuffling,
augmentation and normalisation cost no host time and no transfer. A random resized crop
is taken from the decoded image, which has the size of the network's input; the streaming
pipeline takes the same crop from the original picture, at full resolution.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.data.augment import apply_resized_crop
from jaxvision.data.augment.resized_crop import Crop, draw_crops, fit_boxes
from jaxvision.data.dataset import ArraySource
from jaxvision.data.order import balanced_index, class_members, example_index
from jaxvision.placement import place

Batch = dict[str, jax.Array]


def put(
  source: ArraySource, sharding: jax.sharding.Sharding, balanced_classes: int = 0
) -> Batch:
  """Places a split on the devices.

  Args:
    source: a split with `images` uint8 [n, H, W, C] and `labels` [n, ...].
    sharding: where; replicated, as every device draws from the whole split.
    balanced_classes: K, where batches are to hold every class equally often; else 0.

  Returns:
    {'image': uint8 [n, H, W, C], 'label': [n, ...]}, with the dtype of the labels; with
    `balanced_classes` also 'members' and 'starts' of `class_members`. On a CPU,
    memory-mapped images are used where they are, without a copy.
  """
  split = {'image': source.images, 'label': source.labels}
  if balanced_classes:
    members, starts = class_members(np.asarray(source.labels), balanced_classes)
    split |= {'members': members, 'starts': starts}
  return place(split, sharding)


def train_indices(
  split: Batch,
  seed: int | jax.Array,
  step: jax.Array,
  batch_size: int,
  steps: int = 1,
  largest_class: int = 0,
) -> jax.Array:
  """Returns which examples the batches of some steps hold; pure, for compiled code.

  Args:
    split: from `put`.
    seed: seed of the run, or its `seed_words`, which may be traced.
    step: int32 scalar, the first step; may be traced.
    batch_size: images in a batch.
    steps: number of batches.
    largest_class: examples of the largest class, where the split was put with
      `balanced_classes`; else 0.

  Returns:
    int32 [steps, batch_size].
  """
  n = split['label'].shape[0]
  first = step.astype(jnp.uint32) * np.uint32(batch_size)
  place = jnp.arange(steps * batch_size, dtype=jnp.uint32)
  if largest_class:
    tables = split['members'], split['starts']
    index = balanced_index(seed, first + place, *tables, largest_class, xp=jnp)
  else:
    index = example_index(seed, first + place, n, xp=jnp).astype(jnp.int32)
  # This sort changes nothing but keeps XLA from fusing the index into the gather, which
  # would compute it again for every byte of an image (ten times the cost of a whole step
  # on a CPU, where optimization_barrier does not prevent it).
  _, index = jax.lax.sort((place, index), num_keys=1)
  return index.reshape(steps, batch_size)


def train_batch(
  split: Batch,
  index: jax.Array,
  step: jax.Array,
  seed: int | jax.Array | None = None,
  crop: Crop | None = None,
) -> Batch:
  """Returns the batch of a step.

  Args:
    split: from `put`.
    index: int32 [B], the row of this step in `train_indices`.
    step: int32 scalar.
    seed: as in `train_indices`; required with a crop.
    crop: random resized crops, drawn by the position in the run; None: whole images.

  Returns:
    {'image': uint8 [B, H, W, C], 'label': [B, ...], 'index': int32 [B], 'epoch': int32
    [B]}; the epoch is the number of complete passes over the split at each position.

  Raises:
    ValueError: a crop without a seed.
  """
  n = split['label'].shape[0]
  place = jnp.arange(index.shape[0], dtype=jnp.uint32)
  position = step.astype(jnp.uint32) * np.uint32(index.shape[0]) + place
  epoch = (position // np.uint32(n)).astype(jnp.int32)
  batch = take(split, index)
  if crop:
    if seed is None:
      raise ValueError('train_batch: a crop needs the seed of the run')
    _, height, width, _ = batch['image'].shape
    draws = draw_crops(crop, seed, position, jnp)
    boxes = fit_boxes(crop, draws, height, width, jnp)
    # As in `train_indices`: without the sort each weight would draw the boxes again.
    _, *columns = jax.lax.sort((place, *boxes.T), num_keys=1)
    batch['image'] = apply_resized_crop(batch['image'], jnp.stack(columns, axis=1))
  return {**batch, 'index': index, 'epoch': epoch}


def take(split: Batch, index: jax.Array) -> Batch:
  """Returns the examples at `index` int32 [B].

  Returns:
    {'image': uint8 [B, H, W, C], 'label': [B, ...]}.
  """
  # Indices are in range by construction, so that no check of each is needed.
  return {
    name: split[name].at[index].get(mode='promise_in_bounds')
    for name in ('image', 'label')
  }


def eval_batch(split: Batch, start: jax.Array, batch_size: int) -> Batch:
  """Returns examples `start` to `start + batch_size` in order, padded and masked.

  Returns:
    The batch of `take`, with 'mask' bool [batch_size], False past the end of the split.
  """
  n = split['label'].shape[0]
  index = start + jnp.arange(batch_size, dtype=jnp.int32)
  mask = index < n
  index = jnp.minimum(index, n - 1)
  return {**take(split, index), 'mask': mask}
