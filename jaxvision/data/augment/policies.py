"""RandAugment, TrivialAugmentWide and AutoAugment, as torchvision defines them.

A policy draws for each image which operations it gets, one after another, and with which
values; `operations.apply` does the rest. Magnitudes are bins: 0 to 30, of AutoAugment 0 to
9, from no change to the strongest, and half of those that have two directions go the
other way.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.data.augment import operations

# (images' height and width, bins) -> values of each bin; whether half change their sign.
Bins = Callable[[tuple[int, int], int], np.ndarray]


def _up_to(last: float) -> Bins:
  return lambda size, bins: np.linspace(0, last, bins)


def _share_of(axis: int) -> Bins:
  """Up to 150 of 331 pixels, for which the policies were found."""
  return lambda size, bins: np.linspace(0, 150 / 331 * size[axis], bins)


def _bits(lost: int) -> Bins:
  """From 8 bits down."""
  return lambda size, bins: 8 - np.round(np.arange(bins) / ((bins - 1) / lost))


def _threshold(size: tuple[int, int], bins: int) -> np.ndarray:
  del size
  return np.linspace(255, 0, bins)


def _none(size: tuple[int, int], bins: int) -> np.ndarray:
  del size
  return np.zeros(bins)


@dataclasses.dataclass(frozen=True)
class Operation:
  """An operation with its range.

  Attributes:
    name: of `operations.NAMES`.
    bins: its values by magnitude.
    signed: whether half of the images get the negative value.
    around: what the value is added to: 1 for factors.
  """

  name: str
  bins: Bins = _none
  signed: bool = False
  around: float = 0.0


def _space(
  shear: float, translate: tuple[Bins, Bins], rotate: float, factor: float, lost: int
) -> tuple[Operation, ...]:
  """Returns the operations that the three policies share, in torchvision's order."""
  return (
    Operation('identity'),
    Operation('shear_x', _up_to(shear), signed=True),
    Operation('shear_y', _up_to(shear), signed=True),
    Operation('translate_x', translate[0], signed=True),
    Operation('translate_y', translate[1], signed=True),
    Operation('rotate', _up_to(rotate), signed=True),
    Operation('brightness', _up_to(factor), signed=True, around=1),
    Operation('color', _up_to(factor), signed=True, around=1),
    Operation('contrast', _up_to(factor), signed=True, around=1),
    Operation('sharpness', _up_to(factor), signed=True, around=1),
    Operation('posterize', _bits(lost)),
    Operation('solarize', _threshold),
    Operation('autocontrast'),
    Operation('equalize'),
  )


_SHARES = (_share_of(1), _share_of(0))
RAND_AUGMENT = _space(0.3, _SHARES, 30.0, 0.9, 4)
TRIVIAL_AUGMENT = _space(0.99, (_up_to(32.0), _up_to(32.0)), 135.0, 0.99, 6)
AUTO_AUGMENT = (*RAND_AUGMENT, Operation('invert'))
_BINS = 31


def rand_augment(
  key: jax.Array, images: jax.Array, num_ops: int = 2, magnitude: int = 9
) -> jax.Array:
  """Applies `num_ops` operations to each image, each uniform among fourteen.

  Args:
    key: PRNG key.
    images: uint8 [B, H, W, C]; C is 1 or 3.
    num_ops: operations for each image, one after another.
    magnitude: the bin of all of them, 0 to 30.

  Returns:
    uint8 [B, H, W, C].

  References:
    Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced
    search space", 2020; torchvision's RandAugment.
  """
  for place in range(num_ops):
    key_which, key_sign = jax.random.split(jax.random.fold_in(key, place))
    which = jax.random.randint(key_which, images.shape[:1], 0, len(RAND_AUGMENT))
    bins = jnp.full(images.shape[:1], magnitude)
    images = _apply(key_sign, images, RAND_AUGMENT, which, bins, _BINS)
  return images


def trivial_augment(key: jax.Array, images: jax.Array) -> jax.Array:
  """Applies one operation to each image, uniform among fourteen, of a random magnitude.

  Args:
    key: PRNG key.
    images: uint8 [B, H, W, C]; C is 1 or 3.

  Returns:
    uint8 [B, H, W, C].

  References:
    Müller and Hutter, "TrivialAugment: Tuning-free yet state-of-the-art data
    augmentation", 2021, the space "Wide"; torchvision's TrivialAugmentWide.
  """
  key_which, key_bin, key_sign = jax.random.split(key, 3)
  which = jax.random.randint(key_which, images.shape[:1], 0, len(TRIVIAL_AUGMENT))
  bins = jax.random.randint(key_bin, images.shape[:1], 0, _BINS)
  return _apply(key_sign, images, TRIVIAL_AUGMENT, which, bins, _BINS)


def auto_augment(
  key: jax.Array, images: jax.Array, policies: Sequence[Sequence['Step']]
) -> jax.Array:
  """Applies one of several pairs of operations to each image.

  Args:
    key: PRNG key.
    images: uint8 [B, H, W, C]; C is 1 or 3.
    policies: such as `CIFAR10_POLICIES`.

  Returns:
    uint8 [B, H, W, C].

  References:
    Cubuk et al., "AutoAugment: Learning augmentation policies from data", 2019;
    torchvision's AutoAugment.
  """
  numbers = {operation.name: n for n, operation in enumerate(AUTO_AUGMENT)}
  chosen = jax.random.randint(
    jax.random.fold_in(key, 0), images.shape[:1], 0, len(policies)
  )
  for place in range(len(policies[0])):
    steps = [policy[place] for policy in policies]
    key_on, key_sign = jax.random.split(jax.random.fold_in(key, place + 1))
    chances = jnp.array([chance for _, chance, _ in steps], jnp.float32)[chosen]
    on = jax.random.uniform(key_on, images.shape[:1]) < chances
    which = jnp.array([numbers[name] for name, _, _ in steps])[chosen]
    which = jnp.where(on, which, numbers['identity'])
    bins = jnp.array([bin_ or 0 for _, _, bin_ in steps])[chosen]
    used = {name for name, _, _ in steps}
    images = _apply(key_sign, images, AUTO_AUGMENT, which, bins, 10, used)
  return images


def _apply(
  key: jax.Array,
  images: jax.Array,
  space: Sequence[Operation],
  which: jax.Array,
  bins: jax.Array,
  count: int,
  used: set[str] | None = None,
) -> jax.Array:
  """Applies an operation of `space` to each image, with the value of its bin.

  Args:
    key: of the signs.
    images: uint8 [B, H, W, C].
    space: operations.
    which: int [B], places in `space`.
    bins: int [B].
    count: bins of each operation.
    used: names that occur; None: all of `space`.
  """
  numbers, values, signed, around = _table(tuple(space), images.shape[1:3], count)
  value = jnp.asarray(values)[which, bins]
  negative = (
    jax.random.bernoulli(key, 0.5, images.shape[:1]) & jnp.asarray(signed)[which]
  )
  value = jnp.asarray(around)[which] + jnp.where(negative, -value, value)
  names = used or {operation.name for operation in space}
  return operations.apply(images, jnp.asarray(numbers)[which], value, sorted(names))


@functools.cache
def _table(
  space: tuple[Operation, ...], size: tuple[int, int], count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """Returns (number in `operations.NAMES`, value of each bin, signed, around)."""
  return (
    np.array([operations.NAMES.index(o.name) for o in space], np.int32),
    np.array([o.bins(size, count) for o in space], np.float32),
    np.array([o.signed for o in space]),
    np.array([o.around for o in space], np.float32),
  )


# An operation, its probability, and its magnitude where it has one.
Step = tuple[str, float, int | None]


def _policies(text: str) -> tuple[tuple[Step, ...], ...]:
  """Reads lines such as 'invert .1, contrast .2 6'."""
  return tuple(
    tuple(_step(*words.split()) for words in line.split(','))
    for line in text.strip().splitlines()
  )


def _step(name: str, chance: str, magnitude: str = '') -> Step:
  return name, float(chance), int(magnitude) if magnitude else None


# Tables of the paper's appendix, as the authors' code and torchvision have them.
CIFAR10_POLICIES = _policies(
  """
  invert .1, contrast .2 6
  rotate .7 2, translate_x .3 9
  sharpness .8 1, sharpness .9 3
  shear_y .5 8, translate_y .7 9
  autocontrast .5, equalize .9
  shear_y .2 7, posterize .3 7
  color .4 3, brightness .6 7
  sharpness .3 9, brightness .7 9
  equalize .6, equalize .5
  contrast .6 7, sharpness .6 5
  color .7 7, translate_x .5 8
  equalize .3, autocontrast .4
  translate_y .4 3, sharpness .2 6
  brightness .9 6, color .2 8
  solarize .5 2, invert 0
  equalize .2, autocontrast .6
  equalize .2, equalize .6
  color .9 9, equalize .6
  autocontrast .8, solarize .2 8
  brightness .1 3, color .7 0
  solarize .4 5, autocontrast .9
  translate_y .9 9, translate_y .7 9
  autocontrast .9, solarize .8 3
  equalize .8, invert .1
  translate_y .7 9, autocontrast .9
  """
)
IMAGENET_POLICIES = _policies(
  """
  posterize .4 8, rotate .6 9
  solarize .6 5, autocontrast .6
  equalize .8, equalize .6
  posterize .6 7, posterize .6 6
  equalize .4, solarize .2 4
  equalize .4, rotate .8 8
  solarize .6 3, equalize .6
  posterize .8 5, equalize 1
  rotate .2 3, solarize .6 8
  equalize .6, posterize .4 6
  rotate .8 8, color .4 0
  rotate .4 9, equalize .6
  equalize 0, equalize .8
  invert .6, equalize 1
  color .6 4, contrast 1 8
  rotate .8 8, color 1 2
  color .8 8, solarize .8 7
  sharpness .4 7, invert .6
  shear_x .6 5, equalize 1
  color .4 0, equalize .6
  equalize .4, solarize .2 4
  solarize .6 5, autocontrast .6
  invert .6, equalize 1
  color .6 4, contrast 1 8
  equalize .8, equalize .6
  """
)

POLICIES: dict[str, Callable[..., jax.Array]] = {
  'rand_augment': rand_augment,
  'trivial_augment': trivial_augment,
  'auto_augment_cifar10': functools.partial(auto_augment, policies=CIFAR10_POLICIES),
  'auto_augment_imagenet': functools.partial(auto_augment, policies=IMAGENET_POLICIES),
}
