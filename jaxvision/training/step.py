"""The compiled programs: initialise, train steps, evaluation.

Each is compiled ahead, once per shape, so that compile time is told apart from the
time of steps and nothing compiles in the middle of a run.
"""

import collections
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxvision.data import resident, streaming
from jaxvision.data.augment.resized_crop import Crop
from jaxvision.data.dataset import Source
from jaxvision.tasks.base import Batch, PyTree, Task
from jaxvision.training import runtime
from jaxvision.training.mesh import over_batch, replicated, state_shardings

_PREFETCHED_BATCHES = 2  # on the device ahead of the step that takes them


class Compiler:
  """Compiles programs and keeps account of it: `seconds` and `programs` so far."""

  def __init__(self):
    self.seconds = 0.0
    self.programs = 0

  def __call__(self, function: Callable, *args: Any, **jit: Any) -> Callable:
    """Returns `function` compiled for the shapes and shardings of `args`."""
    start = time.perf_counter()
    lowered = jax.jit(function, **jit).lower(*args)
    compiled = lowered.compile(compiler_options=runtime.compiler_options())
    self.seconds += time.perf_counter() - start
    self.programs += 1
    return compiled


def abstract_state(task: Task, mesh: Mesh) -> PyTree:
  """Returns the state's shapes, dtypes and shardings, without allocating it."""
  abstract = jax.eval_shape(task.init, jax.random.key(0))
  shardings = state_shardings(mesh, abstract)
  return jax.tree.map(
    lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s),
    abstract,
    shardings,
  )


def init_state(task: Task, mesh: Mesh, seed: int, compiler: Compiler) -> PyTree:
  """Returns the state at step 0, each part made where it will lie."""
  shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(task, mesh))
  key = jax.device_put(jax.random.key(seed), replicated(mesh))
  return compiler(task.init, key, out_shardings=shardings)(key)


def step_key(state: PyTree) -> jax.Array:
  """Returns the key of the state's step: the same after a resume as without one."""
  return jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)


def _placed(task: Task, mesh: Mesh, state: PyTree) -> tuple[Any, Any]:
  """Returns empty metrics on the mesh, and the output shardings of a train step."""
  everywhere = replicated(mesh)
  metrics = jax.device_put(task.metrics.empty(), everywhere)
  outputs = (jax.tree.map(lambda leaf: leaf.sharding, state), everywhere, everywhere)
  return metrics, outputs


def from_host(batch: streaming.Batch, sharding: jax.sharding.Sharding) -> Batch:
  """Returns this host's share of a batch as part of the global one on the devices."""
  return {
    name: jax.make_array_from_process_local_data(sharding, array)
    for name, array in batch.items()
  }


class _Phases:
  """The programs of the phases of a run, and where in it the trainer stands.

  Args:
    task: whose phases count.
    step: at which the trainer begins; phases that are over are not compiled.
    compile: train step -> what belongs to a phase.
  """

  def __init__(self, task: Task, step: int, compile: Callable[[Callable], Any]):
    phases = task.phases()
    ends = [first for first, _ in phases[1:]] + [sys.maxsize]
    self._phases = [
      (end, compile(train_step))
      for end, (_, train_step) in zip(ends, phases)
      if end > step
    ]
    self._step = step

  @property
  def programs(self) -> Any:
    """What belongs to the phase of the next step."""
    return self._phases[0][1]

  def left(self, limit: int) -> int:
    """Returns the steps up to `limit` that are left of this phase."""
    return min(limit, self._phases[0][0] - self._step)

  def advance(self, steps: int) -> None:
    """Counts steps taken."""
    self._step += steps
    while self._step >= self._phases[0][0]:
      del self._phases[0]


def resident_steps(
  task: Task,
  train_step: Callable,
  mesh: Mesh,
  seed: int | Callable[[PyTree], jax.Array],
  batch_size: int,
  steps: int,
  crop: Crop | None = None,
) -> tuple[Callable, Callable]:
  """Returns a train step over a split on the device, and `steps` of them in one.

  Args:
    task, mesh: of the run.
    train_step: the task's, or that of one of its phases.
    seed: of the run, or what finds its `seed_words` in the state.
    batch_size, steps, crop: see `ResidentTrainer`.

  Returns:
    Two functions (state, metrics, split) -> (state, metrics, a loss that is finite only
    if all were), to be compiled.
  """
  seed_of = seed if callable(seed) else lambda state: seed
  to_batch = over_batch(mesh)

  def take_step(state, metrics, split, index):
    batch = resident.train_batch(split, index, state.step, seed_of(state), crop)
    batch = jax.lax.with_sharding_constraint(batch, to_batch)
    state, new = train_step(state, batch, step_key(state))
    return state, metrics.merge(new), task.health(new)

  def one(state, metrics, split):
    (index,) = resident.train_indices(split, seed_of(state), state.step, batch_size)
    return take_step(state, metrics, split, index)

  def many(state, metrics, split):
    def body(carry, index):
      *carry, loss = take_step(*carry, split, index)
      return tuple(carry), loss

    indices = resident.train_indices(
      split, seed_of(state), state.step, batch_size, steps
    )
    (state, metrics), losses = jax.lax.scan(body, (state, metrics), indices)
    return state, metrics, jnp.sum(losses)

  return one, many


class ResidentTrainer:
  """Train steps over a split on the device, several to a dispatch.

  Attributes:
    steps_per_dispatch: steps in the long program; single steps make up the rest.
  """

  def __init__(
    self,
    task: Task,
    mesh: Mesh,
    source: Source,
    state: PyTree,
    seed: int,
    batch_size: int,
    steps_per_dispatch: int,
    compiler: Compiler,
    step: int = 0,
    crop: Crop | None = None,
  ):
    self.steps_per_dispatch = steps_per_dispatch
    self._split = resident.put(source, replicated(mesh))
    self._empty, outputs = _placed(task, mesh, state)

    def compile_phase(train_step):
      one, many = resident_steps(
        task, train_step, mesh, seed, batch_size, steps_per_dispatch, crop
      )
      args = (state, self._empty, self._split)
      jit = {'donate_argnums': (0, 1), 'out_shardings': outputs}
      single = compiler(one, *args, **jit)
      return single, compiler(many, *args, **jit) if steps_per_dispatch > 1 else single

    self._phases = _Phases(task, step, compile_phase)

  def empty_metrics(self) -> Any:
    """Returns metrics that have seen nothing; they are donated, so a fresh copy."""
    return jax.tree.map(jnp.copy, self._empty)

  def run(
    self, state: PyTree, metrics: Any, limit: int
  ) -> tuple[PyTree, Any, Any, int]:
    """Takes up to `limit` steps: returns state, metrics, a loss to wait on, steps."""
    one, many = self._phases.programs
    taken = 1
    if self._phases.left(limit) >= self.steps_per_dispatch:
      one, taken = many, self.steps_per_dispatch
    result = one(state, metrics, self._split)
    self._phases.advance(taken)
    return *result, taken

  def position(self) -> dict[str, Any]:
    """Returns what a checkpoint must hold besides the step: nothing."""
    return {}

  def close(self) -> None:
    """Frees nothing: the split goes with the object."""


class StreamingTrainer:
  """Train steps over batches that come from worker processes, prefetched two deep."""

  steps_per_dispatch = 1

  def __init__(
    self,
    task: Task,
    mesh: Mesh,
    stream: streaming.Stream,
    state: PyTree,
    compiler: Compiler,
    step: int = 0,
  ):
    self._stream = stream
    self._to_batch = over_batch(mesh)
    self._queue: collections.deque = collections.deque()
    self._position = stream.state()
    self._empty, outputs = _placed(task, mesh, state)

    self._fill()

    def compile_phase(train_step):
      def one(state, metrics, batch):
        state, new = train_step(state, batch, step_key(state))
        return state, metrics.merge(new), task.health(new)

      args = (state, self._empty, self._queue[0][0])
      return compiler(one, *args, donate_argnums=(0, 1), out_shardings=outputs)

    self._phases = _Phases(task, step, compile_phase)

  def _fill(self) -> None:
    while len(self._queue) < _PREFETCHED_BATCHES:
      try:
        batch = next(self._stream)
      except StopIteration:
        return
      placed = from_host(batch, self._to_batch)
      self._queue.append((placed, self._stream.state()))

  def empty_metrics(self) -> Any:
    """Returns metrics that have seen nothing; they are donated, so a fresh copy."""
    return jax.tree.map(jnp.copy, self._empty)

  def run(
    self, state: PyTree, metrics: Any, limit: int
  ) -> tuple[PyTree, Any, Any, int]:
    """Takes one step: returns state, metrics, a loss to wait on, steps taken."""
    del limit
    batch, self._position = self._queue.popleft()
    result = self._phases.programs(state, metrics, batch)
    self._phases.advance(1)
    self._fill()  # while the device computes
    return *result, 1

  def position(self) -> dict[str, Any]:
    """Returns the stream's position behind the last batch taken, not prefetched."""
    return self._position

  def close(self) -> None:
    """Ends the worker processes."""
    self._queue.clear()
    self._stream.close()


class Evaluator:
  """Evaluation over every example of one split: padded, masked, compiled once."""

  def __init__(
    self,
    task: Task,
    mesh: Mesh,
    source: Source,
    pipeline: str,
    state: PyTree,
    batch_size: int,
    workers: int,
    compiler: Compiler,
  ):
    self._source, self._mesh, self._workers = source, mesh, workers
    batch_size = min(batch_size, len(source))
    self._batch_size = -(-batch_size // mesh.size) * mesh.size
    self._metrics = task.metrics
    self._resident = pipeline == 'resident'
    self._everywhere = replicated(mesh)
    self._to_batch = over_batch(mesh)
    size, to_batch = self._batch_size, self._to_batch

    def from_split(state, metrics, split, start):
      batch = resident.eval_batch(split, start, size)
      return from_batch(
        state, metrics, jax.lax.with_sharding_constraint(batch, to_batch)
      )

    def from_batch(state, metrics, batch):
      new, outputs = task.eval_step(state, batch)
      return metrics.merge(new), outputs

    empty = self._empty()
    jit = {'donate_argnums': (1,), 'out_shardings': (self._everywhere, to_batch)}
    if self._resident:
      self._split = resident.put(source, self._everywhere)
      args = (state, empty, self._split, np.int32(0))
      self._step = compiler(from_split, *args, **jit)
    else:
      image, _ = source[0]
      shapes = {
        'image': jax.ShapeDtypeStruct(
          (size, *image.shape), image.dtype, sharding=to_batch
        ),
        'label': jax.ShapeDtypeStruct((size,), np.int32, sharding=to_batch),
        'mask': jax.ShapeDtypeStruct((size,), np.bool_, sharding=to_batch),
      }
      self._step = compiler(from_batch, state, empty, shapes, **jit)

  def _empty(self) -> Any:
    return jax.device_put(self._metrics.empty(), self._everywhere)

  def _batches(self):
    """Yields (arguments of the compiled step, labels on the host) for each batch."""
    if self._resident:
      labels = np.asarray(self._source.labels)
      for start in range(0, len(self._source), self._batch_size):
        yield (self._split, np.int32(start)), labels[start : start + self._batch_size]
      return
    process = (jax.process_index(), jax.process_count())
    stream = streaming.eval_stream(
      self._source, self._batch_size, self._workers, process
    )
    try:
      for batch in stream:
        yield (from_host(batch, self._to_batch),), batch['label'][batch['mask']]
    finally:
      stream.close()

  def measure(self, state: PyTree) -> dict[str, float]:
    """Returns the metrics over the whole split as floats."""
    return self.measure_and_watch(state, ())[0]

  def measure_and_watch(
    self, state: PyTree, indices: Sequence[int]
  ) -> tuple[dict[str, float], np.ndarray]:
    """Returns the metrics over the whole split, and the outputs of a few examples.

    The outputs are computed anyway; they are read once all batches are under way, so
    that the device never waits.

    Args:
      state: what to evaluate.
      indices: places in the split, rising.

    Returns:
      The metrics as floats, and the outputs [len(indices), ...].
    """
    metrics, watched, first = self._empty(), [], 0
    for args, truth in self._batches():
      metrics, output = self._step(state, metrics, *args)
      rows = [i - first for i in indices if first <= i < first + len(truth)]
      if rows:
        watched.append((output, rows))
      first += len(truth)
    measured = {k: float(v) for k, v in metrics.compute().items()}
    outputs = [np.asarray(output)[rows] for output, rows in watched]
    return measured, np.concatenate(outputs) if outputs else np.zeros(0)

  def outputs(self, state: PyTree) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Returns the metrics, the outputs [n, ...] and the labels int32 [n] in order."""
    metrics, outputs, labels = self._empty(), [], []
    for args, truth in self._batches():
      metrics, output = self._step(state, metrics, *args)
      outputs.append(np.asarray(output)[: len(truth)])
      labels.append(truth)
    measured = {k: float(v) for k, v in metrics.compute().items()}
    return measured, np.concatenate(outputs), np.concatenate(labels)
