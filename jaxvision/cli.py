"""The options of the command line: each command, what it takes, and its help."""

import argparse
from collections.abc import Sequence

from jaxvision import __version__
from jaxvision.errors import UserError, closest

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
    if name not in ('prepare', 'benchmark', 'distance', 'compare', 'explore'):
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

  sweep = add(
    'sweep',
    'Many trials of a config, in search of the best values of some fields; or go on with '
    'a sweep that was stopped.',
  )
  sweep.add_argument('--sweep', metavar='FILE', help='sweep file: what is tried')
  sweep.add_argument(
    '--storage',
    metavar='URL',
    help='database, which several machines may share, such as '
    'postgresql://USER@HOST/NAME (default: sweep.db in the workdir)',
  )
  sweep.add_argument(
    '--take-over',
    action='store_true',
    help='go on with trials of other machines that have stopped',
  )

  explore = add(
    'explore',
    'What is in a data set: classes, samples, channels, duplicates, augmentation.',
  )
  explore.add_argument(
    '--output', metavar='DIR', help='directory (default: exploration/<config name>)'
  )
  explore.add_argument(
    '--images',
    type=int,
    default=0,
    help='look at the pixels of so many images at most (default: 100000; where they '
    'stream 20000)',
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
