"""From a function of JAX to an ONNX graph: its program, read equation by equation."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex_core

from jaxvision.deployment.onnx import movement
from jaxvision.deployment.onnx.graph import Graph, Value
from jaxvision.deployment.onnx.operators import OPERATORS
from jaxvision.deployment.onnx.simplify import simplify
from jaxvision.deployment.onnx.uncovered import Uncovered
from jaxvision.errors import UserError
from jaxvision.models.cpu import portable_operators

# Primitives that return their inputs: they matter to gradients, devices or the compiler.
_IDENTITIES = (
  'copy',
  'copy_p',
  'device_put',
  'mesh_cast',
  'optimization_barrier',
  'pvary',
  'reduce_precision',
  'reshard',
  'sharding_constraint',
  'stop_gradient',
)
_LONGEST = 1024  # steps of a loop that is written out


def to_graph(
  function: Callable, inputs: Sequence[tuple[str, tuple[int, ...], Any]]
) -> tuple[Graph, list[str]]:
  """Returns the graph of a function of batches.

  What does not depend on the inputs is computed now: of the weights it is what follows
  from them, such as the scale and shift of batch norm.

  Args:
    function: arrays -> a tuple of arrays, each of the same batch.
    inputs: (name, shape without the batch, dtype) of each argument.

  Returns:
    The graph, and the names of the outputs.

  Raises:
    UserError: it uses a primitive that has no operator here.
  """
  (batch,) = jax.export.symbolic_shape('batch')
  arguments = [
    jax.ShapeDtypeStruct((batch, *shape), np.dtype(dtype)) for _, shape, dtype in inputs
  ]
  with portable_operators():
    program = jax.make_jaxpr(function)(*arguments)
  graph = Graph(batch, inputs[0][0])
  given = [
    graph.computed(name, argument.shape, argument.dtype)
    for (name, _, _), argument in zip(inputs, arguments)
  ]
  for name, argument in zip(inputs, arguments):
    graph.ranks[name[0]] = len(argument.shape)
  outputs = _run(graph, program.jaxpr, program.consts, given)
  names = [graph.name_of(graph.full(value)) for value in outputs]
  simplify(graph, names)
  return graph, names


def _run(
  graph: Graph,
  program: jex_core.Jaxpr,
  constants: Sequence[Any],
  given: Sequence[Value],
) -> list[Value]:
  """Adds the equations of a program to the graph and returns its outputs."""
  values: dict[Any, Value] = {}

  def read(variable: Any) -> Value:
    if isinstance(variable, jex_core.Literal):
      return Value.known(np.asarray(variable.val, variable.aval.dtype))
    return values[variable]

  values.update(zip(program.constvars, map(Value.known, constants)))
  values.update(zip(program.invars, given))
  for equation in program.eqns:
    inputs = [read(variable) for variable in equation.invars]
    outputs = _equation(graph, equation, inputs)
    values.update(zip(equation.outvars, outputs))
  return [read(variable) for variable in program.outvars]


def _equation(
  graph: Graph, equation: jex_core.JaxprEqn, inputs: list[Value]
) -> Sequence[Value]:
  name, params = equation.primitive.name, equation.params
  if name in _IDENTITIES:
    return inputs
  inner = params.get('jaxpr', params.get('call_jaxpr'))
  if inner is not None and name not in ('scan', 'while', 'cond'):
    return _run(graph, *_opened(inner), inputs)
  if name == 'scan':
    return _loop(graph, equation, inputs)
  if name == 'cond' and inputs[0].array is not None:
    return _run(graph, *_opened(params['branches'][int(inputs[0].array)]), inputs[1:])
  if _foldable(equation, inputs):
    return _folded(graph, equation, inputs)
  try:
    return OPERATORS[name](graph, equation, *inputs)
  except (KeyError, Uncovered, NotImplementedError) as error:
    if isinstance(error, KeyError) and name in OPERATORS:
      raise
    raise UserError(_complaint(equation, error)) from error


def _complaint(equation: jex_core.JaxprEqn, error: Exception) -> str:
  place = str(equation.source_info.name_stack)
  inside = f' in {place}' if place else ''
  why = '' if isinstance(error, KeyError) else f' with {error}'
  return (
    f'export: ONNX: the network uses {equation.primitive.name}{why}{inside}, which has no '
    'operator here: write that part with other functions of jax.numpy, or export '
    '--format=stablehlo, which takes every program'
  )


def _opened(program: Any) -> tuple[jex_core.Jaxpr, Sequence[Any]]:
  closed = hasattr(program, 'consts')
  return (program.jaxpr, program.consts) if closed else (program, ())


def _loop(
  graph: Graph, equation: jex_core.JaxprEqn, inputs: list[Value]
) -> Sequence[Value]:
  """Writes out the steps of a `scan`."""
  params = equation.params
  length, (inner, inner_constants) = params['length'], _opened(params['jaxpr'])
  if not isinstance(length, int) or length > _LONGEST:
    raise UserError(
      f'export: ONNX: a loop of {length} steps is not written out (at most {_LONGEST}): '
      'export --format=stablehlo, which has loops'
    )
  # By their ranks, since what a version of JAX says of their number differs: a column has
  # an axis more outside than in a step.
  columned = [v.rank != len(var.aval.shape) for v, var in zip(inputs, inner.invars)]
  stacked = [
    len(out.aval.shape) != len(var.aval.shape)
    for out, var in zip(equation.outvars, inner.outvars)
  ]
  first, carried = len(inputs) - sum(columned), len(stacked) - sum(stacked)
  shared, carry = inputs[: first - carried], inputs[first - carried : first]
  columns = inputs[first:]
  rows: list[list[Value]] = []
  steps = range(length)
  for step in reversed(steps) if params['reverse'] else steps:
    now = [movement.take(graph, column, step) for column in columns]
    found = _run(graph, inner, inner_constants, [*shared, *carry, *now])
    carry = found[: len(carry)]
    rows.append(list(found[len(carry) :]))
  if params['reverse']:
    rows.reverse()
  return [*carry, *(movement.stack(graph, column) for column in zip(*rows))]


def _foldable(equation: jex_core.JaxprEqn, inputs: Sequence[Value]) -> bool:
  """Whether an equation can be computed now."""
  if equation.primitive.name == 'broadcast_in_dim':  # it is put off, see `Value`
    return False
  known = all(value.array is not None for value in inputs)
  fixed = all(
    isinstance(size, int) for out in equation.outvars for size in out.aval.shape
  )
  return known and fixed


def _folded(
  graph: Graph, equation: jex_core.JaxprEqn, inputs: Sequence[Value]
) -> Sequence[Value]:
  arrays = [np.asarray(graph.full(value).array) for value in inputs]
  with jax.ensure_compile_time_eval():
    found = equation.primitive.bind(*arrays, **equation.params)
  several = equation.primitive.multiple_results
  return [Value.known(array) for array in (found if several else [found])]
