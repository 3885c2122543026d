"""Runs of one signature side by side: one compiled program, a slot for each run."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxvision.data import resident
from jaxvision.data.augment.resized_crop import Crop
from jaxvision.data.dataset import Dataset
from jaxvision.tasks.base import PyTree, Task
from jaxvision.training.build import (
  DataFacts,
  first_images,
  make_task,
  steps_per_dispatch,
)
from jaxvision.training.loop import Plan
from jaxvision.training.mesh import over_batch, replicated
from jaxvision.training.step import Compiler, resident_steps
from jaxvision.training.tuning import Tuned, tune, tuned_task

_IN_FLIGHT = 2  # dispatches under way, see `loop`


def share_programs(config: ConfigDict, task: Task, dataset: Dataset) -> bool:
  """Returns whether runs of a config can train in slots.

  Not: GANs, sets that are streamed, parameters in parts over devices, layers that are
  frozen for part of the run or for good, weights from elsewhere.
  """
  return (
    task.eval_step is not None
    and dataset.pipeline == 'resident'
    and config.parallel.fsdp == 1
    and not config.init.pretrained
    and not config.freeze
    and not task.later_steps
    and task.features is None
  )


class Slots:
  """Trains runs that share a `signature`, several at once.

  Each slot holds a run at a step of its own; those that hold none compute along and are
  not looked at. Several slots are one program by `jax.vmap`.

  Attributes:
    task: of the runs, over plain states.
    count: of slots.

  Args:
    config: of any of the runs.
    facts, plan: of the config.
    dataset: resident.
    mesh: devices that share each batch.
    count: of slots.
    compiler: keeps account of what is compiled.
  """

  def __init__(
    self,
    config: ConfigDict,
    facts: DataFacts,
    plan: Plan,
    dataset: Dataset,
    mesh: Mesh,
    count: int,
    compiler: Compiler,
  ):
    self.task, _ = make_task(config, facts)
    self.count = count
    self._mesh, self._dataset = mesh, dataset
    self._everywhere = everywhere = replicated(mesh)
    tuned = tuned_task(config, facts)
    self._splits = {
      name: resident.put(source, everywhere) for name, source in dataset.splits.items()
    }
    self._eval_batch = -(-config.eval_batch_size // mesh.size) * mesh.size

    key = jax.device_put(jax.random.key(0), everywhere)
    self._init = compiler(self.task.init, key, out_shardings=everywhere)
    state = self._init(key)
    self._from_data: Callable | None = None
    if self.task.init_from_data is not None:
      self._images = jax.device_put(first_images(dataset.splits['train']), everywhere)
      self._from_data = compiler(
        self.task.init_from_data, state, self._images, out_shardings=everywhere
      )

    self._states = self._repeat(tune(config, state))
    self._metrics = self._repeat(self.task.metrics.empty())
    self._steps = steps_per_dispatch(config, plan)
    one, many = resident_steps(
      tuned,
      tuned.train_step,
      mesh,
      lambda state: state.seed,
      plan.images,
      self._steps,
      Crop.of(config.augment),
    )
    args = (self._states, self._metrics, self._splits['train'])
    jit = {'donate_argnums': (0, 1), 'out_shardings': everywhere}
    self._one = compiler(self._map(one, (0, 0, None)), *args, **jit)
    self._many = self._one
    if self._steps > 1:
      self._many = compiler(self._map(many, (0, 0, None)), *args, **jit)

    to_batch = over_batch(mesh)

    def evaluation(size):
      def evaluate(state, metrics, split, start):
        batch = resident.eval_batch(split, start, size)
        batch = jax.lax.with_sharding_constraint(batch, to_batch)
        new, _ = tuned.eval_step(state, batch)
        return metrics.merge(new)

      return evaluate

    self._evaluations: dict[str, Callable] = {}
    for name in self._splits.keys() - {'train'}:
      self._evaluations[name] = compiler(
        self._map(evaluation(self._size(name)), (0, 0, None, None)),
        self._states,
        self._metrics,
        self._splits[name],
        np.int32(0),
        donate_argnums=(1,),
        out_shardings=everywhere,
      )

  def _size(self, split: str) -> int:
    size = min(self._eval_batch, len(self._dataset.splits[split]))
    return -(-size // self._mesh.size) * self._mesh.size

  def _map(self, function: Callable, axes: tuple) -> Callable:
    return jax.vmap(function, axes) if self.count > 1 else function

  def _repeat(self, tree: PyTree) -> PyTree:
    """Returns a tree with a leading axis for the slots, if there are several."""

    def repeat(leaf):
      leaf = jnp.asarray(leaf)
      return jnp.tile(leaf, (self.count, *[1] * leaf.ndim)) if self.count > 1 else leaf

    return jax.device_put(jax.tree.map(repeat, tree), self._everywhere)

  def _slot(self, tree: PyTree, slot: int) -> PyTree:
    """Returns what belongs to a slot, on the host."""
    pick = (lambda leaf: np.array(leaf[slot])) if self.count > 1 else np.array
    return jax.tree.map(pick, tree)

  def fresh(self, config: ConfigDict) -> PyTree:
    """Returns the state of a run at step 0."""
    key = jax.device_put(jax.random.key(config.seed), self._everywhere)
    state = self._init(key)
    return self._from_data(state, self._images) if self._from_data else state

  def put(
    self, slot: int, config: ConfigDict, state: PyTree, metrics: Any = None
  ) -> None:
    """Puts a run into a slot.

    Args:
      slot: whose run, if any, is forgotten.
      config: of the run.
      state: of the run, at any step.
      metrics: under way, since the last log point; None: none.
    """
    self._states = self._with(self._states, slot, tune(config, state))
    empty = self.task.metrics.empty()
    self._metrics = self._with(self._metrics, slot, metrics or empty)

  def _with(self, tree: PyTree, slot: int, new: PyTree) -> PyTree:
    if self.count == 1:
      # A copy: the next step takes the memory over.
      return jax.device_put(jax.tree.map(jnp.copy, new), self._everywhere)
    changed = jax.tree.map(lambda all_, one: all_.at[slot].set(one), tree, new)
    return jax.device_put(changed, self._everywhere)

  def advance(self, steps: int, stopped: Callable[[], bool]) -> tuple[int, np.ndarray]:
    """Trains all slots by some steps.

    Args:
      steps: at most so many.
      stopped: asked before each dispatch; True: no further one.

    Returns:
      (steps taken, whether the losses of each slot were finite: bool [count]).
    """
    taken, losses = 0, []
    while taken < steps and not stopped():
      whole = steps - taken >= self._steps
      step = self._many if whole else self._one
      self._states, self._metrics, loss = step(
        self._states, self._metrics, self._splits['train']
      )
      taken += self._steps if whole else 1
      losses.append(loss)
      if len(losses) > _IN_FLIGHT:
        jax.block_until_ready(losses[-_IN_FLIGHT])
    if not losses:
      return 0, np.ones(self.count, bool)
    finite = np.isfinite(np.array([np.asarray(loss) for loss in losses])).all(0)
    return taken, np.atleast_1d(finite)

  def take_metrics(self, slot: int) -> dict[str, float]:
    """Returns the measures of training of a slot since the last call, or its start."""
    measured = self._slot(self._metrics, slot).compute()
    self._metrics = self._with(self._metrics, slot, self.task.metrics.empty())
    return {name: float(value) for name, value in measured.items()}

  def evaluate(self, split: str) -> list[dict[str, float]]:
    """Returns the measures of each slot over a whole split."""
    metrics = self._repeat(self.task.metrics.empty())
    step = self._evaluations[split]
    for start in range(0, len(self._dataset.splits[split]), self._size(split)):
      metrics = step(self._states, metrics, self._splits[split], np.int32(start))
    found = [self._slot(metrics, slot).compute() for slot in range(self.count)]
    return [{name: float(value) for name, value in one.items()} for one in found]

  def read(self, slot: int) -> tuple[PyTree, Any]:
    """Returns (state, metrics under way) of a slot, on the host."""
    tuned: Tuned = self._states
    return self._slot(tuned.state, slot), self._slot(self._metrics, slot)
