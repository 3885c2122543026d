"""Signals end a command with one line, and a training loop with a checkpoint."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from jaxvision import signals

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def of_its_own(monkeypatch):
  """Each test finds the state of a process that has just started."""
  monkeypatch.setattr(signals, '_state', signals._State())
  before = {number: signal.signal(number, signal.SIG_DFL) for number in NUMBERS}
  yield
  for number, handler in before.items():
    signal.signal(number, handler)


def send(number):
  os.kill(os.getpid(), number)


@pytest.mark.parametrize('number', NUMBERS)
def test_a_signal_sets_the_event_of_the_loop_and_the_handlers_go_back(number):
  with signals.stop_on_signal() as stop:
    assert not stop.is_set()
    send(number)
    assert stop.is_set()
    send(signal.SIGTERM)  # again, as schedulers do
    with pytest.raises(KeyboardInterrupt):
      send(signal.SIGINT)
  assert signal.getsignal(number) == signal.SIG_DFL


def test_a_loop_within_another_shares_its_event():
  with signals.stop_on_signal() as outer:
    with signals.stop_on_signal() as inner:
      send(signal.SIGTERM)
      assert inner is outer
    with signals.stop_on_signal() as next_one:
      assert next_one.is_set()


def test_what_nohup_has_ignored_stays_ignored():
  signal.signal(signal.SIGHUP, signal.SIG_IGN)
  with signals.stop_on_signal() as stop:
    send(signal.SIGHUP)
    assert not stop.is_set()
  assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_another_thread_trains_without_handlers():
  found = []

  def train():
    with signals.stop_on_signal() as stop:
      found.append(stop.is_set())

  thread = threading.Thread(target=train)
  thread.start()
  thread.join()
  assert found == [False]


@pytest.mark.parametrize('within', [True, False])
def test_a_lost_output_stops_the_loop_under_way_or_the_next_one(monkeypatch, within):
  monkeypatch.setattr(signals, 'discard_output', lambda: None)
  if not within:
    signals.output_lost(BrokenPipeError(32, 'Broken pipe'))
  with signals.stop_on_signal() as stop:
    if within:
      signals.output_lost(BrokenPipeError(32, 'Broken pipe'))
    assert stop.is_set()
  with signals.stop_on_signal() as stop:
    assert not stop.is_set()


def test_children_do_not_see_the_signals_of_the_terminal():
  report = 'import signal; print(*sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())))'
  with signals.hidden_from_children():
    child = subprocess.run(
      [sys.executable, '-c', report], capture_output=True, text=True
    )
  assert {str(int(signal.SIGINT)), str(int(signal.SIGHUP))} <= set(child.stdout.split())
  assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


# What a process of the command line may be doing when a signal comes.
_BEGIN = """
import gc, hashlib, os, signal, sys, time
from jaxvision import main, signals
signals._GRACE_SECONDS = 0.3
def ready():
  print('ready', flush=True)
"""
_DOING = {
  'Python': """
def run(arguments):
  ready()
  time.sleep(60)
""",
  # As long as it takes, no handler of Python runs: so it is with a compilation.
  'C': """
def run(arguments):
  ready()
  hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)
""",
  # What is raised in it is lost.
  'garbage': """
class Garbage:
  def __del__(self):
    ready()
    time.sleep(60)
def run(arguments):
  garbage = Garbage()
  del garbage
  time.sleep(60)
""",
  'reworded': """
def run(arguments):
  try:
    ready()
    time.sleep(60)
  except KeyboardInterrupt:
    raise RuntimeError('a library has failed')
""",
}
_END = """
main.run = run
main.with_huge_pages = lambda: None
sys.exit(main.cli())
"""


def start(program):
  """Starts a program; returns it once it is ready."""

  def heard():  # in whatever way the tests themselves were started
    for number in NUMBERS:
      signal.signal(number, signal.SIG_DFL)

  process = subprocess.Popen(
    [sys.executable, '-c', program],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    preexec_fn=heard,
  )
  assert process.stdout.readline() == 'ready\n', process.stderr.read()
  return process


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize('doing', _DOING)
def test_outside_of_the_loop_a_signal_ends_with_one_line_and_130(doing, number):
  process = start(_BEGIN + _DOING[doing] + _END)
  process.send_signal(number)
  _, errors = process.communicate(timeout=60)
  assert process.returncode == 130, errors
  assert errors.splitlines() == [
    f'interrupted by {number.name}: not finished; the same command can be given again'
  ]


def test_an_import_is_ended_without_raising_in_it(tmp_path):
  # Extension modules in C++ abort, and NumPy prints a traceback, where that raises.
  (tmp_path / 'slow.py').write_text(
    'import time\n'
    'print("ready", flush=True)\n'
    'try:\n  time.sleep(60)\n'
    'except KeyboardInterrupt:\n  print("raised")\n'
  )
  run = f'sys.path.insert(0, {str(tmp_path)!r})\ndef run(arguments):\n  import slow\n'
  process = start(_BEGIN + run + _END)
  process.send_signal(signal.SIGTERM)
  output, errors = process.communicate(timeout=60)
  assert (process.returncode, output) == (130, ''), errors
  assert errors.startswith('interrupted by SIGTERM')


_LOOP = """
def run(arguments):
  with signals.stop_on_signal() as stop:
    ready()
    while not stop.is_set():
      time.sleep(0.01)
    print('saved', flush=True)
    FINALLY
  return signals.STOPPED if stop.is_set() else 0
"""


@pytest.mark.parametrize('number', NUMBERS)
def test_a_loop_saves_and_the_exit_code_is_4(number):
  process = start(_BEGIN + _LOOP.replace('FINALLY', 'pass') + _END)
  process.send_signal(number)
  output, errors = process.communicate(timeout=60)
  assert (process.returncode, output) == (4, 'saved\n'), errors
  assert errors.splitlines() == [
    f'{number.name}: the step under way is finished and saved; Ctrl-C again ends at once'
  ]


@pytest.mark.parametrize(
  'stuck', ['time.sleep(60)', "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"]
)
def test_a_second_ctrl_c_ends_a_loop_that_does_not_end(stuck):
  process = start(_BEGIN + _LOOP.replace('FINALLY', stuck) + _END)
  process.send_signal(signal.SIGTERM)
  assert process.stdout.readline() == 'saved\n'
  process.send_signal(signal.SIGINT)
  _, errors = process.communicate(timeout=60)
  assert process.returncode == 130
  assert 'Traceback' not in errors


def test_once_a_command_has_ended_a_signal_does_not_change_its_exit_code():
  end = 'main.run = lambda arguments: 0\ncode = main.cli()\nready()\ntime.sleep(60)\n'
  process = start(_BEGIN + 'main.with_huge_pages = lambda: None\n' + end)
  process.send_signal(signal.SIGTERM)
  _, errors = process.communicate(timeout=60)
  assert (process.returncode, errors) == (0, '')


def test_a_signal_is_not_lost_over_a_start_of_the_program_anew():
  anew = """
if not os.environ.get('ANEW'):
  os.environ['ANEW'] = '1'
  signals.hold()
  ready()
  os.kill(os.getpid(), signal.SIGTERM)
  os.execv(sys.executable, sys.orig_argv)
"""
  process = start(_BEGIN + anew + _DOING['Python'] + _END)
  _, errors = process.communicate(timeout=60)
  assert process.returncode == 130
  assert errors.startswith('interrupted by SIGTERM')
