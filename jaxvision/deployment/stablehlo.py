"""Programs as StableHLO: what jax.export writes, with the weights beside it.

A folder NAME.stablehlo holds

  program.jax_export   `jax.export.deserialize` reads it: any batch, CPU, GPU and TPU
  program.mlir         the same as portable StableHLO bytecode, for other compilers
  weights.safetensors  the weights, in the names that signature.json lists
  signature.json       the order of the arguments, their shapes and dtypes; the classes

The serialised form of jax.export is read by the JAX that wrote it and by later ones for
some six months; StableHLO's bytecode for five years. Weights stay apart, so that what is
kept for longer is the file of the weights.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxvision.deployment.program import Program
from jaxvision.errors import UserError
from jaxvision.inference.classifier import Classifier
from jaxvision.inference.signature import (
  METADATA_KEY,
  GeneratorSignature,
  Signature,
  from_json,
  to_json,
)
from jaxvision.io import write_all
from jaxvision.models.cpu import portable_operators
from jaxvision.weights.tensors import named

FILES = ('program.jax_export', 'program.mlir', 'weights.safetensors', 'signature.json')
_PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')


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


def to_stablehlo(program: Program) -> Exported:
  """Returns the exported program, of a batch of any size, for every kind of device."""
  variables = program.variables
  structure = jax.tree.structure(variables)
  weights = named(variables)
  # `named` sorts; the tree has an order of its own.
  places = list(named(jax.tree.unflatten(structure, range(structure.num_leaves))).values())
  order = np.argsort(np.array(places, int))
  names = [list(weights)[i] for i in order]

  def function(weights: dict[str, jax.Array], *inputs: jax.Array) -> tuple:
    leaves = [weights[name] for name in names]
    return program.function(jax.tree.unflatten(structure, leaves), *inputs)

  (batch,) = jax.export.symbolic_shape('batch')
  shapes = {name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in weights.items()}
  inputs = [jax.ShapeDtypeStruct((batch, *s), t) for _, s, t in program.inputs]
  with portable_operators():
    exported = jax.export.export(jax.jit(function), platforms=_PLATFORMS)(shapes, *inputs)
  outputs = tuple(name for name, _, _ in program.outputs)
  return Exported(exported, weights, program.signature, outputs)


def save(made: Exported, program: Program, directory: Path) -> None:
  """Writes the folder of an exported program, see the module.

  Raises:
    OSError: it cannot be written.
  """
  import safetensors.numpy

  def described(arrays: Any) -> list[dict[str, Any]]:
    return [
      {'name': name, 'shape': ['batch', *shape], 'dtype': np.dtype(dtype).name}
      for name, shape, dtype in arrays
    ]

  convention = {
    'call': 'jax.export.deserialize(program).call(weights, *inputs) -> outputs',
    'weights': {
      name: {'shape': list(a.shape), 'dtype': a.dtype.name}
      for name, a in made.weights.items()
    },
    'inputs': described(program.inputs),
    'outputs': described(program.outputs),
    'platforms': list(made.exported.platforms),
    'calling_convention_version': made.exported.calling_convention_version,
    'jax': jax.__version__,
    METADATA_KEY: json.loads(to_json(made.signature)),
  }
  contents = (
    bytes(made.exported.serialize()),
    made.exported.mlir_module_serialized,
    safetensors.numpy.save(made.weights),
    json.dumps(convention, indent=2) + '\n',
  )
  write_all(directory, dict(zip(FILES, contents)))


def load(directory: Path) -> Exported:
  """Returns the program in a folder that `save` wrote.

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


class StableHloClassifier(Classifier):
  """A classifier in a folder that `jaxvision export --format=stablehlo` wrote.

  Args:
    made: what `load` returned.
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

  def largest_batch(self) -> int:
    """Returns how many images go through the network at once."""
    height, width, _ = self.signature.image_shape
    return max(1, min(256, 256 * 64 * 64 // (height * width)))
