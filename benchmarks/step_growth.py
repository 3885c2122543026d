"""How time and memory of a training step grow with batch, width, depth and devices.

    python benchmarks/step_growth.py
    python benchmarks/step_growth.py --axes=devices,batch --json=step_growth.json
    python benchmarks/step_growth.py --axes=batch --model=resnet18 --batches=128,512,2048

One thing changes at a time, from a CIFAR ResNet-20, or another model for the batch
alone, on random images of 32x32x3:

  batch     images in a batch
  width     channels of the first stage
  depth     the 6n+2 family: ResNet-20, 32, 44, 56
  devices   the same batch over more devices ("devices"), and the same batch on each of
            them ("devices, each"); on a CPU the devices are simulated ones that share
            the cores, so this shows what sharing costs and not what it brings

Each configuration is a process of its own, so its peak memory is its own. "Time" and
"work" are the step's time and its floating-point operations over those of the axis's
first row: time below work means that the larger one is done more efficiently. "Temp"
is what XLA says that the step needs beside its arguments.
"""

import os
import sys
from typing import Any

from sides import Side, SideFailed, spread
from table import Result, parser, table

_BASE: dict[str, Any] = {'name': 'resnet20', 'classes': 10, 'task': 'classification'}

# Axis -> its rows, by how they differ from the base.
_AXES: dict[str, list[dict[str, Any]]] = {
  'batch': [{'batch_size': n} for n in (32, 64, 128, 256, 512)],
  'width': [{'fields': {'width': n}} for n in (8, 16, 32, 64)],
  'depth': [{'name': f'resnet{n}'} for n in (20, 32, 44, 56)],
  'devices': [{'devices': n} for n in (1, 2, 4, 8)],
  'devices, each': [{'devices': n, 'batch_size': 32 * n} for n in (1, 2, 4, 8)],
}


def measure(settings: dict[str, Any], options: Any) -> dict[str, Any]:
  """Returns the row of one configuration, measured in a new process."""
  # Without effect where there is a GPU: its devices are the ones that count.
  count = max(settings['devices'], 1)
  flags = f'--xla_force_host_platform_device_count={count}'
  environment = {'XLA_FLAGS': f'{os.environ.get("XLA_FLAGS", "")} {flags}'.strip()}
  with Side('ours.py', sys.executable, environment) as ours:
    try:
      ready = ours.ask('prepare', inference=False, dtype=options.dtype, **settings)
    except SideFailed as error:
      return {**settings, 'error': str(error)}
    ours.ask('run', seconds=options.seconds)
    speeds = [ours.ask('run', seconds=options.seconds) for _ in range(options.rounds)]
    return {
      **settings,
      **ready,
      'images_per_second': spread(speeds),
      'step_seconds': spread([settings['batch_size'] / speed for speed in speeds]),
      'peak_memory_bytes': ours.ask('peak_memory_bytes'),
      'hello': ours.ask('hello'),
    }


def label(row: dict[str, Any]) -> str:
  """Returns the name of a row on its axis."""
  axis = row['axis']
  if axis == 'batch':
    return f'{row["batch_size"]} images'
  if axis == 'width':
    return f'{row["fields"]["width"]} channels'
  if axis == 'depth':
    return row['name']
  return f'{row["devices"]} devices, {row["batch_size"]} images'


def cells(rows: list[dict[str, Any]]) -> list[tuple]:
  """Returns the rows of the table of one axis."""
  done = [row for row in rows if 'error' not in row]
  made = []
  for row in rows:
    if 'error' in row:
      made.append((row['axis'], label(row), row['error'], *[None] * 7))
      continue
    first, times = done[0], row['step_seconds']
    made.append(
      (
        row['axis'],
        label(row),
        row['images_per_second']['median'],
        times['median'] * 1e3,
        times['min'] * 1e3,
        times['max'] * 1e3,
        times['median'] / first['step_seconds']['median'],
        row['model_flops_per_step'] / first['model_flops_per_step'],
        row['temp_bytes'] / 1e6,
        row['peak_memory_bytes'] / 1e6,
      )
    )
  return made


def main() -> int:
  """Measures the axes that are asked for."""
  arguments = parser(__doc__)
  arguments.add_argument(
    '--axes', default='batch,width,depth,devices', help='any of them'
  )
  arguments.add_argument('--batch-size', type=int, default=128)
  arguments.add_argument('--model', default=_BASE['name'], help='that grows')
  arguments.add_argument(
    '--batches',
    type=lambda text: [int(size) for size in text.split(',')],
    default=[row['batch_size'] for row in _AXES['batch']],
    help='of the axis batch (default: 32 to 512)',
  )
  arguments.add_argument('--rounds', type=int, default=5)
  arguments.add_argument('--seconds', type=float, default=2.0, help='of a round')
  arguments.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32')
  options = arguments.parse_args()
  wanted = options.axes.split(',')
  if not set(wanted) <= set(_AXES):
    raise SystemExit('--axes takes batch, width, depth, devices')
  if options.model != _BASE['name'] and {'width', 'depth'} & set(wanted):
    raise SystemExit(f'--axes=width,depth grow {_BASE["name"]}, not {options.model}')
  every = {**_AXES, 'batch': [{'batch_size': size} for size in options.batches]}
  axes = {
    axis: rows for axis, rows in every.items() if axis.partition(',')[0] in wanted
  }
  result = Result(
    'step_growth', options.json, dtype=options.dtype, rounds=options.rounds
  )
  made = []
  for axis, changes in axes.items():
    rows = []
    for change in changes:
      settings = {
        **_BASE,
        'name': options.model,
        'batch_size': options.batch_size,
        'devices': 1,
        'fields': {},
        **change,
      }
      row = {'axis': axis, **measure(settings, options)}
      rows.append(row)
      result.add(row)
      print(f'{axis}: {label(row)}', flush=True)
    made += cells(rows)
  header = ('axis', 'row', 'images/s', 'step, ms', 'min', 'max', 'time', 'work')
  print(table((*header, 'temp, MB', 'peak, MB'), made))
  return 0


if __name__ == '__main__':
  sys.exit(main())
