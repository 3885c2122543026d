"""An ONNX graph as a file."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from jaxvision import __version__
from jaxvision.deployment.onnx.graph import OPSET, Graph

# The first version of the format that has the operator set.
_IR_VERSION = 9


def to_bytes(
  graph: Graph,
  inputs: Sequence[tuple[str, tuple[int, ...], Any]],
  outputs: Sequence[tuple[str, str, tuple[int, ...], Any]],
  metadata: Mapping[str, str],
) -> bytes:
  """Returns the file of a graph, which onnx has checked.

  Args:
    graph: of `to_graph`.
    inputs: (name, shape without the batch, dtype) of each.
    outputs: (name in the file, name in the graph, shape without the batch, dtype).
    metadata: kept in the file's metadata_props.
  """
  nodes = [
    onnx.helper.make_node(n.op, n.inputs, n.outputs, **n.attributes)
    for n in graph.nodes
  ]
  nodes += [
    onnx.helper.make_node('Identity', [inner], [name]) for name, inner, _, _ in outputs
  ]
  arrays = [onnx.numpy_helper.from_array(a, name) for name, a in graph.arrays.items()]
  made = onnx.helper.make_graph(
    nodes,
    'jaxvision',
    [_info(name, shape, dtype) for name, shape, dtype in inputs],
    [_info(name, shape, dtype) for name, _, shape, dtype in outputs],
    arrays,
  )
  model = onnx.helper.make_model(
    made,
    opset_imports=[onnx.helper.make_opsetid('', OPSET)],
    ir_version=_IR_VERSION,
    producer_name='jaxvision',
    producer_version=__version__,
  )
  onnx.helper.set_model_props(model, dict(metadata))
  onnx.checker.check_model(model, full_check=True)
  return model.SerializeToString()


def _info(name: str, shape: tuple[int, ...], dtype: Any) -> Any:
  kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
  return onnx.helper.make_tensor_value_info(name, kind, ['batch', *shape])
