"""The table of commands: what each takes, and its help.

What a command does is `command(options, config)` in `jaxvision.commands.<its module>`,
which is imported once the options and the config are known to be right.
"""

import argparse
from collections.abc import Sequence

from jaxvision import __version__
from jaxvision.arguments import (
  Command,
  check_override,
  check_read,
  check_values,
  standing_alone,
  unknown_option,
)
from jaxvision.errors import UserError, closest, quoted

_OVERRIDES = """
Any field of the config is set by --config.KEY=VALUE, such as --config.seed=1
--config.data.dir=DIR --config.optimizer.learning_rate=0.05; `train --help-config`
lists every field.
"""


# The default workdir, in which the command looks for a run, is named after the config.
_RUN = ('name',)
# How a flow draws, which may change after training.
_DRAWING = ('flow.sampler', 'flow.steps', 'flow.guidance')
_NETWORK = (
  'task',
  'seed',
  'dtype',
  'deterministic',
  'data.',
  'augment.',
  'model.',
  'gan.',
  'flow.',
)
# What `eval` reads where it evaluates weights that come from elsewhere.
_WEIGHTS = (
  *(
    'task',
    'dtype',
    'deterministic',
    'batch_size',
    'eval_batch_size',
    'init.pretrained',
  ),
  *('data.', 'evaluation.', 'model.', 'loss.', 'metrics', 'augment.custom'),
)

COMMANDS = {
  'train': Command(
    'train',
    'Train, or go on with a run that was stopped.',
    workdir=True,
    overrides=True,
  ),
  'eval': Command(
    'eval',
    'Evaluate a run and write its report anew; or, with --config=FILE and '
    '--config.init.pretrained=SOURCE, evaluate weights as they are.',
    workdir=True,
    overrides=True,
    reads=(*_RUN, 'data.', 'eval_batch_size', 'evaluation.', *_DRAWING),
  ),
  'predict': Command(
    'predict',
    'Classify image files, and all images in folders.',
    workdir=True,
    reads=_RUN,
  ),
  'sample': Command(
    'sample',
    'Draw images with a GAN or a flow.',
    workdir=True,
    overrides=True,
    reads=(*_RUN, *_DRAWING),
  ),
  'serve': Command(
    'serve',
    'Serve a run or an exported file over HTTP, to this machine alone unless told '
    'otherwise: POST /predict for a classifier, GET /sample for a GAN or a flow; '
    '/openapi.json describes both. SIGTERM or Ctrl-C answers what was taken and ends '
    'with exit code 0.',
    workdir=True,
    reads=_RUN,
  ),
  'distance': Command(
    'distance',
    'Measure one folder of images against another: FID and related measures.',
    'none',
  ),
  'compare': Command(
    'compare', 'Compare finished runs side by side: tables, curves, costs.', 'none'
  ),
  'sweep': Command(
    'sweep',
    'Train many trials of a config in search of the best values of some fields, or go '
    'on with a sweep that was stopped. A workdir is that of one sweep. Where no trial '
    'came to a result, the exit code is 2, and 3 where all diverged.',
    'needed',
    workdir=True,
  ),
  'explore': Command(
    'explore',
    'Show what is in a data set: classes, samples, channels, duplicates, augmentation.',
    'needed',
    reads=(*_RUN, *_NETWORK),
  ),
  'export': Command(
    'export',
    'Write a run for other programs: its weights as safetensors, or the network as ONNX or '
    'StableHLO; of a GAN its generator, of a flow also how it draws.',
    workdir=True,
    overrides=True,
    reads=(*_RUN, 'data.'),
  ),
  'quantize': Command(
    'quantize',
    'Write a classifier as a smaller ONNX file, in int8 or with weights of 16 bits, and '
    'measure what that costs.',
    workdir=True,
    overrides=True,
    reads=(*_RUN, 'data.'),
  ),
  'summary': Command(
    'summary', "Print the model's layers, shapes, parameters and FLOPs.", workdir=True
  ),
  'benchmark': Command(
    'benchmark',
    'Measure how fast a config trains here; keeps no run.',
    'needed',
    reads=(
      *_RUN,
      *_NETWORK,
      *('batch_size', 'steps', 'epochs', 'label_smoothing', 'ema_decay', 'lookahead.'),
      *('init.', 'freeze', 'grad_accumulation', 'grad_clip', 'loss.', 'metrics'),
      *(
        'optimizer.',
        'schedule.',
        'steps_per_dispatch',
        'log_every_steps',
        'parallel.',
      ),
    ),
  ),
  'lr-find': Command(
    'lr_find',
    'Find a learning rate: train on a ramp of rates until the loss diverges, at most an '
    'epoch. Writes lr_find.json and lr_find.png into the workdir, and keeps no run.',
    'needed',
    workdir=True,
  ),
  'models': Command(
    'models',
    'List the trained classifiers that come with the package, show the card of one, or copy '
    'its files.',
    'none',
  ),
  'prepare': Command(
    'prepare',
    'Download and prepare TFDS sets, and decode them once.',
    overrides=True,
    reads=('data.',),
  ),
}


class _Parser(argparse.ArgumentParser):
  """Says what is wrong in one line, without the usage before it."""

  def error(self, message: str):
    raise UserError(f'{message} (see {self.prog} --help)')


def _parsers() -> _Parser:
  main = _Parser(
    prog='jaxvision',
    description='Trains image models from one config file each. Without a COMMAND it '
    'trains.',
    epilog=_OVERRIDES,
    allow_abbrev=False,
  )
  main.add_argument('--version', action='version', version=f'jaxvision {__version__}')
  commands = main.add_subparsers(dest='command', metavar='COMMAND')
  for name, command in COMMANDS.items():
    takes_config = command.config != 'none'
    parser = commands.add_parser(
      name,
      help=command.help,
      description=command.help,
      epilog=_OVERRIDES if takes_config else None,
      allow_abbrev=False,
    )
    if takes_config:
      parser.add_argument('--config', metavar='FILE', help='config file')
    if command.workdir:
      parser.add_argument(
        '--workdir', metavar='DIR', help='run directory (default: runs/<config name>)'
      )
    if add := _OPTIONS.get(name):
      add(parser)
  return main


def _train(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--overwrite', action='store_true', help='replace the run that is in the workdir'
  )
  parser.add_argument(
    '--extend',
    action='store_true',
    help='go on with the run in the workdir for more epochs, or with another learning '
    'rate or schedule, from its last step on',
  )
  parser.add_argument(
    '--seeds',
    type=int,
    default=0,
    metavar='N',
    help='train N seeds one after the other, in WORKDIR-seed0, WORKDIR-seed1, ...',
  )
  parser.add_argument(
    '--help-config', action='store_true', help='list every field of the config and exit'
  )


def _average(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--average',
    type=int,
    metavar='N',
    help='take the mean of the weights of the last N checkpoints (checkpoint.keep)',
  )


def _eval(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--split',
    help='test, validation or train (default: test; for a GAN or a flow '
    'evaluation.reference)',
  )
  parser.add_argument('--checkpoint', default='last', help='last, best, or a step')
  _average(parser)


def _predict(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('inputs', nargs='*', metavar='INPUT', help='file or folder')
  parser.add_argument(
    '--model',
    metavar='FILE',
    help='what `export` or `quantize` wrote, or a name that `models` lists, instead of a '
    'run',
  )
  parser.add_argument('--checkpoint', default='last', help='last, best, or a step')
  parser.add_argument(
    '--top', type=int, default=5, help='classes listed for each image (default: 5)'
  )
  parser.add_argument('--json', action='store_true', help='print JSON')


def _sample(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--weights',
    metavar='FILE',
    help='a GAN or a flow that `export` wrote, instead of a run',
  )
  parser.add_argument('--checkpoint', default='last', help='last, best, or a step')
  parser.add_argument(
    '--output',
    metavar='PATH',
    help='PNG file (default: samples.png), or with --files '
    'the directory (default: samples)',
  )
  parser.add_argument('--count', type=int, default=64, help='images (default: 64)')
  parser.add_argument(
    '--seed', type=int, default=0, help='seed of the noise (default: 0)'
  )
  parser.add_argument(
    '--class',
    dest='label',
    metavar='CLASS',
    help='class to draw, by name or number, where the model is conditional',
  )
  parser.add_argument(
    '--interpolate',
    type=int,
    default=0,
    metavar='ROWS',
    help='draw this many rows of interpolation between samples instead',
  )
  parser.add_argument('--files', action='store_true', help='a file for each image')
  parser.add_argument(
    '--scale', type=int, default=0, help='pixels drawn for each pixel of an image'
  )


def _serve(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--model', metavar='FILE', help='a file that `export` wrote, instead of a run'
  )
  parser.add_argument('--checkpoint', default='last', help='last, best, or a step')
  parser.add_argument(
    '--host',
    default='127.0.0.1',
    help='interface to listen on (default: 127.0.0.1, which other machines cannot '
    'reach; 0.0.0.0: all)',
  )
  parser.add_argument(
    '--port', type=int, default=8000, help='0: any free one (default: 8000)'
  )
  parser.add_argument(
    '--allowed-host',
    action='append',
    default=[],
    metavar='NAME',
    help='name by which clients may ask for the server, beside those of this machine, such '
    'as that of a proxy; may be given several times; *: any (default where --host is no '
    'loopback address)',
  )
  parser.add_argument(
    '--cors-origin',
    action='append',
    default=[],
    metavar='ORIGIN',
    help='pages of this origin may ask too, such as https://example.org (default: none)',
  )
  for name, kind, default, text in (
    ('--max-batch', int, 32, 'images that go through the network at once'),
    ('--max-delay-ms', float, 5.0, 'milliseconds that an image waits for others'),
    ('--queue', int, 1024, 'images that wait; beyond: 429'),
    ('--max-images', int, 64, 'images in a request, or drawn for one'),
    ('--max-body-mb', float, 32.0, 'megabytes of a request'),
    ('--max-megapixels', float, 25.0, 'megapixels of an image'),
    ('--max-connections', int, 256, 'connections at once; beyond: 503'),
    ('--timeout', float, 30.0, "seconds for a request's head, its body, its answer"),
  ):
    parser.add_argument(
      name,
      type=kind,
      default=default,
      metavar='N',
      help=f'{text} (default: {default:g})',
    )


def _distance(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('inputs', nargs='*', metavar='FOLDER', help='generated, real')
  parser.add_argument(
    '--features',
    default='inception',
    help='inception, the file of its weights, or the workdir of a classifier',
  )
  parser.add_argument(
    '--resizer', default='clean', choices=('clean', 'tensorflow'), help='for Inception'
  )
  parser.add_argument('--json', action='store_true', help='print JSON')


def _compare(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    'inputs', nargs='*', metavar='WORKDIR', help='workdir of a finished run'
  )
  parser.add_argument(
    '--output',
    default='comparison',
    metavar='DIR',
    help='directory (default: comparison)',
  )


def _sweep(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('--sweep', metavar='FILE', help='sweep file: the search space')
  parser.add_argument(
    '--storage',
    metavar='URL',
    help='database, which several machines may share, such as '
    'postgresql://USER@HOST/NAME (default: sweep.db in the workdir)',
  )
  parser.add_argument(
    '--take-over',
    action='store_true',
    help='go on with trials of other machines that have stopped',
  )


def _explore(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--output', metavar='DIR', help='directory (default: exploration/<config name>)'
  )
  parser.add_argument(
    '--images',
    type=int,
    default=0,
    help='largest number of images whose pixels are read (default: 100000, or 20000 '
    'where they stream)',
  )


def _export(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--format',
    choices=('safetensors', 'onnx', 'stablehlo', 'web'),
    help='what is written (default: what the suffix of --output says, or safetensors); '
    'web: a folder with a page that runs the network in the browser, or one .html',
  )
  parser.add_argument(
    '--output',
    metavar='FILE',
    help='file, .safetensors, .onnx, .stablehlo or .html (default: model.FORMAT, or the '
    'folder web, in the workdir)',
  )
  parser.add_argument(
    '--verify',
    action='store_true',
    help='compare with the run on the whole test split, too',
  )
  parser.add_argument(
    '--model',
    metavar='FILE',
    help='of --format=web: the ONNX file that the page runs, as `quantize` wrote '
    '(default: the run in float32)',
  )
  parser.add_argument(
    '--license',
    metavar='NAME',
    help='licence of the weights, for the metadata and the page, such as MIT',
  )
  parser.add_argument(
    '--single-file',
    action='store_true',
    help='of --format=web: one HTML file, which needs no host',
  )
  parser.add_argument(
    '--runtime',
    metavar='PATH',
    help='of --format=web: folder or archive of onnxruntime-web (default: it is '
    'downloaded once)',
  )
  parser.add_argument(
    'inputs',
    nargs='*',
    metavar='WORKDIR',
    help='runs of one model, whose weights are averaged, instead of --workdir',
  )
  parser.add_argument('--checkpoint', default='last', help='last, best, or a step')
  _average(parser)


def _quantize(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--output', metavar='FILE', help='file (default: model.TYPE.onnx in the workdir)'
  )
  parser.add_argument(
    '--type', default='int8', help='int8, float16 or bfloat16 (default: int8)'
  )
  parser.add_argument(
    '--method',
    default='minmax',
    help='ranges of activations in int8: minmax, percentile or entropy (default: minmax)',
  )
  parser.add_argument(
    '--images',
    type=int,
    default=512,
    help='training images that int8 is calibrated on (default: 512)',
  )
  parser.add_argument(
    '--seed', type=int, default=0, help='seed of their choice (default: 0)'
  )
  parser.add_argument(
    '--max-loss',
    type=float,
    default=0.3,
    metavar='POINTS',
    help='accuracy that int8 may lose on other training images, before the layers that '
    'cost most stay in float32 (default: 0.3)',
  )
  parser.add_argument('--checkpoint', default='last', help='last, best, or a step')


def _benchmark(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('--steps', type=int, default=100, help='steps to time')
  parser.add_argument('--json', action='store_true', help='print JSON')


def _lr_find(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--min', type=float, default=1e-6, help='rate of the first step (default: 1e-6)'
  )
  parser.add_argument(
    '--max', type=float, default=10.0, help='rate of the last step (default: 10)'
  )
  parser.add_argument(
    '--steps', type=int, default=200, help='steps of the ramp (default: 200)'
  )


def _models(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('inputs', nargs='*', metavar='NAME', help='model to show')
  parser.add_argument('--copy', metavar='DIR', help='copy its files into a directory')


def _prepare(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('inputs', nargs='*', metavar='NAME', help='TFDS set')
  parser.add_argument('--cached', action='store_true', help='list the decoded sets')
  parser.add_argument(
    '--drop',
    action='append',
    default=[],
    metavar='FOLDER',
    help='delete a decoded set that --cached lists',
  )


_OPTIONS = {
  'train': _train,
  'eval': _eval,
  'predict': _predict,
  'sample': _sample,
  'serve': _serve,
  'distance': _distance,
  'compare': _compare,
  'sweep': _sweep,
  'explore': _explore,
  'export': _export,
  'quantize': _quantize,
  'benchmark': _benchmark,
  'lr-find': _lr_find,
  'models': _models,
  'prepare': _prepare,
}


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
  """Returns the parsed options and the config overrides ('data.name=cifar10', ...).

  Raises:
    UserError: an unknown command or option, an empty one, a config where none is taken,
      or an override of a field that the command does not read.
  """
  arguments = list(arguments)
  for argument, following in zip(arguments, [*arguments[1:], '-']):
    check_override(argument, following)
  overrides = [
    a.removeprefix('--config.') for a in arguments if a.startswith('--config.')
  ]
  rest = [a for a in arguments if not a.startswith('--config.')]
  first = rest[0] if rest else ''
  if first.startswith('-') and first not in ('-h', '--help', '--version'):
    rest = ['train', *rest]
  elif not rest:
    rest = ['train'] if overrides else ['--help']
  elif first not in COMMANDS and not first.startswith('-'):
    hint = closest(first, COMMANDS) or standing_alone('train', COMMANDS['train'], first)
    raise UserError(
      f'there is no command {quoted(first)}{hint} (commands: {", ".join(COMMANDS)})'
    )
  options, unknown = _parsers().parse_known_args(rest)
  command = COMMANDS[options.command]
  if hasattr(options, 'inputs'):  # argparse leaves those behind a second option
    options.inputs += [a for a in unknown if not a.startswith('-')]
    unknown = [a for a in unknown if a.startswith('-')]
  if unknown:
    raise unknown_option(options, command, unknown[0])
  check_values(options)
  if command.config == 'none' and overrides:
    raise UserError(
      f'{options.command}: takes no config, and so no --config.{overrides[0]}'
    )
  foreign = options.command == 'eval' and any(
    override.startswith('init.pretrained=') for override in overrides
  )
  check_read(options, overrides, _WEIGHTS if foreign else command.reads)
  if command.config == 'needed' and not options.config:
    raise UserError(
      f'{options.command}: name a config with --config=FILE, such as '
      'configs/digits_cnn.py'
    )
  return options, overrides
