"""Exported StableHLO as functions from images to classes; no model of ours is needed.

`jaxvision.deployment.stablehlo` writes the folder and says what is in it.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxvision.errors import UserError
from jaxvision.inference.classifier import Classifier
from jaxvision.inference.signature import (
  METADATA_KEY,
  GeneratorSignature,
  Signature,
  from_json,
)

# In the folder: the program for jax.export, for other compilers, its weights, what it takes.
FILES = ('program.jax_export', 'program.mlir', 'weights.safetensors', 'signature.json')


@dataclasses.dataclass(frozen=True, eq=False)
class Exported:
  """A program as it was written, or read.

  Attributes:
    exported: of jax.export; called as `exported.call(weights, *inputs)`.
    weights: name -> array.
    signature: of the run.
    outputs: names of what it returns.
  """

  exported: Any
  weights: dict[str, np.ndarray]
  signature: Signature | GeneratorSignature
  outputs: tuple[str, ...]

  def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
    """Returns the outputs for a batch."""
    return [np.asarray(found) for found in self.exported.call(self.weights, *inputs)]


def read(directory: Path) -> Exported:
  """Returns the program in a folder that `jaxvision export` wrote.

  Raises:
    UserError: a file is missing or damaged, or the program is too old for this JAX.
  """
  import safetensors.numpy

  try:
    program, _, weights, text = ((directory / name).read_bytes() for name in FILES)
    convention = json.loads(text)
    arrays = safetensors.numpy.load(weights)
    exported = jax.export.deserialize(bytearray(program))
  except OSError as error:
    raise UserError(f'{error.filename} cannot be read: {error.strerror}') from error
  except Exception as error:  # of three libraries, for what is damaged
    raise UserError(
      f'{directory} is no program that jax {jax.__version__} reads: {error}'
    ) from error
  known = convention if isinstance(convention, dict) else {}
  signature = from_json(json.dumps(known.get(METADATA_KEY)), str(directory))
  outputs = tuple(str(output.get('name')) for output in known.get('outputs', []))
  return Exported(exported, arrays, signature, outputs)


def load_stablehlo(path: str | Path) -> 'StableHloClassifier':
  """Returns the classifier in a folder NAME.stablehlo.

  Raises:
    UserError: see `read`; or it draws images.
  """
  made = read(Path(path))
  if isinstance(made.signature, GeneratorSignature):
    raise UserError(f'{path} draws images and classifies none')
  return StableHloClassifier(made)


class StableHloClassifier(Classifier):
  """A classifier in a folder that `jaxvision export --format=stablehlo` wrote.

  Args:
    made: what `read` returned.
  """

  pads = True  # each size is compiled

  def __init__(self, made: Exported):
    self._made = made
    self._call = jax.jit(made.exported.call)

  @property
  def signature(self) -> Signature:
    """The images that it takes and the names of its outputs."""
    return self._made.signature

  def probabilities(self, images: np.ndarray) -> np.ndarray:
    """Returns the outputs for one batch, see `Classifier.probabilities`."""
    return np.asarray(self._call(self._made.weights, images)[0])
