"""Processes that share a sweep in a database of PostgreSQL: no trial lost, none done twice."""

import collections
import concurrent.futures
import contextlib
import csv
import json
import re
import signal
import threading
import time
import urllib.parse
from pathlib import Path

import pytest
import sqlalchemy
from command_line import DIGITS, assert_refused

import jaxvision
from jaxvision import config
from jaxvision.commands import sweep as sweep_command
from jaxvision.commands import sweep_storage
from jaxvision.commands.optuna_study import Study
from jaxvision.commands.sweep_directory import SweepDirectory
from jaxvision.commands.sweep_storage import Storage
from jaxvision.config import search_space
from jaxvision.config.search_space import Choice, Range, Sweep
from jaxvision.training.run_directory import RunDirectory

TRIALS = 6
FILE = f'''"""Seeds and learning rates."""

from jaxvision.sweeps import Range, Sweep


def get_sweep():
  space = {{'optimizer.learning_rate': Range(0.01, 0.1), 'seed': Range(0, 10**6)}}
  return Sweep(space, 'random', trials={TRIALS}, pruner='none', name='shared')
'''
FIELDS = (
  'steps=300',
  'log_every_steps=20',
  'eval_every_steps=150',
  'checkpoint.every_steps=30',
  'parallel.data=1',
)

linux = pytest.mark.skipif(not Path('/proc/self/fd').exists(), reason='needs /proc')


class _Process:
  """A process of a sweep, whose output is read as it comes."""

  def __init__(self, process):
    self._process, self._lines = process, []
    self._reader = threading.Thread(target=self._read, daemon=True)
    self._reader.start()

  def _read(self):
    for line in self._process.stdout:
      self._lines.append(line)

  def output(self):
    """Returns what it has printed by now."""
    return ''.join(self._lines)

  def trial(self):
    """Returns the directory of the trial that it has in its hands, or None."""
    for link in Path(f'/proc/{self._process.pid}/fd').iterdir():
      with contextlib.suppress(FileNotFoundError):  # closed since
        if link.readlink().name == '.trial':
          return link.readlink().parent
    return None

  def running(self):
    """Returns whether it has not ended."""
    return self._process.poll() is None

  def kill(self):
    """Kills it without a warning."""
    self._process.send_signal(signal.SIGKILL)

  def wait(self):
    """Waits for its end; returns (exit code, output)."""
    code = self._process.wait(timeout=300)
    self._reader.join()
    return code, self.output()


@pytest.fixture
def start(command, database, tmp_path):
  """Starts a process of the sweep that works in a directory."""
  file = tmp_path / 'shared.py'
  file.write_text(FILE)
  started = []

  def sweep(workdir):
    fields = [f'--config.{field}' for field in FIELDS]
    options = (f'--sweep={file}', f'--workdir={workdir}', f'--storage={database}')
    process = command('sweep', DIGITS, *fields, *options, PYTHONUNBUFFERED='1')
    started.append(_Process(process))
    return started[-1]

  yield sweep
  for process in started:
    if process.running():
      process.kill()
      process.wait()


def _ended(*outputs):
  """Returns how often each trial has ended, in what processes said."""
  lines = re.findall(r'^\[\d/\d\] trial (\d+): ', '\n'.join(outputs), re.MULTILINE)
  return collections.Counter(map(int, lines))


def _wait(process, moment):
  """Returns what a function returns, once that is true."""
  deadline = time.monotonic() + 120
  while time.monotonic() < deadline:
    if found := moment():
      return found
    assert process.running(), process.output()
    time.sleep(0.01)
  raise AssertionError(process.output())


def _half_trained(process):
  """Returns what a process trains and the log up to its checkpoint, or None."""
  trial = process.trial()
  if trial is None:
    return None
  names = [path.name for path in trial.glob('checkpoints/*')]
  step = max((int(name) for name in names if name.isdigit()), default=0)
  if step not in range(60, 240):
    return None
  lines = (trial / 'metrics.jsonl').read_text().splitlines(keepends=True)
  whole = [line for line in lines if line.endswith('\n')]
  return trial, [line for line in whole if json.loads(line)['step'] <= step]


def _check(workdir, numbers=range(TRIALS)):
  """Asserts that the trials in a directory are whole, and that no two are alike."""
  with (workdir / 'sweep.csv').open() as file:
    rows = list(csv.DictReader(file))
  assert [(int(row['trial']), row['end']) for row in rows] == [
    (number, 'done') for number in range(TRIALS)
  ]
  assert len({row['seed'] for row in rows}) == TRIALS
  for number in numbers:
    run = RunDirectory(workdir / 'trials' / f'{number:04d}')
    assert run.summary()['steps'] == 300
    assert str(run.config().seed) == rows[number]['seed']
    points = [(point['step'], point['split']) for point in run.history()]
    assert points == sorted(set(points))
    assert (300, 'validation') in points
    assert sum(split == 'train' for _, split in points) == 15


def _without_secrets(folder, database):
  """Asserts that the password is in no file."""
  password = sqlalchemy.make_url(database).password
  forms = {password, urllib.parse.quote(password), urllib.parse.quote(password, ' +')}
  files = [path for path in folder.rglob('*') if path.is_file()]
  assert files
  for path in files:
    content = path.read_bytes()
    assert not any(form.encode() in content for form in forms), path


@pytest.mark.slow
def test_two_processes_train_each_trial_once(start, database, tmp_path):
  workdir = tmp_path / 'sweep'
  processes = [start(workdir), start(workdir)]
  ended = [process.wait() for process in processes]
  outputs = [output for _, output in ended]
  assert [code for code, _ in ended] == [0, 0], outputs
  assert _ended(*outputs) == dict.fromkeys(range(TRIALS), 1), outputs
  for output in outputs:
    assert 'best: trial' in output  # whichever came to its end first has waited
  _check(workdir)
  command = RunDirectory(workdir / 'trials' / '0000').summary()['command']
  assert ':***@' in command
  _without_secrets(tmp_path, database)


@pytest.mark.slow
@linux
def test_trial_of_a_killed_process_goes_on_from_its_checkpoint(start, tmp_path):
  workdir = tmp_path / 'sweep'
  killed, survivor = start(workdir), start(workdir)
  _wait(survivor, survivor.trial)
  trial, log = _wait(killed, lambda: _half_trained(killed))
  killed.kill()
  code, before = killed.wait()
  assert code == -signal.SIGKILL, before
  code, after = survivor.wait()
  assert code == 0, after
  assert _ended(before, after) == dict.fromkeys(range(TRIALS), 1), (before, after)
  assert f'trial {int(trial.name)}: left by a process on' in after
  _check(workdir)
  # The seconds and images per second in it are those of the process that was killed.
  assert log
  assert (trial / 'metrics.jsonl').read_text().startswith(''.join(log))


@pytest.mark.slow
@linux
def test_trial_of_a_killed_process_begins_anew_in_another_directory(
  start, database, tmp_path, monkeypatch, pytestconfig, capsys
):
  killed = start(tmp_path / 'lost')
  trial, _ = _wait(killed, lambda: _half_trained(killed))
  killed.kill()
  _, before = killed.wait()
  monkeypatch.setattr(sweep_storage, 'GRACE_SECONDS', 5)
  monkeypatch.setattr(sweep_command, '_POLL_SECONDS', 0.5)
  loaded = config.load(pytestconfig.rootpath / 'configs' / 'digits_cnn.py', FIELDS)
  wanted = search_space.load(tmp_path / 'shared.py', loaded)
  swept = jaxvision.sweep(loaded, wanted, tmp_path / 'kept', database)
  after = capsys.readouterr().out
  assert swept.finished
  assert _ended(before, after) == dict.fromkeys(range(TRIALS), 1), (before, after)
  assert f'trial {int(trial.name)}: left by a process on' in after
  assert not RunDirectory(trial).summary()
  _check(tmp_path / 'kept', _ended(after))
  _without_secrets(tmp_path, database)


@pytest.mark.slow
@linux
def test_server_that_is_started_anew_ends_no_trial(start, postgres, tmp_path):
  if not hasattr(postgres, 'restart'):
    pytest.skip('the server is not ours')
  process = start(tmp_path / 'sweep')
  _wait(process, lambda: _half_trained(process))
  postgres.restart(seconds_away=3)
  code, output = process.wait()
  assert code == 0, output
  assert _ended(output) == dict.fromkeys(range(TRIALS), 1), output
  _check(tmp_path / 'sweep')


def _work(wanted, loaded, url, workdir, start_together):
  """Does what a process of a sweep does, but for the training; returns its trials."""
  start_together.wait()
  storage = Storage(url)
  storage.open()
  with storage.exclusive():
    study = Study(wanted, loaded, storage, 'accuracy', 'max')
    directory = SweepDirectory(workdir)
    directory.claim(study.note_workdir, study.workdirs)
    if wanted.sampler == 'grid':
      study.enqueue_grid()
  found = []
  while trial := study.begin(directory):
    with trial.held():
      trial.report(0.5, 1)
      trial.finish(trial.number / 100)
      found.append((trial.number, tuple(trial.values.values())))
  return found


@pytest.mark.parametrize('sampler', ['grid', 'random'])
def test_trials_are_shared_out_exactly(sampler, database, digits_config, tmp_path):
  space = {'optimizer.learning_rate': Choice(0.1, 0.2, 0.3), 'seed': Choice(*range(8))}
  if sampler == 'random':
    space = {'optimizer.learning_rate': Range(0.1, 0.3)}
  wanted = Sweep(space, sampler, name='shared', trials=24)
  wanted = search_space.validate(wanted, digits_config)
  together = threading.Barrier(4)
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    done = [
      pool.submit(_work, wanted, digits_config, database, tmp_path, together)
      for _ in range(4)
    ]
    trials = [trial for one in done for trial in one.result()]
  assert sorted(number for number, _ in trials) == list(range(24))
  assert len({values for _, values in trials}) == 24


def test_time_zones_of_processes_do_not_matter(
  database, digits_config, tmp_path, monkeypatch
):
  wanted = Sweep({'optimizer.learning_rate': Range(0.1, 0.3)}, trials=1, name='shared')
  wanted = search_space.validate(wanted, digits_config)
  studies = []
  for zone in ('Asia/Tokyo', 'America/New_York'):
    monkeypatch.setenv('PGTZ', zone)
    study = Study(wanted, digits_config, Storage(database), 'accuracy', 'max')
    directory = SweepDirectory(tmp_path / zone.replace('/', '-'))
    directory.path.mkdir()
    directory.claim(study.note_workdir, study.workdirs)
    studies.append((study, directory))
  for (study, directory), (other, elsewhere) in (studies, studies[::-1]):
    trial = study.begin(directory)
    with trial.held():
      assert other.begin(elsewhere) is None
      study.storage.open().record_heartbeat(trial._handle._trial_id)
      assert other.begin(elsewhere) is None


SWEEP = ('sweep', DIGITS, '--sweep=experiments/sweeps/digits.py')


def _refused(call, tmp_path, url, *wanted):
  secret = sqlalchemy.make_url(url).password
  result = call(*SWEEP, f'--workdir={tmp_path / "sweep"}', f'--storage={url}')
  assert_refused(result, *wanted)
  assert secret not in result[1] + result[2]
  assert not (tmp_path / 'sweep').exists()


def _changed(url, **parts):
  return sqlalchemy.make_url(url).set(**parts).render_as_string(hide_password=False)


def test_server_that_lets_nobody_in_is_named_in_one_line(call, database, tmp_path):
  url = _changed(database, password='not-this-one')
  _refused(call, tmp_path, url, '***@', 'password', '~/.pgpass')
  url = _changed(database, database='none_such')
  _refused(call, tmp_path, url, 'none_such', 'does not exist', 'create it')


def test_database_of_another_sweep_is_refused(call, database, digits_config, tmp_path):
  wanted = Sweep({'seed': Range(0, 9)}, trials=1, name='digits_cnn-digits')
  wanted = search_space.validate(wanted, digits_config)
  Study(wanted, digits_config, Storage(database), 'accuracy', 'max')
  code, _, errors = call(
    *SWEEP, f'--workdir={tmp_path / "sweep"}', f'--storage={database}'
  )
  assert code == 2
  (line,) = errors.strip().splitlines()
  assert 'the study "digits_cnn-digits" in the database is another one' in line
  assert sqlalchemy.make_url(database).password not in errors
