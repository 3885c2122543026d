"""From a run directory to a run that predicts or draws."""

from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from jaxvision.errors import UserError
from jaxvision.training.opening import open_run
from jaxvision.training.run_directory import RunDirectory


def load_run(
  workdir: str | Path, checkpoint: str | int = 'last', mesh: Mesh | None = None
) -> Any:
  """Returns the run in a directory: ready to predict, or to draw if it is a GAN.

  Args:
    workdir: of a training run.
    checkpoint: 'last', 'best' (by the measure that the task is ranked by), or a step.
    mesh: where the weights go; None: the first device.

  Returns:
    What the task of the run makes of it: a `Predictor`, a `GeneratorRun`, or what
    `Task.load` of a task of your own returns.

  Raises:
    UserError: no run, no whole checkpoint, no such checkpoint, or one whose weights
      are NaN or infinite.
  """
  directory = RunDirectory(workdir)
  run = open_run(directory, mesh)
  state, step = run.restore(checkpoint)
  return run.task.load(state, step, str(directory.path))


def load_run_that(
  verb: str, workdir: str | Path, checkpoint: str | int = 'last'
) -> Any:
  """Returns `load_run`, or raises UserError where the run cannot `predict` or `sample`.

  Args:
    verb: 'predict' or 'sample'.
    workdir, checkpoint: see `load_run`.
  """
  run = load_run(workdir, checkpoint)
  if not hasattr(run, verb):
    able = [name for name in ('predict', 'sample') if hasattr(run, name)]
    hint = f': `jaxvision {able[0]}` shows what it can do' if able else ''
    raise UserError(
      f'{workdir} is a run of task {run.config.task}, which cannot {verb}{hint}'
    )
  return run
