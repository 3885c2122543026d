"""Whose trials a directory holds, what a sweep removes, and its exit codes."""

import contextlib
import errno
import json
import shutil
import sqlite3
import time

import optuna
import pytest
import sqlalchemy

import jaxvision
from jaxvision import data
from jaxvision.commands import sweep as sweep_command
from jaxvision.commands import sweep_storage
from jaxvision.commands.optuna_study import Study
from jaxvision.commands.sweep_directory import SweepDirectory
from jaxvision.commands.sweep_storage import Storage
from jaxvision.commands.sweep_trial import TrialLost
from jaxvision.config import search_space
from jaxvision.config.search_space import Choice, Range, Sweep
from jaxvision.data.info import DatasetInfo
from jaxvision.errors import TrainingDiverged, UserError
from jaxvision.main import main
from jaxvision.training.run import Run
from jaxvision.training.run_directory import RunDirectory

RATES = {'optimizer.learning_rate': Choice(0.1, 0.3)}
ONE = Sweep(RATES, 'grid', name='one')
# Its trials have the same configs, but it ranks them the other way around.
OTHER = Sweep(RATES, 'grid', name='other', measure='loss')


def _train(config, path, *, callbacks, **_):
  """Stands in for a training: leaves weights, and the rate as the measure."""
  directory = RunDirectory(path)
  directory.checkpoints.mkdir(parents=True, exist_ok=True)
  (directory.checkpoints / 'weights').write_text(str(config.optimizer.learning_rate))
  rate = config.optimizer.learning_rate
  callbacks[0].on_evaluation(6, 'validation', {'accuracy': rate, 'loss': rate})
  return {'steps': 6, 'seconds_train': 0.0}


def _write_report(directory, results):
  (directory / 'sweep.json').write_text(json.dumps({'sweep': results.name}))
  return directory / 'sweep.html'


@pytest.fixture(scope='module')
def built(short_run):
  """What a sweep asks of the run of a config."""
  loaded = short_run()
  return Run.build(loaded, DatasetInfo.of(data.load(loaded.data)))


def _careless(connection, _):
  connection.execute('PRAGMA synchronous=OFF')


@pytest.fixture(autouse=True)
def quick(monkeypatch, built):
  """Trials that train nothing, no pages, a database that does not wait for the disk."""
  monkeypatch.setattr(sweep_command, 'train', _train)
  monkeypatch.setattr(sweep_command._SweepRunner, '_built', lambda *_: built)
  monkeypatch.setattr('jaxvision.reports.sweep.report.write_sweep', _write_report)
  sqlalchemy.event.listen(sqlalchemy.Engine, 'connect', _careless)
  yield
  sqlalchemy.event.remove(sqlalchemy.Engine, 'connect', _careless)


@pytest.fixture
def run(digits_config):
  """Runs a sweep on digits; returns the numbers of the trials that have weights."""

  def sweep(wanted, workdir, storage=None, **options):
    jaxvision.sweep(digits_config, wanted, workdir, storage, quiet=True, **options)
    found = workdir.glob('trials/????/checkpoints')
    return sorted(int(p.parent.name) for p in found)

  return sweep


def _url(tmp_path):
  return f'sqlite:///{tmp_path}/shared.db'


def _content(directory):
  """Returns the files below a directory, without those of SQLite."""
  return {
    path: path.read_bytes()
    for path in directory.rglob('*')
    if path.is_file() and path.suffix != '.db'
  }


@contextlib.contextmanager
def _database(file):
  with contextlib.closing(sqlite3.connect(file)) as connection, connection:
    yield connection


def _forget_directories(file):
  """Makes a database what earlier versions wrote."""
  with _database(file) as database:
    database.execute("DELETE FROM study_user_attributes WHERE key LIKE 'workdir %'")
    database.execute("DELETE FROM trial_user_attributes WHERE key = 'workdir'")


@pytest.mark.parametrize('storage', [False, True], ids=['own database', 'storage'])
def test_second_sweep_in_a_directory_is_refused(storage, run, tmp_path):
  workdir = tmp_path / 'workdir'
  url = _url(tmp_path) if storage else None
  assert run(Sweep(RATES, 'grid', name='one', trials=1), workdir, url) == [0]
  for version in ('this', 'earlier'):
    if version == 'earlier':
      (workdir / '.study').unlink()
      _forget_directories(tmp_path / 'shared.db' if storage else workdir / 'sweep.db')
    before = _content(workdir)
    for database in (url, f'sqlite:///{tmp_path}/new.db'):
      with pytest.raises(UserError, match='workdir .* holds another sweep'):
        run(OTHER, workdir, database)
    assert _content(workdir) == before
  # Nor has an attempt made the first a stranger in its own directory.
  assert run(ONE, workdir, url) == [1]
  assert run(ONE, workdir, url) == [1]


def test_trials_of_a_database_that_is_gone_are_refused(run, tmp_path):
  run(ONE, tmp_path)
  (tmp_path / 'sweep.db').unlink()
  before = _content(tmp_path)
  with pytest.raises(UserError, match='holds another sweep'):
    run(ONE, tmp_path)
  (tmp_path / '.study').unlink()
  with pytest.raises(UserError, match='holds another sweep'):
    run(ONE, tmp_path)
  del before[tmp_path / '.study']
  assert _content(tmp_path) == before
  assert not (tmp_path / 'sweep.db').exists()


def test_study_of_another_program_is_refused(run, tmp_path):
  url = _url(tmp_path)
  study = optuna.create_study(study_name='one', storage=url)
  study.optimize(lambda trial: trial.suggest_float('x', 0, 1), n_trials=1)
  with pytest.raises(UserError, match='trials of another program'):
    run(ONE, tmp_path / 'workdir', url)
  shutil.copy(tmp_path / 'shared.db', tmp_path / 'sweep.db')
  with pytest.raises(UserError, match='holds another sweep'):
    run(OTHER, tmp_path)
  assert len(study.trials) == 1


def test_only_weights_of_own_trials_are_removed(run, tmp_path):
  run(Sweep(RATES, 'grid', name='one', trials=1), tmp_path)
  for name in ('notes', '0009', '00001'):
    (tmp_path / 'trials' / name / 'checkpoints').mkdir(parents=True)
  run(ONE, tmp_path)
  left = {p.parent.name for p in tmp_path.glob('trials/*/checkpoints')}
  assert left == {'notes', '0009', '00001', '0001'}


@pytest.fixture
def another(digits_config):
  """Opens a study as a process does that works in a directory: (study, directory)."""
  digits_config.data.train_fraction = 0.9

  def process(wanted, workdir, url):
    workdir.mkdir(exist_ok=True)
    wanted = search_space.validate(wanted, digits_config)
    study = Study(wanted, digits_config, Storage(url), 'accuracy', 'max')
    directory = SweepDirectory(workdir)
    directory.claim(study.note_workdir, study.workdirs)
    return study, directory

  return process


def _impatient(monkeypatch):
  """Makes processes that are silent for a second abandon their trials."""
  monkeypatch.setattr(sweep_storage, 'GRACE_SECONDS', 1)
  monkeypatch.setattr(sweep_command, '_POLL_SECONDS', 0.2)


def test_trial_of_a_silent_process_is_taken_over(run, another, tmp_path, monkeypatch):
  url = _url(tmp_path)
  wanted = Sweep(RATES, 'grid', name='one', trials=1)
  assert run(wanted, tmp_path / 'first', url) == [0]
  study, directory = another(ONE, tmp_path / 'second', url)
  trial = study.begin(directory)
  # It has just given a sign of life: nobody else gets it.
  assert another(ONE, tmp_path / 'third', url)[0].begin(directory) is None
  _impatient(monkeypatch)
  assert run(ONE, tmp_path / 'third', url) == [1]
  assert [(t.number, t.value) for t in study.over()] == [(0, 0.1), (1, 0.3)]
  # Its first process was not dead after all: what it finds is not written over.
  for act in (lambda: trial.report(0.5, 6), lambda: trial.finish(0.5), trial.prune):
    with pytest.raises(TrialLost):
      act()
  assert [t.value for t in study.over()] == [0.1, 0.3]


def test_trial_is_free_once_its_process_has_left_it(another, tmp_path):
  url = _url(tmp_path)
  study, directory = another(ONE, tmp_path / 'first', url)
  elsewhere, other_directory = another(ONE, tmp_path / 'second', url)
  trial = study.begin(directory)
  second = elsewhere.begin(other_directory)
  assert second.number == 1

  def train():
    with trial.held():
      assert elsewhere.begin(other_directory) is None
      raise SystemExit

  with pytest.raises(SystemExit):
    train()
  again = elsewhere.begin(other_directory)
  assert (again.number, again.values) == (0, trial.values)


def test_lock_of_a_directory_tells_more_than_silence(another, tmp_path, monkeypatch):
  url = _url(tmp_path)
  _impatient(monkeypatch)
  study, directory = another(ONE, tmp_path / 'shared', url)
  suspended = study.begin(directory)
  time.sleep(2.5)
  # It was silent, and still has its lock.
  beside, _ = another(ONE, tmp_path / 'shared', url)
  second = beside.begin(directory)
  assert second.number == 1
  assert beside.begin(directory) is None
  suspended.report(0.5, 6)
  # Of a process that was killed, the system takes the lock: there is nothing to wait for.
  monkeypatch.setattr(sweep_storage, 'GRACE_SECONDS', 60)
  late, _ = another(ONE, tmp_path / 'shared', url)
  assert late.begin(directory) is None
  second._lock.close()
  assert late.begin(directory).number == 1


def test_process_that_dies_as_it_begins_a_trial_loses_nothing(
  another, tmp_path, monkeypatch
):
  url = _url(tmp_path)
  space = {'optimizer.learning_rate': Range(0.1, 0.3), 'seed': Range(0, 9)}
  wanted = Sweep(space, 'random', name='two', trials=2)

  def die(*_, **__):
    raise SystemExit

  for method in ('suggest_float', 'set_user_attr', 'suggest_int'):
    study, directory = another(wanted, tmp_path / 'shared', url)
    with monkeypatch.context() as patched:
      patched.setattr(optuna.Trial, method, die)
      with pytest.raises(SystemExit):
        study.begin(directory)
    assert [t.number for t in study.under_way()] == [0]
  study, directory = another(wanted, tmp_path / 'shared', url)
  trials = [study.begin(directory), study.begin(directory)]
  assert [trial.number for trial in trials] == [0, 1]
  assert all(trial.values.keys() == space.keys() for trial in trials)
  assert study.begin(directory) is None


def test_names_of_directories_do_not_matter_to_the_database(run, tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  for name in ('a?b@c', 'a%20b'):
    run(ONE, tmp_path / name)
    assert (tmp_path / name / 'sweep.db').is_file()
  run(ONE, tmp_path / 'last', 'sqlite:///~/a%20b')
  names = {'a?b@c', 'a%20b', 'last', 'a b', '.a b.lock'}
  assert {p.name for p in tmp_path.iterdir()} == names


@pytest.mark.parametrize('workdir', ['gs://bucket/sweep', '{tmp}/file', '{tmp}/file/x'])
def test_workdir_that_cannot_be_is_refused(workdir, run, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'file').touch()
  with pytest.raises(UserError, match='^sweep: workdir'):
    jaxvision.sweep(jaxvision.base_config(), ONE, workdir.format(tmp=tmp_path))
  assert [p.name for p in tmp_path.iterdir()] == ['file']


@pytest.fixture
def command_line(tmp_path, pytestconfig, monkeypatch, capsys):
  """Runs `sweep` on two rates: (exit code, error)."""
  monkeypatch.chdir(pytestconfig.rootpath)
  file = tmp_path / 'rates.py'
  file.write_text(
    '"""Rates."""\n'
    'from jaxvision.sweeps import Choice, Sweep\n'
    'def get_sweep():\n'
    "  return Sweep({'optimizer.learning_rate': Choice(0.1, 0.3)}, 'grid')\n"
  )

  def call():
    options = (f'--sweep={file}', f'--workdir={tmp_path / "sweep"}')
    code = main(['sweep', '--config=configs/digits_cnn.py', *options])
    return code, capsys.readouterr().err

  return call


def _raising(*errors):
  """Returns a training that raises, trial by trial; None: it ends well."""
  left = list(errors)

  def train(config, path, **options):
    error = left.pop(0)
    if error:
      raise error
    return _train(config, path, **options)

  return train


DIVERGED = TrainingDiverged('training diverged')


@pytest.mark.parametrize(
  ('errors', 'code', 'message'),
  [
    ((ValueError('x'), None), 0, ''),
    ((DIVERGED, DIVERGED), 3, 'all 2 trials diverged'),
    ((DIVERGED, MemoryError('of x')), 2, '2 failed, 0 were pruned; trial 0: training'),
    ((sweep_command._Pruned('p'),) * 2, 2, '0 failed, 2 were pruned'),
  ],
)
def test_exit_code_says_whether_a_trial_came_to_a_result(
  errors, code, message, command_line, monkeypatch
):
  monkeypatch.setattr(sweep_command, 'train', _raising(*errors))
  found, error = command_line()
  assert found == code, error
  assert message in error
  assert error.count('\n') == bool(code)
  assert command_line() == (code, error)  # nothing was left to do


def test_stopped_sweep_and_full_disk_end_no_trial(command_line, monkeypatch, tmp_path):
  monkeypatch.setattr(sweep_command, 'train', lambda *_, **__: None)
  assert command_line() == (4, '')
  full = OSError(errno.ENOSPC, 'No space left on device', 'weights')
  monkeypatch.setattr(sweep_command, 'train', _raising(None, full))
  code, error = command_line()
  assert (code, error.count('\n')) == (2, 1)
  assert 'No space left' in error
  monkeypatch.setattr(sweep_command, 'train', _raising(None))
  assert command_line() == (0, '')
  assert (tmp_path / 'sweep' / 'trials' / '0001' / 'checkpoints').is_dir()


def test_measure_that_is_no_number_fails_the_trial(run, monkeypatch, tmp_path):
  def train(config, path, *, callbacks, **_):
    callbacks[0].on_evaluation(6, 'validation', {'accuracy': float('nan')})
    return {'steps': 6, 'seconds_train': 0.0}

  monkeypatch.setattr(sweep_command, 'train', train)
  space = {'optimizer.learning_rate': Range(0.1, 0.3)}
  assert run(Sweep(space, trials=1, name='nan'), tmp_path) == []
  trials = optuna.load_study(
    study_name='nan', storage=f'sqlite:///{tmp_path}/sweep.db'
  ).trials
  assert [t.user_attrs['error'] for t in trials] == ['its accuracy is nan']
