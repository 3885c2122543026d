"""Operators that move, cut, join or repeat axes."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxvision.deployment.onnx.graph import Graph, Value
from jaxvision.deployment.onnx.uncovered import Uncovered

_END = 2**31 - 1


def with_dims(value: Value, dims: Sequence[Any]) -> Value:
  """Returns a value that holds other sizes: 1 along what is a broadcast."""
  return dataclasses.replace(value, dims=tuple(dims))


def take(graph: Graph, value: Value, index: int, axis: int = 0) -> Value:
  """Returns the part of a value at an index of an axis, without the axis."""
  shape = value.shape[:axis] + value.shape[axis + 1 :]
  dims = value.dims[:axis] + value.dims[axis + 1 :]
  at = index if value.dims[axis] != 1 else 0
  if value.array is not None:
    return Value(shape, value.dtype, dims, value.array.take(at, axis))
  place = value.order.index(axis)
  indices = graph.array(np.array(at, np.int64))
  name = graph.node('Gather', [value.name, indices], value.rank - 1, axis=place)
  order = [a - (a > axis) for a in value.order if a != axis]
  return with_dims(graph.computed(name, shape, value.dtype, order), dims)


def stack(graph: Graph, values: Sequence[Value], axis: int = 0) -> Value:
  """Returns values of one shape joined along a new axis."""
  parts = [_insert_axis(graph, value, axis) for value in values]
  return _join(graph, parts, axis)


def _insert_axis(graph: Graph, value: Value, axis: int) -> Value:
  shape = (*value.shape[:axis], 1, *value.shape[axis:])
  dims = (*value.dims[:axis], 1, *value.dims[axis:])
  if value.array is not None:
    return Value(shape, value.dtype, dims, np.expand_dims(value.array, axis))
  name = graph.name_of(value)
  name = graph.node('Unsqueeze', [name, graph.indices([axis])], len(shape))
  return with_dims(graph.computed(name, shape, value.dtype), dims)


def _join(graph: Graph, values: Sequence[Value], axis: int) -> Value:
  values = [graph.full(value) for value in values]
  size = sum(value.shape[axis] for value in values)
  shape = (*values[0].shape[:axis], size, *values[0].shape[axis + 1 :])
  order = next((v.order for v in values if v.array is None), tuple(range(len(shape))))
  names = [graph.name_of(value, order) for value in values]
  name = graph.node('Concat', names, len(shape), axis=order.index(axis))
  return graph.computed(name, shape, values[0].dtype, order)


def _concatenate(graph: Graph, equation: Any, *values: Value) -> Sequence[Value]:
  return [_join(graph, values, equation.params['dimension'])]


def _stack(graph: Graph, equation: Any, *values: Value) -> Sequence[Value]:
  return [stack(graph, values, equation.params['axis'])]


def _transpose(graph: Graph, equation: Any, x: Value) -> Sequence[Value]:
  """Other names for the axes; nothing moves."""
  axes = equation.params['permutation']
  shape = tuple(x.shape[axis] for axis in axes)
  dims = tuple(x.dims[axis] for axis in axes)
  if x.array is not None:
    return [Value(shape, x.dtype, dims, x.array.transpose(axes))]
  order = tuple(axes.index(axis) for axis in x.order)
  return [dataclasses.replace(x, shape=shape, dims=dims, order=order)]


def _broadcast(graph: Graph, equation: Any, x: Value, *rest: Value) -> Sequence[Value]:
  """New axes of size 1; the repetition itself is put off."""
  shape = equation.params['shape']
  places = equation.params['broadcast_dimensions']
  dims: list[Any] = [1] * len(shape)
  for axis, place in enumerate(places):
    dims[place] = x.dims[axis]
  if x.array is not None:
    by_place = np.argsort(places)
    array = x.array.transpose(by_place).reshape(dims)
    return [Value(tuple(shape), x.dtype, tuple(dims), array)]
  if len(shape) == x.rank:
    return [dataclasses.replace(x, shape=tuple(shape), dims=tuple(dims))]
  if list(places) != sorted(places):
    raise Uncovered('axes that change places')
  name, new = graph.name_of(x), [i for i in range(len(shape)) if i not in places]
  name = graph.node('Unsqueeze', [name, graph.indices(new)], len(shape))
  return [with_dims(graph.computed(name, shape, x.dtype), dims)]


def _reshape(graph: Graph, equation: Any, x: Value) -> Sequence[Value]:
  shape = equation.params['new_sizes']
  if equation.params.get('dimensions') is not None:
    raise Uncovered('dimensions')
  x = graph.full(x)
  if x.array is not None:
    x = graph.computed(graph.name_of(x), x.shape, x.dtype)
  unknown = [i for i, size in enumerate(shape) if not isinstance(size, int)]
  if len(unknown) > 1:
    raise Uncovered('two sizes that depend on the batch')
  sizes = [size if isinstance(size, int) else -1 for size in shape]
  name = graph.node('Reshape', [graph.name_of(x), graph.indices(sizes)], len(shape))
  return [graph.computed(name, shape, x.dtype)]


def _squeeze(graph: Graph, equation: Any, x: Value) -> Sequence[Value]:
  axes = equation.params['dimensions']
  kept = [axis for axis in range(x.rank) if axis not in axes]
  shape = tuple(x.shape[axis] for axis in kept)
  dims = tuple(x.dims[axis] for axis in kept)
  if x.array is not None:
    return [Value(shape, x.dtype, dims, x.array.reshape(dims))]
  places = sorted(x.order.index(axis) for axis in axes)
  name = graph.node('Squeeze', [x.name, graph.indices(places)], len(kept))
  order = [kept.index(axis) for axis in x.order if axis in kept]
  return [with_dims(graph.computed(name, shape, x.dtype, order), dims)]


def cut(
  graph: Graph,
  x: Value,
  starts: Sequence[Any],
  limits: Sequence[Any],
  strides: Sequence[int] | None = None,
) -> Value:
  """Returns every stride-th element between starts and limits, along each axis.

  Args:
    graph: to add to.
    x: of any rank.
    starts, limits: along each axis; a negative stride goes down to a limit, -1 for all.
    strides: along each axis; None: 1.
  """
  strides = strides or [1] * x.rank
  x = graph.full(x)
  shape, cuts = [], []
  for axis, (start, limit, stride) in enumerate(zip(starts, limits, strides)):
    whole = start == 0 and limit == x.shape[axis] and stride == 1
    if not whole:
      if not all(isinstance(v, int) for v in (start, limit, x.shape[axis])):
        raise Uncovered('a part of the batch')
      cuts.append((axis, start, limit, stride))
    shape.append(x.shape[axis] if whole else len(range(start, limit, stride)))
  if x.array is not None:
    slices = [slice(None)] * x.rank
    for axis, start, limit, stride in cuts:
      slices[axis] = slice(start, limit if limit >= 0 else None, stride)
    return Value.known(x.array[tuple(slices)])
  if not cuts:
    return x
  axes, begin, end, steps = zip(*cuts)
  end = [-_END if limit < 0 else limit for limit in end]
  places = [x.order.index(axis) for axis in axes]
  inputs = [x.name, *map(graph.indices, (begin, end, places, steps))]
  name = graph.node('Slice', inputs, x.rank)
  return graph.computed(name, shape, x.dtype, x.order)


def _slice(graph: Graph, equation: Any, x: Value) -> Sequence[Value]:
  params = equation.params
  starts, limits = params['start_indices'], params['limit_indices']
  return [cut(graph, x, starts, limits, params['strides'])]


def _reverse(graph: Graph, equation: Any, x: Value) -> Sequence[Value]:
  axes = equation.params['dimensions']
  starts = [x.shape[a] - 1 if a in axes else 0 for a in range(x.rank)]
  limits = [-1 if a in axes else x.shape[a] for a in range(x.rank)]
  return [
    cut(graph, x, starts, limits, [-1 if a in axes else 1 for a in range(x.rank)])
  ]


def _split(graph: Graph, equation: Any, x: Value) -> Sequence[Value]:
  axis, first, parts = equation.params['axis'], 0, []
  for size in map(int, equation.params['sizes']):
    starts, limits = [0] * x.rank, list(x.shape)
    starts[axis], limits[axis] = first, first + size
    parts.append(cut(graph, x, starts, limits))
    first += size
  return parts


def _pad(graph: Graph, equation: Any, x: Value, value: Value) -> Sequence[Value]:
  config = equation.params['padding_config']
  if any(interior for _, _, interior in config):
    raise Uncovered('pads between elements')
  if value.array is None:
    raise Uncovered('a pad that is computed')
  x = graph.full(x)
  starts = [max(0, -low) for low, _, _ in config]
  limits = [size + min(0, high) for size, (_, high, _) in zip(x.shape, config)]
  x = cut(graph, x, starts, limits)
  before = [max(0, low) for low, _, _ in config]
  after = [max(0, high) for _, high, _ in config]
  if not any(before + after):
    return [x]
  shape = [a + size + b for a, size, b in zip(before, x.shape, after)]
  order = x.order or tuple(range(x.rank))
  pads = [sides[axis] for sides in (before, after) for axis in order]
  fill = graph.array(value.array.astype(x.dtype).reshape(()))
  inputs = [graph.name_of(x, order), graph.indices(pads), fill]
  name = graph.node('Pad', inputs, x.rank, mode='constant')
  return [graph.computed(name, shape, x.dtype, order)]


def _dynamic_slice(
  graph: Graph, equation: Any, x: Value, *starts: Value
) -> Sequence[Value]:
  if any(start.array is None for start in starts):
    raise Uncovered('a place that is computed')
  sizes = equation.params['slice_sizes']
  if not all(isinstance(size, int) for size in x.shape):
    raise Uncovered('a part of the batch')
  begin = [
    min(max(0, int(start.array)), side - size)
    for start, side, size in zip(starts, x.shape, sizes)
  ]
  return [cut(graph, x, begin, [a + size for a, size in zip(begin, sizes)])]


def _gather(graph: Graph, equation: Any, x: Value, indices: Value) -> Sequence[Value]:
  """Rows of a table, or a part of an array at indices that are known."""
  params = equation.params
  numbers, sizes = params['dimension_numbers'], params['slice_sizes']
  axes, dropped = numbers.start_index_map, numbers.collapsed_slice_dims
  single = indices.array is not None and indices.array.size == len(axes)
  if single and indices.rank == 1 and not numbers.operand_batching_dims:
    return [_part(graph, x, axes, indices.array, sizes, dropped)]
  whole = all(
    size == (1 if axis in axes else x.shape[axis]) for axis, size in enumerate(sizes)
  )
  if numbers.operand_batching_dims or not whole or tuple(dropped) != tuple(axes):
    raise Uncovered('indices of this kind')
  shape = equation.outvars[0].aval.shape
  if len(axes) > 1:
    return [_grid(graph, x, indices, axes, numbers.offset_dims)]
  (axis,) = axes
  looked = [place for place in range(len(shape)) if place not in numbers.offset_dims]
  x, indices = graph.full(x), graph.full(indices)
  at = graph.node(
    'Squeeze',
    [graph.name_of(indices), graph.indices([indices.rank - 1])],
    indices.rank - 1,
  )
  if indices.array is None:  # as `mode` has it: what is out of range is the nearest
    bounds = [np.array(n, indices.dtype) for n in (0, x.shape[axis] - 1)]
    at = graph.node('Clip', [at, *map(graph.array, bounds)], indices.rank - 1)
  name = graph.node('Gather', [graph.name_of(x), at], len(shape), axis=axis)
  # ONNX puts the axes of the indices in the place of the axis.
  found = list(numbers.offset_dims)
  order = [*found[:axis], *looked, *found[axis:]]
  return [graph.computed(name, shape, x.dtype, order)]


def _part(
  graph: Graph,
  x: Value,
  axes: Sequence[int],
  places: np.ndarray,
  sizes: Sequence[Any],
  dropped: Sequence[int],
) -> Value:
  """Returns a block of an array at known places, without some axes of size 1."""
  starts, limits = [0] * x.rank, list(x.shape)
  for axis, place in zip(axes, places.ravel().tolist()):
    if isinstance(x.shape[axis], int):
      starts[axis] = min(max(0, place), x.shape[axis] - sizes[axis])
      limits[axis] = starts[axis] + sizes[axis]
  if len(dropped) == 1 and limits[dropped[0]] - starts[dropped[0]] == 1:
    (axis,) = dropped
    rest = [i for i in range(x.rank) if i != axis]
    x = take(graph, x, starts[axis], axis)
    starts, limits = ([sides[i] for i in rest] for sides in (starts, limits))
    return cut(graph, x, starts, limits)
  block = cut(graph, x, starts, limits)
  for axis in sorted(dropped, reverse=True):
    block = take(graph, block, 0, axis)
  return block


def _tile(graph: Graph, equation: Any, x: Value) -> Sequence[Value]:
  x = graph.full(x)
  order = x.order or tuple(range(x.rank))
  repeats = [equation.params['reps'][axis] for axis in order]
  name = graph.node('Tile', [graph.name_of(x, order), graph.indices(repeats)], x.rank)
  aval = equation.outvars[0].aval
  return [graph.computed(name, aval.shape, aval.dtype, order)]


def _grid(
  graph: Graph,
  x: Value,
  indices: Value,
  axes: Sequence[int],
  offsets: Sequence[int],
) -> Value:
  """Cuts a regular grid out of neighbouring axes, as x[:, ::2, ::2] does."""
  if indices.array is None:
    raise Uncovered('indices along several axes')
  table = np.asarray(graph.full(indices).array)
  lines = [
    np.unique(np.moveaxis(table[..., i], i, 0).reshape(table.shape[i], -1), axis=1)
    for i in range(len(axes))
  ]
  regular = table.ndim == len(axes) + 1 and all(line.shape[1] == 1 for line in lines)
  in_place = [i for i in range(x.rank) if i not in offsets] == list(axes)
  if not regular or not in_place:
    raise Uncovered('indices along several axes')
  starts, limits, strides = [0] * x.rank, list(x.shape), [1] * x.rank
  for axis, line in zip(axes, lines):
    numbers = line[:, 0]
    step = int(numbers[1] - numbers[0]) if len(numbers) > 1 else 1
    if step < 1 or (np.diff(numbers) != step).any():
      raise Uncovered('indices along several axes')
    starts[axis], limits[axis] = int(numbers[0]), int(numbers[-1]) + 1
    strides[axis] = step
  return cut(graph, x, starts, limits, strides)


OPERATORS = {
  'transpose': _transpose,
  'broadcast_in_dim': _broadcast,
  'reshape': _reshape,
  'squeeze': _squeeze,
  'slice': _slice,
  'rev': _reverse,
  'split': _split,
  'pad': _pad,
  'concatenate': _concatenate,
  'stack': _stack,
  'gather': _gather,
  'dynamic_slice': _dynamic_slice,
  'tile': _tile,
}
