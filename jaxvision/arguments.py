"""What may be wrong with the arguments of a command line, beside what argparse finds."""

import argparse
import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path

from jaxvision.config.hints import kind_of, meant
from jaxvision.errors import UserError, quoted
from jaxvision.io import local_path


@dataclasses.dataclass(frozen=True)
class Command:
  """One command.

  Attributes:
    module: of `jaxvision.commands`.
    help: one sentence.
    config: what --config is to it: 'needed', 'optional', or 'none'.
    workdir: whether it takes --workdir.
    overrides: whether --config.KEY=VALUE is for the command itself to apply: there may
      be no --config file.
    reads: the fields of the config that it reads, or how their paths begin: any other
      is refused as an override.
    several: whether several processes can share its work.
  """

  module: str
  help: str
  config: str = 'optional'
  workdir: bool = False
  overrides: bool = False
  reads: tuple[str, ...] = ('',)
  several: bool = False


# Options that are paths, and the commands whose arguments are.
_PATHS = ('config', 'workdir', 'output', 'weights', 'sweep')
_INPUTS_ARE_PATHS = ('predict', 'distance', 'compare', 'export')


def check_values(options: argparse.Namespace) -> None:
  """Raises UserError where an option or argument is empty; expands ~ in paths."""
  for name, value in vars(options).items():
    option = f'{options.command}: --{"class" if name == "label" else name}'
    if value == '' or (isinstance(value, list) and '' in value):
      if name == 'inputs':
        raise UserError(f"{options.command}: one of its arguments is empty ('')")
      raise UserError(f'{option} is empty: give it a value, or leave it out')
    if name in _PATHS and value is not None:
      setattr(options, name, str(local_path(value, option)))
    elif name == 'inputs' and options.command in _INPUTS_ARE_PATHS:
      options.inputs = [str(local_path(v, options.command)) for v in value]


def check_override(argument: str, following: str) -> None:
  """Raises UserError where the value of an override stands behind a space."""
  key, equals, _ = argument.removeprefix('--config.').partition('=')
  if not argument.startswith('--config.') or equals or following.startswith('-'):
    return
  kind = kind_of(key)
  boolean = following.lower() in ('true', 'false', '0', '1')
  if kind is not None and (kind is not bool or boolean):
    raise UserError(
      f'config: --config.{key} needs its value behind an equals sign: '
      f'--config.{key}={following}'
    )


def check_read(
  options: argparse.Namespace, overrides: Sequence[str], reads: Sequence[str]
) -> None:
  """Raises UserError for an override of a field that a command does not read.

  Args:
    options: of the command.
    overrides: 'data.name=cifar10' and the like.
    reads: see `Command`.
  """
  if getattr(options, 'workdir', None):  # no default of it is looked for
    reads = [field for field in reads if field != 'name']
  for override in overrides:
    field = override.partition('=')[0]
    if not field.startswith(tuple(reads)):
      taken = ', '.join(f'{r}*' if r.endswith('.') else r for r in reads)
      raise UserError(
        f'{options.command} takes no --config.{quoted(field)[1:-1]}: of a config it '
        f'reads {taken or "that of the run alone"}'
      )


# What other programs call the run directory, and going on with a run.
_WORKDIRS = (
  'logdir',
  'log_dir',
  'output',
  'output_dir',
  'out_dir',
  'save_dir',
  'run_dir',
)
_RESUMING = ('resume', 'continue', 'auto_resume', 'restart')


def standing_alone(command: str, takes: Command, argument: str) -> str:
  """Returns ', did you mean "..."?' for an argument that wants an option, or ''."""
  if takes.config != 'none' and argument.endswith(('.py', 'config.json')):
    return f', did you mean "{command} --config={argument}"?'
  if takes.workdir and Path(argument).is_dir():
    return f', did you mean "{command} --workdir={argument}"?'
  return ''


def unknown_option(
  options: argparse.Namespace, takes: Command, argument: str
) -> UserError:
  """Returns the error for an option or argument that a command does not take."""
  command = options.command
  option, equals, value = argument.partition('=')
  if not option.startswith('-'):
    hint = standing_alone(command, takes, argument)
    return UserError(
      f'{command} takes no argument {quoted(argument)}{hint or f" (see {command} --help)"}'
    )
  key = option.lstrip('-').replace('-', '_')
  near = difflib.get_close_matches(key, list(vars(options)), n=1, cutoff=0.8)
  field = meant(key) if takes.config != 'none' else None
  if near and near[0] not in ('command', 'inputs') and field != key:
    hint = f'did you mean "--{near[0].replace("_", "-")}"?'
  elif key in _RESUMING and takes.workdir:
    hint = 'the same command with the same --workdir goes on with a run by itself'
  elif key in _WORKDIRS and takes.workdir:
    hint = f'did you mean "--workdir={value or "DIR"}"?'
  elif field and field.startswith(takes.reads):
    hint = f'did you mean "--config.{field}={value or "VALUE"}"?'
  else:
    hint = f'see {command} --help'
  return UserError(
    f'{command} has no option {quoted(argument if equals else option)}: {hint}'
  )
