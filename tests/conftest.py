"""Shared by all tests: eight simulated devices, caches of their own, the command line."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tracemalloc  # noqa: F401
from pathlib import Path

import pytest

# pytest imports `tracemalloc` when a finaliser fails, which garbage collection may run while
# tensorflow-datasets is being imported: its lazy imports would break that one, and the test.

# Before JAX starts. A test that wants one device takes a mesh of one.
os.environ.setdefault('JAX_NUM_CPU_DEVICES', '8')
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='session', autouse=True)
def cache_dir(tmp_path_factory):
  """Decoded sets and compiled programs of this session, apart from the user's."""
  base = tmp_path_factory.getbasetemp()
  # What one of its processes decodes or compiles, the others find.
  path = (base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base) / 'cache'
  path.mkdir(exist_ok=True)
  import jax

  # Small programs too: the operations of tests that are not jitted are thousands of them.
  jax.config.update('jax_compilation_cache_dir', str(path / 'xla'))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  old = os.environ.get('JAXVISION_CACHE')
  os.environ['JAXVISION_CACHE'] = str(path)
  yield path
  if old is None:
    del os.environ['JAXVISION_CACHE']
  else:
    os.environ['JAXVISION_CACHE'] = old


@pytest.fixture(autouse=True)
def fresh_log():
  """Undoes what `main` does to the library's log, which a process of a user keeps.

  Before a test, too: a fixture of its module may have run a command.
  """

  def undo():
    log = logging.getLogger('jaxvision')
    log.setLevel(logging.NOTSET)
    log.propagate = True
    log.handlers.clear()

  undo()
  yield
  undo()


@pytest.fixture(autouse=True)
def no_warning_of_reductions(monkeypatch):
  """Leaves out the warning of some versions of JAX, which says nothing of a test.

  What is computed stays as chosen; `test_self_check` tests the warning.
  """
  monkeypatch.setattr('jaxvision.training.runtime.reductions_off', lambda: None)


@pytest.fixture
def quick_compile():
  """Halves the time of tests that compile much and compute next to nothing."""
  import jax

  before = jax.config.read('jax_disable_most_optimizations')
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', before)


@pytest.fixture(scope='session')
def short_run():
  """Makes configs of a short run on digits on one device."""
  from jaxvision import config

  def load():
    return config.load(
      ROOT / 'configs' / 'digits_cnn.py',
      [
        'steps=12',
        'log_every_steps=5',
        'eval_every_steps=6',
        'checkpoint.every_steps=4',
        'parallel.data=1',
        'report=False',  # half of the time of a run as short as this
      ],
    )

  return load


@pytest.fixture
def digits_config(short_run):
  """A short run on digits; fields are changed by the tests."""
  return short_run()


@contextlib.contextmanager
def _signals_heard():
  """Processes started within hear what a suite in the background ignores, by nohup or &."""
  ignored = [
    number
    for number in (signal.SIGINT, signal.SIGHUP)
    if signal.getsignal(number) is signal.SIG_IGN
  ]
  for number in ignored:
    signal.signal(number, signal.SIG_DFL)
  try:
    yield
  finally:
    for number in ignored:
      signal.signal(number, signal.SIG_IGN)


@pytest.fixture(scope='session')
def command(cache_dir):
  """Starts `python -m jaxvision.main ARGUMENTS` as a user would, on one device."""

  def start(*arguments, devices=1, **environment):
    env = {**os.environ, 'JAX_NUM_CPU_DEVICES': str(devices), **environment}
    with _signals_heard():
      return subprocess.Popen(
        [sys.executable, '-m', 'jaxvision.main', *map(str, arguments)],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
      )

  return start


@pytest.fixture
def call(capsys, monkeypatch):
  """Runs the command line in this process: (exit code, output, errors)."""
  from jaxvision import main as command_line

  monkeypatch.chdir(ROOT)

  def run(*arguments):
    code = command_line.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err

  return run


@pytest.fixture(scope='session')
def chromium():
  """A headless browser, where one is installed; tests that want it skip without."""
  pytest.importorskip('playwright', reason='playwright comes with the extra "test"')
  import browsing

  executable = browsing.find_chromium()
  if not executable:
    pytest.skip('no Chromium on the PATH, in $CHROME or in $CHROMIUM')
  started = browsing.Chromium(executable)
  yield started
  started.close()


@pytest.fixture
def browser(chromium):
  """Opens pages; a script error or a request of one fails the test."""
  from browsing import Browser

  opened = Browser(chromium)
  yield opened
  opened.close()
