"""The command line: `python -m jaxvision.main [COMMAND] --config=FILE ...`.

Here are the commands and their options, and how errors become exit codes; what the
commands do is in the modules that they call.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxvision import __version__, config
from jaxvision.errors import TrainingDiverged, UserError, closest, disk_problem

_OVERRIDES = """
Any field of the config is set by --config.KEY=VALUE, such as --config.seed=1
--config.data.dir=DIR --config.optimizer.learning_rate=0.05; `train --help-config`
lists every field.
"""


class _Parser(argparse.ArgumentParser):
  """Says what is wrong in one line, without the usage before it."""

  def error(self, message: str):
    raise UserError(f'{message} (see {self.prog} --help)')


def _parsers() -> tuple[_Parser, dict[str, _Parser]]:
  main = _Parser(
    prog='jaxvision',
    description='Trains image models from one config file each. Without a COMMAND it '
    'trains.',
    epilog=_OVERRIDES,
    allow_abbrev=False,
  )
  main.add_argument('--version', action='version', version=f'jaxvision {__version__}')
  commands = main.add_subparsers(dest='command', metavar='COMMAND')

  def add(name: str, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
      name, help=text, description=text, epilog=_OVERRIDES, allow_abbrev=False
    )
    parser.add_argument('--config', metavar='FILE', help='config file')
    if name not in ('prepare', 'benchmark', 'distance', 'compare'):
      parser.add_argument(
        '--workdir', metavar='DIR', help='run directory (default: runs/<config name>)'
      )
    return parser

  train = add('train', 'Train, or go on with a run that was stopped.')
  train.add_argument(
    '--overwrite', action='store_true', help='replace the run that is in the workdir'
  )
  train.add_argument(
    '--help-config', action='store_true', help='list every field of the config and exit'
  )

  evaluate = add(
    'eval',
    'Evaluate a run and write its report anew; or, with --config=FILE and '
    '--config.init.pretrained=SOURCE, weights from elsewhere as they are.',
  )
  evaluate.add_argument(
    '--split',
    help='test, validation or train (default: test; of a GAN evaluation.reference)',
  )
  evaluate.add_argument('--checkpoint', default='last', help='last, best, or a step')

  predict = add('predict', 'Classify image files, and all images in folders.')
  predict.add_argument('inputs', nargs='*', metavar='INPUT', help='file or folder')
  predict.add_argument('--checkpoint', default='last', help='last, best, or a step')
  predict.add_argument('--top', type=int, default=5, help='classes told per image')
  predict.add_argument('--json', action='store_true', help='print JSON')

  sample = add('sample', 'Draw images with the generator of a GAN.')
  sample.add_argument(
    '--weights',
    metavar='FILE',
    help='a generator that `export` wrote, instead of a run',
  )
  sample.add_argument('--checkpoint', default='last', help='last, best, or a step')
  sample.add_argument(
    '--output',
    metavar='PATH',
    help='PNG file (default: samples.png), or with --files '
    'the directory (default: samples)',
  )
  sample.add_argument('--count', type=int, default=64, help='images (default: 64)')
  sample.add_argument('--seed', type=int, default=0, help='of the noise (default: 0)')
  sample.add_argument(
    '--class',
    dest='label',
    metavar='CLASS',
    help='of a conditional GAN: name or number',
  )
  sample.add_argument(
    '--interpolate',
    type=int,
    default=0,
    metavar='ROWS',
    help='draw so many ways from one sample to another instead',
  )
  sample.add_argument('--files', action='store_true', help='a file for each image')
  sample.add_argument(
    '--scale', type=int, default=0, help='enlarge every pixel so many times'
  )

  distance = add(
    'distance', 'Measure one folder of images against another: FID and its kin.'
  )
  distance.add_argument('inputs', nargs='*', metavar='FOLDER', help='generated, real')
  distance.add_argument(
    '--features',
    default='inception',
    help='inception, the file of its weights, or the workdir of a classifier',
  )
  distance.add_argument(
    '--resizer', default='clean', choices=('clean', 'tensorflow'), help='for Inception'
  )
  distance.add_argument('--json', action='store_true', help='print JSON')

  compare = add('compare', 'Finished runs side by side: tables, curves, costs.')
  compare.add_argument('inputs', nargs='*', metavar='WORKDIR', help='of finished runs')
  compare.add_argument(
    '--output',
    default='comparison',
    metavar='DIR',
    help='directory (default: comparison)',
  )

  export = add(
    'export',
    'Write the weights of a run as safetensors, for PyTorch too; of a GAN its generator.',
  )
  export.add_argument(
    '--output', metavar='FILE', help='file (default: model.safetensors in the workdir)'
  )
  export.add_argument('--checkpoint', default='last', help='last, best, or a step')

  add('summary', "Print the model's layers, shapes, parameters and FLOPs.")

  benchmark = add('benchmark', 'Measure how fast a config trains here; keeps no run.')
  benchmark.add_argument('--steps', type=int, default=100, help='steps to time')
  benchmark.add_argument('--json', action='store_true', help='print JSON')

  prepare = add('prepare', 'Download and prepare TFDS sets, and decode them once.')
  prepare.add_argument('inputs', nargs='*', metavar='NAME', help='TFDS set')
  return main, commands.choices


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
  """Returns the parsed options and the config overrides ('data.name=cifar10', ...)."""
  overrides = [
    a.removeprefix('--config.') for a in arguments if a.startswith('--config.')
  ]
  rest = [a for a in arguments if not a.startswith('--config.')]
  main, commands = _parsers()
  first = rest[0] if rest else ''
  if first.startswith('-') and first not in ('-h', '--help', '--version'):
    rest = ['train', *rest]
  elif not rest:
    rest = ['train'] if overrides else ['--help']
  elif not first.startswith('-') and first not in commands:
    raise UserError(
      f'there is no command "{first}"{closest(first, commands)} (commands: '
      f'{", ".join(commands)})'
    )
  return main.parse_args(rest), overrides


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
  from jaxvision import api  # after the config, so that its mistakes show at once

  api.train(loaded, options.workdir, options.overwrite)
  return 0


def _eval(options: argparse.Namespace, overrides: list[str]) -> int:
  foreign = any(o.startswith('init.pretrained=') for o in overrides)
  if options.config and foreign and not options.workdir:
    loaded = config.load(options.config, overrides)
    from jaxvision import api

    api.evaluate_weights(loaded, options.split or 'test')
    return 0
  workdir = _run_directory(options, overrides)
  from jaxvision import api

  # With a config file the overrides named the run; they hold for its data as well.
  applied = [
    o for o in overrides if o.startswith(('data.', 'eval_batch_size', 'evaluation.'))
  ]
  api.evaluate(
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
  from jaxvision.deploy.inputs import find_images

  paths = find_images(options.inputs)
  from jaxvision.deploy.loading import load_classifier

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
  from jaxvision import api

  run = api.generator(workdir, options.weights, options.checkpoint)
  paths = api.sample(
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
  from jaxvision import api

  generated, real = options.inputs
  scores = api.compare_folders(generated, real, options.features, options.resizer)
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
  from jaxvision import api
  from jaxvision.evaluation.comparison_report import lines

  compared, page = api.compare(options.inputs, options.output)
  print(*lines(compared), f'report: {page}', sep='\n')
  return 0


def _export(options: argparse.Namespace, overrides: list[str]) -> int:
  workdir = _run_directory(options, overrides)
  from jaxvision import api

  print(f'exported: {api.export(workdir, options.output, options.checkpoint)}')
  return 0


def _summary(options: argparse.Namespace, overrides: list[str]) -> int:
  from jaxvision.engine.describe import describe_model

  if options.config:
    print(describe_model(config.load(options.config, overrides)))
    return 0
  from jaxvision.engine.rundir import RunDirectory

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
  from jaxvision import api

  result = api.benchmark(loaded, options.steps)
  if options.json:
    print(json.dumps(result, indent=2, allow_nan=False))
    return 0
  from jaxvision.engine.benchmark import render

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


def cli() -> int:
  """Runs the command line of this process: what `jaxvision` and `python -m` call."""
  _with_huge_pages()
  return main()


def _with_huge_pages() -> None:
  """Starts the program anew with a malloc that asks Linux for huge pages, once.

  XLA:CPU takes the memory of every step anew. In pages of 4 kB, a step of ResNet-18 with
  a batch of 64 has 240,000 page faults, a quarter of its time. glibc reads the setting
  when a process starts and at no other time; other libraries of C ignore it.
  """
  tunables = os.environ.get('GLIBC_TUNABLES', '')
  if sys.platform != 'linux' or 'glibc.malloc.hugetlb' in tunables:
    return
  setting = 'glibc.malloc.hugetlb=1'
  os.environ['GLIBC_TUNABLES'] = f'{tunables}:{setting}' if tunables else setting
  os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


if __name__ == '__main__':
  sys.exit(cli())
