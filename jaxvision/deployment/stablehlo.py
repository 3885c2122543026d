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

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxvision.deployment.program import Program
from jaxvision.inference.signature import METADATA_KEY, to_json
from jaxvision.inference.stablehlo_model import FILES, Exported
from jaxvision.io import write_all
from jaxvision.models.cpu import portable_operators
from jaxvision.weights.tensors import named

_PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')


def to_stablehlo(program: Program) -> Exported:
  """Returns the exported program, of a batch of any size, for every kind of device."""
  structure = jax.tree.structure(program.variables)
  weights = named(program.variables)  # in the order of the leaves
  names = list(weights)

  def function(weights: dict[str, jax.Array], *inputs: jax.Array) -> tuple:
    leaves = [weights[name] for name in names]
    return program.function(jax.tree.unflatten(structure, leaves), *inputs)

  (batch,) = jax.export.symbolic_shape('batch')
  shapes = {name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in weights.items()}
  inputs = [jax.ShapeDtypeStruct((batch, *s), t) for _, s, t in program.inputs]
  with portable_operators():
    exported = jax.export.export(jax.jit(function), platforms=_PLATFORMS)(
      shapes, *inputs
    )
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
