"""An ONNX graph while it is made, and the values that flow through it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# The operator set that is written. Of it, onnxruntime 1.17 and later run all; Gelu is its
# newest operator that we use.
OPSET = 20


@dataclasses.dataclass
class Node:
  """One operator of a graph.

  Attributes:
    op: its type, such as 'Conv'.
    inputs, outputs: names of values; '' for an input that is left out.
    attributes: as `onnx.helper.make_node` takes them.
  """

  op: str
  inputs: list[str]
  outputs: list[str]
  attributes: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
  """An array of the traced program: known now, or computed by the graph.

  Two things are put off until an operator needs them. A broadcast is not written out:
  `dims` has 1 where the array is the same along an axis, which elementwise operators of
  ONNX broadcast themselves. And axes are not moved: ONNX convolves in NCHW what the
  program has in NHWC, so that between convolutions an array stays as they leave it.

  Attributes:
    shape: of the program; a size is an int, or symbolic where it depends on the batch.
    dtype: NumPy's.
    dims: the size held along each axis of the program: that of `shape`, or 1.
    array: the values, of shape `dims`; None where the graph computes them.
    name: of the graph's value; '' where the array is known.
    order: axis i of the graph's value is axis `order[i]` of the program.
  """

  shape: tuple[Any, ...]
  dtype: np.dtype
  dims: tuple[Any, ...]
  array: np.ndarray | None = None
  name: str = ''
  order: tuple[int, ...] = ()

  @classmethod
  def known(cls, array: Any) -> 'Value':
    """Returns the value of an array that is known now."""
    array = np.asarray(array)
    return cls(array.shape, array.dtype, array.shape, array)

  @property
  def rank(self) -> int:
    """The number of axes."""
    return len(self.shape)


class Graph:
  """Nodes in the order of their execution, and arrays by name.

  Attributes:
    nodes, arrays: see the class; an array is what ONNX calls an initializer.
    ranks: number of axes of each value that a node returns.
    batch: the symbolic size of the batch.
    batch_of: the name of the input that has the batch as its first axis.
  """

  def __init__(self, batch: Any = None, batch_of: str = ''):
    self.nodes: list[Node] = []
    self.arrays: dict[str, np.ndarray] = {}
    self.ranks: dict[str, int] = {}
    self.batch, self.batch_of = batch, batch_of
    self._names: dict[tuple, str] = {}
    self._batch_size = ''
    self._count = 0

  def new_name(self, stem: str) -> str:
    """Returns a name that is not taken."""
    self._count += 1
    return f'{stem}_{self._count}'

  def array(self, array: np.ndarray, stem: str = 'constant') -> str:
    """Returns the name of an array, which is kept once however often it is asked for."""
    array = np.ascontiguousarray(array) if array.ndim else np.asarray(array)
    key = (array.dtype.str, array.shape, array.tobytes())
    if key not in self._names:
      self._names[key] = name = self.new_name(stem)
      self.arrays[name] = array
    return self._names[key]

  def indices(self, values: Sequence[int]) -> str:
    """Returns the name of an array int64 [n], as shapes and axes are."""
    return self.array(np.array(values, np.int64))

  def node(
    self,
    op: str,
    inputs: Sequence[str],
    rank: int,
    **attributes: Any,
  ) -> str:
    """Adds an operator of one output and returns the output's name."""
    name = self.new_name(op.lower())
    self.nodes.append(Node(op, list(inputs), [name], attributes))
    self.ranks[name] = rank
    return name

  def computed(
    self, name: str, shape: Sequence[Any], dtype: Any, order: Sequence[int] = ()
  ) -> Value:
    """Returns the value of a name, which holds all of its shape.

    Args:
      name: of what a node returns.
      shape: of the program.
      dtype: of the program.
      order: see `Value`; () stands for the axes as they are.
    """
    shape = tuple(shape)
    order = tuple(order) or tuple(range(len(shape)))
    return Value(shape, np.dtype(dtype), shape, name=name, order=order)

  def name_of(self, value: Value, order: Sequence[int] = ()) -> str:
    """Returns the name of a value with its axes in an order; () as the program has them.

    A broadcast stays put off.
    """
    order = tuple(order) or tuple(range(value.rank))
    if value.array is not None:
      array = value.array
      return self.array(array.transpose(order) if array.ndim == len(order) else array)
    if value.order == order:
      return value.name
    moves = [value.order.index(axis) for axis in order]
    return self.node('Transpose', [value.name], value.rank, perm=moves)

  def full(self, value: Value) -> Value:
    """Returns a value whose broadcasts are written out."""
    if value.dims == value.shape:
      return value
    if value.array is not None and all(isinstance(size, int) for size in value.shape):
      array = np.broadcast_to(value.array, value.shape)
      return dataclasses.replace(value, dims=value.shape, array=array)
    order = value.order or tuple(range(value.rank))
    sizes = self.sizes([value.shape[axis] for axis in order])
    name = self.node('Expand', [self.name_of(value, order), sizes], value.rank)
    return self.computed(name, value.shape, value.dtype, order)

  def sizes(self, shape: Sequence[Any]) -> str:
    """Returns the name of a shape, int64 [n], of which a size may be the batch's."""
    if all(isinstance(size, int) for size in shape):
      return self.indices(shape)
    if not self._batch_size:
      self._batch_size = self.node('Shape', [self.batch_of], 1, start=0, end=1)
    parts = []
    for size in shape:
      if isinstance(size, int):
        parts.append(self.indices([size]))
      elif size == self.batch:
        parts.append(self._batch_size)
      else:
        raise NotImplementedError(f'a broadcast to {size} for each batch')
    return self.node('Concat', parts, 1, axis=0)

  def uses(self) -> Mapping[str, list[Node]]:
    """Returns the nodes that read each value."""
    found: dict[str, list[Node]] = {}
    for node in self.nodes:
      for name in node.inputs:
        found.setdefault(name, []).append(node)
    return found
