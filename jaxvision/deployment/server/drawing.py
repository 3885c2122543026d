"""Images drawn for requests, one request after the other."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from jaxvision.deployment.server.answers import Refusal, busy
from jaxvision.deployment.server.limits import Limits
from jaxvision.errors import UserError, printable
from jaxvision.reports import image_grid

_WAITING = 16  # requests
_SHORTEST = 64  # pixels of an image's side in the answer, about


def sample_sizes(most: int) -> tuple[int, ...]:
  """Returns the counts that a network is compiled for: powers of four, and the largest.

  >>> sample_sizes(64), sample_sizes(10)
  ((1, 4, 16, 64), (1, 4, 10))
  """
  sizes = [1]
  while sizes[-1] * 4 < most:
    sizes.append(sizes[-1] * 4)
  return (*sizes, most) if most > 1 else (1,)


def picture(images: np.ndarray) -> bytes:
  """Returns uint8 [n, H, W, C] as PNG: one as it is, more as a grid.

  In a grid small images are enlarged, as `jaxvision sample` does.
  """
  if len(images) == 1:
    return image_grid.png(images[0])
  scale = max(1, round(_SHORTEST / images.shape[1]))
  return image_grid.png(image_grid.grid(images, scale=scale))


class Drawer:
  """Draws with a generator, in one thread.

  Args:
    generator: with `sample(count, seed, label, batch_size)` and `class_names`, as
      `GeneratorRun` has them.
    limits: of the server.

  Attributes:
    waiting: requests that were taken and have no answer yet.
  """

  def __init__(self, generator: Any, limits: Limits):
    self._generator, self._limits = generator, limits
    self.sizes = sample_sizes(limits.images)
    self.waiting, self._closing = 0, False
    self._thread = ThreadPoolExecutor(1)

  def warm_up(self) -> dict[str, Any]:
    """Draws once of each size; returns {}, see `Batcher.warm_up`."""
    for size in self.sizes:
      if not self._closing:  # a signal came while it was compiled
        self._draw(size, 0, None)
    return {}

  def start(self) -> None:
    """Nothing: its thread starts with the first request."""

  def close(self) -> None:
    """Ends the thread, once everything is drawn."""
    self._closing = True
    self._thread.shutdown()

  async def draw(self, count: int, seed: int, label: str | None) -> bytes:
    """Returns a grid as PNG.

    Args:
      count: images, at most as the limits have it.
      seed: from 0 to 2**31 - 1; image i of a seed is the same whatever the count is.
      label: name or number of the class; None: one class after the other.

    Raises:
      Refusal: there is no such class, or too many wait already.
    """
    if self.waiting >= _WAITING:
      raise busy(429, f'{_WAITING} requests wait already: try again in a moment')
    for name in self._generator.class_names:
      if label == printable(name):  # as the server calls it
        label = name
    self.waiting += 1
    try:
      return await asyncio.get_running_loop().run_in_executor(
        self._thread, self._picture, count, seed, label
      )
    except UserError as error:
      origin = printable(getattr(self._generator, 'origin', None) or 'the model')
      message = str(error).removeprefix('sample: ').replace(origin, 'the model')
      raise Refusal(400, message) from error
    finally:
      self.waiting -= 1

  def _picture(self, count: int, seed: int, label: str | None) -> bytes:
    return picture(self._draw(count, seed, label))

  def _draw(self, count: int, seed: int, label: str | None) -> np.ndarray:
    size = next(size for size in self.sizes if size >= count)
    images = self._generator.sample(size, seed=seed, label=label, batch_size=size)
    return images[:count]
