"""Images per second of training, or inference, beside PyTorch in the same run.

    python benchmarks/train_throughput.py --models=small_filters_cnn,custom_cnn,resnet18,dcgan
    python benchmarks/train_throughput.py --models=resnet18 --inference
    python benchmarks/train_throughput.py --models=resnet18,resnet50 --dtypes=bfloat16

Each side is a process of its own, and works while the other one waits: ours, peer,
ours, peer, ... A ratio is ours over PyTorch of one such pair; the table has the median
of them, the JSON all. Both are measured in float32 and in bfloat16 (PyTorch under
autocast), equal type against equal type, and the best of ours against the best of
PyTorch, which may be of different types: that row has a star. PyTorch is measured in its
fastest configuration of a type, found in a short pass before over eager and compiled,
NCHW and channels_last, foreach and fused optimiser; that pass is in the JSON.

What a training step includes. PyTorch: gradients set to None, forward, cross-entropy,
backward, SGD with Nesterov momentum, on one normalised batch that lies on the device.
Ours: the same, and further the draw of a shuffled batch from a split of uint8 images,
its normalisation, the learning rate of the schedule, loss, top-1 and top-5 accuracy.
`dcgan` is one step of the discriminator and one of the generator (370,624 and 167,808
parameters, see `peer_dcgan.py`), with what ours logs. Inference: forward in evaluation
mode; ours with normalisation, loss and accuracies. No augmentation on either side. On a
GPU both may multiply float32 as TF32.
"""

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from models import CASES, Case, case
from sides import Side, SideFailed, alternate
from table import Result, parser, table

_HEADER = (
  'model',
  'batch',
  'types',
  'ours, images/s',
  'PyTorch, images/s',
  'ratio',
  'min',
  'max',
  'n',
  'PyTorch configuration',
  'memory ours, MB',
  'memory PyTorch, MB',
)


def label(configuration: dict[str, Any], inference: bool) -> str:
  """Returns a configuration in words."""
  mode = configuration['compile']
  words = ['eager' if mode is None else f'compiled ({mode})']
  words.append('channels_last' if configuration['channels_last'] else 'NCHW')
  if not inference:
    words.append(configuration['optimizer'])
  if configuration['freezing']:
    words.append('frozen')
  return ', '.join(words)


def fastest(
  peer: Side,
  settings: dict[str, Any],
  seconds: float,
  parameters: int,
  modes: list[str],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
  """Tries configurations of the peer for a short time each.

  Args:
    peer: the side.
    settings: of its `prepare`.
    seconds: of each attempt.
    parameters: of our model, which the twin must have.
    modes: see `peers.configurations`; empty: all.

  Returns:
    The fastest, which is not prepared any more, and what each of them did.
  """
  tried: list[dict[str, Any]] = []

  def attempt(configuration: dict[str, Any]) -> None:
    entry: dict[str, Any] = {'configuration': configuration}
    try:
      ready = peer.ask('prepare', configuration=configuration, **settings)
      if ready['parameters'] != parameters:
        raise SystemExit(
          f'{settings["name"]}: ours has {parameters:,} parameters and the twin '
          f'{ready["parameters"]:,}: these are two models, and there is nothing to compare'
        )
      entry['seconds_to_ready'] = ready['seconds_to_ready']
      entry['images_per_second'] = max(peer.ask('run', seconds=seconds) for _ in 'ab')
      outcome = f'{entry["images_per_second"]:,.0f} images/s'
    except SideFailed as error:
      entry['error'] = outcome = str(error)
    words = label(configuration, settings['inference'])
    print(f'  PyTorch {words}: {outcome}', flush=True)
    tried.append(entry)

  def best() -> dict[str, Any]:
    done = [entry for entry in tried if 'error' not in entry]
    if not done:
      raise SystemExit(f'PyTorch does not run {settings["name"]}: {tried[0]["error"]}')
    return max(done, key=lambda entry: entry['images_per_second'])['configuration']

  inference = settings['inference']
  for configuration in peer.ask('configurations', inference=inference, modes=modes):
    attempt(configuration)
  if not inference:
    attempt({**best(), 'optimizer': 'fused'})
  return best(), tried


def compare(
  name: str, chosen: Case, options: Any, ours: Side, peer: Side, batch_size: int
) -> Iterator[dict[str, Any]]:
  """Yields the rows of one model: of each type, and of the best if they differ in type."""
  settings = {
    'name': name,
    'classes': chosen.classes,
    'batch_size': batch_size,
    'task': chosen.task,
    'inference': options.inference,
  }
  fields = dict(chosen.fields)
  found: dict[str, dict[str, Any]] = {}
  for dtype in options.dtypes:
    print(f'{name}, batches of {batch_size}, {dtype}', flush=True)
    ready = ours.ask('prepare', **settings, dtype=dtype, fields=fields)
    of_type = {**settings, 'dtype': dtype}
    chosen_of_peer, tried = fastest(
      peer, of_type, options.seconds / 2, ready['parameters'], options.peer_modes
    )
    found[dtype] = {
      'parameters': ready['parameters'],
      'steps_per_dispatch': ready['steps_per_dispatch'],
      'peer_configuration': chosen_of_peer,
      'peer_configurations': tried,
    }

  def row(own: str, other: str) -> dict[str, Any]:
    ours.ask('prepare', **settings, dtype=own, fields=fields)
    configuration = found[other]['peer_configuration']
    peer.ask('prepare', configuration=configuration, **settings, dtype=other)
    for side in (ours, peer):  # once each, untimed
      side.ask('run', seconds=options.seconds)
    measured = alternate(
      lambda: ours.ask('run', seconds=options.seconds),
      lambda: peer.ask('run', seconds=options.seconds),
      options.rounds,
    )
    return {
      **settings,
      'dtype': own,
      'peer_dtype': other,
      'best': False,
      'parameters': found[own]['parameters'],
      'steps_per_dispatch': found[own]['steps_per_dispatch'],
      **measured,
      'peer_configuration': configuration,
      'peer_configurations': found[other]['peer_configurations'],
      'ours_peak_memory_bytes': ours.ask('peak_memory_bytes'),
      'peer_peak_memory_bytes': peer.ask('peak_memory_bytes'),
    }

  rows = {(dtype, dtype): row(dtype, dtype) for dtype in options.dtypes}

  def best(side: str) -> str:
    return max(options.dtypes, key=lambda dtype: rows[dtype, dtype][side]['median'])

  bests = best('ours'), best('peer')
  if bests not in rows:
    rows[bests] = row(*bests)
  rows[bests]['best'] = True
  yield from rows.values()


def add_peer_options(arguments: argparse.ArgumentParser) -> None:
  """Adds what comparisons with PyTorch ask for."""
  arguments.add_argument(
    '--peer-python',
    default=sys.executable,
    help='interpreter that has torch (default: this one)',
  )
  arguments.add_argument(
    '--peer-modes',
    type=lambda text: text.split(','),
    default=[],
    help='of eager and the modes of torch.compile, those to try (default: all)',
  )


def cells(row: dict[str, Any]) -> tuple:
  """Returns a row of the table."""
  ratio = row['ratio']

  def megabytes(count: int | None) -> float | None:
    return None if count is None else count / 1e6

  types = dict.fromkeys((row['dtype'], row['peer_dtype']))
  return (
    row['name'],
    row['batch_size'],
    ', '.join(types) + (' *' if row['best'] else ''),
    row['ours']['median'],
    row['peer']['median'],
    ratio['median'],
    ratio['min'],
    ratio['max'],
    ratio['n'],
    label(row['peer_configuration'], row['inference']),
    megabytes(row['ours_peak_memory_bytes']),
    megabytes(row['peer_peak_memory_bytes']),
  )


def main() -> int:
  """Measures the models that are asked for."""
  arguments = parser(__doc__)
  arguments.add_argument('--models', default=','.join(CASES), help='comma between them')
  arguments.add_argument(
    '--batch-size', type=int, default=0, help='0: what each model has for the backend'
  )
  arguments.add_argument('--rounds', type=int, default=5, help='pairs of turns')
  arguments.add_argument(
    '--seconds', type=float, default=8.0, help='length of a turn of either side'
  )
  arguments.add_argument(
    '--dtypes',
    type=lambda text: text.split(','),
    default=['float32', 'bfloat16'],
    help='types to measure, of which the best counts (default: float32,bfloat16)',
  )
  arguments.add_argument('--inference', action='store_true', help='not training')
  add_peer_options(arguments)
  options = arguments.parse_args()
  if unknown := set(options.dtypes) - {'float32', 'bfloat16'}:
    raise SystemExit(f'--dtypes: {", ".join(unknown)}: take float32 and bfloat16')
  chosen = {name: case(name) for name in options.models.split(',')}
  if options.inference:
    chosen = {name: c for name, c in chosen.items() if c.task == 'classification'}
  result = Result(
    'inference_throughput' if options.inference else 'train_throughput',
    options.json,
    dtypes=options.dtypes,
    rounds=options.rounds,
    seconds_per_turn=options.seconds,
  )
  for name, settings in chosen.items():
    # New processes for each model, so that its peak memory is its own.
    with (
      Side('ours.py', sys.executable) as ours,
      Side('peers.py', options.peer_python) as peer,
    ):
      result.note(ours=ours.ask('hello'), peer=peer.ask('hello'))
      gpu = ours.ask('backend') != 'cpu'
      batch_size = options.batch_size or (
        settings.gpu_batch if gpu else settings.cpu_batch
      )
      for row in compare(name, settings, options, ours, peer, batch_size):
        result.add(row)
  print(table(_HEADER, [cells(row) for row in result.rows]))
  print('* the best of ours beside the best of PyTorch')
  return 0


if __name__ == '__main__':
  sys.exit(main())
