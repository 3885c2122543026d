"""How time and memory grow: with batch, model, classes, images, image size and devices.

    python benchmarks/growth.py --json=benchmarks/results/growth_cpu.json
    python benchmarks/growth.py --axes=batch,width --json=benchmarks/results/growth_cpu.json
    python benchmarks/growth.py --results=benchmarks/results/growth_cpu.json \
      --write=docs/growth.md
    python benchmarks/growth.py --axes=batch --model=resnet18 --dtype=bfloat16 \
      --values=128,512,2048

One thing changes at a time, from a CIFAR ResNet-20 on random images of 32x32x3 in batches
of 64. Each configuration is a process of its own, so its peak memory is its own. Rows of
axes and values that are not asked for stay in the file.

"Time" and "work" are over those of the axis's first row. Work is floating-point operations
where a network computes, and otherwise what the axis counts: time below work means that
the larger one is done more efficiently. "Temp" is what XLA says that the step needs beside
its arguments; peak memory is the process's, or what was added to it where no network
computes.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import growth_page
from growth_axes import AXES
from sides import Side, SideFailed, spread
from table import Result, parser, table


def measure(axis: str, at: int, options: Any) -> dict[str, Any]:
  """Returns the row of a value of an axis, measured in a new process."""
  request, arguments = AXES[axis].request(at)
  if request == 'step':
    arguments = {**arguments, 'dtype': options.dtype}
    if options.model:
      arguments['name'] = options.model
  # Without effect where there is a GPU: its devices are the ones that count.
  count = max(1, arguments.get('devices', 1))
  flags = f'--xla_force_host_platform_device_count={count}'
  environment = {'XLA_FLAGS': f'{os.environ.get("XLA_FLAGS", "")} {flags}'.strip()}
  with Side('growth_side.py', sys.executable, environment) as side:
    hello = side.ask('hello')
    found = side.ask(
      request, rounds=options.rounds, seconds=options.seconds, **arguments
    )
  found['seconds'] = spread(found['seconds'])
  return {'axis': axis, 'at': at, **found, 'hello': hello}


def _kept(
  path: Path | None, measured: Sequence[tuple[str, int]]
) -> list[dict[str, Any]]:
  """Returns the rows of a file, without those that are measured now."""
  if path is None or not path.exists():
    return []
  rows = growth_page.read(path)['rows']
  return [row for row in rows if (row['axis'], row['at']) not in measured]


def main(arguments: Sequence[str] | None = None) -> int:
  """Measures the axes that are asked for, or makes the page of what was measured."""
  made = parser(__doc__)
  made.add_argument('--axes', default=','.join(AXES), help='any of them')
  made.add_argument('--least', type=int, default=0, help='value of an axis')
  made.add_argument('--most', type=int, default=0, help='value of an axis; 0: any')
  made.add_argument(
    '--values',
    type=lambda text: [int(value) for value in text.split(',')],
    help='of one axis, others than its own',
  )
  made.add_argument('--model', default='', help='that grows, on the axes that fix none')
  made.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32')
  made.add_argument('--rounds', type=int, default=5)
  made.add_argument('--seconds', type=float, default=1.0, help='of a round')
  made.add_argument('--results', metavar='FILE', type=Path, help='a JSON to read')
  made.add_argument(
    '--write', metavar='PAGE', type=Path, help='write the page, and plots beside it'
  )
  options = made.parse_args(arguments)
  if options.write and not (options.results or options.json):
    raise SystemExit('--write wants --results or --json: the page names the file')
  if options.results:
    content = growth_page.read(options.results)
  else:
    wanted = options.axes.split(',')
    if not set(wanted) <= set(AXES):
      raise SystemExit(f'--axes takes {", ".join(AXES)}')
    if options.values and len(wanted) > 1:
      raise SystemExit('--values are those of one axis: name it by --axes')
    fixed = [axis for axis in wanted if not AXES[axis].any_model]
    if options.model and fixed:
      raise SystemExit(f'--model does not change {", ".join(fixed)}')
    least, most = options.least, options.most
    values = [
      (axis, at)
      for axis in wanted
      for at in options.values or AXES[axis].values
      if least <= at <= (most or at)
    ]
    kept = _kept(options.json, values)
    settings = {'dtype': options.dtype, 'model': options.model}
    result = Result('growth', options.json, rounds=options.rounds, **settings)
    result.rows.extend(kept)
    for axis, at in values:
      try:
        row = measure(axis, at, options)
      except SideFailed as error:
        row = {'axis': axis, 'at': at, 'error': str(error)}
      result.add(row)
      print(f'{axis}: {at:,} {row.get("error", "")}'.rstrip(), flush=True)
    order = list(AXES)
    result.rows.sort(key=lambda row: (order.index(row['axis']), row['at']))
    result.write()
    content = json.loads(json.dumps(result.content))
  if options.write:
    growth_page.write(content, options.write, (options.results or options.json).name)
    return 0
  for axis, rows in growth_page.by_axis(content):
    print(f'\n{AXES[axis].title}\n')
    print(table(growth_page.header(axis), growth_page.cells(axis, rows)))
  return 0


if __name__ == '__main__':
  sys.exit(main())
