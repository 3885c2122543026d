"""What is checked of an exported file: against the run, on its test images."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxvision.commands.measuring import measure
from jaxvision.commands.run_data import data_of_run, drawn, test_or_train
from jaxvision.data.dataset import Dataset
from jaxvision.deployment import parity
from jaxvision.deployment.program import Program
from jaxvision.errors import UserError
from jaxvision.inference.classifier import Classifier
from jaxvision.inference.signature import GeneratorSignature, Signature

_log = logging.getLogger('jaxvision')

# Images that a file is compared with the run on, and samples of a generator.
_COMPARED = 256
_SAMPLES = 16


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
  split, source = test_or_train(data)
  images, _ = drawn(source, _COMPARED, seed=0)
  return f'{len(images)} {split} images of {data.name}', [images]


def verified(workdir: Path, run: Any, model: Any, data: Dataset | None) -> str:
  """Returns in words how the file and the run do on the whole test split."""
  source = data.splits.get('test') if data else None
  if not isinstance(model, Classifier) or source is None or not len(source):
    raise UserError(f'export: --verify: {workdir} has no test images to classify')
  measured = measure({'run': run, 'file': model}, source, model.largest_batch())
  count, (of_run, of_file) = len(source), measured.values()
  line = f'verified on {count:,} test images: {of_file.differing:,} predictions differ'
  if of_file.accuracy is not None:
    line += f'; accuracy {of_file.accuracy:.2%}, of the run {of_run.accuracy:.2%}'
  return line
