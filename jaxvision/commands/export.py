"""`jaxvision export`: the weights of a run for other programs."""

import argparse
from pathlib import Path

import jax
from ml_collections import ConfigDict

from jaxvision import weights as weights_lib
from jaxvision.commands.workdir import workdir_of
from jaxvision.inference.loading import load_run
from jaxvision.io import local_path, output_file
from jaxvision.training import pretrained


def command(options: argparse.Namespace, config: ConfigDict | None) -> int:
  """Writes the weights of a run and prints where they are."""
  workdir = workdir_of(options, config)
  print(f'exported: {export(workdir, options.output, options.checkpoint)}')
  return 0


def export(
  workdir: str | Path, output: str | Path | None = None, checkpoint: str | int = 'last'
) -> Path:
  """Writes the weights of a run as safetensors, which PyTorch and `init.pretrained` read.

  ResNets and EfficientNets have the names and layouts of torchvision, or of timm where
  torchvision has no such network, and load there with `load_state_dict`; other models have
  ours. The metadata hold what the weights ask of
  images: normalisation, size, crop, class names. Of a GAN it is the generator, averaged
  where the run averages it, which `jaxvision sample --weights=FILE` draws with.

  Args:
    workdir: of a training run.
    output: file to write; None: WORKDIR/model.safetensors.
    checkpoint: 'last', 'best', or a step.

  Returns:
    The path of the file.

  Raises:
    UserError: no run, no checkpoint, or the file cannot be written.
  """
  path = output_file(output, 'export: --output') if output else None
  workdir = local_path(workdir, 'export: workdir')
  run = load_run(workdir, checkpoint)
  path = path or workdir / 'model.safetensors'
  fields = dict(run.config.model)
  weights_lib.save(
    path,
    jax.device_get(run.state.eval_variables),
    pretrained.preprocessing_of(run.info, run.input_shape),
    fields.pop('name'),
    fields if hasattr(run, 'generator') else None,
  )
  return path
