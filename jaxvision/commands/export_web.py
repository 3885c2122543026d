"""`jaxvision export --format=web`: a page that runs a network in the browser."""

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxvision.commands.export_checks import compared, data_or_none, with_license
from jaxvision.commands.run_data import test_or_train
from jaxvision.commands.workdir import data_overrides, workdir_of
from jaxvision.data.dataset import Dataset
from jaxvision.deployment.onnx_file import OnnxFile
from jaxvision.deployment.program import program_of
from jaxvision.deployment.web.rendering import Example
from jaxvision.deployment.web.writing import write_web
from jaxvision.errors import UserError
from jaxvision.inference.loading import load_run
from jaxvision.inference.onnx_model import open_session
from jaxvision.io import local_path, output_directory, output_file

_EXAMPLES = 12
_LOOKED_AT = 1000  # test images that they are chosen from


def export_page(options: argparse.Namespace, config: ConfigDict | None) -> Path:
  """Writes the page that the options of `export` ask for and returns its path."""
  workdir = None
  if options.workdir or config is not None:
    workdir = workdir_of(options, config)
  return export_web(
    workdir,
    options.output,
    options.checkpoint,
    average=options.average,
    model=options.model,
    single_file=options.single_file,
    runtime=options.runtime,
    license=options.license,
    overrides=data_overrides(options),
  )


def export_web(
  workdir: str | Path | None = None,
  output: str | Path | None = None,
  checkpoint: str | int = 'last',
  *,
  average: int | None = None,
  model: str | Path | None = None,
  single_file: bool = False,
  runtime: str | Path | None = None,
  license: str | None = None,
  overrides: Sequence[str] = (),
) -> Path:
  """Writes a page on which a run classifies, or draws, in the browser.

  Args:
    workdir: of a training run; with `model`, the run whose test images are examples, or
      None for a page without.
    output: folder to write, or the HTML of a single file; None: `web` in the workdir.
    checkpoint, average: see `export`.
    model: ONNX file that the page runs, as `export` or `quantize` wrote; None: the run in
      float32.
    single_file: write one HTML, which holds the network and the runtime too. A name that
      ends in .html asks for it as well.
    runtime: folder or archive of onnxruntime-web; None: it is downloaded once.
    license: of the weights, such as 'MIT', which the page names.
    overrides: 'data.dir=DIR' and the like: where the data are now.

  Returns:
    The path of the page.

  Raises:
    UserError: see `export`; or onnxruntime-web is not to be had.
  """
  if workdir is None and (model is None or output is None):
    raise UserError(
      'export: name the run with --workdir=DIR, or with --model=FILE.onnx the file that the '
      'page runs and with --output where it goes'
    )
  folder = local_path(workdir, 'export: workdir') if workdir is not None else None
  path = _output(output, folder, single_file)
  place = local_path(runtime, 'export: --runtime') if runtime else None
  data = data_or_none(folder, overrides) if folder else None
  if model is not None:
    file = local_path(model, 'export: --model')
    signature, _ = open_session(file)
    content = file.read_bytes()
  else:
    program = program_of(
      load_run(folder or '', checkpoint, average=average, dtype='float32')
    )
    made = OnnxFile(program)
    signature = compared(program, made.call, data)
    content = made.to_bytes(signature)
  signature = with_license(signature, license)
  return write_web(
    path,
    content,
    signature,
    examples=_examples(data, signature) if data else (),
    single_file=path.suffix == '.html',
    runtime=place,
  )


def _output(output: str | Path | None, folder: Path | None, single_file: bool) -> Path:
  """Returns the folder, or the HTML, that is written."""
  if output is None:
    assert folder is not None
    return folder / ('web.html' if single_file else 'web')
  if Path(output).suffix.lower() == '.html':
    return output_file(output, 'export: --output')
  if single_file:
    raise UserError(f'export: --single-file: --output={output} must end in .html')
  return output_directory(output, 'export: --output')


def _examples(data: Dataset, signature: Any) -> list[Example]:
  """Returns images of the test split, of as many classes as there are examples."""
  from PIL import Image

  if signature.kind == 'generator':
    return []
  _, source = test_or_train(data)
  order = np.random.default_rng(0).permutation(len(source))[:_LOOKED_AT]
  if data.label_kind == 'class':  # one of each class, then a second of each
    labels = np.asarray(source.labels)[order]
    before = [int(np.sum(labels[:i] == label)) for i, label in enumerate(labels)]
    order = order[np.argsort(before, kind='stable')]
  found = []
  for index in order[:_EXAMPLES].tolist():
    image, label = source[index]
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(
      buffer, 'PNG'
    )
    name = (
      data.class_names[int(label)] if data.label_kind == 'class' else f'image {index}'
    )
    found.append(Example(buffer.getvalue(), name))
  return found
