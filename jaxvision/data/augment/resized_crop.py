"""The random resized crop: which part of a picture a training example shows.

A crop takes a share of the area and a ratio of the sides, both at random, and is
resized to the image (Szegedy et al., "Going Deeper with Convolutions", 2015, section
6). Its box is a pure function of (seed, position in the run, size of the picture), as
the order of the examples is (`jaxvision.data.order`): a resumed run draws the same
crops, and the pipeline inside the compiled step (jnp) and the one in worker processes
(NumPy) the same shares. JAX is not imported here.
"""

import dataclasses
import functools
import math
import types
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxvision.data.order import random_bits

TRIES = 10  # torchvision's

# Shares and ratios are drawn from this number of evenly spaced values. Their square roots
# come from tables: NumPy and XLA may differ in the last bit of a root or a power.
# The sides of a crop of a picture of 2,000 pixels then lie within a pixel of each other.
_LEVELS = 4096
_BITS = 12


@dataclasses.dataclass(frozen=True)
class Crop:
  """What random resized crops look like.

  Attributes:
    scale: least and largest share of the picture's area; uniform between them.
    ratio: least and largest width over height; its logarithm is uniform.
  """

  scale: tuple[float, float] = (0.08, 1.0)
  ratio: tuple[float, float] = (3 / 4, 4 / 3)

  @classmethod
  def of(cls, augment_config: ConfigDict) -> 'Crop | None':
    """Returns the crop that the config's `augment` fields ask for, or None."""
    if not augment_config.resized_crop:
      return None
    return cls(
      tuple(augment_config.resized_crop), tuple(augment_config.resized_crop_ratio)
    )


class Draws(NamedTuple):
  """Random crops before the size of the picture is known.

  Attributes:
    height, width: float32 [..., TRIES], over the root of the picture's area.
    place: uint32 [..., 2], for row and column.
  """

  height: Any
  width: Any
  place: Any


@functools.lru_cache(8)
def _tables(crop: Crop) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns float32 [_LEVELS] roots of share, of ratio, and of 1 / ratio."""
  level = (np.arange(_LEVELS) + 0.5) / _LEVELS
  low, high = crop.scale
  share = low + level * (high - low)
  low, high = map(math.log, crop.ratio)
  root = np.exp((low + level * (high - low)) / 2)
  return (
    np.sqrt(share).astype(np.float32),
    root.astype(np.float32),
    (1 / root).astype(np.float32),
  )


def draw_crops(
  crop: Crop, seed: int | Any, position: Any, xp: types.ModuleType = np
) -> Draws:
  """Draws a crop for each position of the run.

  Args:
    crop: limits of the crops.
    seed: int, or `seed_words` of it (uint32 [2], may be traced).
    position: integers in [0, 2**32), any shape: places in the run.
    xp: `numpy` or `jax.numpy`. The results are equal bit for bit.
  """
  bits = random_bits(seed, position, TRIES + 2, xp)
  tries, place = bits[..., :TRIES], bits[..., TRIES:]
  # int32, as NumPy and XLA both index fastest by it.
  share = (tries >> np.uint32(32 - _BITS)).astype(xp.int32)
  ratio = ((tries >> np.uint32(32 - 2 * _BITS)) % np.uint32(_LEVELS)).astype(xp.int32)
  root_share, wide, tall = map(xp.asarray, _tables(crop))
  side = root_share[share]
  return Draws(side * tall[ratio], side * wide[ratio], place)


def fit_boxes(
  crop: Crop, draws: Draws, height: int, width: int, xp: types.ModuleType = np
) -> Any:
  """Returns where the drawn crops lie in pictures of one size.

  The first try that fits inside counts. Where none does, the box is the largest about
  the centre whose ratio is allowed.

  Args:
    crop: limits of the crops.
    draws: from `draw_crops`.
    height, width: size of the pictures, in pixels.
    xp: as in `draw_crops`.

  Returns:
    int32 [..., 4]: top, left, height, width; at least a pixel, inside the picture.

  >>> crop = Crop(scale=(0.25, 0.25), ratio=(1, 1))
  >>> fit_boxes(crop, draw_crops(crop, 0, 0), 64, 64)
  array([ 3,  4, 32, 32], dtype=int32)
  """
  shape = draws.height.shape[:-1]
  side = np.float32(math.sqrt(height * width))
  # One product and a rounding to an integer each: nothing that compilers may fuse.
  high = xp.rint(draws.height * side).astype(xp.int32).reshape(-1, TRIES)
  wide = xp.rint(draws.width * side).astype(xp.int32).reshape(-1, TRIES)
  fits = (high > 0) & (high <= height) & (wide > 0) & (wide <= width)
  first = xp.arange(len(fits)), fits.argmax(-1)
  high, wide = high[first], wide[first]
  # Modulo favours small values by at most a side / 2**32. What does not fit is not used.
  place = draws.place.reshape(-1, 2)
  top = place[:, 0] % xp.maximum(height + 1 - high, 1).astype(xp.uint32)
  left = place[:, 1] % xp.maximum(width + 1 - wide, 1).astype(xp.uint32)
  drawn = xp.stack([top.astype(xp.int32), left.astype(xp.int32), high, wide], axis=-1)
  centre = np.asarray(_centre(crop, height, width), np.int32)
  return xp.where(fits[first][:, None], drawn, centre).reshape(*shape, 4)


def fit_box(
  crop: Crop, draws: Draws, height: int, width: int
) -> tuple[int, int, int, int]:
  """Returns what `fit_boxes` does for the draws of one position, in a tenth of the time.

  >>> crop = Crop(scale=(0.25, 0.25), ratio=(1, 1))
  >>> fit_box(crop, draw_crops(crop, 0, 0), 64, 64)
  (3, 4, 32, 32)
  """
  side = np.float32(math.sqrt(height * width))
  for share_high, share_wide in zip(draws.height, draws.width):
    # Both round halves to even.
    high, wide = round(float(share_high * side)), round(float(share_wide * side))
    if 0 < high <= height and 0 < wide <= width:
      row, column = draws.place.tolist()
      return row % (height + 1 - high), column % (width + 1 - wide), high, wide
  return _centre(crop, height, width)


def _centre(crop: Crop, height: int, width: int) -> tuple[int, int, int, int]:
  low, high = crop.ratio
  tall, wide = height, width
  if width / height < low:
    tall = max(1, round(width / low))
  elif width / height > high:
    wide = max(1, round(height * high))
  return (height - tall) // 2, (width - wide) // 2, tall, wide
