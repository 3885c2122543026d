"""Statistics of a batch for a discriminator: how similar its images are.

A discriminator of single images cannot recognise a generator that makes one
good image from one that makes many. Both functions here take the whole batch, of all
devices where it is split, so that they are for batches of real images or of generated
ones, not of both.
"""

import jax
import jax.numpy as jnp


def closeness(features: jax.Array) -> jax.Array:
  """Returns how close each image of a batch is to the others, by several measures.

  o(x_i)_b = mean over j != i of exp(-||M_ib - M_jb||_1): Salimans et al. 2016, "Improved
  techniques for training GANs", section 3.2, with the mean for the sum, so that it
  means the same in batches of all sizes.

  Args:
    features: [B, measures, length]: M, any floating dtype.

  Returns:
    float32 [B, measures] in [0, 1]; 0 where the image is alone.

  >>> closeness(jnp.array([[[0.0]], [[0.0]], [[99.0]]]))[:, 0]
  Array([0.5, 0.5, 0. ], dtype=float32)
  """
  features = features.astype(jnp.float32)
  # Summed by hand, as XLA:CPU is slow at sums over a short last axis.
  distances = sum(
    jnp.abs(features[:, None, :, i] - features[None, :, :, i])
    for i in range(features.shape[-1])
  )
  # Each image is at distance 0 from itself.
  return (jnp.exp(-distances).sum(axis=1) - 1) / max(1, len(features) - 1)


def append_stddev(x: jax.Array) -> jax.Array:
  """Appends a channel that says how much the images of a batch differ.

  The standard deviation over the batch of each feature at each place, and of these the
  mean: one number, everywhere. Karras et al. 2018, "Progressive growing of GANs",
  section 3; over the whole batch, as the paper has it, not over groups of four, as its
  code has.

  Args:
    x: features [B, H, W, C].

  Returns:
    [B, H, W, C + 1] of the same dtype.

  >>> append_stddev(jnp.array([-2.0, 2.0]).reshape(2, 1, 1, 1)).reshape(2, 2)
  Array([[-2.,  2.],
         [ 2.,  2.]], dtype=float32)
  """
  variances = jnp.var(x.astype(jnp.float32), axis=0)
  # The root has no slope at 0, where a generator collapses.
  deviation = jnp.sqrt(variances + 1e-8).mean().astype(x.dtype)
  channel = jnp.broadcast_to(deviation, (*x.shape[:3], 1))
  return jnp.concatenate([x, channel], axis=-1)
