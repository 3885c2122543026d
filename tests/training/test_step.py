"""What 100 training steps cost besides computing: programs, dispatches, transfers.

A change that compiles in the middle of a run, dispatches more often, or goes to and fro
between host and device at every step shows here, on any backend.
"""

import collections
import contextlib
import dataclasses
import threading
import time

import jax
import numpy as np
import pytest

from jaxvision import data
from jaxvision.config.plan import RunPlan
from jaxvision.data.info import DatasetInfo
from jaxvision.training.callbacks import CallbackList, TrainContext
from jaxvision.training.clock import RunClock
from jaxvision.training.compiler import Compiler
from jaxvision.training.loop import TrainLoop
from jaxvision.training.mesh import make_mesh
from jaxvision.training.run import Run

STEPS = 100


class CountingCompiler(Compiler):
  """Counts the calls of each program by the name of its function."""

  def __init__(self):
    super().__init__()
    self.calls = collections.Counter()

  def wait(self, program):
    compiled = super().wait(program)

    def call(*args):
      self.calls[program.name] += 1
      return compiled(*args)

    return call


class NoEvaluator:
  """Measures nothing."""

  split = 'test'

  def measure(self, state):
    return {}

  def picture(self):
    return None


class NoCheckpoints:
  """Writes nothing."""

  def __init__(self, workdir):
    self.directory = workdir / 'checkpoints'

  def steps(self):
    return []

  def save(self, *args):
    return True

  def wait(self):
    pass


class GuardedLoop(TrainLoop):
  """A loop in which only its log points and checkpoints may move data."""

  def _log(self, *args):
    with jax.transfer_guard('allow'):
      super()._log(*args)

  def _save(self, *args):
    with jax.transfer_guard('allow'):
      super()._save(*args)


@contextlib.contextmanager
def counted_reads(monkeypatch):
  """Yields the shapes of the arrays that the host reads off the devices.

  The transfer guard does not see them on a CPU, where no byte moves. An array on
  several devices is read through `_value` whatever reads it.
  """
  kind = type(jax.device_put(0))
  original, shapes = kind._value, []

  def value(array):
    shapes.append(array.shape)
    return original.fget(array)

  with monkeypatch.context() as patch:
    patch.setattr(kind, '_value', property(value))
    yield shapes


@contextlib.contextmanager
def counted_compilations():
  """Yields the seconds of each compilation, be it of one of our programs or not."""
  seconds = []

  def listen(event, duration, **kwargs):
    if event == '/jax/core/compile/backend_compile_duration':
      seconds.append(duration)

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    yield seconds
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture
def train(digits_config, tmp_path, monkeypatch):
  """Trains 100 steps under guard; returns (compiler, compilations, shapes read)."""

  def take(steps_per_dispatch=1, pipeline='resident', wrap=lambda trainer: trainer):
    config = digits_config
    config.steps = STEPS
    config.model = {'name': 'small_filters_cnn', 'features': (2, 2, 2)}
    config.batch_size = 8
    config.steps_per_dispatch = steps_per_dispatch
    config.log_every_steps = config.eval_every_steps = STEPS
    config.checkpoint.every_steps = STEPS
    config.parallel.data = 2
    config.data.pipeline, config.data.workers = pipeline, 0
    dataset = data.load(config.data)
    run = Run.build(config, DatasetInfo.of(dataset), mesh=make_mesh(data=2))
    state = run.init(dataset.splits['train'])
    compiler = CountingCompiler()
    run = dataclasses.replace(run, compiler=compiler)
    trainer = wrap(run.trainer(dataset, state))
    plan = run.plan
    assert plan == RunPlan(8, STEPS, plan.steps_per_epoch, STEPS, STEPS, STEPS)
    callbacks = CallbackList()
    callbacks.on_train_begin(
      TrainContext(tmp_path, config, run.info, 0, STEPS, plan.steps_per_epoch, {})
    )
    clock = RunClock(time.perf_counter())
    loop = GuardedLoop(
      run, trainer, NoEvaluator(), NoCheckpoints(tmp_path), callbacks, clock
    )
    metrics = trainer.empty_metrics()
    # What a log point computes is compiled at the first one: not a matter of the steps.
    loop._log(1, trainer.empty_metrics(), 1.0, state)
    try:
      with (
        counted_reads(monkeypatch) as shapes,
        counted_compilations() as compilations,
        jax.transfer_guard('disallow'),
      ):
        state, step = loop.run(state, metrics, 0, threading.Event())
    finally:
      trainer.close()
    assert step == int(state.step) == STEPS
    # At the log point before the steps, and at the one behind them.
    assert compiler.calls.pop('parameters_are_finite') == 2
    return compiler, compilations, shapes

  return take


@pytest.mark.parametrize(
  ('steps_per_dispatch', 'calls'),
  [
    (1, {'train_step': STEPS}),
    (30, {'train_steps_scan': 3, 'train_step': 10}),
    (STEPS, {'train_steps_scan': 1}),
  ],
)
def test_resident_steps_take_the_fewest_dispatches(train, steps_per_dispatch, calls):
  compiler, compilations, shapes = train(steps_per_dispatch)
  assert compiler.calls == calls
  assert compiler.programs == (2 if steps_per_dispatch == 1 else 3)
  assert compilations == []
  # One loss for each dispatch, and at the one log point the sums of the metrics and
  # whether the parameters are finite.
  at_the_log_point = len(shapes) - sum(calls.values())
  assert 0 <= at_the_log_point <= 5, shapes
  assert set(shapes) == {()}


def test_streamed_steps_take_one_dispatch_each(train):
  compiler, compilations, shapes = train(pipeline='streaming')
  assert compiler.calls == {'train_step_on': STEPS}
  assert compiler.programs == 2
  assert compilations == []
  assert 0 <= len(shapes) - STEPS <= 5
  assert set(shapes) == {()}


class Wrapped:
  """A trainer with a fault in `run`."""

  def __init__(self, trainer):
    self._trainer = trainer

  def __getattr__(self, name):
    return getattr(self._trainer, name)


class ReadsEachStep(Wrapped):
  def run(self, state, metrics, limit):
    result = self._trainer.run(state, metrics, limit)
    assert np.isfinite(np.asarray(result[1].loss.total))
    return result


class SendsEachStep(Wrapped):
  def run(self, state, metrics, limit):
    state = state.replace(step=state.step + 0)
    return self._trainer.run(state, metrics, limit)


def test_read_at_each_step_is_detected(train):
  _, _, shapes = train(wrap=ReadsEachStep)
  assert len(shapes) >= 2 * STEPS


def test_transfer_at_each_step_is_detected(train):
  with pytest.raises(Exception, match='Disallowed host-to-device transfer'):
    train(wrap=SendsEachStep)


def test_batch_is_split_over_the_devices(digits_config, monkeypatch):
  dataset = data.load(digits_config.data)
  mesh = make_mesh()
  assert mesh.size == 8
  run = Run.build(digits_config, DatasetInfo.of(dataset), mesh=mesh)
  train_step, shardings = run.task.train_step, []

  def spy(state, batch, key, **phase):
    jax.debug.inspect_array_sharding(batch['image'], callback=shardings.append)
    return train_step(state, batch, key, **phase)

  monkeypatch.setattr(run.task, 'train_step', spy)
  run.trainer(dataset, run.init())
  shard = shardings[0].shard_shape((digits_config.batch_size, 8, 8, 1))
  assert shard == (digits_config.batch_size // 8, 8, 8, 1)
