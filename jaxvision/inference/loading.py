"""From a run directory to a run that predicts or draws."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from jaxvision.errors import UserError
from jaxvision.inference import trained
from jaxvision.inference.signature import GeneratorSignature
from jaxvision.io import local_path
from jaxvision.training.opening import open_run
from jaxvision.training.run_directory import RunDirectory

_log = logging.getLogger('jaxvision')


def load_run(
  workdir: str | Path,
  checkpoint: str | int = 'last',
  mesh: Mesh | None = None,
  *,
  average: int | None = None,
  dtype: str | None = None,
) -> Any:
  """Returns the run in a directory: ready to predict, or to draw.

  Args:
    workdir: of a training run; or what `jaxvision export` wrote, see `load_model`.
    checkpoint: 'last', 'best' (by the measure that the task is ranked by), or a step.
    mesh: where the weights go; None: the first device.
    average: take the mean of the weights of this many last checkpoints (`checkpoint.keep`
      says how many there are), see `Run.restore_average`; None: those of `checkpoint`.
    dtype: that the network computes in, 'float32' or 'bfloat16'; None: the run's.

  Returns:
    What the task of the run makes of it: a `Predictor`, a `GeneratorRun`, or what
    `Task.load` of a task of your own returns.

  Raises:
    UserError: no run, no whole checkpoint, no such checkpoint, or one whose weights
      are NaN or infinite; fewer checkpoints than to average, or both arguments.
  """
  path = local_path(workdir, 'workdir')
  if path.is_file() or path.suffix == '.stablehlo':
    return load_model(path)
  directory = RunDirectory(path)
  run = open_run(directory, mesh, dtype=dtype)
  if average is None:
    state, step = run.restore(checkpoint)
  else:
    state, steps = run.restore_average(average, checkpoint)
    _log.info('%s: %s', directory.path, mean_of(steps))
    step = steps[-1]
  return run.task.load(state, step, str(directory.path))


def load_model(path: str | Path, checkpoint: str | int = 'last') -> Any:
  """Returns what is in an exported file, or a run: ready to predict, or to draw.

  Args:
    path: what `jaxvision export` or `jaxvision quantize` wrote, a workdir, or a name that
      `jaxvision models` lists.
    checkpoint: of a workdir, see `load_run`.

  Returns:
    A `Classifier`; of a generator what `load_generator` or `load_run` returns.

  Raises:
    UserError: there is no such file or run, or it is something else.
  """
  path = local_path(path, 'model')
  if not path.exists():
    path = trained.find(str(path)) or path
  if path.suffix == '.onnx':
    from jaxvision.inference.onnx_generator import OnnxGenerator
    from jaxvision.inference.onnx_model import OnnxClassifier, open_session

    signature, session = open_session(path)
    draws = isinstance(signature, GeneratorSignature)
    return (OnnxGenerator if draws else OnnxClassifier)(path, session, signature)
  if path.suffix == '.stablehlo':
    from jaxvision.inference.stablehlo_model import load_stablehlo

    return load_stablehlo(path)
  if path.suffix in ('.safetensors', '.pth', '.pt'):
    from jaxvision.inference.weights_model import load_weights

    return load_weights(path)
  if path.is_file():
    raise UserError(
      f'{path} is no run and no exported file, whose names end in .safetensors, .onnx or '
      '.stablehlo'
    )
  return load_run(path, checkpoint)


def mean_of(steps: Sequence[int]) -> str:
  """Returns in words which checkpoints were averaged.

  >>> mean_of([30, 45, 60])
  'mean of the checkpoints of steps 30, 45, 60'
  """
  return f'mean of the checkpoints of steps {", ".join(map(str, steps))}'


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
