"""Test-time augmentation: the logits of an image as a mean over views of it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


def views(images: jax.Array, mode: str) -> tuple[jax.Array, np.ndarray]:
  """Returns the views of each image and their weights.

  'flip': the image and its mirror image, half each. 'flip_shift': these at a quarter
  each, and at an eighth each the image shifted down and right by one pixel, shifted up
  and left, and the mirror images of both; reflected pixels fill the gap. The six views
  of K. Jordan, arXiv 2404.00498, section 3.5.

  Args:
    images: [B, H, W, C], any dtype.
    mode: 'flip' or 'flip_shift'.

  Returns:
    [B, V, H, W, C] of the same dtype, and float32 [V] that sums to 1.

  >>> seen, weights = views(jnp.arange(9).reshape(1, 3, 3, 1), 'flip_shift')
  >>> seen[0, :, 0, :, 0].tolist()  # the first rows
  [[0, 1, 2], [2, 1, 0], [4, 3, 4], [4, 3, 4], [4, 5, 4], [4, 5, 4]]
  >>> weights.tolist()
  [0.25, 0.25, 0.125, 0.125, 0.125, 0.125]
  """
  shown, weights = [images], [1.0]
  if mode == 'flip_shift':
    height, width = images.shape[1:3]
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode='reflect')
    shown += [padded[:, :height, :width], padded[:, 2:, 2:]]
    weights = [0.5, 0.25, 0.25]
  both = [view for image in shown for view in (image, image[:, :, ::-1])]
  return jnp.stack(both, axis=1), np.repeat(weights, 2).astype(np.float32) / 2


def mean_logits(
  apply: Callable[[jax.Array], jax.Array], images: jax.Array, mode: str
) -> jax.Array:
  """Returns the weighted mean of `apply` over the `views` of each image.

  Args:
    apply: images [N, H, W, C] -> logits [N, K], each image for itself.
    images: [B, H, W, C].
    mode: 'none', or as for `views`.

  Returns:
    [B, K], of the dtype of the logits.
  """
  if mode == 'none':
    return apply(images)
  seen, weights = views(images, mode)
  # One application to all, batch first: a batch that is split over devices stays so.
  logits = apply(seen.reshape(-1, *images.shape[1:]))
  logits = logits.reshape(*seen.shape[:2], -1)
  return jnp.sum(logits * weights[:, None].astype(logits.dtype), axis=1)
