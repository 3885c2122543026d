"""One configuration of `growth.py`, in a process of its own: time and memory.

Started as a script it answers the requests of `sides.py`.
"""

import resource
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ours import make_config
from sides import serve
from table import versions

from jaxvision.data import ArraySource, Dataset, resident, splitting
from jaxvision.data.order import class_members, seed_words
from jaxvision.reports.run import report
from jaxvision.training import runtime
from jaxvision.training.benchmark import BenchmarkRun, model_flops, program_memory

_BATCHES = 4  # in the split that steps draw from
_CLASSES = 1000  # of the images of which there are many
_BATCH = 128  # that is drawn from them


def hello() -> dict[str, Any]:
  """Returns what runs here."""
  return {'versions': versions(), 'device': runtime.device_kind()}


def _rounds(call: Callable[[], Any], rounds: int, seconds: float) -> list[float]:
  """Returns the seconds of a call, as means over rounds of about `seconds`."""
  call()  # compiles
  begun = time.perf_counter()
  call()
  count = max(1, round(seconds / (time.perf_counter() - begun)))
  taken = []
  for _ in range(rounds):
    begun = time.perf_counter()
    for _ in range(count):
      call()
    taken.append((time.perf_counter() - begun) / count)
  return taken


def _memory() -> int:
  """Returns the bytes that this process holds now."""
  pages = int(Path('/proc/self/statm').read_text().split()[1])
  return pages * resource.getpagesize()


def _beside(before: int) -> int:
  """Returns the bytes by which the most memory so far exceeds `before`."""
  return max(0, (runtime.peak_memory_bytes() or 0) - before)


def step(
  *,
  name: str,
  fields: dict[str, Any],
  batch_size: int,
  size: int,
  classes: int,
  devices: int,
  dtype: str,
  rounds: int,
  seconds: float,
) -> dict[str, Any]:
  """Measures a training step on random images.

  Args:
    name, fields: of the model.
    batch_size: images of a step.
    size: pixels of a side.
    classes: of the labels.
    devices: that share the batch.
    dtype: of the computation.
    rounds: to time.
    seconds: of a round.
  """
  random = np.random.default_rng(0)

  def split(count: int) -> ArraySource:
    images = random.integers(0, 256, (count, size, size, 3), np.uint8)
    return ArraySource(images, random.integers(0, classes, count, np.int32))

  dataset = Dataset(
    name='random images',
    splits={'train': split(_BATCHES * batch_size), 'test': split(batch_size)},
    class_names=tuple(map(str, range(classes))),
    image_shape=(size, size, 3),
    mean=(0.5,) * 3,
    std=(0.25,) * 3,
    pipeline='resident',
    synthetic=True,
  )
  runtime.configure(deterministic=False)
  config = make_config(name, batch_size, dtype, 'classification', fields, devices)
  bench = BenchmarkRun(config, dataset, steps=1)
  chunk = bench.trainer.steps_per_dispatch
  bench.take(2 * chunk)
  return {
    'seconds': [
      taken / chunk for taken in _rounds(lambda: bench.take(chunk), rounds, seconds)
    ],
    'work': model_flops(bench),
    'temp_bytes': program_memory(bench.step_program)['temp'],
    'peak_bytes': runtime.peak_memory_bytes(),
  }


def order(*, images: int, rounds: int, seconds: float) -> dict[str, Any]:
  """Measures what a training step does to find its images among so many.

  Args:
    images: of the split, of which there are labels only.
    rounds, seconds: as for `step`.
  """
  runtime.configure(deterministic=False)
  split = {'label': jnp.zeros(images, jnp.int8)}

  @jax.jit
  def indices(split, seed, step):
    return resident.train_indices(split, seed, step, _BATCH)

  seed, number = jnp.asarray(seed_words(7)), jnp.int32(images // _BATCH)
  before = _memory()
  call = lambda: jax.block_until_ready(indices(split, seed, number))  # noqa: E731
  return {
    'seconds': _rounds(call, rounds, seconds),
    'work': None,
    'peak_bytes': _beside(before),
  }


def splits(*, images: int, rounds: int, seconds: float) -> dict[str, Any]:
  """Measures what is done once to the labels of a set: its splits, and its classes."""
  labels = np.random.default_rng(0).integers(0, _CLASSES, images, np.int32)
  before = _memory()

  def call() -> None:
    kept, _ = splitting.stratified_split(labels, 0.1, 0)
    class_members(labels[kept], _CLASSES)

  return {
    'seconds': _rounds(call, rounds, seconds),
    'work': None,
    'peak_bytes': _beside(before),
  }


def evaluation(
  *, classes: int, examples: int, rounds: int, seconds: float
) -> dict[str, Any]:
  """Measures the report of a classifier: its metrics, tables, plots and page.

  Args:
    classes: K.
    examples: of the split, gray images of 8x8 pixels.
    rounds, seconds: as for `step`.
  """
  random = np.random.default_rng(0)
  labels = random.integers(0, classes, examples)
  shares = random.random((examples, classes), np.float32)
  right = random.random(examples) < 0.7
  shares[np.flatnonzero(right), labels[right]] += 1
  shares /= shares.sum(axis=1, keepdims=True)
  image = np.zeros((8, 8, 1), np.uint8)
  before = _memory()
  with TemporaryDirectory() as folder:

    def call() -> None:
      report.write_report(
        folder,
        summary={},
        config={},
        history=[],
        labels=labels,
        probabilities=shares,
        class_names=[f'class {i}' for i in range(classes)],
        image_at=lambda index: image,
        split='test',
      )

    return {
      'seconds': _rounds(call, rounds, seconds),
      'work': None,
      'peak_bytes': _beside(before),
      'page_bytes': (Path(folder) / 'report' / 'report.html').stat().st_size,
    }


if __name__ == '__main__':
  serve({call.__name__: call for call in (hello, step, order, splits, evaluation)})
