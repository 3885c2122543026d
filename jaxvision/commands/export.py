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

from jaxvision.commands.run_data import data_of_run, drawn
from jaxvision.commands.soup import soup
from jaxvision.commands.workdir import workdir_of
from jaxvision.data.dataset import Dataset, read_many
from jaxvision.deployment import parity, stablehlo
from jaxvision.deployment.onnx_file import OnnxFile
from jaxvision.deployment.program import Program, program_of
from jaxvision.errors import UserError
from jaxvision.inference.classifier import Classifier
from jaxvision.inference.loading import load_model, load_run
from jaxvision.inference.signature import GeneratorSignature, Signature
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
# Images that a file is compared with the run on, and samples of a generator.
_COMPARED = 256
_SAMPLES = 16


def command(options: argparse.Namespace, config: ConfigDict | None) -> int:
  """Writes a run in a format and prints where it is."""
  if options.inputs:
    print(f'exported: {_soup_of(options)}')
    return 0
  if format_of(options.format, options.output) == 'web':
    from jaxvision.commands.export_web import export_page

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
    overrides=tuple(o for o in options.overrides if o.startswith('data.')),
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
        _verified(workdir, run, load_model(path), data_or_none(workdir, overrides))
      )
    return path
  program = program_of(run)
  data = data_or_none(workdir, overrides)
  made = _WRITERS[format](program)
  signature = with_license(compared(program, made.call, data), license)
  with writing(path, 'export: --output'):
    made.save(path, signature)
  if verify:
    _log.info(_verified(workdir, run, load_model(path), data))
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


def data_or_none(workdir: Path, overrides: Sequence[str]) -> Dataset | None:
  """Returns the data of the run, None where they are not here any more."""
  try:
    return data_of_run(workdir, overrides)
  except UserError as error:
    if overrides:
      raise
    _log.warning('compared on random images: %s', error)
    return None


def compared(
  program: Program, call: Callable[..., Sequence[np.ndarray]], data: Dataset | None
) -> Signature | GeneratorSignature:
  """Returns the signature of a file with how far it is from the run, which is told.

  Args:
    program: of the run.
    call: the file, see `parity.differences`.
    data: of the run; None: it is compared on random images.
  """
  name, inputs = _inputs(program, data)
  found = parity.differences(program, call, inputs)
  worst = ', '.join(f'{output} {gap:.1e}' for output, gap in found.items())
  _log.info('largest difference from the run on %s: %s', name, worst)
  facts = {'compared_on': name, 'largest_difference': found}
  known = program.signature
  return dataclasses.replace(known, facts={**known.facts, **facts})


def with_license(signature: Any, license: str | None) -> Any:
  """Returns a signature that names the licence of the weights, where there is one."""
  if not license:
    return signature
  return dataclasses.replace(signature, facts={**signature.facts, 'license': license})


def _inputs(program: Program, data: Dataset | None) -> tuple[str, list[np.ndarray]]:
  """Returns inputs to compare on, and what they are."""
  if not isinstance(program.signature, Signature):
    return f'{_SAMPLES} samples', parity.random_inputs(program, _SAMPLES)
  if data is None:
    return f'{_SAMPLES} random images', parity.random_inputs(program, _SAMPLES)
  split = 'test' if len(data.splits.get('test', ())) else 'train'
  images, _ = drawn(data.splits[split], _COMPARED, seed=0)
  return f'{len(images)} {split} images of {data.name}', [images]


def _verified(workdir: Path, run: Any, model: Any, data: Dataset | None) -> str:
  """Returns in words how the file and the run do on the whole test split."""
  source = data.splits.get('test') if data else None
  if not isinstance(model, Classifier) or source is None or not len(source):
    raise UserError(f'export: --verify: {workdir} has no test images to classify')
  size = model.largest_batch()
  same, right = 0, {'run': 0, 'file': 0}
  for first in range(0, len(source), size):
    indices = list(range(first, min(first + size, len(source))))
    images = np.stack([image for image, _ in read_many(source, indices)])
    labels = np.asarray(source.labels[indices[0] : indices[-1] + 1])
    ours, theirs = (m.predict(images).probabilities for m in (run, model))
    same += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
    if labels.ndim == 1 and run.signature.kind == 'class':
      right['run'] += int((ours.argmax(-1) == labels).sum())
      right['file'] += int((theirs.argmax(-1) == labels).sum())
  count = len(source)
  line = f'verified on {count:,} test images: {count - same:,} predictions differ'
  if run.signature.kind == 'class':
    shares = {name: f'{number / count:.2%}' for name, number in right.items()}
    line += f'; accuracy {shares["file"]}, of the run {shares["run"]}'
  return line


def _soup_of(options: argparse.Namespace) -> Path:
  if options.workdir or options.config:
    raise UserError('export: name one run with --workdir, or several as arguments')
  if not options.output:
    raise UserError('export: say with --output=FILE where the mean of the runs goes')
  if format_of(options.format, options.output) != 'safetensors':
    raise UserError('export: the mean of several runs is written as .safetensors')
  return soup(options.inputs, options.output, options.checkpoint, options.average)
