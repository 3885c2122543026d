"""Weights of a run for other programs."""

from pathlib import Path

import jax

from jaxvision import weights as weights_lib
from jaxvision.errors import UserError
from jaxvision.inference.generator import GeneratorRun
from jaxvision.inference.loading import load_run
from jaxvision.training import pretrained


def export(
  workdir: str | Path, output: str | Path | None = None, checkpoint: str = 'last'
) -> Path:
  """Writes the weights of a run as safetensors, which PyTorch and `init.pretrained` read.

  ResNets have the names and layouts of torchvision, and load there with
  `load_state_dict`; other models have ours. The metadata hold what the weights ask of
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
  run = load_run(workdir, checkpoint)
  path = Path(output) if output else Path(workdir) / 'model.safetensors'
  if not path.parent.is_dir():
    raise UserError(f'export: there is no directory {path.parent} to write to')
  fields = run.config.model.to_dict()
  weights_lib.save(
    path,
    jax.device_get(run.state.eval_variables),
    pretrained.facts_of(run.facts),
    fields.pop('name'),
    fields if isinstance(run, GeneratorRun) else None,
  )
  return path
