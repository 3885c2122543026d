"""How fast a config trains here: speed, step times, FLOPs, compilation, input, memory.

`BenchmarkRun` builds what a run builds, the same compiled steps over the same pipeline,
and takes steps without evaluation, checkpoints or a run directory.
"""

import collections
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxvision.config.limits import switched_on
from jaxvision.data import resident, streaming
from jaxvision.data.augment.resized_crop import Crop
from jaxvision.data.dataset import Dataset
from jaxvision.data.info import DatasetInfo
from jaxvision.tasks.base import Parts
from jaxvision.training import runtime
from jaxvision.training.compiler import Compiler, Program
from jaxvision.training.features import precompute
from jaxvision.training.loop import IN_FLIGHT
from jaxvision.training.mesh import over_batch, replicated
from jaxvision.training.peak_flops import peak
from jaxvision.training.run import Run
from jaxvision.training.step import from_host

_SETTLE_STEPS = 5  # untimed: the first steps fill buffers and touch memory
_FEWEST_DISPATCHES = 10  # that a distribution is made of
_ALONE_REPEATS = 10  # of a part of the step that is timed alone

# Gradients by the inputs and by the weights each cost what the forward pass does; the
# first layer's input needs none, which is left out of account as papers do.
_TRAINING_OVER_FORWARD = 3


class RecordingCompiler(Compiler):
  """A compiler that keeps what it compiled, in `compiled`, and shares nothing."""

  def __init__(self):
    super().__init__()
    self.compiled: list[Program] = []

  def start(
    self, function: Callable, *args: Any, key: Any = None, **jit: Any
  ) -> Program:
    """See `Compiler.start`."""
    del key
    program = super().start(function, *args, **jit)
    self.compiled.append(program)
    return program


@dataclasses.dataclass(frozen=True)
class Timing:
  """Steps taken in a row.

  Attributes:
    steps: how many.
    seconds: from the first dispatch to the end of the last.
    step_seconds: of a turn of the loop, which dispatches and waits for the dispatch of
      some turns ago, over the steps of a dispatch; without the turns that only wait.
  """

  steps: int
  seconds: float
  step_seconds: tuple[float, ...]


class BenchmarkRun:
  """The compiled training steps of a config, ready to be taken and timed.

  Args:
    config: valid.
    dataset: loaded by `config.data`.
    steps: the largest number of steps that will be taken; a stream ends after them.
    parts: the user's own parts; None: those that the config names.

  Raises:
    UserError: the config does not fit the data or the devices.
  """

  def __init__(
    self, config: ConfigDict, dataset: Dataset, steps: int, parts: Parts | None = None
  ):
    self.compiler = RecordingCompiler()
    info = DatasetInfo.of(dataset)
    run = Run.build(config, info, parts=parts, compiler=self.compiler)
    self.state = run.for_training(run.init(dataset.splits['train']))
    self.dataset = dataset
    if run.task.features:
      self.dataset = precompute(run, dataset, self.state)
    # The schedule is the run's own; there are steps enough for it and for us.
    total = max(run.plan.total_steps, steps)
    plan = dataclasses.replace(run.plan, total_steps=total)
    self.run = dataclasses.replace(run, plan=plan)
    self.config, self.info, self.mesh = run.config, info, run.mesh
    self.task, self.plan = run.task, plan
    self.trainer = self.run.trainer(self.dataset, self.state)
    self.metrics = self.trainer.empty_metrics()

  def take(self, steps: int) -> Timing:
    """Takes `steps`, rounded up to whole dispatches, as the training loop takes them."""
    chunk = self.trainer.steps_per_dispatch
    wanted = -(-steps // chunk) * chunk
    under_way: collections.deque = collections.deque()
    turns, taken = [], 0
    begun = last = time.perf_counter()
    while taken < wanted:
      self.state, self.metrics, loss, count = self.trainer.run(
        self.state, self.metrics, wanted - taken
      )
      taken += count
      under_way.append(loss)
      if len(under_way) > IN_FLIGHT:
        jax.block_until_ready(under_way.popleft())
        now = time.perf_counter()
        turns.append((now - last) / count)
        last = now
    jax.block_until_ready(list(under_way))
    seconds = time.perf_counter() - begun
    return Timing(taken, seconds, tuple(turns or [seconds / taken]))

  @property
  def step_program(self) -> Any:
    """The compiled program of a single step."""
    return next(
      c.result()
      for c in self.compiler.compiled
      if c.name.startswith('train_step') and 'scan' not in c.name
    )

  def close(self) -> None:
    """Ends the worker processes of a stream."""
    self.trainer.close()


def _median_seconds(call: Callable[[], Any], repeats: int = _ALONE_REPEATS) -> float:
  """Returns the median seconds of a call, compiled before, that returns arrays."""
  jax.block_until_ready(call())
  times = []
  for _ in range(repeats):
    begun = time.perf_counter()
    jax.block_until_ready(call())
    times.append(time.perf_counter() - begun)
  return float(np.median(times))


def _resident_data_seconds(bench: BenchmarkRun) -> float:
  """Returns the seconds that finding and gathering one batch takes, alone."""
  config = bench.config
  split = resident.put(bench.dataset.splits['train'], replicated(bench.mesh))
  crop = Crop.of(config.augment)

  @jax.jit
  def data_part(split, step):
    (index,) = resident.train_indices(
      split, config.seed, step, bench.plan.images_per_step
    )
    batch = resident.train_batch(split, index, step, config.seed, crop)
    return jax.lax.with_sharding_constraint(batch, over_batch(bench.mesh))

  step = jax.device_put(jnp.zeros((), jnp.int32), replicated(bench.mesh))
  return _median_seconds(lambda: data_part(split, step))


def _streaming_step_seconds(bench: BenchmarkRun) -> float:
  """Returns the seconds of a step whose batch lies on the device already."""
  config, source = bench.config, bench.dataset.splits['train']
  process = (jax.process_index(), jax.process_count())
  stream = streaming.train_stream(
    source, config.seed, bench.plan.images_per_step, 1, workers=0, process=process
  )
  try:
    batch = from_host(next(stream), over_batch(bench.mesh))
  finally:
    stream.close()
  one = bench.step_program

  def call():
    bench.state, bench.metrics, loss = one(bench.state, bench.metrics, batch)
    return loss

  return _median_seconds(call)


def program_memory(program: Any) -> dict[str, int | None]:
  """Returns the bytes that a compiled program holds on each device, None if unknown."""
  analysis = program.memory_analysis()
  return {
    name: getattr(analysis, f'{name}_size_in_bytes', None)
    for name in ('argument', 'output', 'temp', 'alias')
  }


def _xla_flops(program: Any) -> float | None:
  """Returns XLA's count of a program's operations on one device, or None."""
  costs = program.cost_analysis()
  costs = costs[0] if isinstance(costs, list) and costs else costs
  return (costs or {}).get('flops')


def measure(
  config: ConfigDict, dataset: Dataset, steps: int, parts: Parts | None = None
) -> dict[str, Any]:
  """Trains for some steps and returns what they cost.

  Args:
    config: valid; where it computes is `config.parallel`.
    dataset: loaded by `config.data`.
    steps: to time, after some that are not; rounded up to whole dispatches, of which
      there are at least ten.
    parts: the user's own parts; None: those that the config names.

  Returns:
    JSON: see `render`, which names what is in it. A value that is not known here, such
    as XLA's count of FLOPs on some backends, is None.

  Raises:
    UserError: the config does not fit the data or the devices.
  """
  with _counting_cache_hits() as hits:
    chunk = max(config.log_every_steps, config.steps_per_dispatch)
    bench = BenchmarkRun(
      config, dataset, steps + _SETTLE_STEPS + (_FEWEST_DISPATCHES + 2) * chunk, parts
    )
  try:
    bench.take(_SETTLE_STEPS)
    least = _FEWEST_DISPATCHES * bench.trainer.steps_per_dispatch
    timing = bench.take(max(steps, least))
    step_seconds = timing.seconds / timing.steps
    resident_data = bench.dataset.pipeline == 'resident'
    if resident_data:
      input_seconds = _resident_data_seconds(bench)
    else:
      input_seconds = max(0.0, step_seconds - _streaming_step_seconds(bench))
  finally:
    bench.close()
  flops = model_flops(bench)
  peak_flops, peak_source = peak(config.dtype, bench.mesh.size)
  speed = None if flops is None else flops / step_seconds
  percentiles = np.percentile(timing.step_seconds, [50, 90, 99])
  xla_flops = _xla_flops(bench.step_program)
  stats = jax.local_devices()[0].memory_stats()
  return {
    'config_name': config.name,
    'dataset': bench.info.name,
    'synthetic': bench.info.synthetic,
    'model': config.model.name,
    'params': _parameters(bench.state),
    'batch_size': bench.plan.images_per_step,
    'dtype': config.dtype,
    'pipeline': bench.dataset.pipeline,
    'steps': timing.steps,
    'steps_per_dispatch': bench.trainer.steps_per_dispatch,
    'images_per_second': bench.plan.images_per_step / step_seconds,
    'step_seconds': {
      'mean': step_seconds,
      'min': min(timing.step_seconds),
      'p50': percentiles[0].item(),
      'p90': percentiles[1].item(),
      'p99': percentiles[2].item(),
      'max': max(timing.step_seconds),
    },
    'compile_seconds': {c.name: c.seconds for c in bench.compiler.compiled},
    'compile_cache_hits': len(hits),
    'model_flops_per_step': flops,
    'xla_flops_per_step': None if xla_flops is None else xla_flops * bench.mesh.size,
    'flops_per_second': speed,
    'peak_flops_per_second': peak_flops,
    'peak_source': peak_source,
    'peak_share': None if speed is None else speed / peak_flops,
    'input_seconds_per_step': input_seconds,
    'input_share': min(1.0, input_seconds / step_seconds),
    'program_memory_bytes': {
      c.name: program_memory(c.result()) for c in bench.compiler.compiled
    },
    'peak_memory_bytes': runtime.peak_memory_bytes(),
    'device_memory_stats': {k: int(v) for k, v in stats.items()} if stats else None,
    **runtime.facts(),
  }


def _parameters(state: Any) -> int:
  return sum(leaf.size for leaf in jax.tree.leaves(state.params))


def model_flops(bench: BenchmarkRun) -> int | None:
  """Returns the FLOPs of a training step by the layers; `optimizer.sam` takes two passes.

  None for a task with several networks, and where layers are frozen: what is spared
  depends on where they are.
  """
  tables = bench.task.summaries()
  if len(tables) != 1 or bench.config.freeze or len(bench.task.phases()) > 1:
    return None
  passes = 2 if switched_on(bench.config.optimizer.sam) else 1
  return passes * _TRAINING_OVER_FORWARD * tables[0].flops * bench.config.batch_size


class _counting_cache_hits:
  """Collects an entry for each program that the persistent cache had already."""

  def __enter__(self) -> list[str]:
    self._hits: list[str] = []
    jax.monitoring.register_event_listener(self._listen)
    return self._hits

  def _listen(self, event: str, **kwargs: Any) -> None:
    if event == '/jax/compilation_cache/cache_hits':
      self._hits.append(event)

  def __exit__(self, *error: Any) -> None:
    jax.monitoring.unregister_event_listener(self._listen)


def _milliseconds(seconds: float) -> str:
  return f'{seconds * 1e3:.3g} ms'


def _megabytes(count: int) -> str:
  return f'{count / 1e6:,.1f} MB'


def _tera(flops: float) -> str:
  return f'{flops / 1e12:.3g} TFLOP/s'


def _aligned(rows: Sequence[tuple[str, str]]) -> str:
  width = max(len(name) for name, _ in rows)
  return '\n'.join(f'{name.ljust(width)}  {value}' for name, value in rows)


def render(result: dict[str, Any]) -> str:
  """Returns what `measure` found as lines to read."""
  steps = result['step_seconds']
  per = result['steps_per_dispatch']
  over = f' (each a mean over the {per} steps of a dispatch)' if per > 1 else ''
  spread = ', '.join(
    f'{name} {_milliseconds(steps[name])}'
    for name in ('min', 'p50', 'p90', 'p99', 'max')
  )
  cached = result['compile_cache_hits']
  note = f' ({cached} of them out of the cache)' if cached else ''
  rows = [
    (
      'model',
      f'{result["model"]}, {result["params"]:,} parameters, {result["dtype"]}',
    ),
    (
      'data',
      f'{result["dataset"]}{" (made up)" if result["synthetic"] else ""}, '
      f'{result["pipeline"]}, batches of {result["batch_size"]}',
    ),
    (
      'device',
      f'{result["device_count"]} x {result["device_kind"]} '
      f'(JAX {result["versions"]["jax"]})',
    ),
    (
      'speed',
      f'{result["images_per_second"]:,.0f} images/s over {result["steps"]} steps',
    ),
    ('step time', spread + over),
    (
      'compilation',
      ', '.join(f'{k} {v:.2f} s' for k, v in result['compile_seconds'].items()) + note,
    ),
  ]
  if result['model_flops_per_step'] is not None:
    counts = f'{result["model_flops_per_step"] / 1e9:,.2f} GFLOPs a step by the layers'
    if result['xla_flops_per_step'] is not None:
      counts += f', {result["xla_flops_per_step"] / 1e9:,.2f} by XLA'
    rows.append(('work', counts))
    rows.append(
      (
        'of the peak',
        f'{result["peak_share"]:.1%}: {_tera(result["flops_per_second"])} of '
        f'{_tera(result["peak_flops_per_second"])} ({result["peak_source"]})',
      )
    )
  what = (
    'index and gather, alone'
    if result['pipeline'] == 'resident'
    else 'a step more than with its batch at hand'
  )
  rows.append(
    (
      'input',
      f'{result["input_share"]:.1%} of the step: '
      f'{_milliseconds(result["input_seconds_per_step"])} ({what})',
    )
  )
  for name, memory in result['program_memory_bytes'].items():
    known = {part: count for part, count in memory.items() if count is not None}
    if known:
      parts = ', '.join(f'{k} {_megabytes(v)}' for k, v in known.items())
      rows.append((f'memory of {name}', parts))
  if result['peak_memory_bytes']:
    where = 'process' if result['backend'] == 'cpu' else 'device'
    rows.append(('peak memory', f'{_megabytes(result["peak_memory_bytes"])} ({where})'))
  return _aligned(rows)
