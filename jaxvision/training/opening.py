"""A run out of its directory, for everything that reads a trained run."""

from jax.sharding import Mesh

from jaxvision import config as config_lib
from jaxvision.training import runtime
from jaxvision.training.compiler import Compiler
from jaxvision.training.mesh import local_mesh
from jaxvision.training.parts import resolve_recorded
from jaxvision.training.run import Run
from jaxvision.training.run_directory import RunDirectory


def open_run(
  directory: RunDirectory,
  mesh: Mesh | None = None,
  compiler: Compiler | None = None,
  dtype: str | None = None,
) -> Run:
  """Returns the run in a directory; `Run.restore` reads its weights.

  Args:
    directory: of a training run.
    mesh: where the weights go; None: the first device.
    compiler: None: a new one.
    dtype: that the network computes in, 'float32' or 'bfloat16'; None: the run's.

  Raises:
    UserError: there is no run, or one of its parts is gone.
  """
  config = directory.config()
  if dtype:
    config = config_lib.override(config, (f'dtype={dtype}',))
  trained_on = directory.trained_on()
  runtime.configure(config.deterministic)
  return Run.build(
    config,
    trained_on,
    parts=resolve_recorded(directory, config),
    mesh=mesh or local_mesh(),
    compiler=compiler,
    directory=directory,
  )
