"""The ONNX file of a run."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxvision.deployment.program import Program
from jaxvision.extras import require
from jaxvision.inference.signature import METADATA_KEY, to_json


class OnnxFile:
  """The ONNX model of a program: its weights are in it, its batch is free.

  Batch norm is folded into the convolutions, and the normalisation of the images is part
  of the graph.

  Args:
    program: of a run.

  Raises:
    UserError: the package onnx or onnxruntime is not installed, or the network uses what
      has no operator there.
  """

  def __init__(self, program: Program):
    require('onnx', 'onnx', 'export: --format=onnx')
    self._runtime = require('onnxruntime', 'onnx', 'export: --format=onnx')
    from jaxvision.deployment import onnx as onnx_lib

    def function(*inputs: Any) -> Any:
      return program.function(program.variables, *inputs)

    self._program = program
    self._graph, names = onnx_lib.to_graph(function, program.inputs)
    self._outputs = [
      (name, inner, shape, dtype)
      for (name, shape, dtype), inner in zip(program.outputs, names)
    ]
    self._session: Any = None

  def to_bytes(self, signature: Any) -> bytes:
    """Returns the file.

    Its metadata hold the signature under 'jaxvision', and the class names as they are, a
    line each, under 'class_names'.
    """
    from jaxvision.deployment import onnx as onnx_lib

    metadata = {METADATA_KEY: to_json(signature)}
    if signature.class_names:
      metadata['class_names'] = '\n'.join(signature.class_names)
    inputs = self._program.inputs
    return onnx_lib.to_bytes(self._graph, inputs, self._outputs, metadata)

  def call(self, *inputs: np.ndarray) -> Sequence[np.ndarray]:
    """Returns what onnxruntime computes of a batch, in the order of the program."""
    if self._session is None:
      data = self.to_bytes(self._program.signature)
      providers = ['CPUExecutionProvider']
      self._session = self._runtime.InferenceSession(data, providers=providers)
    given = {name: array for (name, _, _), array in zip(self._program.inputs, inputs)}
    return self._session.run([name for name, *_ in self._outputs], given)
