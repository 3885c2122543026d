"""Time of a DCGAN's step beside PyTorch in the same run.

    python benchmarks/dcgan.py
    python benchmarks/dcgan.py --batch-size=128 --dtype=bfloat16

The networks of 370,624 and 167,808 parameters on 32x32x3; one step trains the
discriminator once and the generator once, see `peer_dcgan.py`; ours is the one that
`jaxvision train` compiles, which also draws its batch and measures what it logs. Each side is a process
of its own and works while the other one waits: ours, peer, ours, peer, ... A ratio is
ours over PyTorch of one such pair, in images per second; PyTorch is measured in the
fastest of its configurations, found in a short pass before.
"""

import sys

from sides import Side, alternate
from table import Result, parser, table
from train_throughput import add_peer_options, fastest, label


def main() -> int:
  """Measures the step."""
  arguments = parser(__doc__)
  arguments.add_argument('--batch-size', type=int, default=64)
  arguments.add_argument('--rounds', type=int, default=7, help='pairs of turns')
  arguments.add_argument(
    '--seconds', type=float, default=4.0, help='length of a turn of either side'
  )
  arguments.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32')
  add_peer_options(arguments)
  options = arguments.parse_args()
  result = Result(
    'dcgan', options.json, rounds=options.rounds, seconds_per_turn=options.seconds
  )
  settings = {
    'batch_size': options.batch_size,
    'dtype': options.dtype,
    'name': 'dcgan',
    'classes': 0,
    'task': 'gan',
    'inference': False,
  }
  with (
    Side('ours.py', sys.executable) as ours,
    Side('peers.py', options.peer_python) as peer,
  ):
    result.note(ours=ours.ask('hello'), peer=peer.ask('hello'))
    ready = ours.ask('prepare', **settings)
    best, tried = fastest(
      peer, settings, options.seconds / 2, ready['parameters'], options.peer_modes
    )
    peer.ask('prepare', configuration=best, **settings)
    for side in (ours, peer):  # once each, untimed, to find how many steps fill a turn
      side.ask('run', seconds=options.seconds)
    measured = alternate(
      lambda: ours.ask('run', seconds=options.seconds),
      lambda: peer.ask('run', seconds=options.seconds),
      options.rounds,
    )
    memory = {
      'ours_peak_memory_bytes': ours.ask('peak_memory_bytes'),
      'peer_peak_memory_bytes': peer.ask('peak_memory_bytes'),
    }
  row = {
    **settings,
    'parameters': ready['parameters'],
    'seconds_to_ready': ready['seconds_to_ready'],
    **measured,
    **memory,
    'peer_configuration': best,
    'peer_configurations': tried,
  }
  result.add(row)
  ratio = row['ratio']
  milliseconds = [
    1000 * options.batch_size / row[side]['median'] for side in ('ours', 'peer')
  ]
  print(
    table(
      ('batch', 'ours, ms', 'PyTorch, ms', 'ratio', 'min', 'max', 'n', 'PyTorch'),
      [
        (
          options.batch_size,
          *milliseconds,
          *(ratio[key] for key in ('median', 'min', 'max', 'n')),
          label(best, False),
        )
      ],
    )
  )
  return 0


if __name__ == '__main__':
  sys.exit(main())
