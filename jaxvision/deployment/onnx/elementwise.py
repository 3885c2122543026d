"""Operators that work element by element."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxvision.deployment.onnx.graph import Graph, Value


def common_order(values: Sequence[Value]) -> tuple[int, ...]:
  """Returns the order of axes in which to combine values.

  It is that of the largest value that does not hold its axes as the program has them, so
  that the arrays between two convolutions stay in NCHW.
  """
  rank = max((value.rank for value in values), default=0)
  plain = tuple(range(rank))
  held = [value for value in values if value.array is None and value.rank == rank]
  moved = [value for value in held if value.order != plain]
  if not moved:
    return plain
  return max(moved, key=_extent).order


def _extent(value: Value) -> int:
  return sum(size != 1 for size in value.dims)


def combine(
  graph: Graph, op: str, values: Sequence[Value], dtype: Any, **attributes: Any
) -> Value:
  """Adds an operator that ONNX broadcasts over values of one shape, or scalars.

  Args:
    graph: to add to.
    op: the type of the operator.
    values: of one shape, or of rank 0.
    dtype: of the result.
    **attributes: of the operator.
  """
  shape = max((value.shape for value in values), key=len)
  order = common_order(values)
  names = [graph.name_of(value, order if value.rank else ()) for value in values]
  dims = tuple(
    next((v.dims[axis] for v in values if v.rank and v.dims[axis] != 1), 1)
    for axis in range(len(shape))
  )
  name = graph.node(op, names, len(shape), **attributes)
  return Value(shape, np.dtype(dtype), dims, name=name, order=order)
