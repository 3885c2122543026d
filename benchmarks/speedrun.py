"""Time to accuracy over many seeds, beside a given copy of the PyTorch script.

    python benchmarks/speedrun.py --config=configs/cifar10_airbench94.py --seeds=50
    python benchmarks/speedrun.py --config=configs/cifar10_airbench94.py --seeds=50 \
      --peer=airbench94_muon.py --peer-python=/path/with/torch/bin/python

One process trains all the seeds, each program compiled once. The clock encloses what the
airbench scripts enclose: whitening out of the training images, training, evaluation of
the test split with its views; not compiling, not the upload of the data.

The peer is a script of https://github.com/KellerJordan/cifar10-airbench (MIT licence) as
it is, which wants a CUDA device; it runs in its own folder, before ours, on the same
card, until it has finished as many runs. None of its code is in this project.
"""

import argparse
import dataclasses
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from table import Result, parser, table

from jaxvision import config as config_lib
from jaxvision.errors import UserError


def peer_runs(lines: Iterable[str]) -> Iterator[dict[str, float]]:
  """Yields accuracy and seconds of each run out of the table that the peer prints.

  A run's last row has `eval` for its epoch; the warm-up, whose labels are made up, is
  passed over.

  >>> header = '|  run     |  epoch  |  tta_val_acc  |  time_seconds  |'
  >>> rows = ['|  warmup  |      1  |               |        0.0100  |',
  ...         '|          |   eval  |       0.1000  |        0.0200  |',
  ...         '|       0  |      1  |               |        1.0000  |',
  ...         '|          |   eval  |       0.9401  |        2.5900  |']
  >>> list(peer_runs([header, *rows]))
  [{'accuracy': 0.9401, 'seconds': 2.59}]
  """
  names: list[str] = []
  run = ''
  for line in lines:
    if not line.startswith('|'):
      continue
    cells = [cell.strip() for cell in line.strip().strip('|').split('|')]
    if 'epoch' in cells:
      names = cells
      continue
    row = dict(zip(names, cells))
    run = row.get('run') or run
    seconds = row.get('time_seconds') or row.get('total_time_seconds')
    if row.get('epoch') == 'eval' and run != 'warmup' and seconds:
      yield {'accuracy': float(row['tta_val_acc']), 'seconds': float(seconds)}


def run_peer(path: Path, python: str, runs: int) -> list[dict[str, float]]:
  """Returns the first runs of the peer's script; says in one line why they are fewer."""
  if not path.is_file():
    print(f'speedrun: --peer {path} is not there', file=sys.stderr, flush=True)
    return []
  print(f'peer: {python} {path}', flush=True)
  found: list[dict[str, float]] = []
  with (
    tempfile.TemporaryFile('w+') as errors,
    subprocess.Popen(
      [python, path.name],
      cwd=path.resolve().parent,
      stdout=subprocess.PIPE,
      stderr=errors,
      text=True,
    ) as process,
  ):
    assert process.stdout is not None
    for run in peer_runs(process.stdout):
      found.append(run)
      print(f'peer run {len(found)}: {_line(run)}', flush=True)
      if len(found) == runs:
        process.terminate()
        break
    code = process.wait()
    errors.seek(0)
    complaint = errors.read().strip().splitlines()
  if len(found) < runs:
    why = complaint[-1] if complaint else f'exit code {code}'
    outcome = f'ended after {len(found)} of {runs} runs' if found else 'gave no run'
    print(f'speedrun: --peer {path} {outcome}: {why}', file=sys.stderr, flush=True)
  return found


def _line(run: dict[str, float]) -> str:
  return f'accuracy {run["accuracy"]:.4f}  seconds {run["seconds"]:.4f}'


def summarize(runs: list[dict[str, float]]) -> dict[str, Any]:
  """Returns the statistics of accuracies and seconds, with the median of seconds."""
  from speedrun_engine import statistics

  seconds = [run['seconds'] for run in runs]
  return {
    'accuracy': statistics([run['accuracy'] for run in runs]),
    'seconds': {**statistics(seconds), 'median': float(np.median(seconds))},
  }


def ours(options: argparse.Namespace, config: Any, result: Result) -> list[dict]:
  """Trains the seeds one after the other and returns a row for each."""
  import jax
  from speedrun_engine import SpeedRun

  from jaxvision import data
  from jaxvision.training import runtime

  runtime.configure(config.deterministic)
  speedrun = SpeedRun(config, data.load(config.data))
  compiler, steps = speedrun.base.compiler, speedrun.base.plan.total_steps
  facts = runtime.facts()
  result.note(
    config=config.to_dict(),
    backend=facts['backend'],
    device_kind=facts['device_kind'],
    parameters=speedrun.parameters,
    steps=steps,
    programs=compiler.programs,
    seconds_compile=compiler.seconds,
  )
  print(
    f'{config.name}: {speedrun.parameters:,} parameters, {steps} steps of '
    f'{config.batch_size} images on {facts["device_kind"]}; {compiler.programs} '
    f'programs compiled in {compiler.seconds:.1f} s',
    flush=True,
  )
  if jax.default_backend() != 'cpu':  # the first run of anything on a GPU is slower
    speedrun(config.seed)
  rows = []
  for seed in range(config.seed, config.seed + options.seeds):
    row = dataclasses.asdict(speedrun(seed))
    print(f'seed {seed}: {_line(row)}', flush=True)
    result.add(row)
    rows.append(row)
  return rows


def cells(name: str, summary: dict[str, Any]) -> tuple:
  """Returns a row of the table."""
  accuracy, seconds = summary['accuracy'], summary['seconds']

  def percent(value: float | None) -> str | None:
    return None if value is None else f'{100 * value:.3f}'

  return (
    name,
    percent(accuracy['mean']),
    percent(accuracy['interval95']),
    percent(accuracy['std']),
    accuracy['n'],
    seconds['mean'],
    seconds['std'],
    seconds['median'],
  )


_HEADER = ('', 'accuracy, %', '95 % +-', 'std', 'n', 'seconds', 'std', 'median')


def main() -> int:
  """Runs the peer, if one is given, and then ours."""
  arguments = parser(__doc__)
  arguments.add_argument('--config', required=True, help='config file')
  arguments.add_argument('--seeds', type=int, default=50, help='runs, from config.seed')
  arguments.add_argument('--peer', type=Path, help="a copy of the peer's script")
  arguments.add_argument(
    '--peer-python',
    default=sys.executable,
    help='interpreter that has torch (default: this one)',
  )
  arguments.epilog = '--config.KEY=VALUE sets a field of the config'
  overrides = [
    a.removeprefix('--config.') for a in sys.argv if a.startswith('--config.')
  ]
  options = arguments.parse_args(
    [a for a in sys.argv[1:] if not a.startswith('--config.')]
  )
  if options.seeds < 1:
    raise SystemExit(f'speedrun: --seeds must be at least 1, not {options.seeds}')
  try:
    config = config_lib.load(options.config, overrides)
    result = Result('speedrun', options.json)
    # The peer first: JAX takes most of a card's memory for itself once it starts.
    peer: list[dict[str, float]] = []
    if options.peer:
      peer = run_peer(options.peer, options.peer_python, options.seeds)
    mine = summarize(ours(options, config, result))
  except UserError as error:
    raise SystemExit(f'speedrun: {error}') from error
  shown = [cells(config.name, mine)]
  entries: dict[str, Any] = {'ours': mine}
  if peer:
    theirs = summarize(peer)
    shown.append(cells(options.peer.name, theirs))
    # Above 1: ours needs less time. Of medians, which a hiccup does not move.
    entries |= {'peer': theirs, 'peer_runs': peer}
    entries['ratio'] = theirs['seconds']['median'] / mine['seconds']['median']
  result.note(**entries)
  result.write()
  print(table(_HEADER, shown))
  if 'ratio' in entries:
    print(f'ratio (time of the peer over ours, medians): {entries["ratio"]:.3f}')
  return 0


if __name__ == '__main__':
  sys.exit(main())
