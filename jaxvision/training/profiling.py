"""A trace of some training steps, for TensorBoard, XProf or Perfetto."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax

from jaxvision.training.run import Run
from jaxvision.training.step import ResidentTrainer, StreamingTrainer

# Steps before the trace: the first ones fill buffers and touch memory for the first time.
_SETTLE_STEPS = 3


@contextlib.contextmanager
def traced(
  trainer: ResidentTrainer | StreamingTrainer, run: Run, say: Callable[[str], None]
) -> Iterator[None]:
  """Writes a profiler trace of `config.profile` of the steps that a trainer takes.

  The trace begins and ends between dispatches, with the device at rest: it holds at
  least the steps asked for (all of a dispatch that takes many), or fewer where the run
  ends before. TensorBoard and XProf read the directory WORKDIR/profile, and Perfetto
  (https://ui.perfetto.dev) the `perfetto_trace.json.gz` under it.

  Args:
    trainer: its `run` is wrapped while the context lasts; without `config.profile`
      nothing is.
    run: the run, with a directory.
    say: prints where the trace is.
  """
  wanted = run.config.profile
  if not wanted:
    yield
    return
  assert run.directory
  directory = run.directory.path / 'profile'
  take, done = trainer.run, 0
  first: int | None = None
  written = False

  def write() -> None:
    nonlocal written
    written = True
    jax.profiler.stop_trace()
    say(f'profile: trace of {done - (first or 0)} steps in {directory}')

  def run_traced(state: Any, metrics: Any, limit: int) -> tuple[Any, Any, Any, int]:
    nonlocal done, first
    if first is None and done >= _SETTLE_STEPS:
      jax.block_until_ready(state)
      jax.profiler.start_trace(directory, create_perfetto_trace=True)
      first = done
    if first is None or written:
      result = take(state, metrics, limit)
    else:
      with jax.profiler.StepTraceAnnotation('train', step_num=done):
        result = take(state, metrics, limit)
    done += result[-1]
    if first is not None and not written and done - first >= wanted:
      jax.block_until_ready(result[0])
      write()
    return result

  trainer.run = run_traced  # type: ignore[method-assign]
  try:
    yield
  finally:
    del trainer.run
    if first is None:
      say(f'profile: no trace, for the run had {done} steps left')
    elif not written:
      write()
