"""The streaming pipeline: a split too large for the device, decoded as it goes.

Grain reads the examples by random access in the order of `example_index`, in worker
processes where decoding is dear, so the batches are those of the resident pipeline to
the bit. Memory holds a fixed number of batches however large the split is.
"""

import os
import threading
import time
from typing import Any

import numpy as np
from absl import flags

from jaxvision.data.dataset import Source
from jaxvision.data.order import example_index

Batch = dict[str, np.ndarray]
Example = dict[str, np.ndarray | np.generic]

_BUFFERED_BATCHES = 2  # per worker process: one ready while the next is made


class _TrainOrder:
  """Every example that a run takes, in order, as this process's share of each batch."""

  def __init__(
    self, source: Source, seed: int, batch: int, local: int, offset: int, total: int
  ):
    self.source, self.seed = source, seed
    self.batch, self.local, self.offset = batch, local, offset
    self.total = total

  def __len__(self) -> int:
    return self.total * self.local

  def __getitem__(self, i: int) -> Example:
    step, place = divmod(int(i), self.local)
    position = step * self.batch + self.offset + place
    index = int(example_index(self.seed, position, len(self.source)))
    image, label = self.source[index]
    epoch = position // len(self.source)
    return {
      'image': image,
      'label': np.int32(label),
      'index': np.int32(index),
      'epoch': np.int32(epoch),
    }


class _EvalOrder:
  """A split in its own order, padded to whole batches with a mask."""

  def __init__(self, source: Source, batch: int, local: int, offset: int):
    self.source = source
    self.batch, self.local, self.offset = batch, local, offset

  def __len__(self) -> int:
    return -(-len(self.source) // self.batch) * self.local

  def __getitem__(self, i: int) -> Example:
    step, place = divmod(int(i), self.local)
    index = step * self.batch + self.offset + place
    inside = index < len(self.source)
    image, label = self.source[index if inside else len(self.source) - 1]
    return {'image': image, 'label': np.int32(label), 'mask': np.bool_(inside)}


def worker_count(workers: int) -> int:
  """Returns the number of worker processes: -1 asks for one per core but one, 8 at most.

  >>> worker_count(3)
  3
  """
  return min(max((os.cpu_count() or 1) - 1, 0), 8) if workers < 0 else workers


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

  def __init__(self, order: Any, local_batch: int, workers: int):
    import grain  # here, as a resident set needs none of it, and it is slow to import

    if not flags.FLAGS.is_parsed():  # Grain reads its absl flags; we have none of ours
      flags.FLAGS.mark_as_parsed()
    self.workers = worker_count(workers)
    threads = max(2, os.cpu_count() or 1) if not self.workers else 1
    dataset = (
      grain.MapDataset.source(order)
      .batch(local_batch)
      .to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
      )
    )
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
    """Ends the worker processes."""
    self._iterator.close()


def train_stream(
  source: Source,
  seed: int,
  batch_size: int,
  steps: int,
  workers: int,
  state: dict[str, Any] | None = None,
  process: tuple[int, int] = (0, 1),
) -> Stream:
  """Returns the training batches of steps 0 to `steps`, those of `resident`.

  Args:
    source: the split.
    seed: of the run; decides the order.
    batch_size: global batch size.
    steps: how many batches there are.
    workers: decoding processes; 0: threads of this one; -1: by the cores.
    state: where to go on, from `Stream.state`. It holds the number of workers, which is
      kept, since each has a position of its own.
    process: (index, count) of the hosts that share each batch.
  """
  index, count = process
  local = batch_size // count
  order = _TrainOrder(source, seed, batch_size, local, index * local, steps)
  stream = Stream(order, local, state['workers'] if state else workers)
  if state:
    stream.restore(state)
  return stream


def eval_stream(
  source: Source, batch_size: int, workers: int, process: tuple[int, int] = (0, 1)
) -> Stream:
  """Returns the split once, in order; the last batch is padded and 'mask' says where."""
  index, count = process
  local = batch_size // count
  return Stream(_EvalOrder(source, batch_size, local, index * local), local, workers)
