"""Images per second of training, or inference, beside PyTorch in the same run.

    python benchmarks/train_throughput.py --models=small_filters_cnn,custom_cnn,resnet18
    python benchmarks/train_throughput.py --models=resnet18 --inference
    python benchmarks/train_throughput.py --models=resnet18,resnet50 --dtype=bfloat16

Each side is a process of its own, and works while the other one waits: ours, peer,
ours, peer, ... A ratio is ours over PyTorch of one such pair; the table has the median
of them, the JSON all. PyTorch is measured in its fastest configuration, found in a
short pass before over eager and compiled, NCHW and channels_last, foreach and fused
optimiser; that pass is in the JSON. `--peer-modes` names those that are tried where
compiling in all modes takes too long.

What a training step includes. PyTorch: gradients set to None, forward, cross-entropy,
backward, SGD with Nesterov momentum, on one normalised batch that lies on the device.
Ours: the same, and further the draw of a shuffled batch from a split of uint8 images,
its normalisation, the learning rate of the schedule, loss, top-1 and top-5 accuracy.
Inference: forward in evaluation mode; ours with normalisation, loss and accuracies.
No augmentation on either side. On a GPU both may multiply float32 as TF32.
"""

import argparse
import sys
from typing import Any

from models import CASES, Case, case
from sides import Side, SideFailed, alternate
from table import Result, parser, table

_HEADER = (
  'model',
  'batch',
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
) -> dict[str, Any]:
  """Returns the row of one model."""
  settings = {
    'name': name,
    'classes': chosen.classes,
    'batch_size': batch_size,
    'dtype': options.dtype,
    'task': chosen.task,
    'inference': options.inference,
  }
  print(f'{name}, batches of {batch_size}', flush=True)
  ready = ours.ask('prepare', **settings, fields=dict(chosen.fields))
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
  return {
    **settings,
    'parameters': ready['parameters'],
    'steps_per_dispatch': ready['steps_per_dispatch'],
    **measured,
    'peer_configuration': best,
    'peer_configurations': tried,
    'ours_peak_memory_bytes': ours.ask('peak_memory_bytes'),
    'peer_peak_memory_bytes': peer.ask('peak_memory_bytes'),
  }


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

  return (
    row['name'],
    row['batch_size'],
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
  arguments.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32')
  arguments.add_argument('--inference', action='store_true', help='not training')
  add_peer_options(arguments)
  options = arguments.parse_args()
  chosen = {name: case(name) for name in options.models.split(',')}
  result = Result(
    'inference_throughput' if options.inference else 'train_throughput',
    options.json,
    dtype=options.dtype,
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
      result.add(compare(name, settings, options, ours, peer, batch_size))
  print(table(_HEADER, [cells(row) for row in result.rows]))
  return 0


if __name__ == '__main__':
  sys.exit(main())
