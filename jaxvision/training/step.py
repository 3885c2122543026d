"""The compiled training steps: one step, and several of them in one dispatch.

The seed and the numbers of a run are in its state, so that runs which differ in them
alone share their programs: within a process through a `Compiler`, across processes
through the compile cache.
"""

import collections
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxvision.data import resident, streaming
from jaxvision.data.augment.resized_crop import Crop
from jaxvision.data.dataset import ArraySource
from jaxvision.models.biases import float32_bias_gradients
from jaxvision.models.norms import training_norms
from jaxvision.placement import place
from jaxvision.tasks.base import Batch, PyTree
from jaxvision.training.compiler import Program
from jaxvision.training.mesh import over_batch, replicated

_PREFETCHED_BATCHES = 2  # on the device ahead of the step that takes them


def step_key(state: PyTree) -> jax.Array:
  """Returns the key of the state's step: the same after a resume as without one."""
  return jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)


def parameters_are_finite(params: PyTree) -> jax.Array:
  """Returns whether every parameter is finite, bool.

  The loss may be finite where they are not: where a maximum of 0 and NaN is 0.
  """
  return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]).all()


def from_host(batch: streaming.Batch, sharding: jax.sharding.Sharding) -> Batch:
  """Returns this host's share of a batch as part of the global one on the devices."""
  if sharding.is_fully_addressable:  # one call for all arrays is faster
    return jax.device_put(batch, sharding)
  return {
    name: jax.make_array_from_process_local_data(sharding, array)
    for name, array in batch.items()
  }


def resident_steps(
  run: Any, step: Callable, steps: int = 1
) -> tuple[Callable, Callable]:
  """Returns a train step that draws its batch from a split on the device, and a scan.

  Args:
    run: the run.
    step: (state, batch, key) -> (state, metrics), the task's in a phase of the run.
    steps: of the scan.

  Returns:
    Two functions (state, metrics, split) -> (state, metrics, a loss that is finite only
    if all losses were), to be compiled: `train_step`, and `train_steps_scan` of `steps`.
  """
  to_batch, crop = over_batch(run.mesh), Crop.of(run.config.augment)
  batch_size, health = run.plan.images_per_step, run.task.health
  largest = max(run.info.class_counts) if run.balanced_classes else 0

  def take_step(state, metrics, split, index):
    batch = resident.train_batch(split, index, state.step, state.order_seed, crop)
    batch = jax.lax.with_sharding_constraint(batch, to_batch)
    with training_norms(run.norm_parts), float32_bias_gradients():
      state, new = step(state, batch, step_key(state))
    return state, metrics.merge(new), health(new)

  def train_step(state, metrics, split):
    (index,) = resident.train_indices(
      split, state.order_seed, state.step, batch_size, largest_class=largest
    )
    return take_step(state, metrics, split, index)

  def train_steps_scan(state, metrics, split):
    def body(carry, index):
      *carry, loss = take_step(*carry, split, index)
      return tuple(carry), loss

    indices = resident.train_indices(
      split, state.order_seed, state.step, batch_size, steps, largest
    )
    (state, metrics), losses = jax.lax.scan(body, (state, metrics), indices)
    return state, metrics, jnp.sum(losses)

  return train_step, train_steps_scan


def streaming_step(run: Any, step: Callable) -> Callable:
  """Returns a train step on a batch that comes from the host.

  Args:
    run: the run.
    step: as for `resident_steps`.

  Returns:
    (state, metrics, batch) -> (state, metrics, loss), to be compiled.
  """
  health = run.task.health

  def train_step_on(state, metrics, batch):
    with training_norms(run.norm_parts), float32_bias_gradients():
      state, new = step(state, batch, step_key(state))
    return state, metrics.merge(new), health(new)

  return train_step_on


def step_options(run: Any, state: PyTree) -> dict[str, Any]:
  """Returns the options of `jax.jit` for a train step: each number stays where it lies.

  Args:
    run: the run.
    state: arrays or `jax.ShapeDtypeStruct` with their shardings.
  """
  everywhere = replicated(run.mesh)
  shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
  return {
    'donate_argnums': (0, 1),
    'out_shardings': (shardings, everywhere, everywhere),
  }


class _Trainer:
  """What both trainers share: the phases of a run and the empty metrics.

  Its programs are being compiled when it is made; `wait` has to be called before `run`.

  Attributes:
    waited: seconds in which no step was under way for want of images.
  """

  steps_per_dispatch = 1
  waited = 0.0

  def __init__(self, run: Any, state: PyTree, step: int):
    self._run = run
    self._empty = place(run.task.metrics.empty(), replicated(run.mesh))
    self._jit = step_options(run, state)
    phases = run.task.phases()
    ends = [first for first, _ in phases[1:]] + [sys.maxsize]
    # Phases that are over are not compiled.
    self._phases: list[tuple[int, Any]] = [
      (end, self._start(train_step, state, number))
      for number, (end, (_, train_step)) in enumerate(zip(ends, phases))
      if end > step
    ]
    self._step = step

  def _start(
    self, train_step: Callable, state: PyTree, phase: int
  ) -> tuple[Program, ...]:
    """Starts to compile the programs of a phase: the one of a single step first."""
    raise NotImplementedError

  def wait(self) -> None:
    """Waits for the compiled programs."""
    wait = self._run.compiler.wait
    self._phases = [(end, tuple(map(wait, started))) for end, started in self._phases]

  def _advance(self, steps: int) -> None:
    self._step += steps
    while self._step >= self._phases[0][0]:
      del self._phases[0]

  def empty_metrics(self) -> Any:
    """Returns metrics of no example; they are donated, so a fresh copy."""
    return jax.tree.map(jnp.copy, self._empty)

  def position(self) -> dict[str, Any]:
    """Returns what a checkpoint must hold of the input beside the step."""
    return {}

  def close(self) -> None:
    """Frees what is not freed with the object."""


class ResidentTrainer(_Trainer):
  """Train steps over a split on the device, several to a dispatch.

  Args:
    run: the run.
    source: the training split.
    state: whose shapes and shardings the programs are compiled for.
    step: of the state.

  Attributes:
    steps_per_dispatch: steps in the long program; single steps make up the rest.
  """

  def __init__(self, run: Any, source: ArraySource, state: PyTree, step: int = 0):
    self.steps_per_dispatch = run.steps_per_dispatch()
    self._split = resident.put(source, replicated(run.mesh), run.balanced_classes)
    super().__init__(run, state, step)

  def _start(
    self, train_step: Callable, state: PyTree, phase: int
  ) -> tuple[Program, ...]:
    steps = self.steps_per_dispatch
    functions = resident_steps(self._run, train_step, steps)
    args, key = (state, self._empty, self._split), (phase, steps)
    return tuple(
      self._run.start_compiling(function, *args, key=key, **self._jit)
      for function in functions[: 1 if steps == 1 else 2]
    )

  def run(
    self, state: PyTree, metrics: Any, limit: int
  ) -> tuple[PyTree, Any, Any, int]:
    """Takes up to `limit` steps: returns state, metrics, a loss to wait on, steps."""
    end, programs = self._phases[0]
    program, taken = programs[0], 1
    if min(limit, end - self._step) >= self.steps_per_dispatch:
      program, taken = programs[-1], self.steps_per_dispatch
    result = program(state, metrics, self._split)
    self._advance(taken)
    return *result, taken


class StreamingTrainer(_Trainer):
  """Train steps over batches that come from worker processes, prefetched two deep.

  Args:
    run: the run.
    stream: of the training batches.
    state: whose shapes and shardings the programs are compiled for.
    step: of the state.
  """

  def __init__(self, run: Any, stream: streaming.Stream, state: PyTree, step: int = 0):
    self._stream = stream
    self._to_batch = over_batch(run.mesh)
    self._queue: collections.deque = collections.deque()
    self._position = stream.state()
    self._fill()
    super().__init__(run, state, step)

  def _start(
    self, train_step: Callable, state: PyTree, phase: int
  ) -> tuple[Program, ...]:
    step = streaming_step(self._run, train_step)
    args = (state, self._empty, self._queue[0][0])
    return (self._run.start_compiling(step, *args, key=(phase,), **self._jit),)

  def _fill(self) -> None:
    while len(self._queue) < _PREFETCHED_BATCHES:
      try:
        batch = next(self._stream)
      except StopIteration:
        return
      placed = from_host(batch, self._to_batch)
      self._queue.append((placed, self._stream.state()))

  def run(
    self, state: PyTree, metrics: Any, limit: int
  ) -> tuple[PyTree, Any, Any, int]:
    """Takes one step: returns state, metrics, a loss to wait on, steps taken."""
    del limit
    batch, self._position = self._queue.popleft()
    result = self._phases[0][1][0](state, metrics, batch)
    self._advance(1)
    begun = time.perf_counter()
    self._fill()  # while the device computes
    if result[-1].is_ready():  # it has ended before the images came
      self.waited += time.perf_counter() - begun
    return *result, 1

  def position(self) -> dict[str, Any]:
    """Returns the stream's position behind the last batch taken, not prefetched."""
    return self._position

  def close(self) -> None:
    """Ends the worker processes."""
    self._queue.clear()
    self._stream.close()
