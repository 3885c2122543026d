"""From a run directory to a run that predicts or draws."""

from pathlib import Path

from jax.sharding import Mesh

from jaxvision.errors import UserError
from jaxvision.inference.generator import GeneratorRun
from jaxvision.inference.predictor import Run
from jaxvision.training import runtime
from jaxvision.training.build import DataFacts, make_task, restore
from jaxvision.training.mesh import make_mesh
from jaxvision.training.run_directory import RunDirectory


def load_run(
  workdir: str | Path, checkpoint: str = 'last', mesh: Mesh | None = None
) -> Run | GeneratorRun:
  """Returns the run in a directory: ready to predict, or of a GAN ready to sample.

  Args:
    workdir: of a training run.
    checkpoint: 'last', 'best' (by accuracy; of a GAN by the measured distance), or a
      step.
    mesh: where the weights go; None: the first device.

  Raises:
    UserError: no run, no whole checkpoint, or no such checkpoint.
  """
  directory = RunDirectory(workdir)
  config = directory.config()
  known = directory.dataset()
  if known is None:
    raise UserError(f'{workdir} has no trained weights yet: train it first')
  facts = DataFacts.from_dict(known)
  runtime.configure(config.deterministic)
  task, _ = make_task(config, facts)
  mesh = mesh or make_mesh(data=1)
  state, step = restore(directory, task, mesh, checkpoint)
  if task.generator is None:
    return Run(config, facts, step, state)
  return GeneratorRun(
    task.generator,
    state.eval_variables,
    facts.class_names,
    f'{directory.path} (step {step})',
    config,
    facts,
    step,
    state,
  )


def load_classifier(
  workdir: str | Path, checkpoint: str = 'last', mesh: Mesh | None = None
) -> Run:
  """Returns `load_run` of a classifier; raises UserError where it is a GAN."""
  run = load_run(workdir, checkpoint, mesh)
  if isinstance(run, GeneratorRun):
    raise UserError(
      f'{workdir} is a run of a GAN, which draws and does not classify: '
      '`jaxvision sample` shows what'
    )
  return run
