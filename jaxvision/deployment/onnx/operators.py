"""The operator of ONNX for each primitive of JAX.

An entry of `OPERATORS` is a function of (graph, equation, *values) that adds nodes and
returns the values of the equation's outputs. What moves axes, cuts or joins is in
`movement`, convolutions and products are in `products`.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx

from jaxvision.deployment.onnx import movement, products
from jaxvision.deployment.onnx.elementwise import combine
from jaxvision.deployment.onnx.graph import Graph, Value
from jaxvision.deployment.onnx.uncovered import Uncovered

Emitter = Callable[..., Sequence[Value]]


def _dtype(equation: Any) -> np.dtype:
  return np.dtype(equation.outvars[0].aval.dtype)


def _simple(op: str, graph: Graph, equation: Any, *values: Value) -> Sequence[Value]:
  """One operator, element by element."""
  return [combine(graph, op, values, _dtype(equation))]


def _constant_like(value: Value, number: float) -> Value:
  return Value.known(np.array(number, value.dtype))


def _maximum(graph: Graph, equation: Any, one: Value, other: Value) -> Sequence[Value]:
  for x, bound in ((one, other), (other, one)):
    is_zero = bound.array is not None and not bound.array.any()
    if is_zero and bound.array.size == 1 and x.dtype == np.float32:
      return [combine(graph, 'Relu', [x], x.dtype)]
  return _extreme('Max', graph, equation, one, other)


def _extreme(op: str, graph: Graph, equation: Any, *values: Value) -> Sequence[Value]:
  if values[0].dtype == np.bool_:
    op = 'Or' if op == 'Max' else 'And'
  return _simple(op, graph, equation, *values)


def _rsqrt(graph: Graph, equation: Any, x: Value) -> Sequence[Value]:
  root = combine(graph, 'Sqrt', [x], x.dtype)
  return [combine(graph, 'Reciprocal', [root], x.dtype)]


def _square(graph: Graph, equation: Any, x: Value) -> Sequence[Value]:
  return [combine(graph, 'Mul', [x, x], x.dtype)]


def _integer_pow(graph: Graph, equation: Any, x: Value) -> Sequence[Value]:
  power = equation.params['y']
  if power == 2:
    return _square(graph, equation, x)
  if power == -1:
    return [combine(graph, 'Reciprocal', [x], x.dtype)]
  return [combine(graph, 'Pow', [x, _constant_like(x, power)], x.dtype)]


def _of_one_minus(op: str, graph: Graph, equation: Any, x: Value) -> Sequence[Value]:
  """1 - op(x), as erfc is of erf."""
  y = combine(graph, op, [x], x.dtype)
  return [combine(graph, 'Sub', [_constant_like(x, 1), y], x.dtype)]


def _log1p(graph: Graph, equation: Any, x: Value) -> Sequence[Value]:
  y = combine(graph, 'Add', [x, _constant_like(x, 1)], x.dtype)
  return [combine(graph, 'Log', [y], x.dtype)]


def _expm1(graph: Graph, equation: Any, x: Value) -> Sequence[Value]:
  y = combine(graph, 'Exp', [x], x.dtype)
  return [combine(graph, 'Sub', [y, _constant_like(x, 1)], x.dtype)]


def _exp2(graph: Graph, equation: Any, x: Value) -> Sequence[Value]:
  return [combine(graph, 'Pow', [_constant_like(x, 2), x], x.dtype)]


def _round(graph: Graph, equation: Any, x: Value) -> Sequence[Value]:
  if 'EVEN' in str(equation.params['rounding_method']):
    return _simple('Round', graph, equation, x)
  size = combine(graph, 'Abs', [x], x.dtype)
  up = combine(graph, 'Add', [size, _constant_like(x, 0.5)], x.dtype)
  whole = combine(graph, 'Floor', [up], x.dtype)
  return [combine(graph, 'Mul', [combine(graph, 'Sign', [x], x.dtype), whole], x.dtype)]


def _not_equal(graph: Graph, equation: Any, *values: Value) -> Sequence[Value]:
  same = combine(graph, 'Equal', values, np.bool_)
  return [combine(graph, 'Not', [same], np.bool_)]


def _is_finite(graph: Graph, equation: Any, x: Value) -> Sequence[Value]:
  bad = [combine(graph, op, [x], np.bool_) for op in ('IsNaN', 'IsInf')]
  either = combine(graph, 'Or', bad, np.bool_)
  return [combine(graph, 'Not', [either], np.bool_)]


def _logical(op: str, graph: Graph, equation: Any, *values: Value) -> Sequence[Value]:
  if values[0].dtype != np.bool_:
    op = f'Bitwise{op}'
  return _simple(op, graph, equation, *values)


def _remainder(graph: Graph, equation: Any, *values: Value) -> Sequence[Value]:
  return [combine(graph, 'Mod', values, _dtype(equation), fmod=1)]


def _select(graph: Graph, equation: Any, *values: Value) -> Sequence[Value]:
  which, *cases = values
  if len(cases) > 2 or which.dtype != np.bool_:
    raise Uncovered('more than two cases')
  return [combine(graph, 'Where', [which, cases[1], cases[0]], _dtype(equation))]


def _clamp(
  graph: Graph, equation: Any, low: Value, x: Value, high: Value
) -> Sequence[Value]:
  above = combine(graph, 'Max', [x, low], x.dtype)
  return [combine(graph, 'Min', [above, high], x.dtype)]


def _convert(graph: Graph, equation: Any, x: Value) -> Sequence[Value]:
  dtype = np.dtype(equation.params['new_dtype'])
  if dtype == x.dtype:
    return [x]
  kind = onnx.helper.np_dtype_to_tensor_dtype(dtype)
  return [combine(graph, 'Cast', [x], dtype, to=kind)]


def _reduce(op: str, graph: Graph, equation: Any, x: Value) -> Sequence[Value]:
  """A reduction along axes, in whatever order the axes are held."""
  axes = equation.params['axes']
  if op in ('ReduceSum', 'ReduceProd') or x.dims == (1,) * x.rank:
    x = graph.full(x)
  name, order = x.name, x.order
  if x.array is not None:
    name, order = graph.name_of(x), tuple(range(x.rank))
  if x.dtype == np.bool_:  # of truth values: of 0 and 1
    name = graph.node('Cast', [name], x.rank, to=onnx.TensorProto.INT32)
    op = {'ReduceOr': 'ReduceMax', 'ReduceAnd': 'ReduceMin'}.get(op, op)
  places = sorted(order.index(axis) for axis in axes)
  rank = x.rank - len(axes)
  count = math.prod(x.shape[axis] for axis in axes)
  if op == 'ReduceSum' and x.dtype == np.float32 and isinstance(count, int):
    name = _sum(graph, name, x.rank, places, count)
  else:
    name = graph.node(op, [name, graph.indices(places)], rank, keepdims=0)
  if x.dtype == np.bool_:
    name = graph.node('Cast', [name], rank, to=onnx.TensorProto.BOOL)
  kept = [axis for axis in range(x.rank) if axis not in axes]
  new_order = [kept.index(axis) for axis in order if axis in kept]
  result = graph.computed(
    name, [x.shape[axis] for axis in kept], _dtype(equation), new_order
  )
  dims = tuple(x.dims[axis] for axis in kept)
  return [movement.with_dims(result, dims)]


def _sum(graph: Graph, name: str, rank: int, places: Sequence[int], count: int) -> str:
  """Adds a sum as a mean times the count, which the division of a mean undoes."""
  left = rank - len(places)
  if rank == 4 and list(places) == [2, 3]:
    name = graph.node('GlobalAveragePool', [name], rank)
    name = graph.node('Squeeze', [name, graph.indices(places)], left)
  else:
    name = graph.node('ReduceMean', [name, graph.indices(places)], left, keepdims=0)
  return graph.node('Mul', [name, graph.array(np.array(count, np.float32))], left)


def _arg(op: str, graph: Graph, equation: Any, x: Value) -> Sequence[Value]:
  (axis,) = equation.params['axes']
  x = graph.full(x)
  name = graph.node(op, [graph.name_of(x)], x.rank - 1, axis=axis, keepdims=0)
  kind = onnx.helper.np_dtype_to_tensor_dtype(_dtype(equation))
  name = graph.node('Cast', [name], x.rank - 1, to=kind)
  return [graph.computed(name, equation.outvars[0].aval.shape, _dtype(equation))]


def _iota(graph: Graph, equation: Any) -> Sequence[Value]:
  """Numbers along an axis of any fixed size; along the others it is a broadcast."""
  params = equation.params
  shape, axis = params['shape'], params['dimension']
  if not isinstance(shape[axis], int):
    raise Uncovered('a count of the batch')
  dims = [1] * len(shape)
  dims[axis] = shape[axis]
  array = np.arange(shape[axis], dtype=params['dtype']).reshape(dims)
  return [Value(tuple(shape), array.dtype, tuple(dims), array)]


def _cumulative(graph: Graph, equation: Any, x: Value) -> Sequence[Value]:
  x = graph.full(x)
  axis = graph.array(np.array(equation.params['axis'], np.int64))
  flags = {'reverse': int(equation.params['reverse'])}
  name = graph.node('CumSum', [graph.name_of(x), axis], x.rank, **flags)
  return [graph.computed(name, x.shape, x.dtype)]


_SIMPLE = {
  **{'add': 'Add', 'sub': 'Sub', 'mul': 'Mul', 'div': 'Div', 'pow': 'Pow'},
  **{'add_any': 'Add', 'neg': 'Neg', 'abs': 'Abs', 'sign': 'Sign', 'sqrt': 'Sqrt'},
  **{'exp': 'Exp', 'log': 'Log', 'tanh': 'Tanh', 'logistic': 'Sigmoid', 'erf': 'Erf'},
  **{'sin': 'Sin', 'cos': 'Cos', 'tan': 'Tan', 'asin': 'Asin', 'acos': 'Acos'},
  **{
    'sinh': 'Sinh',
    'cosh': 'Cosh',
    'atan': 'Atan',
    'asinh': 'Asinh',
    'acosh': 'Acosh',
  },
  **{'atanh': 'Atanh', 'floor': 'Floor', 'ceil': 'Ceil'},
  **{'eq': 'Equal', 'lt': 'Less', 'le': 'LessOrEqual', 'gt': 'Greater'},
  **{'ge': 'GreaterOrEqual'},
}

OPERATORS: dict[str, Emitter] = {
  **{name: functools.partial(_simple, op) for name, op in _SIMPLE.items()},
  'max': _maximum,
  'min': functools.partial(_extreme, 'Min'),
  'rsqrt': _rsqrt,
  'square': _square,
  'integer_pow': _integer_pow,
  'erfc': functools.partial(_of_one_minus, 'Erf'),
  'log1p': _log1p,
  'expm1': _expm1,
  'exp2': _exp2,
  'round': _round,
  'ne': _not_equal,
  'is_finite': _is_finite,
  'and': functools.partial(_logical, 'And'),
  'or': functools.partial(_logical, 'Or'),
  'xor': functools.partial(_logical, 'Xor'),
  'not': functools.partial(_logical, 'Not'),
  'rem': _remainder,
  'select_n': _select,
  'clamp': _clamp,
  'convert_element_type': _convert,
  'reduce_sum': functools.partial(_reduce, 'ReduceSum'),
  'reduce_prod': functools.partial(_reduce, 'ReduceProd'),
  'reduce_max': functools.partial(_reduce, 'ReduceMax'),
  'reduce_min': functools.partial(_reduce, 'ReduceMin'),
  'reduce_or': functools.partial(_reduce, 'ReduceOr'),
  'reduce_and': functools.partial(_reduce, 'ReduceAnd'),
  'argmax': functools.partial(_arg, 'ArgMax'),
  'argmin': functools.partial(_arg, 'ArgMin'),
  'cumsum': _cumulative,
  'iota': _iota,
  **movement.OPERATORS,
  **products.OPERATORS,
}
