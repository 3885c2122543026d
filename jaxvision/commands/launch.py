"""`jaxvision launch`: the processes of one run on this machine."""

import argparse
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ml_collections import ConfigDict

from jaxvision import signals
from jaxvision.errors import UserError

_log = logging.getLogger('jaxvision')

_GRACE_SECONDS = 10.0  # that the others have to end, once one has failed
# Exit codes after which the same would happen again: usage, divergence; or that was meant.
_FINAL = (0, 2, 3, signals.STOPPED, signals.INTERRUPTED)


def command(options: argparse.Namespace, config: ConfigDict | None) -> int:
  """Runs a command in several processes; returns the code of the first that failed."""
  del config
  count, devices = options.processes, options.devices_per_process
  if count < 1:
    raise UserError(f'launch: --processes must be at least 1, not {count}')
  if devices < 0:
    raise UserError(f'launch: --devices-per-process must be at least 0, not {devices}')
  if options.restarts < 0:
    raise UserError(f'launch: --restarts must be at least 0, not {options.restarts}')
  if options.restarts and options.is_ours and '--overwrite' in options.rest:
    raise UserError(
      'launch: with --overwrite each of the --restarts would begin the run anew: leave one '
      'of the two out'
    )
  if not options.rest:
    raise UserError(
      'launch: name the command to run: jaxvision launch --processes=2 -- '
      'train --config=configs/digits_cnn.py'
    )
  program = program_of(options.rest, options.is_ours)
  with signals.stop_on_signal('it is passed on to every process') as stop:
    for left in reversed(range(options.restarts + 1)):
      code = launch(program, count, devices, stop)
      if code in _FINAL or stop.is_set() or not left:
        break
      _log.warning(
        'launch: a process ended with exit code %d; all are started again, and %d time(s) '
        'more if need be',
        code,
        left - 1,
      )
  return code


def program_of(arguments: Sequence[str], is_ours: bool) -> list[str]:
  """Returns the command line of a process.

  Args:
    arguments: a command of `jaxvision`; or a Python file, or a program, with its own.
    is_ours: whether they begin with the name of a command.
  """
  if is_ours or arguments[0].startswith('--'):
    return [sys.executable, '-m', 'jaxvision.main', *arguments]
  if arguments[0].endswith('.py'):
    return [sys.executable, *arguments]
  return list(arguments)


def environment(
  environ: Mapping[str, str], index: int, count: int, port: int, devices: int
) -> dict[str, str]:
  """Returns the variables of one process.

  Args:
    environ: those of the launcher.
    index: of the process.
    count: of processes.
    port: at which they meet.
    devices: that each has: GPUs of those that the launcher sees, or simulated ones where
      it computes on the CPU; 0: an equal share of the GPUs.

  Raises:
    UserError: there are not so many GPUs.
  """
  own = {
    **environ,
    'JAX_COORDINATOR_ADDRESS': f'127.0.0.1:{port}',
    'JAX_NUM_PROCESSES': str(count),
    'JAX_PROCESS_ID': str(index),
  }
  if environ.get('JAX_PLATFORMS') == 'cpu':
    return {**own, 'JAX_NUM_CPU_DEVICES': str(devices)} if devices else own
  seen = environ.get('CUDA_VISIBLE_DEVICES')
  names = seen.split(',') if seen else [str(i) for i in range(_gpus())]
  if not names and not devices:
    return own
  share = devices or len(names) // count
  if not share or len(names) < count * share:
    raise UserError(
      f'launch: {count} processes of {share or 1} devices want more than the {len(names)} '
      'GPU(s) here (CUDA_VISIBLE_DEVICES); JAX_PLATFORMS=cpu simulates devices'
    )
  mine = names[index * share : (index + 1) * share]
  return {**own, 'CUDA_VISIBLE_DEVICES': ','.join(mine)}


def _gpus() -> int:
  """Returns the number of GPUs of this machine, without starting a backend."""
  return len(list(Path('/proc/driver/nvidia/gpus').glob('*')))


def launch(
  program: Sequence[str], count: int, devices: int, stop: threading.Event
) -> int:
  """Runs a program in processes that meet on this machine.

  Each line that they print begins with the number of its process. Once one has ended with
  an error, the others are ended.

  Args:
    program: the command line.
    count: of processes.
    devices: of each, see `environment`.
    stop: set by a signal, which is then passed on to all.

  Returns:
    0, or the exit code of the first that failed; 4 where a signal has stopped a training.
  """
  port = _free_port()
  children: list[subprocess.Popen] = []
  readers: list[threading.Thread] = []
  try:
    for index in range(count):
      child = subprocess.Popen(
        program,
        env=environment(os.environ, index, count, port, devices),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors='replace',
        # A terminal sends Ctrl-C to all in it: each would hear it twice.
        start_new_session=True,
      )
      children.append(child)
      for source, target in ((child.stdout, sys.stdout), (child.stderr, sys.stderr)):
        reader = threading.Thread(
          target=_copy, args=(source, target, f'[{index}] '), daemon=True
        )
        reader.start()
        readers.append(reader)
    code = _wait(children, stop)
  except OSError as error:
    raise UserError(f'launch: {program[0]} cannot be run: {error.strerror}') from error
  finally:
    _end(children)
  for reader in readers:
    reader.join(5.0)
  return code


def _wait(children: Sequence[subprocess.Popen], stop: threading.Event) -> int:
  """Waits until all have ended, or one has failed; returns its code, or 0."""
  passed, deadline, first = False, float('inf'), 0
  while True:
    codes = [child.poll() for child in children]
    # One that a signal has stopped leaves the others time to save as it did.
    failed = [code for code in codes if code not in (None, 0, signals.STOPPED)]
    if failed and not first:
      first = failed[0]
      # Others may be about to end as it did, each with its own line.
      deadline = time.monotonic() + _GRACE_SECONDS
    if None not in codes or time.monotonic() > deadline:
      return _shell_code(first) if failed else max(codes)
    if stop.is_set() and not passed:
      passed = True
      for child in children:
        if child.poll() is None:
          child.send_signal(signal.SIGTERM)
    time.sleep(0.05)


def _end(children: Sequence[subprocess.Popen]) -> None:
  """Kills what still runs."""
  for child in children:
    if child.poll() is None:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
      child.wait()


def _shell_code(code: int) -> int:
  return 128 - code if code < 0 else code


def _copy(source: IO[str] | None, target: Any, prefix: str) -> None:
  """Copies lines, each behind a prefix."""
  assert source
  with source, contextlib.suppress(OSError, ValueError):
    for line in source:
      target.write(prefix + line.removesuffix('\n') + '\n')
      target.flush()


def _free_port() -> int:
  with socket.socket() as found:
    found.bind(('127.0.0.1', 0))
    return found.getsockname()[1]
