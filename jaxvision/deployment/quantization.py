"""Smaller ONNX files: static int8, and weights in half precision.

Static int8 is that of onnxruntime: weights signed, symmetric, of each output channel;
activations unsigned, of each tensor, in the ranges that calibration images show. Pairs of
QuantizeLinear and DequantizeLinear around each operator say so, and onnxruntime runs what is
between them in integers. (Jacob et al. 2018, "Quantization and training of neural networks
for efficient integer-arithmetic-only inference"; Nagel et al. 2021, "A white paper on neural
network quantization".)
"""

import contextlib
import dataclasses
import io
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxvision.errors import UserError
from jaxvision.extras import require
from jaxvision.inference.signature import METADATA_KEY, to_json

METHODS = ('minmax', 'percentile', 'entropy')

# Operators that are computed in integers. What is not here, such as softmax and GELU, stays
# in float32.
_OPERATORS = (
  'Add',
  'AveragePool',
  'Clip',
  'Concat',
  'Conv',
  'ConvTranspose',
  'Gather',
  'Gemm',
  'GlobalAveragePool',
  'MatMul',
  'MaxPool',
  'Mul',
  'Pad',
  'Relu',
  'Reshape',
  'Slice',
  'Squeeze',
  'Transpose',
  'Unsqueeze',
)
_WEIGHTED = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul')
_BATCH = 32


@dataclasses.dataclass(frozen=True)
class Sensitivity:
  """How much one layer costs in int8, all others in float32.

  Attributes:
    node: its name in the graph.
    operator: such as 'Conv'.
    error: root mean square of the change of the logits over their standard deviation.
  """

  node: str
  operator: str
  error: float


class Quantizer:
  """Int8 versions of one ONNX file, calibrated once.

  Args:
    data: the file in float32.
    images: uint8 [n, H, W, C] to calibrate on.
    method: 'minmax': the extremes that the images show; 'percentile': 99.99 % of the
      values; 'entropy': the range whose histogram loses least (Migacz 2017, "8-bit
      inference with TensorRT").

  Raises:
    UserError: there is no image, no such method, or onnxruntime is not installed.
  """

  def __init__(self, data: bytes, images: np.ndarray, method: str = 'minmax'):
    self._onnx = require('onnx', 'onnx', 'quantize')
    require('onnxruntime.quantization', 'onnx', 'quantize')
    if method not in METHODS:
      raise UserError(
        f'quantize: --method must be one of {", ".join(METHODS)}: {method}'
      )
    if not len(images):
      raise UserError('quantize: there is no image to calibrate on')
    model = self._onnx.load_from_string(data)
    for number, node in enumerate(model.graph.node):
      node.name = node.name or f'{node.op_type}_{number}'
    self._model = self._onnx.shape_inference.infer_shapes(model)
    self._ranges = self._calibrate(images, method)

  @property
  def layers(self) -> list[tuple[str, str]]:
    """The names and operators of the nodes with weights."""
    return [(n.name, n.op_type) for n in self._model.graph.node if self._weighted(n)]

  def quantize(
    self, keep: Sequence[str] = (), only: Sequence[str] | None = None
  ) -> bytes:
    """Returns the file in int8.

    Args:
      keep: names of nodes that stay in float32.
      only: names of the nodes that do not; None: all that can be computed in integers.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    model = type(self._model)()
    model.CopyFrom(self._model)
    with _quiet():
      quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=self._ranges,
        nodes_to_quantize=list(only or []),
        nodes_to_exclude=[*self._inputs(), *keep],
        op_types_to_quantize=list(_OPERATORS),
        extra_options={'MatMulConstBOnly': True, 'ActivationSymmetric': False},
      )
      quantizer.quantize_model()
    return quantizer.model.model.SerializeToString()

  def sensitivities(
    self, logits: Callable[[bytes], np.ndarray], expected: np.ndarray
  ) -> list[Sensitivity]:
    """Returns what each layer costs alone, the most costly first.

    Args:
      logits: file -> logits [n, K] of some images.
      expected: those of the file in float32.
    """
    scale = float(expected.std()) or 1.0
    found = []
    for name, operator in self.layers:
      change = logits(self.quantize(only=[name])) - expected
      error = float(np.sqrt(np.mean(change.astype(np.float64) ** 2))) / scale
      found.append(Sensitivity(name, operator, error))
    return sorted(found, key=lambda layer: -layer.error)

  def _weighted(self, node: Any) -> bool:
    arrays = {array.name for array in self._model.graph.initializer}
    return node.op_type in _WEIGHTED and node.input[1] in arrays

  def _inputs(self) -> list[str]:
    """Returns the nodes of the normalisation, before the first layer with weights.

    The pixels come in 256 levels, which a range of their own would only round again.
    """
    nodes = list(self._model.graph.node)
    first = next((i for i, node in enumerate(nodes) if self._weighted(node)), 0)
    return [node.name for node in nodes[:first]]

  def _calibrate(self, images: np.ndarray, method: str) -> Any:
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    kinds = {
      'minmax': CalibrationMethod.MinMax,
      'percentile': CalibrationMethod.Percentile,
      'entropy': CalibrationMethod.Entropy,
    }
    name = self._model.graph.input[0].name
    with tempfile.TemporaryDirectory() as folder, _quiet():
      path = Path(folder) / 'model.onnx'
      self._onnx.save_model(self._model, path)
      calibrator = create_calibrator(
        path,
        list(_OPERATORS),
        augmented_model_path=str(Path(folder) / 'augmented.onnx'),
        calibrate_method=kinds[method],
      )
      for first in range(0, len(images), _BATCH):
        calibrator.collect_data(_Reader({name: images[first : first + _BATCH]}))
      return calibrator.compute_data()


def with_signature(data: bytes, signature: Any) -> bytes:
  """Returns an ONNX file with another signature in its metadata."""
  onnx = require('onnx', 'onnx', 'quantize')
  model = onnx.load_from_string(data)
  for entry in model.metadata_props:
    if entry.key == METADATA_KEY:
      entry.value = to_json(signature)
  return model.SerializeToString()


class _Reader:
  """One batch, as onnxruntime reads calibration data."""

  def __init__(self, batch: dict[str, np.ndarray]):
    self._batches = iter([batch])

  def get_next(self) -> dict[str, np.ndarray] | None:
    return next(self._batches, None)

  def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
    return self._batches

  def __next__(self) -> dict[str, np.ndarray]:
    return next(self._batches)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Keeps to itself what onnxruntime prints and logs of its calibration."""
  disabled = logging.root.manager.disable
  logging.disable(logging.WARNING)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    logging.disable(disabled)


def half_weights(data: bytes, dtype: str) -> bytes:
  """Returns an ONNX file whose weights are kept in 16 bits and computed with in float32.

  Args:
    data: the file in float32.
    dtype: 'float16' or 'bfloat16'.

  Raises:
    UserError: a weight is too large for float16, or onnx is not installed.
  """
  onnx = require('onnx', 'onnx', 'quantize')
  model = onnx.load_from_string(data)
  kind = {'float16': np.float16, 'bfloat16': ml_dtypes.bfloat16}[dtype]
  casts = []
  for array in model.graph.initializer:
    if array.data_type != onnx.TensorProto.FLOAT or np.prod(array.dims, dtype=int) < 2:
      continue
    values = onnx.numpy_helper.to_array(array)
    with np.errstate(over='ignore'):
      rounded = values.astype(kind)
    if not np.isfinite(rounded.astype(np.float32)).all():
      raise UserError(
        f'quantize: a weight is too large for {dtype}: take --type=bfloat16'
      )
    name = array.name
    array.CopyFrom(onnx.numpy_helper.from_array(rounded, f'{name}_{dtype}'))
    to = onnx.TensorProto.FLOAT
    casts.append(onnx.helper.make_node('Cast', [array.name], [name], to=to))
  nodes = [*casts, *model.graph.node]
  del model.graph.node[:]
  model.graph.node.extend(nodes)
  onnx.checker.check_model(model, full_check=True)
  return model.SerializeToString()
