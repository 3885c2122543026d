"""The resident pipeline: a split lives on the device as uint8.

A batch is a gather by `example_index` inside the compiled step, so shuffling,
augmentation and normalisation cost no host time and no transfer.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.data.dataset import Source
from jaxvision.data.order import example_index, seed_words

Batch = dict[str, jax.Array]


def put(source: Source, sharding: jax.sharding.Sharding) -> Batch:
  """Places a split on the devices.

  Args:
    source: a split with `images` uint8 [n, H, W, C] and `labels` int32 [n].
    sharding: where; replicated, as every device draws from the whole split.

  Returns:
    {'image': uint8 [n, H, W, C], 'label': int32 [n]}. On a CPU, memory-mapped images
    are used where they are, without a copy.
  """
  return {
    'image': jax.device_put(source.images, sharding),
    'label': jax.device_put(np.asarray(source.labels, np.int32), sharding),
  }


def train_batch(split: Batch, seed: int, step: jax.Array, batch_size: int) -> Batch:
  """Returns the training batch of `step`: pure, for use inside a compiled step.

  Args:
    split: from `put`.
    seed: of the run.
    step: int32 scalar, may be traced.
    batch_size: images in the batch.

  Returns:
    {'image': uint8 [batch_size, H, W, C], 'label': int32 [batch_size]}.
  """
  n = split['label'].shape[0]
  first = step.astype(jnp.uint32) * np.uint32(batch_size)
  position = first + jnp.arange(batch_size, dtype=jnp.uint32)
  index = example_index(seed_words(seed), position, n, xp=jnp).astype(jnp.int32)
  # Indices are in range by construction; saying so spares the check of each.
  return {k: v.at[index].get(mode='promise_in_bounds') for k, v in split.items()}


def eval_batch(split: Batch, start: jax.Array, batch_size: int) -> Batch:
  """Returns examples `start` to `start + batch_size` in order, padded and masked.

  Returns:
    As `train_batch`, with 'mask' bool [batch_size]: False past the end of the split.
  """
  n = split['label'].shape[0]
  index = start + jnp.arange(batch_size, dtype=jnp.int32)
  mask = index < n
  index = jnp.minimum(index, n - 1)
  batch = {k: v.at[index].get(mode='promise_in_bounds') for k, v in split.items()}
  return {**batch, 'mask': mask}
