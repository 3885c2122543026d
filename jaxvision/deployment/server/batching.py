"""Images of many requests, in batches through one network.

Images are decoded by a few threads and computed by two. While one computes, further images
gather, so that batches grow with the load by themselves, up to the size at which the network
is the fastest, which is measured at the start; as many as that are computed beside the batch
before. An image waits for others only while such are being read or decoded, and only so long.
"""

import asyncio
import collections
import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from queue import SimpleQueue
from typing import Any

import numpy as np

from jaxvision.data.decode import UnreadableImage
from jaxvision.deployment.server.answers import busy
from jaxvision.deployment.server.limits import Limits
from jaxvision.deployment.server.metrics import Metrics
from jaxvision.errors import UserError
from jaxvision.inference.classifier import Classifier
from jaxvision.reports import image_grid

_DECODERS = 4  # threads at most: each may hold an image of the largest size
_COMPUTERS = (
  2  # threads: one prepares its batch and hands out outcomes while one computes
)
_TIMED = 3  # runs of each size of a batch at the start

# What became of an image: K probabilities or values, or why it could not be read.
Outcome = list[float] | str


def batch_sizes(most: int) -> tuple[int, ...]:
  """Returns the sizes that a network is compiled for: powers of two, and the largest.

  >>> batch_sizes(24)
  (1, 2, 4, 8, 16, 24)
  """
  sizes = [1]
  while sizes[-1] * 2 < most:
    sizes.append(sizes[-1] * 2)
  return (*sizes, most) if most > 1 else (1,)


def next_batch(waiting: int, seconds: Mapping[int, float]) -> int:
  """Returns how many of the images that wait go into the next batch.

  As many as make the most images a second, where a batch that is not full takes as long as
  the size to which it is padded.

  Args:
    waiting: images, at least 1.
    seconds: how long a batch takes -> by its size.

  >>> [next_batch(n, {1: 3, 2: 4, 4: 6, 8: 10}) for n in (1, 3, 4, 5, 6, 7, 100)]
  [1, 3, 4, 4, 4, 7, 8]
  >>> next_batch(100, {8: 1.0, 16: 1.6, 32: 5.0})
  16
  """
  return min(waiting, fastest(seconds, waiting))


def fastest(seconds: Mapping[int, float], waiting: float = float('inf')) -> int:
  """Returns the size of a batch that makes the most of so many images a second.

  Of equally good ones the largest: fewer batches. See `next_batch`.
  """
  return max(seconds, key=lambda size: (min(size, waiting) / seconds[size], size))


class _Request:
  """The images of one request.

  Attributes:
    future: of the outcomes, in the loop of the server.
    outcomes: of each image; None until it is there.
    missing: how many are not.
  """

  def __init__(self, future: asyncio.Future, count: int):
    self.future = future
    self.outcomes: list[Outcome | None] = [None] * count
    self.missing = count


class _Image:
  """One image on its way.

  Attributes:
    request, index: where its outcome goes.
    data: its bytes, and once it is decoded uint8 [H, W, C].
    ready: when it was decoded.
  """

  __slots__ = ('data', 'index', 'ready', 'request')

  def __init__(self, request: _Request, index: int, data: bytes):
    self.request, self.index = request, index
    self.data: Any = data
    self.ready = 0.0


class Batcher:
  """Predicts for requests that come at the same time.

  Args:
    classifier: what predicts.
    limits: of the server.

  Attributes:
    sizes: of batches; one of another size is padded, where the classifier compiles.
    seconds: how long a batch of each size takes; `warm_up` measures it.
    waiting: images that were taken and have no outcome yet.
    metrics: counts batches; may be set later.
  """

  def __init__(self, classifier: Classifier, limits: Limits):
    self._classifier, self._limits = classifier, limits
    self.sizes = batch_sizes(min(limits.batch, classifier.largest_batch()))
    # Until it is measured: what is the same for every batch costs as much as two images.
    self.seconds = {size: size + 2.0 for size in self.sizes}
    self._best = fastest(self.seconds)
    self.waiting = 0
    self.metrics: Metrics | None = None
    self._delay = limits.delay_ms / 1000
    self._files: SimpleQueue[_Image | None] = SimpleQueue()
    self._images: collections.deque[_Image] = collections.deque()
    self._changed = threading.Condition()  # of the four below, and of _images
    self._coming = 0  # requests that are being read, images that are being decoded
    self._computing = 0  # batches
    self._closing = False
    self._threads: list[threading.Thread] = []

  def warm_up(self) -> dict[str, Any]:
    """Decodes an image, and computes batches of each size, whose time is taken.

    Returns:
      For the log: 'batch_ms', milliseconds of a batch -> by its size.

    Raises:
      UserError: the model has outputs of another shape than one for each class.
    """
    known = self._classifier.signature
    self._classifier.decode(image_grid.png(np.zeros(known.image_shape, np.uint8)))
    seconds = {}
    for size in self.sizes:
      if self._closing:  # a signal came while it was compiled
        return {}
      images = np.zeros((size, *known.image_shape), np.uint8)
      shape = np.shape(self._classifier.probabilities(images))
      seconds[size] = min(self._seconds_of(images) for _ in range(_TIMED))
      if shape != (size, len(known.class_names)):
        raise UserError(
          f'serve: the model has outputs of shape {list(shape[1:])} for an image, which '
          'are no classes: jaxvision.load_run(workdir).predict(images) returns them'
        )
    self.seconds, self._best = seconds, fastest(seconds)
    return {'batch_ms': {size: round(1000 * s, 2) for size, s in seconds.items()}}

  def _seconds_of(self, images: np.ndarray) -> float:
    begun = time.perf_counter()
    self._classifier.probabilities(images)
    return time.perf_counter() - begun

  def start(self) -> None:
    """Starts the threads, in the loop of the server."""
    self._loop = asyncio.get_running_loop()
    decoders = min(_DECODERS, os.cpu_count() or 1)
    targets = [self._decode] * decoders + [self._compute] * _COMPUTERS
    self._threads = [threading.Thread(target=t, daemon=True) for t in targets]
    for thread in self._threads:
      thread.start()

  def close(self) -> None:
    """Ends the threads, once everything has its outcome."""
    for _ in self._threads[:-_COMPUTERS]:
      self._files.put(None)
    with self._changed:
      self._closing = True
      self._changed.notify_all()
    for thread in self._threads:
      thread.join(5.0)

  def check_room(self, count: int = 1) -> None:
    """Raises Refusal (429) where so many images more would wait too long."""
    if self.waiting + count > self._limits.queue:
      raise busy(
        429, f'{self._limits.queue} images wait already: try again in a moment'
      )

  @contextlib.contextmanager
  def reading(self) -> Iterator[None]:
    """Says that a request is being read, whose images are worth waiting for."""
    self._come(1)
    try:
      yield
    finally:
      self._come(-1)

  def predict(self, files: Sequence[bytes]) -> asyncio.Future[list[Outcome]]:
    """Takes images; returns the future outcome of each, in order.

    Raises:
      Refusal: too many wait already.
    """
    self.check_room(len(files))
    request = _Request(self._loop.create_future(), len(files))
    self.waiting += len(files)
    self._come(len(files))
    for index, data in enumerate(files):
      self._files.put(_Image(request, index, data))
    return request.future

  def _come(self, count: int) -> None:
    with self._changed:
      self._coming += count
      if not self._coming and self._images:
        self._changed.notify()

  def _decode(self) -> None:
    """Decodes files; the thread ends with None."""
    pixels = self._limits.pixels
    while (image := self._files.get()) is not None:
      problem: str | Exception | None = None
      try:
        if not image.request.future.done():
          image.data = self._classifier.decode(image.data, pixels)
      except UnreadableImage as error:
        problem = str(error)
      except Exception as error:
        problem = error
      if problem is not None:
        self._come(-1)
        self._deliver([image], [problem])
        continue
      image.ready = time.monotonic()
      with self._changed:
        self._coming -= 1
        self._images.append(image)
        count = len(self._images)
        if count == 1 or count >= self._best or not self._coming:
          self._changed.notify()

  def _compute(self) -> None:
    """Computes batches, until it is closed."""
    while (images := self._take()) is not None:
      done = [image.request.future.done() for image in images]  # its client has gone
      wanted = [image for image, gone in zip(images, done) if not gone]
      unwanted = [image for image, gone in zip(images, done) if gone]
      outcomes: Sequence[Any] = ()
      if wanted:
        try:
          outcomes = self._outputs(np.stack([image.data for image in wanted]))
        except Exception as error:
          outcomes = [error] * len(wanted)
      with self._changed:
        self._computing -= 1
        self._changed.notify()
      self._deliver(wanted, outcomes, batch=len(wanted))
      self._deliver(unwanted, [''] * len(unwanted))

  def _outputs(self, images: np.ndarray) -> list[list[float]]:
    count = len(images)
    if self._classifier.pads:
      size = next(size for size in self.sizes if size >= count)
      images = np.pad(images, [(0, size - count), (0, 0), (0, 0), (0, 0)])
    return self._classifier.probabilities(images)[:count].tolist()

  def _take(self) -> list[_Image] | None:
    """Waits for the next batch; None where it is closed."""
    with self._changed:
      while True:
        count = len(self._images)
        if count >= self._best:
          break
        if count and not self._computing:
          left = self._images[0].ready + self._delay - time.monotonic()
          if not self._coming or left <= 0:
            break
          self._changed.wait(left)
        elif self._closing and not count:
          return None
        else:
          self._changed.wait()
      size = next_batch(count, self.seconds)
      self._computing += 1
      return [self._images.popleft() for _ in range(size)]

  def _deliver(
    self, images: Sequence[_Image], outcomes: Sequence[Any], batch: int = 0
  ) -> None:
    """Hands outcomes, or exceptions, to the loop."""
    if not images:
      return
    with contextlib.suppress(RuntimeError):  # it has ended, and nobody waits
      self._loop.call_soon_threadsafe(self._settle, images, outcomes, batch)

  def _settle(
    self, images: Sequence[_Image], outcomes: Sequence[Any], batch: int
  ) -> None:
    self.waiting -= len(images)
    if batch and self.metrics:
      self.metrics.batches.add(batch)
    for image, outcome in zip(images, outcomes):
      request = image.request
      request.outcomes[image.index] = outcome
      request.missing -= 1
      if request.future.done():
        continue
      if isinstance(outcome, Exception):
        request.future.set_exception(outcome)
      elif not request.missing:
        request.future.set_result(request.outcomes)
