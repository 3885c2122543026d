"""`jaxvision export`: a trained run as a file for other programs."""

import argparse
import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxvision.commands.export_checks import (
  compared,
  data_or_none,
  verified,
  with_license,
)
from jaxvision.commands.export_web import export_page
from jaxvision.commands.soup import soup
from jaxvision.commands.workdir import data_overrides, workdir_of
from jaxvision.deployment import stablehlo
from jaxvision.deployment.onnx_file import OnnxFile
from jaxvision.deployment.program import Program, program_of
from jaxvision.errors import UserError
from jaxvision.inference.loading import load_model, load_run
from jaxvision.inference.weights_model import in_torch, save_weights
from jaxvision.io import local_path, output_directory, output_file, write_whole, writing

_log = logging.getLogger('jaxvision')

# The format of each suffix; `web` is a folder, or one HTML file.
FORMATS = {
  '.safetensors': 'safetensors',
  '.onnx': 'onnx',
  '.stablehlo': 'stablehlo',
  '.html': 'web',
}
_DEFAULTS = {
  'safetensors': 'model.safetensors',
  'onnx': 'model.onnx',
  'stablehlo': 'model.stablehlo',
}


def command(options: argparse.Namespace, config: ConfigDict | None) -> int:
  """Writes a run in a format and prints where it is."""
  if options.inputs:
    print(f'exported: {_soup_of(options)}')
    return 0
  if format_of(options.format, options.output) == 'web':
    page = export_page(options, config)
    print(f'exported: {page}')
    return 0
  for name in ('model', 'single_file', 'runtime'):
    if getattr(options, name):
      raise UserError(f'export: --{name.replace("_", "-")} is of --format=web')
  path = export(
    workdir_of(options, config),
    options.output,
    options.checkpoint,
    options.average,
    format=options.format,
    verify=options.verify,
    overrides=data_overrides(options),
    license=options.license,
  )
  print(f'exported: {path}')
  return 0


def export(
  workdir: str | Path,
  output: str | Path | None = None,
  checkpoint: str | int = 'last',
  average: int | None = None,
  *,
  format: str | None = None,
  verify: bool = False,
  overrides: Sequence[str] = (),
  license: str | None = None,
) -> Path:
  """Writes a run as a file that other programs read.

  `safetensors`: the weights, which `init.pretrained` reads and PyTorch. ResNets,
  EfficientNets and MobileNetV2 have the names and layouts of torchvision, or of timm where
  torchvision has no such network; other classifiers those of a PyTorch module with the
  same attributes, see `weights.torch_layout`.

  `onnx`: the network with its weights, for onnxruntime and others: `images` uint8
  [batch, H, W, C] -> `probabilities` and `logits` float32 [batch, K]. Of a GAN its
  generator: `noise` and `labels` -> `images`.

  `stablehlo`: the same as a program of jax.export, which needs JAX and no code of ours.

  Each is averaged where the run averages its weights, holds the class names and the
  preprocessing of the images, and computes in float32. Before it is written, what it
  computes of real images is compared with what the run computes, and the largest
  difference is told and stored; where the data are not here, of random ones.

  Args:
    workdir: of a training run.
    output: file to write, whose suffix says the format; None: model.FORMAT in the workdir.
    checkpoint: 'last', 'best', or a step.
    average: write the mean of the weights of this many last checkpoints, see `load_run`.
    format: 'safetensors', 'onnx' or 'stablehlo'; None: that of `output`, or safetensors.
    verify: compare on the whole test split too, and print the accuracy of both.
    overrides: 'data.dir=DIR' and the like: where the data are now.
    license: of the weights, such as 'MIT', kept in the metadata of `onnx` and `stablehlo`.

  Returns:
    The path of the file, or of the folder of `stablehlo`.

  Raises:
    UserError: no run, no checkpoint, a suffix of no format, a network that ONNX has no
      operator for, a package that is not installed, or a path that cannot be written.
  """
  workdir = local_path(workdir, 'export: workdir')
  format = format_of(format, output)
  path = _path_of(format, output, workdir)
  run = load_run(workdir, checkpoint, average=average, dtype='float32')
  if format == 'safetensors':
    with writing(path, 'export: --output'):
      style = save_weights(path, run, jax.device_get(run.state.eval_variables))
    if line := in_torch(path, run, style):
      _log.info(line)
    if verify:
      _log.info(
        verified(workdir, run, load_model(path), data_or_none(workdir, overrides))
      )
    return path
  program = program_of(run)
  data = data_or_none(workdir, overrides)
  made = _WRITERS[format](program)
  signature = with_license(compared(program, made.call, data), license)
  with writing(path, 'export: --output'):
    made.save(path, signature)
  if verify:
    _log.info(verified(workdir, run, load_model(path), data))
  return path


@dataclasses.dataclass(frozen=True, eq=False)
class _Made:
  """What a format made of a program: how to call it, and how to write it."""

  call: Callable[..., Sequence[np.ndarray]]
  save: Callable[[Path, Any], None]


def _onnx(program: Program) -> _Made:
  file = OnnxFile(program)

  def save(path: Path, signature: Any) -> None:
    write_whole(path, file.to_bytes(signature))

  return _Made(file.call, save)


def _stablehlo(program: Program) -> _Made:
  made = stablehlo.to_stablehlo(program)

  def save(path: Path, signature: Any) -> None:
    stablehlo.save(dataclasses.replace(made, signature=signature), program, path)

  return _Made(made, save)


_WRITERS = {'onnx': _onnx, 'stablehlo': _stablehlo}


def format_of(format: str | None, output: str | Path | None) -> str:
  """Returns the format that an option and the suffix of a path name together."""
  suffix = Path(output).suffix.lower() if output else ''
  by_suffix = FORMATS.get(suffix)
  if format is None:
    if output and by_suffix is None:
      raise UserError(
        f'export: --output={output} says no format: end it in {", ".join(FORMATS)}, or '
        'set --format'
      )
    return by_suffix or 'safetensors'
  if by_suffix not in (None, format):
    raise UserError(
      f'export: --output={output} is the name of {by_suffix}, and --format={format}: '
      'leave one of them out'
    )
  return format


def _path_of(format: str, output: str | Path | None, workdir: Path) -> Path:
  if output is None:
    return workdir / _DEFAULTS[format]
  if format == 'stablehlo':
    return output_directory(output, 'export: --output')
  return output_file(output, 'export: --output')


def _soup_of(options: argparse.Namespace) -> Path:
  if options.workdir or options.config:
    raise UserError('export: name one run with --workdir, or several as arguments')
  if not options.output:
    raise UserError('export: say with --output=FILE where the mean of the runs goes')
  if format_of(options.format, options.output) != 'safetensors':
    raise UserError('export: the mean of several runs is written as .safetensors')
  return soup(options.inputs, options.output, options.checkpoint, options.average)
