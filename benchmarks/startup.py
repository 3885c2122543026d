"""Seconds from the command to its first training step, with cold and with warm caches.

    python benchmarks/startup.py
    python benchmarks/startup.py --config=configs/cifar10_resnet18.py --rounds=10

The real command is started and watched from outside: the time of each line that it
prints, and of the first log point in metrics.jsonl (with log_every_steps=1), is taken
and the process ended. Cold is the first start with an empty cache of its own: the set
is decoded and every program compiled. Warm are the starts after it. The files
themselves are in the page cache from the second start on, cold or warm.

  imports      to the line about the devices: Python, the imports, the backend's start
  data         to the line about the data: the decoded set is opened, or made
  state        to the line about the model: the parameters are initialised
  compile      to the line about compilation: the programs of training, or their load
               from the cache; what evaluates goes on compiling meanwhile
  first step   to the first log point: the step, and the log point itself

Where the config's TFDS set is not at hand, made-up images of its size are taken, and
the result says so. The second table is where the time of the imports goes, by package:
the time of its own modules, without what they import from others.
"""

import collections
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from sides import HERE, spread
from table import Result, parser, table

_PROJECT = HERE.parent
_MADE_UP = ('data.name=synthetic', 'data.synthetic_examples=50000')
_LONGEST_SECONDS = 600.0

# The stage that ends with a line, by how the line begins.
_LINES = {
  'devices:': 'imports',
  'data:': 'data',
  'model:': 'state',
  'compiled': 'compile',
}
_STAGES = (*_LINES.values(), 'first step')


class NotStarted(Exception):
  """The command ended before its first step: its last line."""


def start(config: str, overrides: tuple[str, ...], cache: Path) -> dict[str, float]:
  """Runs the command to its first step and returns the seconds of each stage."""
  with tempfile.TemporaryDirectory() as folder:
    workdir = Path(folder) / 'run'
    log = workdir / 'metrics.jsonl'
    command = [sys.executable, '-m', 'jaxvision.main', 'train', f'--config={config}']
    command += [f'--workdir={workdir}', '--config.log_every_steps=1']
    command += [f'--config.{override}' for override in overrides]
    environment = {**os.environ, 'JAXVISION_CACHE': str(cache)}
    environment.pop('JAX_COMPILATION_CACHE_DIR', None)
    begun = time.perf_counter()
    process = subprocess.Popen(
      command,
      cwd=_PROJECT,
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      start_new_session=True,  # its workers end with it
    )
    marks: dict[str, float] = {}
    lines: list[str] = []

    def read() -> None:
      for line in process.stdout:
        now = time.perf_counter() - begun
        lines.append(line.strip())
        for beginning, stage in _LINES.items():
          if line.startswith(beginning):
            marks.setdefault(stage, now)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
      while not (log.exists() and log.stat().st_size):
        if process.poll() is not None:
          reader.join()
          raise NotStarted(lines[-1] if lines else f'exit code {process.returncode}')
        if time.perf_counter() - begun > _LONGEST_SECONDS:
          raise NotStarted(f'no step in {_LONGEST_SECONDS:.0f} seconds')
        time.sleep(0.005)
      marks['first step'] = time.perf_counter() - begun
    finally:
      if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
      process.wait()
      reader.join()
  stages, before = {}, 0.0
  for stage in _STAGES:
    stages[stage] = marks[stage] - before
    before = marks[stage]
  return {**stages, 'total': before}


def import_seconds() -> dict[str, float]:
  """Returns the seconds of importing what a training run imports, by package."""
  code = 'import jaxvision.main, jaxvision.cli, jaxvision.commands.train'
  code += ', jaxvision.tasks.classification'
  done = subprocess.run(
    [sys.executable, '-X', 'importtime', '-c', code],
    cwd=_PROJECT,
    capture_output=True,
    text=True,
    check=True,
  )
  own: collections.Counter[str] = collections.Counter()
  for line in done.stderr.splitlines():
    found = re.match(r'import time:\s+(\d+) \|\s+\d+ \|\s+([\w.]+)', line)
    if found:
      own[found[2].split('.')[0]] += int(found[1]) / 1e6
  return dict(own.most_common())


def main() -> int:
  """Measures cold and warm starts."""
  arguments = parser(__doc__)
  arguments.add_argument('--config', default='configs/cifar10_basiccnn_augment.py')
  arguments.add_argument('--rounds', type=int, default=5, help='warm starts')
  options = arguments.parse_args()
  result = Result('startup', options.json, config=options.config)
  overrides: tuple[str, ...] = ()
  with tempfile.TemporaryDirectory() as folder:
    cache = Path(folder)
    try:
      cold = start(options.config, overrides, cache)
    except NotStarted as error:
      print(f'{error}\nmade-up images instead', flush=True)
      overrides = _MADE_UP
      cold = start(options.config, overrides, cache)
    warm = [start(options.config, overrides, cache) for _ in range(options.rounds)]
  names = (*_STAGES, 'total')
  over: dict[str, Any] = {name: spread([w[name] for w in warm]) for name in names}
  result.note(made_up=bool(overrides))
  result.add({'caches': 'cold', 'seconds': cold})
  result.add({'caches': 'warm', 'seconds': over})
  packages = [import_seconds() for _ in range(3)]
  imports = {
    name: statistics.median(p.get(name, 0.0) for p in packages) for name in packages[0]
  }
  result.note(import_seconds=imports)
  result.add({'caches': 'warm', 'starts': warm})
  cells = [
    (name, cold[name], *(over[name][k] for k in ('median', 'min', 'max', 'n')))
    for name in names
  ]
  print(table(('stage', 'cold, s', 'warm, s', 'min', 'max', 'n'), cells))
  print()
  slowest = sorted(imports.items(), key=lambda item: -item[1])[:12]
  print(table(('package', 'own modules, s'), slowest))
  return 0


if __name__ == '__main__':
  sys.exit(main())
