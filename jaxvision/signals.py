"""What SIGINT (Ctrl-C), SIGTERM and SIGHUP do to a training, and to the command line.

In the training loop the first of them ends the loop after the step under way, with a
checkpoint. Anywhere else nothing can be saved: the process ends with one line and the
exit code 130. A second Ctrl-C ends it at once, wherever it is.

Python runs a handler in the main thread, between two of its own instructions: minutes
later, where XLA compiles. So on the command line a thread reads the signals as they arrive,
tells of them, and ends a process that has not ended by itself some seconds later. The
handler raises KeyboardInterrupt, so that files are closed and worker processes end; where
that is lost, as in a callback of the garbage collector, the process ends as it is.
"""

import contextlib
import dataclasses
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

STOPPED = 4  # exit code: stopped before its end and saved, the same command goes on
INTERRUPTED = 130  # exit code: there was nothing to save

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_GRACE_SECONDS = 5.0  # for files to be closed and processes to be ended

_log = logging.getLogger('jaxvision')


@dataclasses.dataclass
class _State:
  """What a signal finds.

  Attributes:
    loop: the event that ends the loop under way; None outside of any.
    promise: what happens once it is set, to be told.
    watched: whether a thread reads the signals of this process.
    ending: whether KeyboardInterrupt is on its way through the main thread.
    told: what was told of: loops that end, and None, the end of the process.
    handled: signals that have reached the main thread.
    code: the exit code, once the command has ended.
    stopped: whether a loop has ended and saved because of a signal.
    lost: the standard output that could not be written, or None.
    silenced: whether it was lost outside of a loop, and none has ended for it yet.
  """

  loop: threading.Event | None = None
  promise: str = ''
  watched: bool = False
  ending: bool = False
  told: list[threading.Event | None] = dataclasses.field(default_factory=list)
  handled: int = 0
  code: int | None = None
  stopped: bool = False
  lost: Any = None
  silenced: bool = False


_state = _State()
_telling = threading.RLock()


@contextlib.contextmanager
def stop_on_signal(
  promise: str = 'the step under way is finished and saved',
) -> Iterator[threading.Event]:
  """Yields an event that a signal sets; a second Ctrl-C raises KeyboardInterrupt.

  Within another `stop_on_signal` it is the event of that one.

  Args:
    promise: what happens once the event is set; the user is told.
  """
  if threading.current_thread() is not threading.main_thread():
    yield threading.Event()  # Python allows handlers in the main thread only
    return
  if _state.ending:  # whoever should have passed it on has not
    raise KeyboardInterrupt
  if _state.loop is not None:
    yield _state.loop
    return
  event = threading.Event()
  if _state.silenced:
    _state.silenced = False
    event.set()
  old = {} if _state.watched else _set_handlers()
  _state.loop, _state.promise = event, promise
  try:
    yield event
    _state.stopped = _state.watched and event.is_set()
  finally:
    _state.loop = None
    for number, handler in old.items():
      signal.signal(number, handler)


def output_lost(error: OSError) -> None:
  """Ends the training under way, or the next, as a signal would: nobody reads it.

  Args:
    error: what printing to standard output has raised; only the first one counts.
  """
  if sys.stdout is _state.lost:
    return
  _state.lost = sys.stdout
  discard_output()
  _log.warning(
    'standard output cannot be written (%s): training is saved and stops',
    error.strerror,
  )
  if _state.loop is not None:
    _state.loop.set()
  else:
    _state.silenced = True


def discard_output() -> None:
  """Sends the rest of the output nowhere, so that nothing raises for it again."""
  with contextlib.suppress(OSError, ValueError):  # a stream without a descriptor
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, sys.stdout.fileno())
    os.close(silent)


def exit_code() -> int:
  """Returns the exit code of a command that a signal has interrupted."""
  return STOPPED if _state.stopped else INTERRUPTED


def ending() -> bool:
  """Returns whether a signal is ending the process, whatever else was raised since."""
  return _state.ending


def install() -> None:
  """Has signals end this process with one line: the first act of the command line."""
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  _state.watched = True
  threading.Thread(target=_watch, args=(reader,), daemon=True).start()
  _set_handlers()
  original = sys.unraisablehook, sys.excepthook
  sys.unraisablehook = lambda event: _ends_here() or original[0](event)
  sys.excepthook = lambda *error: _ends_here() or original[1](*error)
  release()


def finish(code: int) -> None:
  """Tells that the command has ended: signals no longer change the exit code."""
  _state.code = code


def end(line: str, code: int) -> None:
  """Tells why and ends the process at once, from any thread.

  Args:
    line: to be told.
    code: exit code.
  """
  _state.code = code
  _tell(line)
  _exit()


def hold() -> None:
  """Keeps signals waiting until `release`, also over a start of the program anew."""
  signal.pthread_sigmask(signal.SIG_BLOCK, _NUMBERS)


def release() -> None:
  """Lets signals through that have waited since `hold`."""
  signal.pthread_sigmask(signal.SIG_UNBLOCK, _NUMBERS)


@contextlib.contextmanager
def hidden_from_children() -> Iterator[None]:
  """Processes started within do not see Ctrl-C and a closed terminal: their parent does.

  A terminal sends both to all processes in it, and each would print a traceback.
  """
  hidden = (signal.SIGINT, signal.SIGHUP)
  before = signal.pthread_sigmask(signal.SIG_BLOCK, hidden)
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _set_handlers() -> dict[int, Any]:
  """Sets the handlers and returns the former; what nohup has ignored stays so."""
  heard = [n for n in _NUMBERS if signal.getsignal(n) != signal.SIG_IGN]
  return {number: signal.signal(number, _handle) for number in heard}


def _handle(number: int, frame: Any) -> None:
  """Runs in the main thread."""
  _state.handled += 1
  loop = _state.loop
  if loop is not None and not loop.is_set():
    if _state.watched:
      _tell_once(number, loop)
    loop.set()
    return
  if number != signal.SIGINT and (loop is not None or _state.stopped):
    return  # sent again, while the checkpoint is being written
  if _state.ending or _state.code is not None:
    return  # the thread that reads signals sees to it
  _state.ending = _state.watched
  if _state.watched:
    _tell_once(number, None)
    if _importing(frame):
      _exit()
  raise KeyboardInterrupt


def _importing(frame: Any) -> bool:
  """Returns whether a module is being imported: some of C++ abort where that raises."""
  while frame is not None:
    if frame.f_code.co_filename.startswith('<frozen importlib'):
      return True
    frame = frame.f_back
  return False


def _ends_here() -> bool:
  """Ends the process if KeyboardInterrupt was on its way and did not get through."""
  if _state.ending:
    _exit()
  return False


def _watch(reader: int) -> None:
  """Reads the signals of the process, each as it arrives."""
  seen, ends = 0, False
  while True:
    for value in os.read(reader, 64):
      if value not in _NUMBERS:
        continue
      seen += 1
      number, loop = signal.Signals(value), _state.loop
      if _state.code is not None:
        os._exit(_state.code)
      if _state.handled >= seen and not _state.ending:
        continue  # the main thread was there first, and may have left its loop since
      if loop is not None and loop not in _state.told:
        _tell_once(number, loop)
      elif ends and number == signal.SIGINT:
        _exit()
      elif not ends and (number == signal.SIGINT or not (loop or _state.stopped)):
        ends = True
        _tell_once(number, None)
        late = threading.Timer(_GRACE_SECONDS, _exit_late, args=(loop is None,))
        late.daemon = True
        late.start()


def _tell_once(number: int, loop: threading.Event | None) -> None:
  """Tells what a signal ends, whichever thread comes first."""
  name = signal.Signals(number).name
  with _telling:
    if loop in _state.told:
      return
    _state.told.append(loop)
    if loop is None:
      _tell(f'interrupted by {name}: not finished; the same command can be given again')
    else:
      _tell(f'{name}: {_state.promise}; Ctrl-C again ends at once')


def _tell(line: str) -> None:
  with contextlib.suppress(OSError):  # the terminal may be what has ended
    os.write(2, f'{line}\n'.encode())


def _exit_late(outside: bool) -> None:
  """Ends the process, unless its signal met a loop, which has saved or does so."""
  if outside and _state.loop is not None and not _state.ending:
    return
  _exit()


def _exit() -> None:
  """Ends the process at once, and its children with it."""
  if 'multiprocessing.util' in sys.modules:
    # Its semaphores outlive a process that does not return them.
    returning = threading.Thread(target=_return_semaphores, daemon=True)
    returning.start()
    returning.join(1.0)
  os._exit(exit_code() if _state.code is None else _state.code)


def _return_semaphores() -> None:
  with contextlib.suppress(Exception):  # the main thread may be returning them, too
    sys.modules['multiprocessing.util']._exit_function()
