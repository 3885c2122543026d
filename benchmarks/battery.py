"""A list of entries that is worked through in pieces of time, each call going on.

An entry is one or several commands and the file in which they leave their result. What has
been done is in `state.json` of the battery's folder, what came out in `results.json`, what
was printed under `logs/`. Nothing here imports JAX: the device is the entries'.
"""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

# Exit codes of a training that a signal has stopped: saved, or before there was anything.
STOPPED = (4, 130)

_SAVE_SECONDS = 25.0  # that a training has to save in, once it is told to end
_END_SECONDS = 4.0  # that others have
_WORTH_BEGINNING = 90.0  # seconds of a training that can go on in the next call


def _say(line: str) -> None:
  print(line, flush=True)


@dataclasses.dataclass(frozen=True)
class Entry:
  """Something to measure.

  Attributes:
    name: of it, and of its log.
    commands: argument lists, run one after the other in the root of the project.
    shown: the last of them as a user types it, which goes into the result.
    result: the file, below the battery's folder, that the last command writes.
    target: where in the project the result belongs.
    seconds: that it is estimated to take; on a GPU, of one H100.
    resumes: whether the same command goes on where it was stopped by SIGTERM.
    data: sets that it reads.
    after: entries that have to be done before.
    torch: whether it wants PyTorch.
    gpus: that it wants.
    environment: variables of its own.
    headline: result -> what came out, in words.
  """

  name: str
  commands: tuple[tuple[str, ...], ...]
  shown: str
  result: str
  target: str
  seconds: float
  headline: Callable[[dict[str, Any]], str]
  resumes: bool = False
  data: tuple[str, ...] = ()
  after: tuple[str, ...] = ()
  torch: bool = False
  gpus: int = 1
  environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Battery:
  """The entries, and how far they have come.

  Args:
    folder: of state, results and logs.
    entries: in the order of their worth.
    environment: of the commands.
    unavailable: entry -> why it cannot run here, in words, or ''.
  """

  def __init__(
    self,
    folder: Path,
    entries: Sequence[Entry],
    environment: Mapping[str, str],
    unavailable: Callable[[Entry], str] = lambda entry: '',
  ):
    self.folder, self.entries = folder, entries
    self._environment, self._unavailable = environment, unavailable
    self.state: dict[str, dict[str, Any]] = _read(folder / 'state.json')
    self.results: dict[str, dict[str, Any]] = _read(folder / 'results.json')
    for known in self.state.values():
      if known['status'] == 'running':  # the battery itself was killed
        known['status'] = 'cut off'

  def status(self, entry: Entry) -> dict[str, Any]:
    """Returns {'status', 'seconds', 'why'} of an entry, 'open' where it has not begun."""
    return self.state.get(entry.name, {'status': 'open', 'seconds': 0.0, 'why': ''})

  def needed(self, entry: Entry) -> float:
    """Returns the seconds that the rest of an entry is estimated to take."""
    spent = self.status(entry)['seconds']
    if entry.resumes:
      return max(entry.seconds - spent, entry.seconds / 4)
    return max(entry.seconds, 1.5 * spent)

  def obstacle(self, entry: Entry, left: float) -> str:
    """Returns why an entry is not begun with so many seconds left, or ''."""
    if why := self._unavailable(entry):
      return why
    by_name = {other.name: other for other in self.entries}
    for name in entry.after:
      if name in by_name and self.status(by_name[name])['status'] != 'done':
        return f'needs {name}, which is {self.status(by_name[name])["status"]}'
    needed = self.needed(entry)
    if entry.resumes:
      enough = min(needed, _WORTH_BEGINNING) + _SAVE_SECONDS
    else:
      enough = needed + _END_SECONDS
    if left < enough:
      return f'needs about {_words(needed)}, and {_words(max(left, 0))} are left'
    return ''

  def run(
    self,
    wanted: Sequence[Entry],
    seconds: float,
    *,
    retry: bool = False,
    say: Callable[[str], None] = _say,
  ) -> None:
    """Works through the entries that fit, and ends before the time is over.

    Args:
      wanted: the entries, in their order.
      seconds: that this call may take.
      retry: whether to try those that failed before once more.
      say: prints a line.
    """
    end = time.monotonic() + seconds
    (self.folder / 'logs').mkdir(parents=True, exist_ok=True)
    over = ('done',) if retry else ('done', 'failed')
    for number, entry in enumerate(wanted, start=1):
      where = f'[{number}/{len(wanted)}] {entry.name}'
      known = self.status(entry)
      if known['status'] in over:
        continue
      if why := self.obstacle(entry, end - time.monotonic()):
        say(f'{where}: passed over: {why}')
        continue
      say(f'{where}: about {_words(self.needed(entry))}')
      known = self._execute(entry, end)
      took = f'{known["status"]} after {_words(known["seconds"])}'
      say(f'{where}: {took}{": " if known["why"] else ""}{known["why"]}')

  def _execute(self, entry: Entry, end: float) -> dict[str, Any]:
    """Runs an entry until its end or the battery's; returns its status."""
    before = self.status(entry)['seconds']
    begun = time.monotonic()

    def note(status: str, why: str = '') -> dict[str, Any]:
      seconds = before + time.monotonic() - begun
      self.state[entry.name] = {'status': status, 'seconds': seconds, 'why': why}
      _write(self.folder / 'state.json', self.state)
      return self.state[entry.name]

    note('running')
    until = end - (_SAVE_SECONDS if entry.resumes else _END_SECONDS)
    log = self.folder / 'logs' / f'{entry.name}.log'
    try:
      for command in entry.commands:
        code = self._command(entry, command, log, until)
        if code is None or (code in STOPPED and entry.resumes):
          return note('cut off')
        if code:
          return note('failed', f'exit code {code}: {_last_line(log)}')
    except KeyboardInterrupt:
      note('cut off')
      raise
    path = self.folder / entry.result
    try:
      found = json.loads(path.read_text())
      headline = entry.headline(found)
    except (OSError, ValueError, LookupError) as error:
      return note('failed', f'its result {entry.result} is not whole: {error!r}')
    found['command'] = entry.shown
    self.results[entry.target] = found
    _write(self.folder / 'results.json', self.results)
    return note('done', headline)

  def _command(
    self, entry: Entry, command: Sequence[str], log: Path, until: float
  ) -> int | None:
    """Runs a command; returns its exit code, None where the time was over before."""
    with log.open('ab') as file:
      process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**self._environment, **entry.environment},
        stdin=subprocess.DEVNULL,
        stdout=file,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # so that its children can be ended with it
      )
      try:
        return process.wait(max(0.0, until - time.monotonic()))
      except subprocess.TimeoutExpired:
        # It may have come to its end meanwhile; whatever else it made of the signal
        # is the time's fault and not its own.
        return 0 if _stop(process, entry.resumes) == 0 else None
      except KeyboardInterrupt:
        _stop(process, entry.resumes)
        raise


def _stop(process: subprocess.Popen, gently: bool) -> int | None:
  """Ends a command and its children; returns the exit code if it did so when asked to."""
  code = None
  with contextlib.suppress(subprocess.TimeoutExpired):
    if gently:
      process.terminate()
      code = process.wait(_SAVE_SECONDS - 5)
    else:
      os.killpg(process.pid, signal.SIGTERM)
      process.wait(_END_SECONDS / 2)
  with contextlib.suppress(ProcessLookupError):
    os.killpg(process.pid, signal.SIGKILL)
  process.wait()
  return code


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
  """Makes SIGTERM and SIGHUP what Ctrl-C is: the entry under way is stopped and noted.

  What is ignored, as SIGHUP is under nohup, stays so.
  """

  def interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt

  before = {
    number: signal.signal(number, interrupt)
    for number in (signal.SIGTERM, signal.SIGHUP)
    if signal.getsignal(number) != signal.SIG_IGN
  }
  try:
    yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def _last_line(log: Path) -> str:
  lines = log.read_text(errors='replace').splitlines()
  return next((line.strip() for line in reversed(lines) if line.strip()), 'no output')


def _words(seconds: float) -> str:
  whole = round(seconds)
  return f'{whole // 60}:{whole % 60:02} min'


def _read(path: Path) -> dict[str, Any]:
  try:
    return json.loads(path.read_text())
  except FileNotFoundError:
    return {}
  except ValueError as error:
    raise SystemExit(f'gpu: {path} is damaged ({error}): remove it') from error


def _write(path: Path, content: Mapping[str, Any]) -> None:
  """Writes a file whole or not at all."""
  part = path.with_suffix('.part')
  part.write_text(json.dumps(content, indent=2) + '\n')
  part.replace(path)


def has_module(python: str, module: str) -> bool:
  """Returns whether an interpreter has a module, without importing it."""
  code = f'import sys, importlib.util as u; sys.exit(u.find_spec({module!r}) is None)'
  try:
    return subprocess.run([python, '-c', code], check=False).returncode == 0
  except OSError as error:
    raise SystemExit(f'gpu: {python} does not start: {error.strerror}') from error


def count_gpus() -> int:
  """Returns the number of GPUs that nvidia-smi lists and CUDA_VISIBLE_DEVICES leaves."""
  try:
    listed = subprocess.run(
      ['nvidia-smi', '-L'], capture_output=True, text=True, check=True, timeout=60
    ).stdout
  except (OSError, subprocess.SubprocessError):
    return 0
  count = sum(line.startswith('GPU ') for line in listed.splitlines())
  visible = os.environ.get('CUDA_VISIBLE_DEVICES')
  if visible is None:
    return count
  return min(count, len([device for device in visible.split(',') if device.strip()]))
