"""The collectives of a compiled program, read off its text: how many, how large, for whom.

The text is that of `jax.stages.Compiled.as_text()`: optimised HLO, after XLA's partitioner
has put the collectives in and the backend has combined them. Each counts by the whole
value, which is what formulas of its time take:

  all-reduce          the value that every device of a group has, before and after
  all-gather          the value that every device has after
  reduce-scatter      the value that every device has before
  all-to-all          what a device has, before and after
  collective-permute  what a device sends
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
  """

  kind: str
  dtypes: tuple[str, ...]
  size: int
  group: tuple[int, ...]
  times: int = 1


@dataclasses.dataclass
class _Computation:
  own: list[Collective]
  calls: list[tuple[str, int | None]]  # and how often, None where it is not known


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
  known: dict[str, list[Collective]] = {}

  def within(name: str) -> list[Collective]:
    if name in known:
      return known[name]
    computation = computations.get(name, _Computation([], []))
    found = list(computation.own)
    for callee, times in computation.calls:
      inner = within(callee)
      if inner and times is None:
        raise ValueError(f'a loop over {callee} does not say how often it turns')
      found += [dataclasses.replace(c, times=c.times * (times or 1)) for c in inner]
    known[name] = found
    return found

  return [found for found in within(entry) if len(found.group) > 1]


def _parse(text: str, partitions: int) -> tuple[dict[str, _Computation], str]:
  """Returns the computations by name, and the name of the first to run."""
  computations: dict[str, _Computation] = {}
  current, entry = _Computation([], []), ''
  started: dict[str, str] = {}
  for line in text.splitlines():
    if header := _COMPUTATION.match(line):
      current = computations[header[2]] = _Computation([], [])
      entry = header[2] if header[1] else entry
    elif instruction := _INSTRUCTION.match(line):
      name, (kind, operation, rest) = instruction[1], _split(instruction[2])
      base = operation.removesuffix('-start').removesuffix('-done')
      if base in KINDS:
        # The type of a start has its operands too, in ways that differ; that of its end
        # is the result's.
        if operation.endswith('-start'):
          started[name] = rest
          continue
        if operation.endswith('-done'):
          rest = started[re.split(r'[,)\s]', rest, maxsplit=1)[0].lstrip('%')]
        current.own.append(_collective(base, kind, _group(rest, partitions)))
      elif not operation.endswith(('-update', '-done')):
        current.calls += _calls(operation, rest)
  return computations, entry


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


def totals(
  found: list[Collective], per_node: int, small_bytes: int
) -> list[dict[str, Any]]:
  """Returns the collectives that cost alike as one row each, as JSON.

  Args:
    found: from `collectives`.
    per_node: devices in a node; device n is in node n // per_node.
    small_bytes: up to which a collective counts as small.

  Returns:
    Dicts of `kind`, `dtypes`, `small`, `within` and `nodes` (devices of a group in each
    node, and the nodes that it spans), `count` and `bytes`.
  """
  rows: dict[tuple, dict[str, Any]] = {}
  for one in found:
    nodes = len({device // per_node for device in one.group})
    key = {
      'kind': one.kind,
      'dtypes': '+'.join(one.dtypes),
      'small': one.size <= small_bytes,
      'within': -(-len(one.group) // nodes),
      'nodes': nodes,
    }
    row = rows.setdefault(tuple(key.values()), {**key, 'count': 0, 'bytes': 0})
    row['count'] += one.times
    row['bytes'] += one.times * one.size
  return [rows[key] for key in sorted(rows)]
