"""`jaxvision export`: the weights of a run for other programs."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxvision import models
from jaxvision import weights as weights_lib
from jaxvision.commands.workdir import workdir_of
from jaxvision.errors import UserError
from jaxvision.inference.loading import load_run
from jaxvision.io import local_path, output_file
from jaxvision.optim.averaging import mean
from jaxvision.training import pretrained


def command(options: argparse.Namespace, config: ConfigDict | None) -> int:
  """Writes the weights of a run and prints where they are."""
  if options.inputs:
    print(f'exported: {_soup_of(options)}')
    return 0
  workdir = workdir_of(options, config)
  path = export(workdir, options.output, options.checkpoint, options.average)
  print(f'exported: {path}')
  return 0


def export(
  workdir: str | Path,
  output: str | Path | None = None,
  checkpoint: str | int = 'last',
  average: int | None = None,
) -> Path:
  """Writes the weights of a run as safetensors, which PyTorch and `init.pretrained` read.

  ResNets and EfficientNets have the names and layouts of torchvision, or of timm where
  torchvision has no such network, and load there with `load_state_dict`; other models have
  ours. The metadata hold what the weights ask of
  images: normalisation, size, crop, class names. Of a GAN it is the generator, of a flow its
  network and how it draws, averaged where the run averages them, which
  `jaxvision sample --weights=FILE` draws with.

  Args:
    workdir: of a training run.
    output: file to write; None: WORKDIR/model.safetensors.
    checkpoint: 'last', 'best', or a step.
    average: write the mean of the weights of this many last checkpoints, see `load_run`.

  Returns:
    The path of the file.

  Raises:
    UserError: no run, no checkpoint, or the file cannot be written.
  """
  path = output_file(output, 'export: --output') if output else None
  workdir = local_path(workdir, 'export: workdir')
  run = load_run(workdir, checkpoint, average=average)
  path = path or workdir / 'model.safetensors'
  _save(path, run, jax.device_get(run.state.eval_variables))
  return path


def _save(path: Path, run: Any, variables: Any) -> None:
  fields = dict(run.config.model)
  name = fields.pop('name')
  weights_lib.save(
    path,
    variables,
    pretrained.preprocessing_of(run.info, run.input_shape),
    name,
    fields if name in models.TASK_OF else None,
    dict(run.config.flow) if name in models.FLOWS else None,
  )


def _soup_of(options: argparse.Namespace) -> Path:
  if options.workdir or options.config:
    raise UserError('export: name one run with --workdir, or several as arguments')
  if not options.output:
    raise UserError('export: say with --output=FILE where the mean of the runs goes')
  return soup(options.inputs, options.output, options.checkpoint, options.average)


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
  _save(path, runs[0], mean(jax.device_get(r.state.eval_variables) for r in runs))
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
