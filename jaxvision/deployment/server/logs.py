"""The log of a server: one JSON object a line, without images, names or addresses."""

import collections
import contextlib
import datetime
import json
import logging
import threading
import time
import traceback
from typing import IO, Any

_HELD = 10_000  # lines; a reader that stalls never holds up the server
_PAUSE = 0.2  # seconds between two writings


class Log:
  """Writes lines from a thread of its own, so that no request waits for a terminal.

  Args:
    stream: text; closed by whoever opened it.
  """

  def __init__(self, stream: IO[str]):
    self._stream = stream
    self._lines: collections.deque[dict[str, Any]] = collections.deque()
    self._dropped = 0
    self._closing = threading.Event()
    self._thread = threading.Thread(target=self._write, name='log', daemon=True)
    self._thread.start()

  def record(self, event: str, **fields: Any) -> None:
    """Logs something that happened; any thread may call it.

    Args:
      event: what it is, such as 'request'.
      fields: values for JSON.
    """
    if len(self._lines) >= _HELD:
      self._dropped += 1
      return
    self._lines.append({'time': time.time(), 'event': event, **fields})

  def fault(self, error: BaseException) -> None:
    """Logs an exception of ours with its traceback."""
    self.record('fault', error=repr(error), traceback=traceback.format_exception(error))

  def close(self) -> None:
    """Writes what is left; a stream that nobody reads is waited for a second."""
    self._closing.set()
    self._thread.join(1.0)

  def _write(self) -> None:
    while True:
      closing = self._closing.wait(_PAUSE)
      lines = [self._lines.popleft() for _ in range(len(self._lines))]
      if self._dropped:
        dropped, self._dropped = self._dropped, 0
        lines.append({'time': time.time(), 'event': 'dropped', 'lines': dropped})
      if lines:
        with contextlib.suppress(OSError, ValueError):  # closed, or a full disk
          self._stream.write(''.join(map(_line, lines)))
          self._stream.flush()
      if closing:
        return


def _line(record: dict[str, Any]) -> str:
  moment = datetime.datetime.fromtimestamp(record['time'], datetime.UTC)
  return (
    json.dumps({**record, 'time': moment.isoformat(timespec='milliseconds')}) + '\n'
  )


class Uvicorn(logging.Handler):
  """Has what uvicorn logs, from warnings on, in the same log."""

  def __init__(self, log: Log):
    super().__init__(logging.WARNING)
    self._log = log

  def emit(self, record: logging.LogRecord) -> None:
    error = record.exc_info and record.exc_info[1]
    if isinstance(error, Exception):
      self._log.fault(error)
    else:
      self._log.record('uvicorn', message=record.getMessage())
