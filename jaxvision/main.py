"""The command line: `python -m jaxvision.main [COMMAND] --config=FILE ...`.

Here is what each command calls, and how errors become exit codes; their options are in
`options.py`, what they do is in `jaxvision.api`.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxvision import config
from jaxvision.cli import parse
from jaxvision.errors import TrainingDiverged, UserError, disk_problem


def _run_directory(options: argparse.Namespace, overrides: Sequence[str]) -> str:
  """Returns the workdir of a finished run: given, or the default of its config."""
  if options.workdir:
    return options.workdir
  if not options.config:
    raise UserError(f'{options.command}: say which run with --workdir=DIR')
  return str(Path('runs') / config.load(options.config, overrides).name)


def _train(options: argparse.Namespace, overrides: list[str]) -> int:
  if options.help_config:
    print(config.documentation())
    return 0
  if not options.config:
    raise UserError(
      'say what to train with --config=FILE, such as configs/digits_cnn.py'
    )
  loaded = config.load(options.config, overrides)
  from jaxvision import commands  # after the config, so that its mistakes show at once

  commands.train(loaded, options.workdir, options.overwrite)
  return 0


def _eval(options: argparse.Namespace, overrides: list[str]) -> int:
  foreign = any(o.startswith('init.pretrained=') for o in overrides)
  if options.config and foreign and not options.workdir:
    loaded = config.load(options.config, overrides)
    from jaxvision import commands

    commands.evaluate_weights(loaded, options.split or 'test')
    return 0
  workdir = _run_directory(options, overrides)
  from jaxvision import commands

  # With a config file the overrides named the run; they hold for its data as well.
  applied = [
    o for o in overrides if o.startswith(('data.', 'eval_batch_size', 'evaluation.'))
  ]
  commands.evaluate(
    workdir,
    options.split,
    options.checkpoint,
    tuple(applied if options.config else overrides),
  )
  return 0


def _predict(options: argparse.Namespace, overrides: list[str]) -> int:
  workdir = _run_directory(options, overrides)
  if not options.inputs:
    raise UserError('predict: name the image files or folders to classify')
  if options.top < 1:
    raise UserError(f'predict: --top must be at least 1, not {options.top}')
  from jaxvision.inference.image_files import find_images

  paths = find_images(options.inputs)
  from jaxvision.inference.loading import load_classifier

  predictions = load_classifier(workdir, options.checkpoint).predict(paths)
  rows = list(zip(map(str, paths), predictions.top(options.top)))
  if options.json:
    print(
      json.dumps(
        [
          {
            'file': path,
            'predictions': [{'class': name, 'probability': p} for name, p in best],
          }
          for path, best in rows
        ],
        indent=2,
      )
    )
    return 0
  for path, best in rows:
    print(f'{path}: ' + ', '.join(f'{name} {p:.2%}' for name, p in best))
  return 0


def _sample(options: argparse.Namespace, overrides: list[str]) -> int:
  workdir = None
  if options.workdir or options.config:
    workdir = _run_directory(options, overrides)
  from jaxvision import commands

  run = commands.generator(workdir, options.weights, options.checkpoint)
  paths = commands.sample(
    run,
    options.output or ('samples' if options.files else 'samples.png'),
    options.count,
    options.seed,
    options.label,
    options.interpolate,
    options.files,
    options.scale,
  )
  more = f' and {len(paths) - 1} more' if len(paths) > 1 else ''
  print(f'drawn with {run.origin}: {paths[0]}{more}')
  return 0


def _distance(options: argparse.Namespace, overrides: list[str]) -> int:
  if options.config or overrides:
    raise UserError('distance: takes two folders and no config')
  if len(options.inputs) != 2:
    raise UserError(
      'distance: name two folders, the generated images first and then the real ones'
    )
  from jaxvision import commands

  generated, real = options.inputs
  scores = commands.compare_folders(generated, real, options.features, options.resizer)
  print(
    json.dumps(scores.as_json(), indent=2, allow_nan=False)
    if options.json
    else scores.line()
  )
  return 0


def _compare(options: argparse.Namespace, overrides: list[str]) -> int:
  if options.config or overrides:
    raise UserError('compare: takes the workdirs of finished runs and no config')
  if len(options.inputs) < 2:
    raise UserError('compare: name two or more workdirs of finished runs')
  from jaxvision import commands
  from jaxvision.reports.comparison.report import lines

  compared, page = commands.compare(options.inputs, options.output)
  print(*lines(compared), f'report: {page}', sep='\n')
  return 0


def _sweep(options: argparse.Namespace, overrides: list[str]) -> int:
  if not options.config or not options.sweep:
    raise UserError(
      'sweep: name the config and what is tried, as in --config=configs/digits_cnn.py '
      '--sweep=experiments/sweeps/digits.py'
    )
  from jaxvision.config import search_space

  loaded = config.load(options.config, overrides)
  wanted = search_space.load(options.sweep, loaded)
  from jaxvision import commands

  commands.sweep(loaded, wanted, options.workdir, options.storage, options.take_over)
  return 0


def _explore(options: argparse.Namespace, overrides: list[str]) -> int:
  if not options.config:
    raise UserError(
      'explore: say whose data with --config=FILE, such as configs/digits_cnn.py'
    )
  if options.images < 0:
    raise UserError(f'explore: --images must be at least 0, not {options.images}')
  loaded = config.load(options.config, overrides)
  from jaxvision import commands
  from jaxvision.reports.dataset.report import lines

  explored, page = commands.explore(loaded, options.output, options.images)
  print(*lines(explored), f'report: {page}', sep='\n')
  return 0


def _export(options: argparse.Namespace, overrides: list[str]) -> int:
  workdir = _run_directory(options, overrides)
  from jaxvision import commands

  print(f'exported: {commands.export(workdir, options.output, options.checkpoint)}')
  return 0


def _summary(options: argparse.Namespace, overrides: list[str]) -> int:
  from jaxvision.training.describe import describe_model

  if options.config:
    print(describe_model(config.load(options.config, overrides)))
    return 0
  from jaxvision.training.run_directory import RunDirectory

  run = RunDirectory(_run_directory(options, overrides))
  print(describe_model(run.config(), run.dataset()))
  return 0


def _benchmark(options: argparse.Namespace, overrides: list[str]) -> int:
  if not options.config:
    raise UserError(
      'say what to measure with --config=FILE, such as configs/digits_cnn.py'
    )
  if options.steps < 1:
    raise UserError(f'benchmark: --steps must be at least 1, not {options.steps}')
  loaded = config.load(options.config, overrides)
  from jaxvision import commands

  result = commands.benchmark(loaded, options.steps)
  if options.json:
    print(json.dumps(result, indent=2, allow_nan=False))
    return 0
  from jaxvision.training.benchmark import render

  print(render(result))
  return 0


def _prepare(options: argparse.Namespace, overrides: list[str]) -> int:
  from jaxvision import data

  if options.config:
    base = config.load(options.config, overrides)
  else:
    base = config.override(config.base_config(), overrides)
  names = options.inputs or ([base.data.name] if options.config else [])
  if not names:
    raise UserError(
      'prepare: name the TFDS sets, such as cifar10, or give --config=FILE'
    )
  for name in names:
    base.data.name = name
    if name not in ('digits', 'synthetic', 'folder'):
      print(f'prepared: {data.prepare(name, base.data.dir)}', flush=True)
    dataset = data.load(base.data)
    sizes = ', '.join(f'{len(s):,} {split}' for split, s in dataset.splits.items())
    shape = 'x'.join(map(str, dataset.image_shape))
    print(
      f'decoded: {name}, {sizes}; {dataset.num_classes} classes, {shape}', flush=True
    )
  return 0


_COMMANDS = {
  'train': _train,
  'eval': _eval,
  'predict': _predict,
  'sample': _sample,
  'distance': _distance,
  'compare': _compare,
  'sweep': _sweep,
  'explore': _explore,
  'export': _export,
  'summary': _summary,
  'benchmark': _benchmark,
  'prepare': _prepare,
}


class _StandardError(logging.Handler):
  """Prints what the library logs, such as that a set is being decoded."""

  def emit(self, record: logging.LogRecord) -> None:
    prefix = 'warning: ' if record.levelno >= logging.WARNING else ''
    print(prefix + record.getMessage(), file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command line and returns the exit code: 0, 2 or 3; faults of ours raise."""
  log = logging.getLogger('jaxvision')
  if not any(isinstance(handler, _StandardError) for handler in log.handlers):
    log.addHandler(_StandardError())
    log.setLevel(logging.INFO)
    log.propagate = False
  try:
    options, overrides = parse(sys.argv[1:] if arguments is None else arguments)
    return _COMMANDS[options.command](options, overrides)
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  except TrainingDiverged as error:
    print(f'error: {error}', file=sys.stderr)
    return 3
  except BrokenPipeError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
  except Exception as error:
    problem = disk_problem(error)
    if problem is None:
      raise
    print(f'error: {problem}', file=sys.stderr)
    return 2


# They take many steps; for the others a second start of Python would be for nothing.
_WANT_HUGE_PAGES = ('train', 'sweep', 'benchmark')
_ONLY_PRINT = frozenset({'-h', '--help', '--help-config', '--version'})


def cli() -> int:
  """Runs the command line of this process: what `jaxvision` and `python -m` call."""
  arguments = sys.argv[1:]
  command = arguments[0] if arguments and arguments[0] in _COMMANDS else 'train'
  if command in _WANT_HUGE_PAGES and _ONLY_PRINT.isdisjoint(arguments):
    with_huge_pages()
  return main()


def with_huge_pages() -> None:
  """Starts the program anew with a malloc that asks Linux for huge pages, once.

  XLA:CPU takes the memory of every step anew and gives it back. In pages of 4 kB, a step
  of ResNet-18 with a batch of 64 has 240,000 page faults. glibc reads the setting when a
  process starts and at no other time; other libraries of C ignore it. Where the system
  uses huge pages always or never, nothing is to be gained and nothing is done.

  Images per second of that network in float32 and peak memory, medians of four to five
  runs in alternation (AMD EPYC, 2 cores, JAX 0.12.0.1):

                                                  images/s       GB
      as glibc is by itself                           51.4      1.9
      huge pages, by starting anew                    58.9      1.8
      mallopt: no mmap, no trimming, one arena        63.5  3.1-4.5

  mallopt needs no second start, and memory that is never given back has no page faults;
  but between steps small blocks settle in it, and the next step no longer fits. A run
  that would have fitted into memory then does not.
  """
  tunables = os.environ.get('GLIBC_TUNABLES', '')
  if 'glibc.malloc.hugetlb' in tunables or not _huge_pages_on_request():
    return
  setting = 'glibc.malloc.hugetlb=1'
  os.environ['GLIBC_TUNABLES'] = f'{tunables}:{setting}' if tunables else setting
  os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _huge_pages_on_request() -> bool:
  """Returns whether Linux gives huge pages to programs that ask for them, only."""
  try:
    policy = Path('/sys/kernel/mm/transparent_hugepage/enabled').read_text()
  except OSError:
    return False
  return '[madvise]' in policy


if __name__ == '__main__':
  sys.exit(cli())
