"""Speed runs: many seeds of a config in one process, each program compiled once.

A seed is an argument of the compiled programs, where `jaxvision train` makes it a
constant of theirs; the runs are the same otherwise, to the last bit for equal programs.

The clock is that of the airbench scripts. Outside: compiling, the upload of the data,
drawing the initial weights. Inside: the whitening layer's kernel out of the training
images, all training steps with their augmentation, and the evaluation of the test split
with its views. There is no evaluation on the way, no log and no checkpoint.
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxvision.training.build import DataFacts, first_images, make_task
from ml_collections import ConfigDict

from jaxvision.data import resident
from jaxvision.data.augment.resized_crop import Crop
from jaxvision.data.dataset import Dataset
from jaxvision.data.order import seed_words
from jaxvision.errors import UserError
from jaxvision.training.step import Compiler, step_key


@dataclasses.dataclass(frozen=True)
class Outcome:
  """One run.

  Attributes:
    seed: of the run.
    accuracy, loss: on the test split, after the last step.
    seconds: between start and end of the clock; of runs that went together, their share.
  """

  seed: int
  accuracy: float
  loss: float
  seconds: float


class SpeedRun:
  """The compiled programs of runs that differ in nothing but their seeds.

  Attributes:
    compiler: what was compiled, and how long it took.
    plan: the steps of each run.
    parameters: of the model.
    state: after the last `run`, with a leading axis where several go together.
  """

  def __init__(self, config: ConfigDict, dataset: Dataset, together: int = 1):
    """Compiles everything for the first device.

    Args:
      config: of the runs, but for its seed.
      dataset: what it names.
      together: seeds that train at once, through `jax.vmap`.

    Raises:
      UserError: the data do not fit the device, or `make_task` finds a mistake.
    """
    if dataset.pipeline != 'resident':
      raise UserError(
        f'a speed run wants the data on the device, and {dataset.name} is streamed: '
        'raise data.resident_limit_mb'
      )
    if together < 1:
      raise UserError(f'a speed run takes at least 1 seed at once, not {together}')
    self.together = together
    self.compiler = Compiler()
    task, self.plan = make_task(config, DataFacts.of(dataset))
    if task.later_steps:
      raise UserError(
        'a speed run takes one program for all steps: leave out optimizer.groups.*.start'
      )
    self._task = task
    crop = Crop.of(config.augment)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    self._device = device
    train, test = dataset.splits['train'], dataset.splits['test']
    self._train, self._test = resident.put(train, device), resident.put(test, device)
    self._first = jax.device_put(first_images(train), device)
    batch_size, test_size = config.batch_size, min(config.eval_batch_size, len(test))
    self._test_starts = range(0, len(test), test_size)
    # XLA:CPU takes a slow path for convolution gradients inside a loop; elsewhere the
    # whole run is one dispatch.
    self._dispatch = 1 if jax.default_backend() == 'cpu' else self.plan.total

    def prepare(state, images):
      return task.init_from_data(state, images) if task.init_from_data else state

    def advance(state, words, split):
      def step(state, index):
        batch = resident.train_batch(split, index, state.step, words, crop)
        return task.train_step(state, batch, step_key(state))[0], None

      indices = resident.train_indices(
        split, words, state.step, batch_size, self._dispatch
      )
      if self._dispatch == 1:
        return step(state, indices[0])[0]
      return jax.lax.scan(step, state, indices)[0]

    def measure(state, metrics, split, start):
      batch = resident.eval_batch(split, start, test_size)
      return metrics.merge(task.eval_step(state, batch)[0])

    def each(function, *axes):
      return function if together == 1 else jax.vmap(function, in_axes=axes)

    compiled = self.compiler
    key, words = self._seed(0)
    self._init = compiled(task.init, key)
    state = jax.eval_shape(task.init, key)
    self.parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    words, empty = self._stack([words] * together), task.metrics.empty()
    self._empty = jax.device_put(self._stack([empty] * together), device)
    state = jax.eval_shape(self._stack, [state] * together)
    self._prepare = compiled(
      each(prepare, 0, None), state, self._first, donate_argnums=(0,)
    )
    self._advance = compiled(
      each(advance, 0, 0, None), state, words, self._train, donate_argnums=(0,)
    )
    self._measure = compiled(
      each(measure, 0, 0, None, None), state, self._empty, self._test, np.int32(0)
    )
    self.state: Any = None

  def _seed(self, seed: int) -> tuple[jax.Array, jax.Array]:
    """Returns the key and the words of a seed, on the device."""
    return jax.device_put((jax.random.key(seed), seed_words(seed)), self._device)

  def _stack(self, trees: Sequence[Any]) -> Any:
    """Returns trees as one with a leading axis, or the one there is."""
    if self.together == 1:
      return trees[0]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

  def run(self, seeds: Sequence[int]) -> list[Outcome]:
    """Trains and evaluates as many seeds as go together.

    Raises:
      ValueError: they are fewer or more.
    """
    if len(seeds) != self.together:
      raise ValueError(f'{self.together} seeds go together, got {len(seeds)}')
    keys, words = zip(*map(self._seed, seeds))
    words = self._stack(words)
    # One by one: many at once take minutes to compile on a CPU, and are not timed.
    state, metrics = self._stack([self._init(key) for key in keys]), self._empty
    jax.block_until_ready((state, words))
    begun = time.perf_counter()
    state = self._prepare(state, self._first)
    for _ in range(0, self.plan.total, self._dispatch):
      state = self._advance(state, words, self._train)
    for start in self._test_starts:
      metrics = self._measure(state, metrics, self._test, np.int32(start))
    jax.block_until_ready((state, metrics))
    seconds = time.perf_counter() - begun
    self.state = state
    outcomes = []
    for i, seed in enumerate(seeds):
      alone = metrics
      if self.together > 1:
        alone = jax.tree.map(lambda leaf, i=i: leaf[i], metrics)
      measured = {k: float(v) for k, v in alone.compute().items()}
      share = seconds / self.together
      outcomes.append(Outcome(seed, measured['accuracy'], measured['loss'], share))
    return outcomes


def statistics(values: Sequence[float]) -> dict[str, Any]:
  """Returns mean, standard deviation, n, and half of the mean's 95 % interval.

  The interval is Student's, from the sample's standard deviation; None for one value.

  >>> {k: round(v, 3) for k, v in statistics([1.0, 2.0, 3.0]).items()}
  {'mean': 2.0, 'std': 1.0, 'n': 3, 'interval95': 2.484}
  """
  from scipy.stats import t

  n = len(values)
  if n < 2:
    return {'mean': float(np.mean(values)), 'std': None, 'n': n, 'interval95': None}
  std = float(np.std(values, ddof=1))
  return {
    'mean': float(np.mean(values)),
    'std': std,
    'n': n,
    'interval95': float(t.ppf(0.975, n - 1) * std / np.sqrt(n)),
  }
