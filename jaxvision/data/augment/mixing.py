"""Mixup and CutMix: each image of a batch is mixed with its neighbour.

One share for the whole batch, as in torchvision and timm; the partner is the image before
(the last for the first), which for shuffled batches is as good as any, and on a batch that
is split over devices moves one image from each to the next.

A loss of mixed targets is the mean of the losses of both targets by their shares. For a
cross-entropy that is the loss of the mixed, soft target, and for a squared error that of
the mixed value but for a constant; a loss that takes class numbers only has one, too.
"""

from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxvision.data.augment.geometric import span

Mixed = tuple[jax.Array, jax.Array]


def mixup(key: jax.Array, images: jax.Array, alpha: float) -> Mixed:
  """Mixes pixels: share times the image, and the rest of its partner.

  Args:
    key: PRNG key.
    images: float [B, H, W, C], normalised or not.
    alpha: of the Beta(alpha, alpha) that the share is drawn from; above 0.

  Returns:
    (images of the same shape and dtype, the image's own share, float32 scalar).

  References:
    Zhang et al., "mixup: Beyond empirical risk minimization", 2018.
  """
  share = jax.random.beta(key, alpha, alpha)
  weight = share.astype(images.dtype)
  return weight * images + (1 - weight) * partners(images), share


def cutmix(key: jax.Array, images: jax.Array, alpha: float) -> Mixed:
  """Pastes a box of the partner into each image.

  The box has the sides of the image times sqrt(1 - share) and its centre anywhere; the
  border may cut it, so that the share is that of the pixels that stay.

  Args:
    key: PRNG key.
    images: [B, H, W, C], any dtype.
    alpha: of the Beta(alpha, alpha) that the share is drawn from; above 0.

  Returns:
    (images of the same shape and dtype, the image's own share, float32 scalar).

  References:
    Yun et al., "CutMix: Regularization strategy to train strong classifiers with
    localizable features", 2019.
  """
  _, height, width, _ = images.shape
  key_share, key_row, key_column = jax.random.split(key, 3)
  side = jnp.sqrt(1 - jax.random.beta(key_share, alpha, alpha))
  rows, columns = (
    _around(jax.random.randint(key, (), 0, size), side, size)
    for key, size in ((key_row, height), (key_column, width))
  )
  box = rows[:, None] & columns
  pasted = jnp.where(box[None, :, :, None], partners(images), images)
  return pasted, 1 - box.mean(dtype=jnp.float32)


def mix(
  key: jax.Array,
  images: jax.Array,
  mixup_alpha: float = 0.0,
  cutmix_alpha: float = 0.0,
  probability: float = 1.0,
  cutmix_share: float = 0.5,
) -> Mixed:
  """Mixes a batch by mixup or by CutMix, whichever is on, or by one of both at a time.

  Args:
    key: PRNG key.
    images: float [B, H, W, C].
    mixup_alpha: see `mixup`; 0: off.
    cutmix_alpha: see `cutmix`; 0: off.
    probability: of a batch to be mixed at all.
    cutmix_share: of the mixed batches that CutMix gets where both are on.

  Returns:
    (images of the same shape and dtype, the image's own share, float32 scalar).
  """
  key_on, key_which, key_mix = jax.random.split(key, 3)
  found = []
  if mixup_alpha:
    found.append(mixup(key_mix, images, mixup_alpha))
  if cutmix_alpha:
    found.append(cutmix(key_mix, images, cutmix_alpha))
  unmixed = images, jnp.ones(())
  if not found:
    return unmixed
  mixed = found[0]
  if len(found) > 1:
    mixed = _choose(jax.random.uniform(key_which) < cutmix_share, found[1], found[0])
  if probability < 1:
    mixed = _choose(jax.random.uniform(key_on) < probability, mixed, unmixed)
  return mixed


def mixes(augment_config: ConfigDict) -> bool:
  """Returns whether the `augment` fields mix images."""
  return bool(augment_config.mixup or augment_config.cutmix)


@flax.struct.dataclass
class MixedTargets:
  """The targets of a mixed batch.

  Attributes:
    own: [B, ...], of the images.
    partners: the same of their partners.
    share: float32 scalar, that of the image's own target.
  """

  own: Any
  partners: Any
  share: jax.Array

  @classmethod
  def of(cls, targets: Any, share: jax.Array) -> 'MixedTargets':
    """Returns the targets of a batch whose images have been mixed."""
    return cls(targets, jax.tree.map(partners, targets), share)


def mean_over_targets(function: Callable[[Any], Any], targets: Any) -> Any:
  """Returns function(targets), for mixed ones the mean of both by their shares.

  Args:
    function: targets [B, ...] -> tree of float arrays.
    targets: of a batch, or a `MixedTargets`.

  >>> targets = MixedTargets.of(jnp.array([1.0, 3.0]), jnp.array(0.75))
  >>> mean_over_targets(lambda values: 10 * values, targets)
  Array([15., 25.], dtype=float32)
  """
  if not isinstance(targets, MixedTargets):
    return function(targets)
  share = targets.share
  return jax.tree.map(
    lambda own, other: share * own + (1 - share) * other,
    function(targets.own),
    function(targets.partners),
  )


def partners(values: jax.Array) -> jax.Array:
  """Returns what belongs to the partner of each image of a batch, [B, ...]."""
  return jnp.roll(values, 1, axis=0)


def _choose(condition: jax.Array, one: Mixed, other: Mixed) -> Mixed:
  images, share = (jnp.where(condition, a, b) for a, b in zip(one, other))
  return images, share


def _around(centre: jax.Array, share: jax.Array, size: int) -> jax.Array:
  """Returns bool [size]: a span of `share` of the size around a centre."""
  half = jnp.floor(0.5 * share * size).astype(jnp.int32)
  return span(size, centre - half, 2 * half)
