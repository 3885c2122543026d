"""The mean of the weights of several runs, a model soup."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from jaxvision.errors import UserError
from jaxvision.inference.loading import load_run
from jaxvision.inference.weights_model import save_weights
from jaxvision.io import local_path, output_file
from jaxvision.optim.averaging import mean


def soup(
  workdirs: Sequence[str | Path],
  output: str | Path,
  checkpoint: str | int = 'last',
  average: int | None = None,
) -> Path:
  """Writes the mean of the weights of several runs, a uniform model soup.

  It is worth something where the runs were fine-tuned from the same weights: those that
  began at random lie in valleys of their own (Wortsman et al. 2022, "Model soups").
  `jaxvision eval --config=FILE --config.init.pretrained=OUTPUT` evaluates it.

  Args:
    workdirs: of two runs or more of one model on the same classes.
    output: file to write.
    checkpoint, average: of each, see `export`.

  Returns:
    The path of the file.

  Raises:
    UserError: as `export`, or the runs are of other models, classes or normalisation.
  """
  path = output_file(output, 'export: --output')
  if len(workdirs) < 2:
    raise UserError(
      f'export: {workdirs[0]} is one run: name it with --workdir, or several to average'
    )
  runs = [
    load_run(local_path(workdir, 'export: workdir'), checkpoint, average=average)
    for workdir in workdirs
  ]
  for workdir, run in zip(workdirs, runs):
    if different := _difference(runs[0], run):
      raise UserError(
        f'export: {workdirs[0]} and {workdir} cannot be averaged: they differ in '
        f'{different}'
      )
  variables = mean(jax.device_get(run.state.eval_variables) for run in runs)
  save_weights(path, runs[0], variables)
  return path


def _difference(one: Any, other: Any) -> str:
  """Returns in what two runs differ that a mean of their weights needs alike, or ''."""
  facts = [
    {
      'task': run.config.task,
      'model': run.config.model.to_dict(),
      'class names': run.info.class_names,
      'image shape': run.input_shape,
      'normalisation': (run.info.mean, run.info.std),
    }
    for run in (one, other)
  ]
  return ', '.join(name for name in facts[0] if facts[0][name] != facts[1][name])
