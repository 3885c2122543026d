"""Whether a run repeats to the bit: twice, killed and resumed, and over processes.

    python benchmarks/repeats.py --config=configs/cifar10_resnet18.py --steps=300
    python benchmarks/repeats.py --config=configs/digits_cnn.py --checks=twice,resumed
    python benchmarks/repeats.py --config=configs/digits_cnn.py --checks=processes

  twice       the same command in two processes with `deterministic`, of which the second
              compiles anew; equal to the bit is what is claimed
  resumed     killed (SIGKILL) after its first checkpoint and started again; equal to the bit
  processes   two processes of one device each, and one of two; the order of sums differs, so
              the largest relative difference of a loss is told

Compared are all arrays of the last checkpoint (parameters, statistics, the optimiser's state)
and every number that was logged, but for times. The runs lie in `--workdir`, by default a
temporary folder. `processes` wants two GPUs; with JAX_PLATFORMS=cpu it has two simulated
devices.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from table import Result, parser, table

ROOT = Path(__file__).resolve().parent.parent
_CHECKS = ('twice', 'resumed', 'processes')
_POLL_SECONDS = 0.02  # between looks for a checkpoint
_OF_TIME = ('images_per_second',)


class Failed(Exception):
  """A run that did not do what was wanted, in one line."""


class Runs:
  """Trains one config again and again.

  Args:
    folder: of the runs.
    config: file.
    steps: of a run; a third between checkpoints.
    overrides: further '--config.KEY=VALUE'.
  """

  def __init__(self, folder: Path, config: str, steps: int, overrides: Sequence[str]):
    self.folder = folder
    every = max(1, steps // 3)
    self._options = [
      f'--config={config}',
      f'--config.steps={steps}',
      f'--config.checkpoint.every_steps={every}',
      f'--config.eval_every_steps={steps}',
      f'--config.log_every_steps={max(1, every // 2)}',
      '--config.deterministic=True',
      '--config.report=False',
      *overrides,
    ]

  def path(self, name: str) -> Path:
    """Returns the workdir of a run."""
    return self.folder / name

  def train(
    self, name: str, variables: Mapping[str, str] | None = None, processes: int = 1
  ) -> None:
    """Trains a run to its end; raises Failed where that is not reached.

    Args:
      name: of the run.
      variables: of its environment, beside those of this process.
      processes: that share it, of one device each.
    """
    with (self.folder / f'{name}.log').open('a') as log:
      code = self._start(name, processes, log, variables or {}).wait()
    if code:
      raise Failed(f'{name}: exit code {code}: {_last_line(self.folder / name)}')

  def kill(self, name: str) -> int:
    """Trains a run, and kills it after a checkpoint; returns the step of that."""
    with (self.folder / f'{name}.log').open('a') as log:
      process = self._start(name, 1, log, {})
      while process.poll() is None:
        if saved := self._saved(name):
          process.send_signal(signal.SIGKILL)
          process.wait()
          return max(saved)
        time.sleep(_POLL_SECONDS)
    raise Failed(f'{name} ended before it could be killed: raise --steps')

  def _saved(self, name: str) -> list[int]:
    names = [path.name for path in (self.path(name) / 'checkpoints').glob('*')]
    return [int(step) for step in names if step.isdigit()]

  def _start(
    self, name: str, processes: int, log: Any, variables: Mapping[str, str]
  ) -> subprocess.Popen:
    launch = [
      *('launch', f'--processes={processes}', '--devices-per-process=1', '--', 'train')
    ]
    command = [
      *(sys.executable, '-m', 'jaxvision.main'),
      *(launch if processes > 1 else ['train']),
      *self._options,
      f'--workdir={self.path(name)}',
    ]
    known = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
    environment = {**os.environ, 'PYTHONPATH': known, **variables}
    return subprocess.Popen(
      command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
    )


def _last_line(path: Path) -> str:
  lines = path.with_name(f'{path.name}.log').read_text(errors='replace').split('\n')
  return next((line for line in reversed(lines) if line.strip()), 'it said nothing')


def difference(one: Path, other: Path) -> dict[str, Any]:
  """Returns how the last checkpoints and the logs of two runs differ.

  In a process of its own, on the CPU, which leaves the GPU to the runs.

  Returns:
    {'arrays': that there are, 'different': paths of those that differ in a bit,
    'losses': whether all logged numbers are equal, 'largest': the largest relative
    difference of one}.
  """
  known = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
  done = subprocess.run(
    [sys.executable, __file__, '--difference', str(one), str(other)],
    env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': known},
    capture_output=True,
    text=True,
    check=False,
  )
  if done.returncode:
    raise Failed(f'{one} and {other} cannot be compared: {done.stderr.strip()[-300:]}')
  return json.loads(done.stdout.splitlines()[-1])


def _difference(one: Path, other: Path) -> dict[str, Any]:
  import jax
  import numpy as np

  from jaxvision.training.opening import open_run
  from jaxvision.training.run_directory import RunDirectory, read_history

  leaves = []
  for path in (one, other):
    state, _ = open_run(RunDirectory(path)).restore('last')
    flat, _ = jax.tree_util.tree_flatten_with_path(state)
    leaves.append({jax.tree_util.keystr(k): _plain(leaf) for k, leaf in flat})
  assert leaves[0].keys() == leaves[1].keys()
  different = [
    name
    for name, array in leaves[0].items()
    if array.dtype != leaves[1][name].dtype
    or array.tobytes() != leaves[1][name].tobytes()
  ]
  logs = [read_history(path / 'metrics.jsonl') for path in (one, other)]
  numbers = [
    [v for p in log for k, v in p.items() if isinstance(v, float) and k not in _OF_TIME]
    for log in logs
  ]
  largest = np.inf
  if len(numbers[0]) == len(numbers[1]):
    a, b = map(np.asarray, numbers)
    largest = np.max(np.abs(a - b) / np.maximum(np.abs(b), 1e-30), initial=0.0)
  return {
    'arrays': len(leaves[0]),
    'different': different,
    'losses': numbers[0] == numbers[1],
    'largest': float(largest),
  }


def _plain(leaf: Any) -> Any:
  import jax
  import numpy as np

  if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    leaf = jax.random.key_data(leaf)
  return np.asarray(leaf)


def check(name: str, runs: Runs) -> dict[str, Any]:
  """Returns the row of a check."""
  row: dict[str, Any] = {'check': name}
  if name == 'processes':
    visible = os.environ.get('CUDA_VISIBLE_DEVICES') or '0,1'
    first = ','.join(visible.split(',')[:2])
    two = {'JAX_NUM_CPU_DEVICES': '2', 'CUDA_VISIBLE_DEVICES': first}
    runs.train('two-devices', two)
    runs.train('two-processes', processes=2)
    pair = 'two-devices', 'two-processes'
  else:
    if not runs.path('whole').exists():
      runs.train('whole')
    pair = 'whole', name
    if name == 'twice':
      runs.train(name, {'JAX_ENABLE_COMPILATION_CACHE': 'false'})
    else:
      row['killed_after_step'] = runs.kill(name)
      runs.train(name)
  found = difference(*map(runs.path, pair))
  return {**row, **found, 'equal': found['losses'] and not found['different']}


def cells(row: dict[str, Any]) -> tuple:
  """Returns a row of the table."""
  if 'error' in row:
    return row['check'], row['error'], None, None
  return (
    row['check'],
    'yes' if row['equal'] else 'no',
    f'{len(row["different"])} of {row["arrays"]}',
    row['largest'],
  )


_HEADER = ('', 'equal to the bit', 'arrays that differ', 'largest difference of a loss')


def main() -> int:
  """Makes the checks that are asked for."""
  if sys.argv[1:2] == ['--difference']:
    print(json.dumps(_difference(*map(Path, sys.argv[2:]))))
    return 0
  arguments = parser(__doc__)
  arguments.add_argument('--config', required=True, help='config file')
  arguments.add_argument('--steps', type=int, default=300, help='of each run')
  arguments.add_argument('--checks', default='twice,resumed', help='any of them')
  arguments.add_argument('--workdir', type=Path, help='folder of the runs')
  arguments.epilog = '--config.KEY=VALUE sets a field of the config'
  overrides = [a for a in sys.argv[1:] if a.startswith('--config.')]
  options = arguments.parse_args([a for a in sys.argv[1:] if a not in overrides])
  wanted = options.checks.split(',')
  if not set(wanted) <= set(_CHECKS):
    raise SystemExit(f'--checks takes {", ".join(_CHECKS)}')
  result = Result(
    'repeats',
    options.json,
    timed=False,
    config=options.config,
    steps=options.steps,
    overrides=overrides,
  )
  with tempfile.TemporaryDirectory() as temporary:
    folder = options.workdir or Path(temporary)
    if folder.exists() and any(folder.iterdir()):
      raise SystemExit(f'repeats: {folder} is not empty: choose another --workdir')
    folder.mkdir(parents=True, exist_ok=True)
    runs = Runs(folder.resolve(), options.config, options.steps, overrides)
    for name in wanted:
      try:
        row = check(name, runs)
      except Failed as error:
        row = {'check': name, 'error': str(error)}
      result.add(row)
      outcome = row.get('error') or ('equal' if row['equal'] else 'not equal')
      print(f'{name}: {outcome}', flush=True)
    for path in sorted(folder.glob('*/summary.json')):
      summary = json.loads(path.read_text())
      facts = ('device_kind', 'device_count', 'versions')
      result.note(**{key: summary[key] for key in facts})
    result.write()
  print(table(_HEADER, [cells(row) for row in result.rows]))
  errors = [row['error'] for row in result.rows if 'error' in row]
  for line in errors:
    print(f'repeats: {line}', file=sys.stderr)
  return 1 if errors else 0


if __name__ == '__main__':
  sys.exit(main())
