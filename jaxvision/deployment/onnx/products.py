"""Convolutions, matrix products and pooling."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxvision.deployment.onnx.graph import Graph, Value
from jaxvision.deployment.onnx.uncovered import Uncovered


def _convolution(
  graph: Graph, equation: Any, x: Value, kernel: Value
) -> Sequence[Value]:
  params = equation.params
  numbers = params['dimension_numbers']
  if params['batch_group_count'] != 1:
    raise Uncovered('groups of the batch')
  x, kernel = graph.full(x), graph.full(kernel)
  groups, pads = params['feature_group_count'], params['padding']
  size = [kernel.shape[axis] for axis in numbers.rhs_spec[2:]]
  attributes: dict[str, Any] = {
    'group': groups,
    'kernel_shape': size,
    'dilations': list(params['rhs_dilation']),
  }
  inputs = [graph.name_of(x, numbers.lhs_spec)]
  if all(step == 1 for step in params['lhs_dilation']):
    op, weights = 'Conv', graph.name_of(kernel, numbers.rhs_spec)
    attributes['strides'] = list(params['window_strides'])
    attributes['pads'] = [side for sides in zip(*pads) for side in sides]
  else:
    op, weights = 'ConvTranspose', _turned(graph, kernel, numbers.rhs_spec, groups)
    if any(step != 1 for step in params['window_strides']):
      raise Uncovered('strides and zeros between pixels')
    attributes['strides'] = list(params['lhs_dilation'])
    # What JAX adds around the image, and ONNX takes from the result.
    reach = [d * (k - 1) for d, k in zip(params['rhs_dilation'], size)]
    before = [r - low for r, (low, _) in zip(reach, pads)]
    after = [r - high for r, (_, high) in zip(reach, pads)]
    # It takes nothing negative; what is missing at the end is a padding of the output.
    if min(before) < 0:
      raise Uncovered('a padding wider than the kernel')
    attributes['output_padding'] = [max(0, -side) for side in after]
    attributes['pads'] = before + [max(0, side) for side in after]
  rank = x.rank
  if any(low < 0 or high < 0 for low, high in pads) and op == 'Conv':
    raise Uncovered('a negative padding')
  name = graph.node(op, [*inputs, weights], rank, **attributes)
  aval = equation.outvars[0].aval
  return [graph.computed(name, aval.shape, aval.dtype, numbers.out_spec)]


def _turned(graph: Graph, kernel: Value, spec: Sequence[int], groups: int) -> str:
  """Returns the kernel of the transposed convolution: turned by half a turn, [in, out]."""
  if kernel.array is None:
    raise Uncovered('a transposed kernel that is computed')
  if groups != 1:
    raise Uncovered('a transposed convolution in groups')
  array = kernel.array.transpose(spec)  # [out, in, ...]
  array = np.flip(array, tuple(range(2, array.ndim))).swapaxes(0, 1)
  return graph.array(array)


def _product(graph: Graph, equation: Any, one: Value, other: Value) -> Sequence[Value]:
  """A product over axes of two arrays, as matrices.

  ONNX multiplies [..., M, K] by [..., K, N]; each array is brought to that.
  """
  (axes, batch) = equation.params['dimension_numbers']
  aval = equation.outvars[0].aval
  one, other = graph.full(one), graph.full(other)
  free = [
    [a for a in range(value.rank) if a not in contracted and a not in together]
    for value, contracted, together in zip((one, other), axes, batch)
  ]
  rows, columns = free
  shared = len(batch[0])
  simple = len(axes[0]) == 1 and len(columns) == 1 and (len(rows) == 1 or not shared)
  left = [*batch[0], *rows, *axes[0]]
  right = [*batch[1], *axes[1], *columns]
  names = [graph.name_of(one, left), graph.name_of(other, right)]
  if simple:
    name = graph.node('MatMul', names, len(aval.shape))
    return [graph.computed(name, aval.shape, aval.dtype)]
  sizes = [one.shape[axis] for axis in batch[0]]
  depth = math.prod(one.shape[axis] for axis in axes[0])
  left_shape = [*sizes, _prod(one, rows), depth]
  right_shape = [*sizes, depth, _prod(other, columns)]
  names = [
    _as(graph, name, shape) for name, shape in zip(names, (left_shape, right_shape))
  ]
  name = graph.node('MatMul', names, shared + 2)
  return [graph.computed(_as(graph, name, aval.shape), aval.shape, aval.dtype)]


def _prod(value: Value, axes: Sequence[int]) -> Any:
  return math.prod(value.shape[axis] for axis in axes)


def _as(graph: Graph, name: str, shape: Sequence[Any]) -> str:
  sizes = [size if isinstance(size, int) else -1 for size in shape]
  if sizes.count(-1) > 1:
    raise Uncovered('two sizes that depend on the batch')
  return graph.node('Reshape', [name, graph.indices(sizes)], len(sizes))


def _window(graph: Graph, equation: Any, x: Value) -> tuple[str, dict[str, Any], Any]:
  """Returns the name, the attributes and the order of an array [B, ..., C] to pool."""
  params = equation.params
  windows, strides = params['window_dimensions'], params['window_strides']
  pads = params['padding']
  ends = [(windows[axis], strides[axis], *pads[axis]) for axis in (0, -1)]
  dilations = [*params['base_dilation'], *params['window_dilation']]
  if x.rank < 3 or set(ends) != {(1, 1, 0, 0)} or set(dilations) != {1}:
    raise Uncovered('a window over other axes than height and width')
  sides = range(1, x.rank - 1)
  attributes = {
    'kernel_shape': [windows[axis] for axis in sides],
    'strides': [strides[axis] for axis in sides],
    'pads': [pad for pair in zip(*(pads[axis] for axis in sides)) for pad in pair],
  }
  order = (0, x.rank - 1, *sides)
  return graph.name_of(graph.full(x), order), attributes, order


def _max_pool(graph: Graph, equation: Any, x: Value) -> Sequence[Value]:
  name, attributes, order = _window(graph, equation, x)
  name = graph.node('MaxPool', [name], x.rank, **attributes)
  aval = equation.outvars[0].aval
  return [graph.computed(name, aval.shape, aval.dtype, order)]


def _sum_pool(graph: Graph, equation: Any, x: Value) -> Sequence[Value]:
  name, attributes, order = _window(graph, equation, x)
  name = graph.node('AveragePool', [name], x.rank, count_include_pad=1, **attributes)
  count = graph.array(np.array(math.prod(attributes['kernel_shape']), x.dtype))
  name = graph.node('Mul', [name, count], x.rank)
  aval = equation.outvars[0].aval
  return [graph.computed(name, aval.shape, aval.dtype, order)]


OPERATORS = {
  'conv_general_dilated': _convolution,
  'dot_general': _product,
  'reduce_window_max': _max_pool,
  'reduce_window_sum': _sum_pool,
}
