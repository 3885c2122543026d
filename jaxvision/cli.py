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
from jaxvision.options import OPTIONS

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
    several=True,
  ),
  'launch': Command(
    'launch',
    'Run a command in several processes on this machine, which share its devices: '
    '`launch --processes=2 -- train --config=FILE`.',
    'none',
  ),
  'eval': Command(
    'eval',
    'Evaluate a run and write its report anew; or, with --config=FILE and '
    '--config.init.pretrained=SOURCE, evaluate weights as they are.',
    workdir=True,
    overrides=True,
    reads=(*_RUN, 'data.', 'eval_batch_size', 'evaluation.', *_DRAWING),
    several=True,
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
    several=True,
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
    if add := OPTIONS.get(name):
      add(parser)
  return main


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
  """Returns the parsed options and the config overrides ('data.name=cifar10', ...).

  Raises:
    UserError: an unknown command or option, an empty one, a config where none is taken,
      or an override of a field that the command does not read.
  """
  arguments = list(arguments)
  if arguments[:1] == ['launch']:  # what follows is another command's
    options = _parsers().parse_args(arguments)
    options.rest = options.rest[1:] if options.rest[:1] == ['--'] else options.rest
    options.is_ours = options.rest[:1] == [] or options.rest[0] in COMMANDS
    return options, []
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
