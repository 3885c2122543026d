"""The ONNX file of a run."""

from jaxvision.deployment.program import Program
from jaxvision.extras import require
from jaxvision.inference.signature import METADATA_KEY, to_json


def to_onnx(program: Program) -> bytes:
  """Returns the ONNX file of a program: its weights are in it, its batch is free.

  Batch norm is folded into the convolutions, and the normalisation of the images is part
  of the graph. The metadata hold the signature under 'jaxvision', and the class names as
  they are, a line each.

  Raises:
    UserError: the package onnx is not installed, or the network uses what has no operator
      there.
  """
  require('onnx', 'onnx', 'export: --format=onnx')
  from jaxvision.deployment import onnx as onnx_lib

  def function(*inputs):
    return program.function(program.variables, *inputs)

  graph, names = onnx_lib.to_graph(function, program.inputs)
  outputs = [
    (name, inner, shape, dtype)
    for (name, shape, dtype), inner in zip(program.outputs, names)
  ]
  metadata = {METADATA_KEY: to_json(program.signature)}
  if program.signature.class_names:
    metadata['class_names'] = '\n'.join(program.signature.class_names)
  return onnx_lib.to_bytes(graph, program.inputs, outputs, metadata)
