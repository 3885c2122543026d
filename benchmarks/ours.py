"""Our side of a comparison: the engine's own train step or evaluation, in a process.

Started as a script it answers the requests of `sides.py`. The program is the one that
`jaxvision train` compiles for the same config: a split of uint8 images lies on the
device, and a step draws its batch from it in shuffled order, normalises it, and does
forward, loss, backward, optimiser with schedule, and the metrics. On a GPU many steps
are one dispatch, as in a run. No peer does more in its step than this.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from sides import serve
from table import versions

from jaxvision.config import base_config, validate
from jaxvision.data import ArraySource, Dataset
from jaxvision.training import runtime
from jaxvision.training.benchmark import BenchmarkRun, model_flops, program_memory
from jaxvision.training.evaluation import SplitEvaluator

_BATCHES = 16  # in the split that steps draw from
_EVALUATED = 2048  # images in the split that an evaluation goes through


def random_images(batch_size: int, classes: int) -> Dataset:
  """Returns splits of random images, uint8 32x32x3, and random labels.

  Without classes, as in a GAN's comparison, all images are of one.
  """
  classes = max(1, classes)
  rng = np.random.default_rng(0)

  def split(batches: int) -> ArraySource:
    count = batches * batch_size
    images = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
    return ArraySource(images, rng.integers(0, classes, count, np.int32))

  return Dataset(
    name='random images',
    splits={
      'train': split(_BATCHES),
      'test': split(max(1, _EVALUATED // batch_size)),
    },
    class_names=tuple(map(str, range(classes))),
    image_shape=(32, 32, 3),
    mean=(0.5,) * 3,
    std=(0.25,) * 3,
    pipeline='resident',
    synthetic=True,
  )


def make_config(
  name: str,
  batch_size: int,
  dtype: str,
  task: str,
  fields: dict[str, Any],
  devices: int,
) -> ConfigDict:
  """Returns the config: SGD with Nesterov momentum, or a GAN's Adam; no augmentation.

  Args:
    name: of the model.
    batch_size, dtype, task: of the config.
    fields: of the model, where they are not the defaults.
    devices: that share the batch; -1: all.
  """
  config = base_config()
  config.task = task
  config.model = {'name': name, **fields}
  if task == 'classification':
    config.optimizer.name = 'sgd'
    config.optimizer.learning_rate = 0.01
  else:
    config.optimizer.name, config.optimizer.learning_rate = 'adam', 2e-4
    config.optimizer.options.b1 = 0.5
    config.schedule.name = 'constant'
  config.batch_size, config.dtype = batch_size, dtype
  config.eval_batch_size = batch_size
  config.parallel.data = devices
  config.steps = 100_000  # more than are taken
  return validate(config)


class _Requests:
  """What the parent may ask for."""

  def __init__(self):
    self._run: Callable[[int], float] | None = None
    self._least = 1
    self._batch_size = 0
    self._step_seconds = 0.0

  def hello(self) -> dict[str, Any]:
    """Returns what runs here."""
    return {'versions': versions(), 'device': runtime.device_kind()}

  def backend(self) -> str:
    """Returns 'cpu' or 'gpu'."""
    return jax.default_backend()

  def prepare(
    self,
    name: str,
    classes: int,
    batch_size: int,
    dtype: str,
    task: str,
    inference: bool,
    fields: dict[str, Any] | None = None,
    devices: int = -1,
  ) -> dict[str, Any]:
    """Compiles and warms up."""
    begun = time.perf_counter()
    config = make_config(name, batch_size, dtype, task, fields or {}, devices)
    dataset = random_images(batch_size, classes)
    bench = BenchmarkRun(config, dataset, steps=1)
    if inference:
      test = dataset.splits['test']
      evaluator = SplitEvaluator(bench.run, test, dataset.pipeline, bench.state)

      batches = len(test) // batch_size

      def run(steps: int) -> float:
        rounds = max(1, steps // batches)
        started = time.perf_counter()
        for _ in range(rounds):
          evaluator.measure(bench.state)
        return (time.perf_counter() - started) / (rounds * batches)

      self._least = batches
    else:

      def run(steps: int) -> float:
        timing = bench.take(steps)
        return timing.seconds / timing.steps

      self._least = bench.trainer.steps_per_dispatch
    run(max(3, self._least))
    self._run, self._batch_size, self._step_seconds = run, batch_size, 0.0
    return {
      'parameters': sum(leaf.size for leaf in jax.tree.leaves(bench.state.params)),
      'seconds_to_ready': time.perf_counter() - begun,
      'steps_per_dispatch': bench.trainer.steps_per_dispatch,
      'model_flops_per_step': model_flops(bench),
      'temp_bytes': program_memory(bench.step_program)['temp'],
    }

  def run(self, seconds: float) -> float:
    """Takes steps for about `seconds` and returns the images per second."""
    assert self._run, 'prepare comes first'
    if not self._step_seconds:
      self._step_seconds = self._run(max(3, self._least))
    dispatches = max(1, round(seconds / self._step_seconds / self._least))
    self._step_seconds = self._run(max(3, dispatches * self._least))
    return self._batch_size / self._step_seconds

  def peak_memory_bytes(self) -> int | None:
    """Returns the most memory so far: the device's, or on a CPU the process's."""
    return runtime.peak_memory_bytes()


def main() -> None:
  """Answers the parent's requests."""
  runtime.configure(deterministic=False)
  requests = _Requests()
  serve(
    {
      name: getattr(requests, name)
      for name in ('hello', 'backend', 'prepare', 'run', 'peak_memory_bytes')
    }
  )


if __name__ == '__main__':
  main()
