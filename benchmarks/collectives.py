"""The collectives of a compiled program, read off its text: how many, how large, for whom.

The text is that of `jax.stages.Compiled.as_text()`: optimised HLO, after XLA's partitioner
has put the collectives in and the backend has combined them. Each counts by the whole
value, which is what formulas of its time take:

  all-reduce          the value that every device of a group has, before and after
  all-gather          the value that every device has after
  reduce-scatter      the value that every device has before
  all-to-all          what a device has, before and after
  collective-permute  what a device sends

A collective is *waited for* where a product of matrices (or a convolution) needs its result
and it needs that of another: a part of the model's computation has to end before it starts,
and another part cannot start before it ends. The sum of a gradient is none, as the update
that needs it multiplies nothing; nor is the gathering of parameters, which can start with
the step. They become such where the backend fuses an update with what a product needs.
"""

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

KINDS = (
  'all-reduce',
  'all-gather',
  'reduce-scatter',
  'all-to-all',
  'collective-permute',
)

_COMPUTATION = re.compile(r'(ENTRY )?%?([\w.$-]+) .*-> .*\{$')
_INSTRUCTION = re.compile(r'\s+(?:ROOT )?%?([\w.$-]+) = (.+)')
_ARRAY = re.compile(r'\b(pred|[a-z]+\d+\w*)\[([\d,<=]*)\]')
_CALLS = re.compile(
  r'\b(?:body|condition|calls|to_apply|branch_computations|true_computation|'
  r'false_computation)=(\{[^}]*\}|%?[\w.$-]+)'
)
_TRIPS = re.compile(r'known_trip_count\D+(\d+)')
_NAME = re.compile(r'[\w.$-]+')
_PRODUCTS = ('dot', 'convolution')
# Of libraries: `__cublas$gemm`, `__cudnn$convForward`, `__onednn$matmul`, and attention.
_LIBRARY_PRODUCT = re.compile(
  'custom_call_target="[^"]*(gemm|matmul|dot|fmha|conv(?!ert))'
)
# `replica_groups` of Shardy's meshes, of iotas and as lists.
_MESH = re.compile(r'mesh\[([^\]]*)\] ?\{([^}]*)\}')
_IOTA = re.compile(r'\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?')
_LISTS = re.compile(r'\{\{([\d,]+)\}')


@dataclasses.dataclass(frozen=True)
class Collective:
  """A collective operation.

  Attributes:
    kind: one of `KINDS`.
    dtypes: of the arrays in it, in order of the name.
    size: bytes of the whole value, see the module; of all arrays in it together.
    group: the devices of the first of its groups, which are all alike.
    times: that a run of the program takes it, more than once in a loop.
    waited: whether it is waited for, see the module.
  """

  kind: str
  dtypes: tuple[str, ...]
  size: int
  group: tuple[int, ...]
  times: int = 1
  waited: bool = False


@dataclasses.dataclass
class _Instruction:
  operation: str
  operands: list[str]
  calls: list[tuple[str, int | None]]  # and how often, None where it is not known
  product: bool
  collective: Collective | None = None


# By name, each behind its operands; the last is the result.
_Computation = dict[str, _Instruction]


def collectives(text: str) -> list[Collective]:
  """Returns the collectives of a program that involve more than one device.

  One that is started and awaited counts once, by what it returns. Of the branches of a
  condition all count.

  Args:
    text: of the optimised HLO.

  Raises:
    ValueError: a group is written in an unknown way, or a loop with a collective in it
      does not say how often it turns.

  >>> [found] = collectives('''HloModule step, num_partitions=8
  ... ENTRY %main (x: f32[64]) -> f32[64] {
  ...   %x = f32[64]{0} parameter(0)
  ...   ROOT %y = f32[64]{0} all-reduce(%x), replica_groups=[2,4]<=[8], to_apply=%add
  ... }''')
  >>> found.kind, found.size, found.group
  ('all-reduce', 256, (0, 1, 2, 3))
  """
  partitions = re.search(r'num_partitions=(\d+)', text)
  computations, entry = _parse(text, int(partitions[1]) if partitions else 1)
  return [c for c in _within(computations, entry) if len(c.group) > 1]


def _within(
  computations: dict[str, _Computation],
  name: str,
  behind_product: bool = False,
  before_product: bool = False,
) -> Iterator[Collective]:
  """Yields the collectives of a computation and of those that it calls.

  Args:
    computations: of the program, by name.
    name: of the computation.
    behind_product: whether its arguments need the result of a product.
    before_product: whether a product needs its result.
  """
  computation = computations.get(name, {})
  behind, before = _between_products(
    computations, computation, behind_product, before_product
  )
  for own, instruction in computation.items():
    waits = own in behind, own in before
    if instruction.collective:
      yield dataclasses.replace(instruction.collective, waited=all(waits))
    if instruction.operation == 'while' and _multiplies(computations, instruction):
      # A turn may need what another left to it.
      waits = True, True
    for callee, times in instruction.calls:
      for found in _within(computations, callee, *waits):
        if times is None:
          raise ValueError(f'a loop over {callee} does not say how often it turns')
        yield dataclasses.replace(found, times=found.times * times)


def _between_products(
  computations: dict[str, _Computation],
  computation: _Computation,
  behind_product: bool,
  before_product: bool,
) -> tuple[set[str], set[str]]:
  """Returns the instructions that need a product, and those that a product needs."""
  products = {
    name for name, one in computation.items() if _multiplies(computations, one)
  }
  behind: set[str] = set()
  for name, one in computation.items():
    given = behind_product and one.operation == 'parameter'
    if given or not (behind | products).isdisjoint(one.operands):
      behind.add(name)
  before = {*list(computation)[-1:]} if before_product else set()
  for name, one in reversed(computation.items()):
    if name in before or name in products:
      before.update(one.operands)
  return behind, before


def _multiplies(
  computations: dict[str, _Computation], instruction: _Instruction
) -> bool:
  """Returns whether an instruction is a product or calls one."""
  return instruction.product or any(
    _multiplies(computations, one)
    for name, _ in instruction.calls
    for one in computations.get(name, {}).values()
  )


def _parse(text: str, partitions: int) -> tuple[dict[str, _Computation], str]:
  """Returns the computations by name, and the name of the first to run."""
  computations: dict[str, _Computation] = {}
  current: _Computation = {}
  entry = ''
  started: dict[str, str] = {}
  for line in text.splitlines():
    if header := _COMPUTATION.match(line):
      current = computations[header[2]] = {}
      entry = header[2] if header[1] else entry
    elif instruction := _INSTRUCTION.match(line):
      name, (kind, operation, rest) = instruction[1], _split(instruction[2])
      base = operation.removesuffix('-start').removesuffix('-done')
      made = current[name] = _Instruction(
        operation,
        operands=[n for n in _NAME.findall(_operands(rest)) if n in current],
        # The end of what is asynchronous repeats what its start calls.
        calls=[]
        if operation.endswith(('-update', '-done'))
        else list(_calls(operation, rest)),
        product=operation in _PRODUCTS or bool(_LIBRARY_PRODUCT.search(rest)),
      )
      if base in KINDS:
        # The type of a start has its operands too, in ways that differ; that of its end
        # is the result's.
        if operation.endswith('-start'):
          started[name] = rest
          continue
        if operation.endswith('-done'):
          rest = started[made.operands[0]]
        made.collective = _collective(base, kind, _group(rest, partitions))
  return computations, entry


def _operands(rest: str) -> str:
  """Returns what stands in the parentheses of an operation."""
  depth = 1
  for end, sign in enumerate(rest):
    depth += (sign == '(') - (sign == ')')
    if not depth:
      return rest[:end]
  return rest


def _split(instruction: str) -> tuple[str, str, str]:
  """Returns type, operation and the rest of an instruction behind its equals sign."""
  end = depth = 0
  # The type of a tuple has spaces in it.
  while end < len(instruction) and (depth or instruction[end] != ' '):
    depth += (instruction[end] == '(') - (instruction[end] == ')')
    end += 1
  operation, _, rest = instruction[end + 1 :].partition('(')
  return instruction[:end], operation, rest


def _calls(operation: str, rest: str) -> Iterator[tuple[str, int | None]]:
  times: int | None = 1
  if operation == 'while':
    trips = _TRIPS.search(rest)
    times = int(trips[1]) if trips else None
  for names in _CALLS.findall(rest):
    for name in names.strip('{}').split(','):
      yield name.strip().lstrip('%'), times


def _collective(kind: str, result: str, group: tuple[int, ...]) -> Collective:
  arrays = _ARRAY.findall(result)
  size = sum(_array_bytes(*array) for array in arrays)
  if kind == 'reduce-scatter':
    size *= len(group)
  return Collective(kind, tuple(sorted({dtype for dtype, _ in arrays})), size, group)


def _array_bytes(dtype: str, shape: str) -> int:
  bits = 8 if dtype == 'pred' else int(re.search(r'\d+', dtype)[0])
  count = math.prod(int(n.lstrip('<=')) for n in shape.split(',') if n)
  return -(-count * bits // 8)


def _group(rest: str, partitions: int) -> tuple[int, ...]:
  """Returns the devices of the first group of an operation."""
  if pairs := re.search(r'source_target_pairs=(\{\{.*?\}\}|\{\})', rest):
    ends = [tuple(map(int, p.split(','))) for p in re.findall(r'\d+,\d+', pairs[1])]
    return next((pair for pair in ends if pair[0] != pair[1]), (0,))
  written = rest.partition('replica_groups=')[2]
  if written.startswith('{}'):
    return tuple(range(partitions))
  if mesh := _MESH.match(written):
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh[1])}
    axes = re.findall("'([^']+)'", mesh[2])
    # A part of an axis, or devices in an order of their own, would read otherwise.
    if re.fullmatch("'[^']+'(,'[^']+')*", mesh[2]) and 'device_ids' not in mesh[1]:
      ids = np.arange(math.prod(sizes.values())).reshape(tuple(sizes.values()))
      index = tuple(slice(None) if name in axes else 0 for name in sizes)
      return tuple(ids[index].reshape(-1).tolist())
  if iota := _IOTA.match(written):
    shape = tuple(map(int, iota[3].split(',')))
    ids = np.arange(math.prod(shape)).reshape(shape)
    if iota[4]:
      ids = ids.transpose(tuple(map(int, iota[4].split(','))))
    return tuple(ids.reshape(int(iota[1]), int(iota[2]))[0].tolist())
  if first := _LISTS.match(written):
    return tuple(map(int, first[1].split(',')))
  raise ValueError(f'unknown way to write groups of devices: {written[:60]}')


def totals(found: list[Collective], per_node: int) -> list[dict[str, Any]]:
  """Returns the collectives that cost alike as one row each, as JSON.

  Args:
    found: from `collectives`.
    per_node: devices in a node; device n is in node n // per_node.

  Returns:
    Dicts of `kind`, `dtypes`, `waited`, `within` and `nodes` (devices of a group in each
    node, and the nodes that it spans), `count` and `bytes`.
  """
  rows: dict[tuple, dict[str, Any]] = {}
  for one in found:
    nodes = len({device // per_node for device in one.group})
    key = {
      'kind': one.kind,
      'dtypes': '+'.join(one.dtypes),
      'waited': one.waited,
      'within': -(-len(one.group) // nodes),
      'nodes': nodes,
    }
    row = rows.setdefault(tuple(key.values()), {**key, 'count': 0, 'bytes': 0})
    row['count'] += one.times
    row['bytes'] += one.times * one.size
  return [rows[key] for key in sorted(rows)]
