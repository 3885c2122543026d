"""Which run a command reads: --workdir, or the default of --config."""

import argparse
from pathlib import Path

from ml_collections import ConfigDict

from jaxvision.errors import UserError


def workdir_of(options: argparse.Namespace, config: ConfigDict | None) -> str:
  """Returns the workdir that was given, or the default of the config."""
  if options.workdir:
    return options.workdir
  if config is None:
    raise UserError(f'{options.command}: name the run with --workdir=DIR')
  return str(Path('runs') / config.name)


def data_overrides(options: argparse.Namespace) -> tuple[str, ...]:
  """Returns the overrides that say where the data of a run are now."""
  return tuple(o for o in options.overrides if o.startswith('data.'))
