"""The command line: `python -m jaxvision.main [COMMAND] --config=FILE ...`.

Commands and their options are in `cli.py`, what they do is in `jaxvision.commands`. Here
errors become exit codes: 0 success, 2 usage or config error, 3 training diverged, 1
internal error (a traceback).
"""

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxvision import config as config_lib
from jaxvision.cli import COMMANDS, parse
from jaxvision.errors import TrainingDiverged, UserError, disk_problem


class _StandardError(logging.Handler):
  """Prints what the library logs, such as that a set is being decoded."""

  def emit(self, record: logging.LogRecord) -> None:
    prefix = 'warning: ' if record.levelno >= logging.WARNING else ''
    print(prefix + record.getMessage(), file=sys.stderr, flush=True)


def run(arguments: Sequence[str]) -> int:
  """Runs a command; returns its exit code."""
  options, overrides = parse(arguments)
  command = COMMANDS[options.command]
  options.overrides, config = overrides, None
  if getattr(options, 'config', None):
    # Before the command is imported, so that a mistake in it shows at once.
    config = config_lib.load(options.config, overrides)
  elif overrides and not command.overrides:
    raise UserError(f'{options.command}: --config.{overrides[0]} needs --config=FILE')
  module = importlib.import_module(f'jaxvision.commands.{command.module}')
  return module.command(options, config)


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the exit code 0, 2 or 3, internal errors raise."""
  log = logging.getLogger('jaxvision')
  if not any(isinstance(handler, _StandardError) for handler in log.handlers):
    log.addHandler(_StandardError())
    log.setLevel(logging.INFO)
    log.propagate = False
  try:
    return run(sys.argv[1:] if arguments is None else arguments)
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
  command = arguments[0] if arguments and arguments[0] in COMMANDS else 'train'
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
