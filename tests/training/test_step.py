"""What 100 training steps cost besides computing: programs, dispatches, transfers.

A change that compiles in the middle of a run, dispatches more often, or goes to and fro
between host and device at every step shows here, on any backend.
"""

import collections
import contextlib
import threading
import time

import jax
import numpy as np
import pytest
from jaxvision.training.build import DataFacts, fresh_state, make_task, make_trainer

from jaxvision import data
from jaxvision.training import step as programs
from jaxvision.training.loop import Clock, Loop, Plan
from jaxvision.training.mesh import make_mesh

STEPS = 100


class CountingCompiler(programs.Compiler):
  """Counts the calls of each program by the name of its function."""

  def __init__(self):
    super().__init__()
    self.calls = collections.Counter()

  def __call__(self, function, *args, **jit):
    program = super().__call__(function, *args, **jit)

    def call(*args):
      self.calls[function.__name__] += 1
      return program(*args)

    return call


class Silent:
  """Stands for the checkpoints, the log, the terminal and the evaluator of a loop."""

  def steps(self):
    return []

  def measure(self, state):
    return {}

  def __getattr__(self, name):
    return lambda *args, **kwargs: True


class LoopWithCheckpoints(Loop):
  """A loop in which only its log points and checkpoints may move data."""

  def _log_training(self, *args):
    with jax.transfer_guard('allow'):
      super()._log_training(*args)

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
def train(digits_config, monkeypatch):
  """Trains 100 steps under guard; returns (compiler, compilations, shapes read)."""

  def run(steps_per_dispatch=1, pipeline='resident', wrap=lambda trainer: trainer):
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
    task, plan = make_task(config, DataFacts.of(dataset))
    mesh = make_mesh(data=2)
    compiler = CountingCompiler()
    state = fresh_state(
      task, mesh, config.seed, dataset.splits['train'], programs.Compiler()
    )
    trainer = wrap(
      make_trainer(config, plan, task, mesh, dataset, state, None, compiler)
    )
    assert plan == Plan(8, STEPS, plan.steps_per_epoch, STEPS, STEPS, STEPS)
    loop = LoopWithCheckpoints(
      task,
      plan,
      trainer,
      Silent(),
      'test',
      Silent(),
      Silent(),
      Silent(),
      Clock(time.perf_counter()),
    )
    metrics = trainer.empty_metrics()
    # What a log point computes is compiled at the first one: not a matter of the steps.
    loop._log_training(0, trainer.empty_metrics(), 1.0)
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
    return compiler, compilations, shapes

  return run


@pytest.mark.parametrize(
  ('steps_per_dispatch', 'calls'),
  [(1, {'one': STEPS}), (30, {'many': 3, 'one': 10}), (STEPS, {'many': 1})],
)
def test_resident_steps_are_as_many_dispatches_as_they_must(
  train, steps_per_dispatch, calls
):
  compiler, compilations, shapes = train(steps_per_dispatch)
  assert compiler.calls == calls
  assert compiler.programs == (1 if steps_per_dispatch == 1 else 2)
  assert compilations == []
  # One loss for each dispatch, and the sums of the metrics at the one log point.
  at_the_log_point = len(shapes) - sum(calls.values())
  assert 0 <= at_the_log_point <= 4, shapes
  assert set(shapes) == {()}


def test_streamed_steps_are_one_dispatch_each(train):
  compiler, compilations, shapes = train(pipeline='streaming')
  assert compiler.calls == {'one': STEPS}
  assert compiler.programs == 1
  assert compilations == []
  assert 0 <= len(shapes) - STEPS <= 4
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


def test_a_read_at_each_step_is_seen(train):
  _, _, shapes = train(wrap=ReadsEachStep)
  assert len(shapes) >= 2 * STEPS


def test_an_array_sent_at_each_step_is_seen(train):
  with pytest.raises(Exception, match='Disallowed host-to-device transfer'):
    train(wrap=SendsEachStep)
