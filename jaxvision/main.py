"""The command line: `python -m jaxvision.main [COMMAND] --config=FILE ...`.

Commands and their options are in `cli.py`, what they do is in `jaxvision.commands`. Here
errors become exit codes: 0 success, 2 usage or config error, 3 training diverged, 4
stopped before its end and saved (the same command goes on), 130 interrupted where there
was nothing to save, 1 internal error (a traceback).
"""

import contextlib
import importlib
import importlib.util
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxvision import signals
from jaxvision.errors import TrainingDiverged, UserError, disk_problem


class _StandardError(logging.Handler):
  """Prints what the library logs, such as that a set is being decoded."""

  def emit(self, record: logging.LogRecord) -> None:
    prefix = 'warning: ' if record.levelno >= logging.WARNING else ''
    _tell(prefix + record.getMessage())


def _tell(line: str) -> None:
  with contextlib.suppress(OSError):  # the terminal may be closed
    print(line, file=sys.stderr, flush=True)


class _Output:
  """Standard output, which keeps what it raised: a full disk is not always the workdir's.

  Args:
    stream: where it writes.

  Attributes:
    error: the last that it raised, or None.
  """

  def __init__(self, stream: Any):
    self._stream = stream
    self.error: OSError | None = None

  def write(self, text: str) -> int:
    """Writes text, as a stream does."""
    return self._noting(self._stream.write, text)

  def flush(self) -> None:
    """Flushes what was written, as a stream does."""
    self._noting(self._stream.flush)

  def _noting(self, act: Callable[..., Any], *arguments: str) -> Any:
    try:
      return act(*arguments)
    except OSError as error:
      self.error = error
      raise

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)


def run(arguments: Sequence[str]) -> int:
  """Runs a command; returns its exit code."""
  from jaxvision.cli import COMMANDS, parse  # not before `with_huge_pages`

  options, overrides = parse(arguments)
  command = COMMANDS[options.command]
  options.overrides, config = overrides, None
  if getattr(options, 'config', None):
    from jaxvision import (
      config as config_lib,  # half of the time until signals are heard
    )

    # Before the command is imported, so that a mistake in it shows at once.
    config = config_lib.load(options.config, overrides)
  elif overrides and not command.overrides:
    raise UserError(f'{options.command}: --config.{overrides[0]} needs --config=FILE')
  if not command.several and options.command != 'launch':
    from jaxvision.training.process_group import check_alone

    check_alone(options.command, os.environ)
  module = importlib.import_module(f'jaxvision.commands.{command.module}')
  return module.command(options, config)


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the exit code, internal errors raise."""
  log = logging.getLogger('jaxvision')
  if not any(isinstance(handler, _StandardError) for handler in log.handlers):
    log.addHandler(_StandardError())
    log.setLevel(logging.INFO)
    log.propagate = False
  output = _Output(sys.stdout)
  try:
    with contextlib.redirect_stdout(output):
      code = run(sys.argv[1:] if arguments is None else arguments)
      output.flush()
    return code
  except KeyboardInterrupt:
    return _interrupted()
  except UserError as error:
    _tell(f'error: {error}')
    return 2
  except TrainingDiverged as error:
    _tell(f'error: {error}')
    return 3
  except Exception as error:
    problem: str | None
    if signals.ending():  # as a library has reworded it
      return _interrupted()
    if _of_several():  # it may be for want of a process that has died
      sys.modules['jaxvision.training.processes'].await_verdict(error)
    if error is output.error:
      signals.discard_output()
      if isinstance(error, BrokenPipeError):  # `| head` has read enough
        return signals.INTERRUPTED
      problem = f'standard output cannot be written: {output.error.strerror}'
    else:
      problem = disk_problem(error)
    if problem is None:
      raise
    _tell(f'error: {problem}')
    return 2


def _interrupted() -> int:
  if not signals.ending():  # else it has been told as the signal came
    _tell('interrupted')
  return signals.exit_code()


# They take many steps; for the others a second start of Python would be for nothing.
_WANT_HUGE_PAGES = ('train', 'sweep', 'benchmark', 'lr-find')
_ONLY_PRINT = frozenset({'-h', '--help', '--help-config', '--version'})


_GRACE_SECONDS = 3.0  # for the other processes of a run to tell of an error, too


def _of_several() -> bool:
  """Returns whether this process is one of several; imports nothing."""
  processes = sys.modules.get('jaxvision.training.processes')
  return processes is not None and processes.joined()


def _end_of_several(code: int) -> None:
  """Ends a process that failed at once: JAX would wait for the others, and they for it."""
  if not _of_several():
    return
  processes = sys.modules['jaxvision.training.processes']
  processes.leave(0 if code == signals.STOPPED else code)
  if code in (0, signals.STOPPED):
    return
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError, ValueError):
      stream.flush()
  if processes.is_writer():
    # With the first ends the service through which the others hear why.
    time.sleep(_GRACE_SECONDS)
  os._exit(code)


def cli() -> int:
  """Runs the command line of this process: what `jaxvision` and `python -m` call."""
  arguments = sys.argv[1:]
  command = arguments[0] if arguments and arguments[0][:1] != '-' else 'train'
  try:
    signals.install()
    hide_log_of_xla()
    if command in _WANT_HUGE_PAGES and _ONLY_PRINT.isdisjoint(arguments):
      signals.hold()  # until the program that is started anew hears them
      with_huge_pages()
      signals.release()
    code = main()
  except KeyboardInterrupt:
    code = _interrupted()
  except Exception:
    if not _of_several():
      raise
    traceback.print_exc()
    code = 1
  signals.finish(code)
  _end_of_several(code)
  return code


def hide_log_of_xla() -> None:
  """Hides what XLA logs, unless the user set a level or JAX has a GPU build.

  JAX 0.10 logs two lines of 1,700 characters, as errors, for each program that comes out
  of the compile cache of an AMD processor: that the processor prefers no gathers is among
  the features the program was compiled for, and not among those it is held against. The
  program is right. With a GPU build, the errors in the log are those of CUDA, and stay.
  """
  if importlib.util.find_spec('jax_plugins') is None:
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')  # read when jaxlib is loaded


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
