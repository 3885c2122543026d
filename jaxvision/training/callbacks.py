"""Callbacks: code of one's own, called by the training loop at fixed points."""

import dataclasses
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from ml_collections import ConfigDict

from jaxvision.errors import UserError, closest
from jaxvision.training import processes


@dataclasses.dataclass
class TrainContext:
  """What a callback knows about its run.

  Attributes:
    directory: The run directory.
    config: The resolved config.
    info: The data set's `name`, `class_names`, `image_shape` and `examples`.
    start_step: 0, or the step that a resumed run goes on from.
    total_steps: Optimiser steps of the whole run.
    steps_per_epoch: Optimiser steps in a pass over the training split.
    params: Parameter counts by name, such as `{'params': 53098}`.
    stop_reason: Why a callback ended the run early, or None.
  """

  directory: Path
  config: ConfigDict
  info: Any
  start_step: int
  total_steps: int
  steps_per_epoch: float
  params: dict[str, int]
  stop_reason: str | None = None

  def stop(self, reason: str) -> None:
    """Ends training after the current step, with a checkpoint and a final evaluation.

    Args:
      reason: One line for the log. The first of several reasons is kept.
    """
    self.stop_reason = self.stop_reason or reason


class Callback:
  """Hooks into a training run. Every method does nothing unless overridden.

  Attributes:
    context: The run, from `on_train_begin` on.
    every_process: Whether each process of a run calls it, or only the first. Of what may
      stop a run, all have to be called; what writes or prints is for one.

  Example:
    >>> class PrintLoss(Callback):
    ...   def on_log(self, step, measures):
    ...     print(f'{step}: {measures["loss"]:.2f}')
    >>> PrintLoss().on_log(100, {'loss': 0.5, 'accuracy': 0.9})
    100: 0.50
  """

  context: TrainContext
  every_process: ClassVar[bool] = True

  def on_train_begin(self, context: TrainContext) -> None:
    """Called once, before the first step and after `restore`."""
    self.context = context

  def on_step(self, step: int) -> None:
    """Called after each dispatch of steps, for progress bars: keep it cheap."""

  def on_log(self, step: int, measures: dict[str, float]) -> None:
    """Called with training measures averaged since the last log point.

    Args:
      step: Optimiser steps taken.
      measures: Loss, accuracy, learning_rate, images_per_second, epoch.
    """

  def on_evaluation(self, step: int, split: str, measures: dict[str, float]) -> None:
    """Called after an evaluation of `split`, before the checkpoint of the same step."""

  def on_image(self, step: int, name: str, image: np.ndarray) -> None:
    """Called with a picture, uint8 [h, w, 3], such as a grid of predictions."""

  def on_checkpoint(self, step: int) -> None:
    """Called after a checkpoint has been written."""

  def on_train_end(self, step: int, summary: dict[str, Any] | None) -> None:
    """Called last, also after a signal, an error or divergence.

    Args:
      step: The last step taken.
      summary: The contents of summary.json, or None if the run did not finish.
    """

  def state(self) -> dict[str, Any]:
    """Returns what a resumed run needs, as JSON. It is kept in every checkpoint."""
    return {}

  def restore(self, state: dict[str, Any]) -> None:
    """Takes back what `state` returned. Called before `on_train_begin` on a resume."""


class Logger(Callback):
  """A callback that reports a run elsewhere: one method receives all its numbers.

  A logger that raises in `on_train_end` costs a warning, not the results of the run.

  Example:
    >>> class Printer(Logger):
    ...   def write(self, step, values):
    ...     print(step, values)
    >>> Printer().on_evaluation(100, 'test', {'accuracy': 0.5})
    100 {'test/accuracy': 0.5}
  """

  every_process = False

  def write(self, step: int, values: dict[str, float]) -> None:
    """Records numbers at an optimiser step, named 'train/loss' or 'test/accuracy'."""

  def on_log(self, step: int, measures: dict[str, float]) -> None:
    """Writes training measures."""
    self.on_evaluation(step, 'train', measures)

  def on_evaluation(self, step: int, split: str, measures: dict[str, float]) -> None:
    """Writes measures of a split."""
    self.write(step, {f'{split}/{name}': value for name, value in measures.items()})


class EarlyStopping(Callback):
  """Ends training when an evaluation measure no longer improves.

  If several splits are evaluated at one step, the first of them counts. The count
  survives a resume.

  Args:
    measure: Name of the measure, such as 'loss' or 'accuracy'.
    mode: 'min' if lower is better, 'max' if higher is.
    patience: Evaluations in a row without an improvement that end the run.
    min_delta: Smallest change that is an improvement.

  Raises:
    UserError: An argument is out of range, or an evaluation lacks the measure.

  Example:
    >>> context = TrainContext(Path(), ConfigDict(), None, 0, 100, 10.0, {})
    >>> early = EarlyStopping('accuracy', mode='max', patience=2)
    >>> early.on_train_begin(context)
    >>> for step, accuracy in [(10, 0.8), (20, 0.7), (30, 0.8)]:
    ...   early.on_evaluation(step, 'test', {'accuracy': accuracy})
    >>> context.stop_reason
    'accuracy has not improved since step 10 (0.8), 2 evaluations ago'

  References:
    Prechelt, "Early Stopping - But When?", 1998.
  """

  def __init__(
    self,
    measure: str = 'loss',
    mode: Literal['min', 'max'] = 'min',
    patience: int = 3,
    min_delta: float = 0.0,
  ):
    if mode not in ('min', 'max'):
      raise UserError(f'EarlyStopping: mode must be "min" or "max", not {mode!r}')
    if not isinstance(patience, int) or patience < 1:
      raise UserError(
        f'EarlyStopping: patience must be an integer of at least 1, not {patience!r}'
      )
    if not (min_delta >= 0 and math.isfinite(min_delta)):
      raise UserError(
        f'EarlyStopping: min_delta must be a number of at least 0, not {min_delta!r}'
      )
    self.measure, self.mode = measure, mode
    self.patience, self.min_delta = patience, min_delta
    self._best: float | None = None
    self._best_step = self._last_step = self._count = 0

  def on_evaluation(self, step: int, split: str, measures: dict[str, float]) -> None:
    """Counts evaluations without an improvement."""
    if step <= self._last_step:
      return
    if self.measure not in measures:
      raise UserError(
        f'EarlyStopping: the evaluation of {split} has no measure "{self.measure}"'
        f'{closest(self.measure, measures)} (it has {", ".join(measures)})'
      )
    value, self._last_step = float(measures[self.measure]), step
    if self._improves(value):
      self._best, self._best_step, self._count = value, step, 0
      return
    self._count += 1
    if self._count >= self.patience:
      best = 'no finite value' if self._best is None else f'{self._best:.4g}'
      self.context.stop(
        f'{self.measure} has not improved since step {self._best_step} ({best}), '
        f'{self._count} evaluations ago'
      )

  def _improves(self, value: float) -> bool:
    if math.isnan(value) or self._best is None:
      return math.isfinite(value)
    gain = self._best - value if self.mode == 'min' else value - self._best
    return gain > self.min_delta

  def state(self) -> dict[str, Any]:
    """Returns the best value, where it was, and the count since."""
    return {
      'best': self._best,
      'best_step': self._best_step,
      'last_step': self._last_step,
      'count': self._count,
    }

  def restore(self, state: dict[str, Any]) -> None:
    """Goes on counting from `state`."""
    self._best, self._best_step = state['best'], state['best_step']
    self._last_step, self._count = state['last_step'], state['count']


class CallbackList(Callback):
  """Calls each of several callbacks, in order.

  What a hook raises ends the run. Only `on_train_end` differs: it reaches every callback
  whose `on_train_begin` returned, and what a `Logger` raises there becomes a warning
  through `logging.getLogger('jaxvision')`, because the results are on disk by then.

  Args:
    callbacks: The callbacks. A state is restored to the callback of the same class and
      the same position among those of its class, so callbacks may be added on a resume.

  Example:
    >>> callbacks = CallbackList([EarlyStopping('loss'), EarlyStopping('accuracy', 'max')])
    >>> list(callbacks.state())
    ['EarlyStopping', 'EarlyStopping-2']
  """

  def __init__(self, callbacks: Sequence[Callback] = ()):
    for callback in callbacks:
      if not isinstance(callback, Callback):
        raise UserError(
          f'callbacks: {callback!r} is no jaxvision Callback: give instances of its '
          'subclasses'
        )
    self.callbacks = [
      callback
      for callback in callbacks
      if callback.every_process or processes.is_writer()
    ]
    self._begun: list[Callback] = []

  def on_train_begin(self, context: TrainContext) -> None:
    """Begins each callback."""
    self.context = context
    for callback in self.callbacks:
      callback.on_train_begin(context)
      self._begun.append(callback)

  def on_step(self, step: int) -> None:
    """Passes the step on."""
    for callback in self.callbacks:
      callback.on_step(step)

  def on_log(self, step: int, measures: dict[str, float]) -> None:
    """Passes training measures on."""
    for callback in self.callbacks:
      callback.on_log(step, measures)

  def on_evaluation(self, step: int, split: str, measures: dict[str, float]) -> None:
    """Passes measures of an evaluation on."""
    for callback in self.callbacks:
      callback.on_evaluation(step, split, measures)

  def on_image(self, step: int, name: str, image: np.ndarray) -> None:
    """Passes a picture on."""
    for callback in self.callbacks:
      callback.on_image(step, name, image)

  def on_checkpoint(self, step: int) -> None:
    """Passes the step of a checkpoint on."""
    for callback in self.callbacks:
      callback.on_checkpoint(step)

  def on_train_end(self, step: int, summary: dict[str, Any] | None) -> None:
    """Ends each callback that began, whatever the others raise."""
    failed: list[tuple[Callback, Exception]] = []
    begun, self._begun = self._begun, []
    for callback in begun:
      try:
        callback.on_train_end(step, summary)
      except Exception as error:
        failed.append((callback, error))
    for callback, failure in failed:
      if isinstance(callback, Logger):
        logging.getLogger('jaxvision').warning(
          '%s failed at the end of the run: %s', type(callback).__name__, failure
        )
    for callback, failure in failed:
      if not isinstance(callback, Logger):
        raise failure

  def state(self) -> dict[str, Any]:
    """Returns the states of the callbacks by their names."""
    return {
      name: state for name, callback in self._named() if (state := callback.state())
    }

  def restore(self, state: dict[str, Any]) -> None:
    """Gives each callback the state under its name, if there is one."""
    for name, callback in self._named():
      if name in state:
        callback.restore(state[name])

  def _named(self) -> list[tuple[str, Callback]]:
    seen: dict[str, int] = {}
    named = []
    for callback in self.callbacks:
      name = type(callback).__name__
      seen[name] = seen.get(name, 0) + 1
      named.append((name if seen[name] == 1 else f'{name}-{seen[name]}', callback))
    return named


def run_status(summary: dict[str, Any] | None) -> str:
  """Returns 'finished', 'stopped' (by a signal) or 'failed', within `on_train_end`.

  Args:
    summary: As given to `on_train_end`. Without one, the run failed if an exception
      other than KeyboardInterrupt is on its way, and was stopped otherwise.

  Example:
    >>> run_status({'accuracy': 0.9}), run_status(None)
    ('finished', 'stopped')
  """
  if summary is not None:
    return 'finished'
  error = sys.exc_info()[1]
  return (
    'stopped' if error is None or isinstance(error, KeyboardInterrupt) else 'failed'
  )
