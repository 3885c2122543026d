"""Latency of exported networks on a CPU: float32 and int8 beside PyTorch.

    python benchmarks/latency.py --models=resnet18,custom_cnn [--batch=1] [--json FILE]

Ours are ONNX files in onnxruntime, which take uint8 images and normalise them; PyTorch's is
its network on images that are normalised already, in float32 eager and compiled and in
bfloat16, in the fastest of its configurations (`peers.configurations`: channels_last, frozen
weights). Each is measured in turn with float32 of ours, so that every ratio is of one run.
"""

import sys
from typing import Any

from models import case
from sides import Side, SideFailed, alternate
from table import Result, parser, table


def main() -> None:
  """Measures and prints the table."""
  options = _options()
  ours = Side('exported.py', sys.executable)
  peer = Side('peers.py', options.peer_python)
  result = Result('latency', options.json, batch=options.batch, seconds=options.seconds)
  for name in options.models.split(','):
    for row in _measure(ours, peer, name, options):
      result.add(row)
      print(_line(row), file=sys.stderr, flush=True)
  head = [
    'model',
    'against float32 of ours',
    'ms, median',
    'ms of ours',
    'speed, of ours',
  ]
  print(table(head, [_cells(row) for row in result.rows]))


def _options() -> Any:
  found = parser(__doc__.partition('\n')[0])
  found.add_argument('--models', default='resnet18,custom_cnn,small_filters_cnn')
  found.add_argument('--batch', type=int, default=1)
  found.add_argument('--seconds', type=float, default=2.0)
  found.add_argument('--rounds', type=int, default=5)
  found.add_argument('--peer-python', default=sys.executable)
  return found.parse_args()


def _measure(ours: Side, peer: Side, name: str, options: Any) -> list[dict[str, Any]]:
  classes = case(name).classes
  mine = {'model': name, 'classes': classes, 'batch_size': options.batch}
  theirs = {
    'task': 'classification',
    'name': name,
    'classes': classes,
    'batch_size': options.batch,
    'inference': True,
  }
  float_size = ours.ask('prepare', **mine, type='float32')
  rows = []

  def compare(what: str, other: Any, **facts: Any) -> None:
    def float32() -> float:
      return ours.ask('run', seconds=options.seconds)

    found = alternate(float32, other, options.rounds)
    rows.append({'model': name, 'what': what, 'batch': options.batch, **facts, **found})

  best: dict[str, tuple[float, dict[str, Any]]] = {}
  for dtype in ('float32', 'bfloat16'):
    for configuration in peer.ask('configurations', inference=True):
      kind = 'compiled' if configuration['compile'] else 'eager'
      kind = f'PyTorch {kind if dtype == "float32" else dtype}'
      settings = {'dtype': dtype, 'configuration': configuration}
      try:
        peer.ask('prepare', **settings, **theirs)
        speed = peer.ask('run', seconds=options.seconds)
      except SideFailed as error:
        print(f'{name}: {kind}: {error}', file=sys.stderr)
        continue
      if kind not in best or speed > best[kind][0]:
        best[kind] = (speed, settings)
  for kind, (_, settings) in best.items():
    peer.ask('prepare', **settings, **theirs)
    facts = {'dtype': settings['dtype'], **settings['configuration']}
    compare(kind, lambda: peer.ask('run', seconds=options.seconds), **facts)
  second = Side('exported.py', sys.executable)
  for type in ('jax', 'int8'):
    size = second.ask('prepare', **mine, type=type)
    sizes = {'bytes': size, 'float32_bytes': float_size} if size else {}
    compare(type, lambda: second.ask('run', seconds=options.seconds), **sizes)
  return rows


def _cells(row: dict[str, Any]) -> list[str]:
  ms = [1000 * row['batch'] / row[side]['median'] for side in ('peer', 'ours')]
  speed = 1 / row['ratio']['median']
  low, high = 1 / row['ratio']['max'], 1 / row['ratio']['min']
  return [
    row['model'],
    row['what'],
    f'{ms[0]:.3f}',
    f'{ms[1]:.3f}',
    f'{speed:.2f} ({low:.2f} to {high:.2f})',
  ]


def _line(row: dict[str, Any]) -> str:
  return '  '.join(_cells(row))


if __name__ == '__main__':
  main()
