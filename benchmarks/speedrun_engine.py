"""Speed runs: many seeds of a config in one process, each program compiled once.

The programs are those of `jaxvision train`, whose seed is a number in the train state; on
a GPU all the steps of a run are one dispatch.

The clock is that of the airbench scripts. Outside: compiling, the upload of the data,
drawing the initial weights. Inside: the whitening layer's kernel out of the training
images, all training steps with their augmentation, and the evaluation of the test split
with its views. There is no evaluation during training, no log and no checkpoint.
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxvision import config as config_lib
from jaxvision.data import resident
from jaxvision.data.dataset import Dataset
from jaxvision.data.info import DatasetInfo
from jaxvision.errors import UserError
from jaxvision.training.evaluation import SplitEvaluator, as_floats
from jaxvision.training.mesh import make_mesh, replicated
from jaxvision.training.run import Run, first_images
from jaxvision.training.step import resident_steps


@dataclasses.dataclass(frozen=True)
class SeedResult:
  """One run.

  Attributes:
    seed: The run's seed.
    accuracy, loss: On the test split, after the last step.
    seconds: Between start and end of the clock.
  """

  seed: int
  accuracy: float
  loss: float
  seconds: float


class SpeedRun:
  """The compiled programs of runs that differ in their seeds alone.

  Args:
    config: Of the runs; its seed is of no effect.
    dataset: What `config.data` names.

  Attributes:
    base: The run, on the first device; its `compiler` counts programs and seconds.
    parameters: Number of parameters of the model.
    state: The train state after the last call.

  Raises:
    UserError: The data are streamed, or the config has a mistake.
  """

  def __init__(self, config: ConfigDict, dataset: Dataset):
    if dataset.pipeline != 'resident':
      raise UserError(
        f'a speed run wants the data on the device, and {dataset.name} is streamed: '
        'raise data.resident_limit_mb'
      )
    self.base = run = Run.build(config, DatasetInfo.of(dataset), mesh=make_mesh(1))
    task, steps = run.task, run.plan.total_steps
    if len(task.phases()) > 1:
      raise UserError(
        'a speed run takes one program for all steps: leave out optimizer.groups.*.start'
      )
    everywhere = replicated(run.mesh)
    self._train = resident.put(dataset.splits['train'], everywhere)
    # XLA:CPU takes a slow path for convolution gradients inside a loop.
    self._per_dispatch = 1 if jax.default_backend() == 'cpu' else steps
    one, scan = resident_steps(run, task.train_step, self._per_dispatch)
    take = one if self._per_dispatch == 1 else scan

    def train_steps(state, split):
      # Without the metrics of training: XLA leaves out what only they need.
      return take(state, task.metrics.empty(), split)[0]

    self.state: Any = run.init()
    self.parameters = sum(leaf.size for leaf in jax.tree.leaves(self.state.params))
    donated: dict[str, Any] = {
      'donate_argnums': (0,),
      'out_shardings': jax.tree.map(lambda leaf: leaf.sharding, self.state),
    }
    self._images, self._begin = None, None
    if task.needs_data_to_init:
      self._images = jax.device_put(first_images(dataset.splits['train']), everywhere)
      self._begin = run.compile(
        task.init_from_data, self.state, self._images, **donated
      )
    self._steps = run.compile(train_steps, self.state, self._train, **donated)
    self._test = SplitEvaluator(run, dataset.splits['test'], 'resident', self.state)
    self._test.wait()
    as_floats(task.metrics.empty())  # so that the first seed compiles nothing

  def __call__(self, seed: int) -> SeedResult:
    """Trains and evaluates one seed."""
    config = config_lib.thaw(self.base.config)
    config.seed = seed
    run = dataclasses.replace(self.base, config=config_lib.freeze(config))
    state = jax.block_until_ready(run.init())
    begun = time.perf_counter()
    if self._begin:
      state = self._begin(state, self._images)
    for _ in range(0, run.plan.total_steps, self._per_dispatch):
      state = self._steps(state, self._train)
    measured, _ = self._test.measure(state)
    seconds = time.perf_counter() - begun
    self.state = state
    return SeedResult(seed, measured['accuracy'], measured['loss'], seconds)


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
