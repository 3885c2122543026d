"""The streaming pipeline: a split too large for the device, decoded during training.

Grain reads the examples by random access in the order of `example_index`, in worker
processes where decoding is expensive, so the batches are bit for bit those of the
resident pipeline. Memory holds a fixed number of batches however large the split is.
"""

import functools
import os
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from jaxvision.data.augment.resized_crop import Crop, Draws, draw_crops, fit_box
from jaxvision.data.dataset import Source, is_gathered, read_crops, read_images
from jaxvision.data.decode import BoxOf
from jaxvision.data.order import balanced_index, class_members, example_index
from jaxvision.data.spawning import check_main_guard
from jaxvision.signals import hidden_from_children

Batch = dict[str, np.ndarray]

_ORDERED_AT_A_TIME = 8192  # examples whose place in the order is found at a time

_BUFFERED_BATCHES = 2  # per worker process: one ready while the next is made

# Eight worker processes take 2 seconds to start and then read up to 1.5 times as fast as
# threads, which hold the interpreter for a seventh of the time that a JPEG takes.
_SMALL_SPLIT = 20_000


# JAX still holds the last batches as the process ends. The process of Python that returns
# their shared memory to the system, and is started with these options, warns of each.
_QUIET_TRACKER = 'ignore:resource_tracker:UserWarning'


class _Share(NamedTuple):
  """The part of each global batch that one process reads: `local` from `offset` on."""

  batch: int
  local: int
  offset: int

  @classmethod
  def of(cls, batch_size: int, process: tuple[int, int]) -> '_Share':
    index, count = process
    local = batch_size // count
    return cls(batch_size, local, index * local)


class _Order:
  """Random access to the batches of a stream: this process's share of each.

  Whole batches are read, as the order of the examples and the draws of their crops cost
  as much for one example as for hundreds, and record files are read faster.
  """

  def __init__(self, source: Source, share: _Share, steps: int):
    self.source, self.share, self.steps = source, share, steps
    self.labels = np.asarray(source.labels)
    self.threads: ThreadPoolExecutor | None = None
    self.in_workers = False  # whether batches go from one process to another

  def __len__(self) -> int:
    return self.steps

  def __getitem__(self, step: int) -> Batch:
    raise NotImplementedError

  def _positions(self, step: int) -> np.ndarray:
    first = int(step) * self.share.batch + self.share.offset
    return np.arange(first, first + self.share.local)

  @functools.cached_property
  def _image_shape(self) -> tuple[int, ...]:
    return self.source[0][0].shape

  def _batch(self, indices: np.ndarray, boxes: Sequence[BoxOf] | None = None) -> Batch:
    """Returns examples, or crops of them; read in parts, where there are threads."""
    where = indices.tolist()
    shape = (len(where), *self._image_shape)

    def read(part: slice) -> None:
      if boxes is None:
        read_images(self.source, where[part], images[part])
      else:
        crops = read_crops(self.source, where[part], boxes[part])
        np.stack([image for image, _ in crops], out=images[part])

    images: Any = _shared(shape) if self.in_workers else np.empty(shape, np.uint8)
    threads = self.threads
    if boxes is None and is_gathered(self.source):
      threads = None
    size = -(-len(where) // (2 * _thread_count() if threads else 1))
    parts = [slice(i, i + size) for i in range(0, len(where), size)]
    try:
      for _ in threads.map(read, parts) if threads else map(read, parts):
        pass
    except BaseException:
      if self.in_workers:
        images.unlink_on_del()  # or the memory would stay, with no array to it
      raise
    return {'image': images, 'label': self.labels[indices]}


def _shared(shape: tuple[int, ...]) -> Any:
  """Returns a uint8 array that another process sees without a copy of it.

  The process that takes it out of Grain's queue gives the memory back.
  """
  from grain.multiprocessing import SharedMemoryArray

  return SharedMemoryArray(shape, np.uint8)


class _TrainOrder(_Order):
  """Every example that a run takes, in order."""

  def __init__(
    self,
    source: Source,
    share: _Share,
    steps: int,
    seed: int,
    crop: Crop | None,
    balanced_classes: int,
  ):
    super().__init__(source, share, steps)
    self.seed, self.crop = seed, crop
    self._block: tuple[int, np.ndarray] | None = None
    self.classes: tuple[np.ndarray, np.ndarray, int] | None = None
    if balanced_classes:
      members, starts = class_members(np.asarray(source.labels), balanced_classes)
      self.classes = members, starts, int(np.diff(starts).max())

  def _indices(self, step: int) -> np.ndarray:
    """Returns which examples the batch of a step holds, found for many steps at a time.

    Some calls of NumPy take as long for one batch of small images as for thirty.
    """
    many = max(1, _ORDERED_AT_A_TIME // self.share.batch)
    block, place = divmod(int(step), many)
    found = self._block  # read once: another thread may replace it
    if found is None or found[0] != block:
      steps = range(block * many, min((block + 1) * many, self.steps))
      positions = np.stack([self._positions(s) for s in steps])
      if self.classes:
        indices = balanced_index(self.seed, positions, *self.classes)
      else:
        indices = example_index(self.seed, positions, len(self.source))
      found = self._block = block, indices.astype(np.int32)
    return found[1][place]

  def __getitem__(self, step: int) -> Batch:
    positions = self._positions(step)
    indices = self._indices(step)
    boxes = boxes_at(self.crop, self.seed, positions) if self.crop else None
    batch = self._batch(indices, boxes)
    epochs = (positions // len(self.source)).astype(np.int32)
    return {**batch, 'index': indices, 'epoch': epochs}


def boxes_at(crop: Crop, seed: int, positions: np.ndarray) -> list[BoxOf]:
  """Returns, for each position of the run, the function from a size to its crop.

  Args:
    crop: limits of the crops.
    seed: seed of the run.
    positions: int [n], as in `draw_crops`.
  """

  def at(i: int) -> BoxOf:
    mine = Draws(*(values[i] for values in draws))
    return lambda height, width: fit_box(crop, mine, height, width)

  draws = draw_crops(crop, seed, positions)
  return [at(i) for i in range(len(positions))]


class _EvalOrder(_Order):
  """A split in its own order, padded to whole batches with a mask."""

  def __getitem__(self, step: int) -> Batch:
    positions = self._positions(step)
    last = len(self.source) - 1
    batch = self._batch(np.minimum(positions, last))
    return {**batch, 'mask': positions <= last}


def worker_count(workers: int) -> int:
  """Returns the number of worker processes; -1: one per core but one, 8 at most.

  On one or two cores threads read as fast as processes, since Pillow releases the
  interpreter; so -1 gives 0 there.

  >>> worker_count(3)
  3
  """
  if workers >= 0:
    return workers
  cores = os.cpu_count() or 1
  return 0 if cores <= 2 else min(cores - 1, 8)


def _thread_count() -> int:
  return min(os.cpu_count() or 1, 16)


def _die_with_the_parent(worker: int, count: int) -> None:
  """Ends a worker process whose reader was killed before it could end it."""
  parent = os.getppid()

  def watch():
    while os.getppid() == parent:
      time.sleep(1)
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()


class Stream:
  """An iterator over batches {'image': uint8 [B, H, W, C], 'label': [B, ...], ...}.

  `state()` is the position after the last batch taken, as JSON; `restore` goes there.
  Close the stream, or its worker processes stay alive.

  Args:
    order: of the batches.
    workers: see `train_stream`.
    repeat: begin again after the last batch, with the same worker processes, which hold
      no batch from the end of one pass to the first `next` of the following one.
  """

  def __init__(self, order: _Order, workers: int, repeat: bool = False):
    import grain  # slow to import, and not needed for a resident set

    if not flags.FLAGS.is_parsed():  # Grain reads absl flags, which nobody parsed
      flags.FLAGS.mark_as_parsed()
    self.workers = worker_count(workers)
    if self.workers:
      check_main_guard()
    self._threads = None if self.workers else ThreadPoolExecutor(_thread_count())
    order.threads = self._threads
    order.in_workers = self.workers > 0
    # A worker holds no batch but those in its queue, which are given back at the end.
    ahead = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    if not self.workers:  # the next batch begins while the last images are decoded
      ahead = grain.ReadOptions(num_threads=2, prefetch_buffer_size=_BUFFERED_BATCHES)
    dataset = grain.MapDataset.source(order).to_iter_dataset(ahead)
    if self.workers:
      if _QUIET_TRACKER not in sys.warnoptions:
        sys.warnoptions.append(_QUIET_TRACKER)
      dataset = dataset.mp_prefetch(
        grain.MultiprocessingOptions(
          num_workers=self.workers, per_worker_buffer_size=_BUFFERED_BATCHES
        ),
        worker_init_fn=_die_with_the_parent,
      )
    if repeat:
      dataset = grain.experimental.RepeatIterDataset(dataset)
    self._iterator = iter(dataset)
    self._not_started = self.workers

  def __iter__(self) -> 'Stream':
    return self

  def __next__(self) -> Batch:
    if not self._not_started:
      return next(self._iterator)
    self._not_started -= 1
    with hidden_from_children():  # each of the first batches starts a worker process
      return next(self._iterator)

  def state(self) -> dict[str, Any]:
    """Returns the position, to be stored with a checkpoint."""
    return {'workers': self.workers, 'iterator': self._iterator.get_state()}

  def restore(self, state: dict[str, Any]) -> None:
    """Goes to a position that `state` returned."""
    self._iterator.set_state(state['iterator'])

  def close(self) -> None:
    """Ends the worker processes or threads."""
    self._iterator.close()
    if self._threads:
      self._threads.shutdown(wait=False, cancel_futures=True)


def train_stream(
  source: Source,
  seed: int,
  batch_size: int,
  steps: int,
  workers: int,
  state: dict[str, Any] | None = None,
  process: tuple[int, int] = (0, 1),
  crop: Crop | None = None,
  balanced_classes: int = 0,
) -> Stream:
  """Returns the training batches of steps 0 to `steps`.

  Without crops they equal those of `resident` bit for bit. A random resized crop takes
  the same part of the same example as there, but from the original picture, at full
  resolution.

  Args:
    source: the split.
    seed: seed of the run, which decides the order and the crops.
    batch_size: global batch size.
    steps: number of batches.
    workers: decoding processes; 0: threads of this process; -1: by the number of cores.
    state: position to continue from, of `Stream.state`. It holds the number of workers,
      which is kept, since each has its own position.
    process: (index, count) of this host among those that share each batch.
    crop: random resized crops; None: whole images.
    balanced_classes: number of classes, where every one is drawn equally often; else 0.
  """
  share = _Share.of(batch_size, process)
  order = _TrainOrder(source, share, steps, seed, crop, balanced_classes)
  stream = Stream(order, state['workers'] if state else workers)
  if state:
    stream.restore(state)
  return stream


def eval_stream(
  source: Source,
  batch_size: int,
  workers: int,
  process: tuple[int, int] = (0, 1),
  repeat: bool = False,
) -> Stream:
  """Returns the split in order; 'mask' is False for the padding of the last batch.

  Args:
    source: the split.
    batch_size: global batch size.
    workers: as in `train_stream`; a small split is read by threads, which finish before
      processes would have started.
    process: as in `train_stream`.
    repeat: whether the split is read again and again; else once.
  """
  steps = -(-len(source) // batch_size)
  order = _EvalOrder(source, _Share.of(batch_size, process), steps)
  small = len(source) <= _SMALL_SPLIT
  return Stream(order, 0 if small else workers, repeat)
