"""The log never holds up a server, and says what it left out."""

import io
import json
import threading

from jaxvision.deployment.server import logs


def test_a_reader_that_stalls_costs_lines_and_no_time(monkeypatch):
  monkeypatch.setattr(logs, '_HELD', 5)
  monkeypatch.setattr(logs, '_PAUSE', 0.01)
  go_on, entered = threading.Event(), threading.Event()

  class Stalled(io.StringIO):
    def write(self, text):
      entered.set()
      go_on.wait(30)
      return super().write(text)

  stream = Stalled()
  log = logs.Log(stream)
  log.record('first')
  assert entered.wait(30)
  for number in range(20):
    log.record('next', number=number)
  go_on.set()
  log.close()
  lines = [json.loads(line) for line in stream.getvalue().splitlines()]
  assert [line['event'] for line in lines] == ['first', *['next'] * 5, 'dropped']
  assert lines[-1]['lines'] == 15


def test_a_fault_has_its_traceback_in_one_line():
  stream = io.StringIO()
  log = logs.Log(stream)
  try:
    raise ValueError('wrong\nin two lines')
  except ValueError as error:
    log.fault(error)
  log.close()
  (line,) = stream.getvalue().splitlines()
  found = json.loads(line)
  assert 'ValueError' in found['error']
  assert 'test_logs.py' in ''.join(found['traceback'])


def test_a_closed_stream_is_no_fault():
  stream = io.StringIO()
  log = logs.Log(stream)
  stream.close()
  log.record('unheard')
  log.close()
