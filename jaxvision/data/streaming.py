"""The streaming pipeline: a split too large for the device, decoded as it goes.

Grain reads the examples by random access in the order of `example_index`, in worker
processes where decoding is dear, so the batches are those of the resident pipeline to
the bit. Memory holds a fixed number of batches however large the split is.
"""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from jaxvision.data.augment.resized_crop import Crop, Draws, draw_crops, fit_boxes
from jaxvision.data.dataset import Source, read_crops, read_many
from jaxvision.data.decode import BoxOf
from jaxvision.data.order import example_index

Batch = dict[str, np.ndarray]

_BUFFERED_BATCHES = 2  # per worker process: one ready while the next is made

# Eight worker processes take 2 seconds to start and then read up to half as fast again
# as threads, which hold the interpreter for a seventh of the time that a JPEG takes.
_SMALL_SPLIT = 20_000


class _Share(NamedTuple):
  """Of each global batch, the examples from `offset` to `offset + local`."""

  batch: int
  local: int
  offset: int

  @classmethod
  def of(cls, batch_size: int, process: tuple[int, int]) -> '_Share':
    index, count = process
    local = batch_size // count
    return cls(batch_size, local, index * local)


class _Order:
  """Batches by their number: this process's share of each, read when it is asked for.

  A whole batch at a time, as the order of the examples and the draws of their crops
  cost as much for one of them as for hundreds, and record files are read faster.
  """

  def __init__(self, source: Source, share: _Share, steps: int):
    self.source, self.share, self.steps = source, share, steps
    self.threads: ThreadPoolExecutor | None = None

  def __len__(self) -> int:
    return self.steps

  def __getitem__(self, step: int) -> Batch:
    raise NotImplementedError

  def _positions(self, step: int) -> np.ndarray:
    first = int(step) * self.share.batch + self.share.offset
    return np.arange(first, first + self.share.local)

  def _examples(self, read: Callable[[slice], list[tuple[np.ndarray, int]]]) -> Batch:
    """Returns what `read` gives for the whole share; in parts, where there are threads."""
    if self.threads is None:
      examples = read(slice(0, self.share.local))
    else:
      size = -(-self.share.local // (2 * _thread_count()))
      parts = [slice(i, i + size) for i in range(0, self.share.local, size)]
      examples = [one for part in self.threads.map(read, parts) for one in part]
    return {
      'image': np.stack([image for image, _ in examples]),
      'label': np.array([label for _, label in examples], np.int32),
    }


class _TrainOrder(_Order):
  """Every example that a run takes, in order."""

  def __init__(
    self, source: Source, share: _Share, steps: int, seed: int, crop: Crop | None
  ):
    super().__init__(source, share, steps)
    self.seed, self.crop = seed, crop

  def __getitem__(self, step: int) -> Batch:
    positions = self._positions(step)
    count = len(self.source)
    indices = example_index(self.seed, positions, count).astype(np.int32)
    where = indices.tolist()
    if self.crop is None:
      batch = self._examples(lambda part: read_many(self.source, where[part]))
    else:
      boxes = boxes_at(self.crop, self.seed, positions)
      batch = self._examples(
        lambda part: read_crops(self.source, where[part], boxes[part])
      )
    epochs = (positions // count).astype(np.int32)
    return {**batch, 'index': indices, 'epoch': epochs}


def boxes_at(crop: Crop, seed: int, positions: np.ndarray) -> list[BoxOf]:
  """Returns, for each position of the run, the function from a size to its crop.

  Args:
    crop: its limits.
    seed: of the run.
    positions: int [n], as in `draw_crops`.
  """

  def at(i: int) -> BoxOf:
    mine = Draws(*(values[i] for values in draws))
    return lambda height, width: fit_boxes(crop, mine, height, width).tolist()

  draws = draw_crops(crop, seed, positions)
  return [at(i) for i in range(len(positions))]


class _EvalOrder(_Order):
  """A split in its own order, padded to whole batches with a mask."""

  def __getitem__(self, step: int) -> Batch:
    positions = self._positions(step)
    last = len(self.source) - 1
    where = np.minimum(positions, last).tolist()
    batch = self._examples(lambda part: read_many(self.source, where[part]))
    return {**batch, 'mask': positions <= last}


def worker_count(workers: int) -> int:
  """Returns the number of worker processes; -1: one per core but one, 8 at most.

  Of one or two cores, threads make as much as processes do, since Pillow lets go of the
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
  """Ends a worker process whose reader was killed and so could not end it."""
  parent = os.getppid()

  def watch():
    while os.getppid() == parent:
      time.sleep(1)
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()


class Stream:
  """An iterator over batches {'image': uint8 [B, H, W, C], 'label': int32 [B], ...}.

  `state()` is the position behind the last batch taken, as JSON; `restore` goes there.
  Close it: worker processes outlive their last reader otherwise.
  """

  def __init__(self, order: _Order, workers: int):
    import grain  # here, as a resident set needs none of it, and it is slow to import

    if not flags.FLAGS.is_parsed():  # Grain reads its absl flags; we have none of ours
      flags.FLAGS.mark_as_parsed()
    self.workers = worker_count(workers)
    self._threads = None if self.workers else ThreadPoolExecutor(_thread_count())
    order.threads = self._threads
    ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=_BUFFERED_BATCHES)
    if not self.workers:  # one batch is begun while the last of another are decoded
      ahead = grain.ReadOptions(num_threads=2, prefetch_buffer_size=_BUFFERED_BATCHES)
    dataset = grain.MapDataset.source(order).to_iter_dataset(ahead)
    if self.workers:
      dataset = dataset.mp_prefetch(
        grain.MultiprocessingOptions(
          num_workers=self.workers, per_worker_buffer_size=_BUFFERED_BATCHES
        ),
        worker_init_fn=_die_with_the_parent,
      )
    self._iterator = iter(dataset)

  def __iter__(self) -> 'Stream':
    return self

  def __next__(self) -> Batch:
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
) -> Stream:
  """Returns the training batches of steps 0 to `steps`.

  Without crops they are those of `resident` to the bit. A random resized crop takes the
  same share of the same example as there, but out of the picture as it lies on the
  disk, with all its detail.

  Args:
    source: the split.
    seed: of the run; decides the order and the crops.
    batch_size: global batch size.
    steps: how many batches there are.
    workers: decoding processes; 0: threads of this one; -1: by the cores.
    state: where to go on, from `Stream.state`. It holds the number of workers, which is
      kept, since each has a position of its own.
    process: (index, count) of the hosts that share each batch.
    crop: random resized crops; None: whole images.
  """
  share = _Share.of(batch_size, process)
  order = _TrainOrder(source, share, steps, seed, crop)
  stream = Stream(order, state['workers'] if state else workers)
  if state:
    stream.restore(state)
  return stream


def eval_stream(
  source: Source, batch_size: int, workers: int, process: tuple[int, int] = (0, 1)
) -> Stream:
  """Returns the split once, in order; the last batch is padded and 'mask' says where.

  Args:
    source: the split.
    batch_size: global batch size.
    workers: as in `train_stream`; a split that threads have read before processes
      would have started is read by threads.
    process: as in `train_stream`.
  """
  steps = -(-len(source) // batch_size)
  order = _EvalOrder(source, _Share.of(batch_size, process), steps)
  return Stream(order, 0 if len(source) <= _SMALL_SPLIT else workers)
