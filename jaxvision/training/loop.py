"""The training loop: dispatch steps; at their times log, evaluate and save."""

import collections
import contextlib
import math
import threading
import time
from typing import Any

import jax
import numpy as np

from jaxvision.errors import TrainingDiverged, UserError
from jaxvision.tasks.base import PyTree, saved_fields
from jaxvision.training import processes
from jaxvision.training.callbacks import CallbackList
from jaxvision.training.checkpoints import Checkpoints
from jaxvision.training.clock import RunClock
from jaxvision.training.evaluation import RunEvaluator, as_floats
from jaxvision.training.run import Run
from jaxvision.training.run_directory import RunDirectory
from jaxvision.training.step import (
  ResidentTrainer,
  StreamingTrainer,
  parameters_are_finite,
)

# Dispatches that may be under way: enough to hide Python, few enough that a signal or
# a diverged loss is noticed within a step or two.
IN_FLIGHT = 2
_NOTE_SECONDS = 10.0


class TrainLoop:
  """Trains a state to the end of its plan, to a signal, or until a callback stops it.

  Args:
    run: what is trained.
    trainer: its compiled steps.
    evaluator: measures the state while it trains.
    checkpoints: where it is saved.
    callbacks: called at log points, evaluations and checkpoints.
    clock: of the run.

  Attributes:
    stopped: whether a signal has ended it.
  """

  def __init__(
    self,
    run: Run,
    trainer: ResidentTrainer | StreamingTrainer,
    evaluator: RunEvaluator,
    checkpoints: Checkpoints,
    callbacks: CallbackList,
    clock: RunClock,
  ):
    self._task, self._plan = run.task, run.plan
    self._compile, self._compiler = run.compile, run.compiler
    self._trainer, self._evaluator = trainer, evaluator
    self._checkpoints, self._callbacks, self._clock = checkpoints, callbacks, clock
    self._directory = RunDirectory(checkpoints.directory.parent)
    self._noted = -math.inf  # when the clock was written last
    self._last_good: int | None = None
    self._stopped_by, self.stopped = '', False

  def run(
    self, state: PyTree, metrics: Any, step: int, stop: threading.Event
  ) -> tuple[PyTree, int]:
    """Trains from `step` on; returns the state and its step.

    Args:
      state: donated.
      metrics: of training since the last log point.
      step: of the state.
      stop: ends the run at the next dispatch, with a checkpoint.

    Raises:
      TrainingDiverged: a loss is NaN or infinite, or a parameter at a log point.
    """
    plan = self._plan
    saved = self._checkpoints.steps()
    self._last_good = saved[-1] if saved else None
    place = self._place()
    self._note(step)
    with contextlib.closing(processes.SharedStop(stop)) as stopping:
      # Steps and seconds since the last log point, for its images per second.
      steps, seconds = 0, 0.0
      self.stopped = stopping()
      ends = self.stopped or step == plan.total_steps
      while not ends:
        first, begun, waited = step, time.perf_counter(), self._trainer.waited
        state, metrics, step = self._train_until(
          state, metrics, step, plan.next_stop(step), stopping
        )
        spent = time.perf_counter() - begun
        self._clock.add('train', spent)
        self._clock.add('data', self._trainer.waited - waited)
        steps, seconds = steps + step - first, seconds + spent
        self._check_place(place)
        self._compiler.check()  # of the evaluation, which compiles meanwhile
        at_end = step == plan.total_steps
        # A signal that came while the last point was saved leaves nothing to tell.
        if step > first and (step % plan.log_every == 0 or at_end):
          self._log(step, metrics, steps * plan.images_per_step / seconds, state)
          metrics, steps, seconds = self._trainer.empty_metrics(), 0, 0.0
          if time.perf_counter() - self._noted > _NOTE_SECONDS:
            self._note(step)
        measured = None
        if step > first and (step % plan.eval_every == 0 or at_end):
          with self._clock.spent_for('evaluation'):
            measured = self._evaluate(step, state)
        context = self._callbacks.context
        if reason := processes.agreed(context.stop_reason or ''):
          context.stop(reason)
        self._stopped_by = context.stop_reason or ''
        self.stopped = stopping()
        ends = at_end or self.stopped or bool(self._stopped_by)
        if step % plan.save_every == 0 or ends:
          with self._clock.spent_for('checkpoints'):
            self._save(step, state, metrics, measured)
    with self._clock.spent_for('checkpoints'):
      self._checkpoints.wait()
    return state, step

  def _note(self, step: int) -> None:
    """Writes down how far the run is, for whoever goes on with it if it is killed."""
    self._noted = time.perf_counter()
    noted = {'step': step, **self._clock.record()}
    self._directory.write(self._directory.clock_file, noted)

  def _train_until(
    self,
    state: PyTree,
    metrics: Any,
    step: int,
    until: int,
    stopping: processes.SharedStop,
  ) -> tuple[PyTree, Any, int]:
    """Dispatches steps up to a step, and waits for the last of them."""
    under_way: collections.deque = collections.deque()
    while step < until and not stopping():
      state, metrics, loss, taken = self._trainer.run(state, metrics, until - step)
      step += taken
      under_way.append((step, loss))
      if len(under_way) > IN_FLIGHT:
        self._check(*under_way.popleft())
        self._callbacks.on_step(step - IN_FLIGHT)
    while under_way:
      self._check(*under_way.popleft())
    self._callbacks.on_step(step)
    return state, metrics, step

  def _check(self, step: int, loss: jax.Array) -> None:
    """Waits for a step and raises if its loss is not finite."""
    if not np.isfinite(loss):
      self._diverged(step, f'the loss is {float(loss)}')

  def _diverged(self, step: int, what: str) -> None:
    self._checkpoints.wait()
    kept = (
      f'the checkpoint of step {self._last_good} stays'
      if self._last_good is not None
      else 'no checkpoint had been written yet'
    )
    raise TrainingDiverged(
      f'training diverged by step {step}: {what}; {kept}. Lower '
      'optimizer.learning_rate, warm up (schedule.warmup_steps) or clip '
      '(grad_clip), and start again with --overwrite'
    )

  def _place(self) -> tuple[int, int] | None:
    """Returns what tells the workdir from another of its name, None where it is gone."""
    try:
      found = self._directory.path.stat()
    except OSError:
      return None
    return found.st_dev, found.st_ino

  def _check_place(self, before: tuple[int, int] | None) -> None:
    """Raises UserError where another directory, or none, has the name of the workdir."""
    if self._place() != before:
      raise UserError(
        f'workdir {self._directory.path} was moved or deleted while it trained: move it back, '
        'and the same command goes on from its last checkpoint'
      )

  def _log(
    self, step: int, metrics: Any, images_per_second: float, state: PyTree
  ) -> None:
    # Kept by the run's compiler after the first log point.
    finite = self._compile(parameters_are_finite, state.params)
    if not finite(state.params):
      self._diverged(step, 'a parameter is not finite')
    measures = {
      **as_floats(metrics),
      'learning_rate': self._task.learning_rate(step - 1),
      'images_per_second': images_per_second,
      'epoch': step / self._plan.steps_per_epoch,
    }
    self._callbacks.on_log(step, measures)

  def _evaluate(self, step: int, state: PyTree) -> dict[str, float]:
    measured, split = self._evaluator.measure(state), self._evaluator.split
    self._callbacks.on_evaluation(step, split, measured)
    picture = self._evaluator.picture()
    if picture is not None:
      self._callbacks.on_image(step, f'{split}/images', picture)
    return measured

  def _save(
    self, step: int, state: PyTree, metrics: Any, measured: dict[str, float] | None
  ) -> None:
    record = {
      'position': self._trainer.position(),
      'clock': self._clock.record(),
      'callbacks': self._callbacks.state(),
    }
    if self._stopped_by:
      record['stopped_by'] = self._stopped_by
    tree = {'state': saved_fields(state), 'metrics': metrics}
    if not self._checkpoints.save(step, tree, record, measured):
      self._diverged(step, 'a parameter is not finite')
    self._last_good = step
    self._callbacks.on_checkpoint(step)
