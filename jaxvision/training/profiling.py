"""A trace of some training steps, for TensorBoard, XProf or Perfetto."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jaxvision.tasks.base import PyTree
from jaxvision.training.step import ResidentTrainer, StreamingTrainer

# Steps before the trace: the first ones fill buffers and touch memory for the first time.
_SETTLE_STEPS = 3


class Traced:
  """A trainer that writes a profiler trace of some of the steps it takes.

  It stands in for the trainer it is given, so that a run without a trace has nothing to
  ask at a step. The trace begins and ends between dispatches, with the device at rest:
  it holds at least the steps asked for (all of a dispatch that takes many), or fewer
  where the run ends before.

  Args:
    trainer: takes the steps.
    directory: of the trace; TensorBoard and XProf read it, and Perfetto
      (https://ui.perfetto.dev) the `perfetto_trace.json.gz` under it.
    steps: to trace.
    say: is told where the trace is.
  """

  def __init__(
    self,
    trainer: ResidentTrainer | StreamingTrainer,
    directory: Path,
    steps: int,
    say: Callable[[str], None],
  ):
    self.steps_per_dispatch = trainer.steps_per_dispatch
    self._trainer, self._directory, self._say = trainer, directory, say
    self._steps = steps
    self._done = 0  # steps taken so far
    self._first: int | None = None  # steps done when the trace began
    self._written = False

  def empty_metrics(self) -> Any:
    """Returns the trainer's."""
    return self._trainer.empty_metrics()

  def run(
    self, state: PyTree, metrics: Any, limit: int
  ) -> tuple[PyTree, Any, Any, int]:
    """Takes the trainer's steps, and traces those whose turn it is."""
    if self._first is None and self._done >= _SETTLE_STEPS:
      jax.block_until_ready(state)
      jax.profiler.start_trace(self._directory, create_perfetto_trace=True)
      self._first = self._done
    if self._first is None or self._written:
      result = self._trainer.run(state, metrics, limit)
    else:
      with jax.profiler.StepTraceAnnotation('train', step_num=self._done):
        result = self._trainer.run(state, metrics, limit)
    self._done += result[-1]
    if self._first is not None and self._done - self._first >= self._steps:
      jax.block_until_ready(result[0])
      self._write()
    return result

  def position(self) -> dict[str, Any]:
    """Returns the trainer's."""
    return self._trainer.position()

  def close(self) -> None:
    """Writes what there is of a trace that has not ended, and closes the trainer."""
    try:
      if self._first is None:
        self._say(f'profile: no trace, for the run had {self._done} steps left')
      else:
        self._write()
    finally:
      self._trainer.close()

  def _write(self) -> None:
    if self._written:
      return
    self._written = True
    jax.profiler.stop_trace()
    steps = self._done - self._first
    self._say(f'profile: trace of {steps} steps in {self._directory}')
