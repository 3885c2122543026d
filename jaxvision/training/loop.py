"""The training loop: dispatch steps; at their times log, evaluate and save."""

import collections
import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxvision.errors import TrainingDiverged
from jaxvision.tasks.base import PyTree, Task
from jaxvision.training.checkpoints import Checkpoints
from jaxvision.training.logging import MetricLog, Terminal
from jaxvision.training.step import ResidentTrainer, StreamingTrainer

# Dispatches that may be under way: enough to hide Python, few enough that a signal or
# a diverged loss is noticed within a step or two.
_IN_FLIGHT = 2


@dataclasses.dataclass(frozen=True)
class Plan:
  """When what happens, in optimiser steps, and the images of a step."""

  images: int
  total: int
  steps_per_epoch: float
  log_every: int
  eval_every: int
  save_every: int

  @classmethod
  def of(cls, config: ConfigDict, examples: int) -> 'Plan':
    """Returns the plan for a training split of `examples`."""
    images = config.batch_size * (config.gan.d_steps if config.task == 'gan' else 1)
    per_epoch = examples / images
    total = config.steps or max(1, round(config.epochs * per_epoch))
    evaluate = config.eval_every_steps or max(1, round(per_epoch))
    return cls(
      images=images,
      total=total,
      steps_per_epoch=per_epoch,
      log_every=config.log_every_steps,
      eval_every=evaluate,
      save_every=config.checkpoint.every_steps or evaluate,
    )

  def next_stop(self, step: int) -> int:
    """Returns the first step after `step` at which something happens."""
    cadences = (self.log_every, self.eval_every, self.save_every)
    return min(self.total, *((step // every + 1) * every for every in cadences))


@dataclasses.dataclass
class Clock:
  """Seconds spent so far, over all the parts of a run that was interrupted.

  Attributes:
    begun: `time.perf_counter()` when this process's part began.
    train: in training steps.
    compile: compiling.
    earlier: in all, in earlier parts up to the checkpoint that this one goes on from.
  """

  begun: float
  train: float = 0.0
  compile: float = 0.0
  earlier: float = 0.0

  def total(self) -> float:
    """Returns the seconds in all, up to now."""
    return self.earlier + time.perf_counter() - self.begun

  def record(self) -> dict[str, float]:
    """Returns the seconds for a checkpoint; `resume` reads them."""
    return {'train': self.train, 'compile': self.compile, 'total': self.total()}

  def resume(self, record: dict[str, float]) -> None:
    """Adds the seconds of the earlier parts."""
    self.train += record['train']
    self.compile += record['compile']
    self.earlier = record['total']


def training_point(
  task: Task, plan: Plan, step: int, measured: dict[str, float], speed: float
) -> dict[str, float]:
  """Returns what the log says of training at a step.

  Args:
    task, plan: of the run.
    step: that was just taken.
    measured: of the images since the last point.
    speed: in images a second.
  """
  return {
    **measured,
    'learning_rate': float(task.schedule(step - 1)),
    'images_per_second': speed,
    'epoch': step / plan.steps_per_epoch,
  }


class Measurer(Protocol):
  """What evaluates in the middle of a run."""

  def measure(self, state: PyTree) -> dict[str, float]:
    """Returns measures of a state by their names."""
    ...

  def picture(self) -> np.ndarray | None:
    """Returns what the last `measure` saw, uint8 [h, w, 3], for those who watch."""
    ...


@contextlib.contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
  """Yields an event that SIGTERM or a first Ctrl-C sets; a second Ctrl-C interrupts."""
  event = threading.Event()
  if threading.current_thread() is not threading.main_thread():
    yield event  # Python allows handlers in the main thread only
    return

  def handle(number, frame):
    if event.is_set() and number == signal.SIGINT:
      raise KeyboardInterrupt
    event.set()

  old = {s: signal.signal(s, handle) for s in (signal.SIGTERM, signal.SIGINT)}
  try:
    yield event
  finally:
    for number, handler in old.items():
      signal.signal(number, handler)


class Loop:
  """Trains a state to the end of its plan, or to a signal.

  Args:
    task, trainer: what to train, and its compiled steps.
    evaluator: on the split named `eval_split`, at its times.
    clock: counted on from where it stands.
    watch: told of each evaluation and its step, once the step is saved.
  """

  def __init__(
    self,
    task: Task,
    plan: Plan,
    trainer: ResidentTrainer | StreamingTrainer,
    evaluator: Measurer,
    eval_split: str,
    checkpoints: Checkpoints,
    log: MetricLog,
    terminal: Terminal,
    clock: Clock,
    watch: Callable[[int, dict[str, float]], None] | None = None,
  ):
    self.task, self.plan = task, plan
    self.trainer, self.evaluator, self.eval_split = trainer, evaluator, eval_split
    self.checkpoints, self.log, self.terminal = checkpoints, log, terminal
    self.clock, self._watch = clock, watch
    self._last_good: int | None = None

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
      TrainingDiverged: a loss is NaN or infinite.
    """
    plan = self.plan
    saved = self.checkpoints.steps()
    self._last_good = saved[-1] if saved else None
    # Steps and seconds since the last log point, for its images per second.
    since, spent = 0, 0.0
    while step < plan.total and not stop.is_set():
      begun = time.perf_counter()
      first, until = step, plan.next_stop(step)
      under_way: collections.deque = collections.deque()
      while step < until and not stop.is_set():
        state, metrics, loss, taken = self.trainer.run(state, metrics, until - step)
        step += taken
        under_way.append((step, loss))
        if len(under_way) > _IN_FLIGHT:
          self._check(*under_way.popleft())
          self.terminal.advance(step - _IN_FLIGHT)
      while under_way:
        self._check(*under_way.popleft())
      seconds = time.perf_counter() - begun
      self.clock.train += seconds
      since, spent = since + step - first, spent + seconds
      self.terminal.advance(step)
      at_end = step == plan.total
      if step % plan.log_every == 0 or at_end:
        self._log_training(step, metrics, since * plan.images / spent)
        metrics, since, spent = self.trainer.empty_metrics(), 0, 0.0
      measured = None
      if step % plan.eval_every == 0 or at_end:
        measured = self.evaluator.measure(state)
        self.log.write(step, self.eval_split, measured)
        picture = self.evaluator.picture()
        if picture is not None:
          self.log.show(step, f'{self.eval_split}/images', picture)
        self.terminal.evaluation(step, self.eval_split, measured)
      if step % plan.save_every == 0 or at_end or stop.is_set():
        self._save(step, state, metrics, measured)
      if measured is not None and self._watch is not None:
        self._watch(step, measured)
    self.checkpoints.wait()
    return state, step

  def _check(self, step: int, loss: jax.Array) -> None:
    """Waits for a step and raises if its loss is not finite."""
    if not np.isfinite(loss):
      self._diverged(step, f'the loss is {float(loss)}')

  def _diverged(self, step: int, what: str) -> None:
    self.checkpoints.wait()
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

  def _log_training(self, step: int, metrics: Any, speed: float) -> None:
    measured = {k: float(v) for k, v in metrics.compute().items()}
    point = training_point(self.task, self.plan, step, measured, speed)
    self.log.write(step, 'train', point)
    self.terminal.train(step, point)

  def _save(
    self, step: int, state: PyTree, metrics: Any, measured: dict[str, float] | None
  ) -> None:
    record = {
      'position': self.trainer.position(),
      'clock': self.clock.record(),
    }
    tree = {'state': state, 'metrics': metrics}
    if not self.checkpoints.save(step, tree, record, measured):
      self._diverged(step, 'a parameter is not finite')
    self._last_good = step
