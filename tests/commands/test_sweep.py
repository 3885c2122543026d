"""The command `sweep`: search, shared programs, resume, usage errors."""

import csv
import json
import re
import signal

import numpy as np
import pytest

import jaxvision
from jaxvision import config
from jaxvision.commands.optuna_study import Study
from jaxvision.commands.sweep_directory import SweepDirectory
from jaxvision.commands.sweep_storage import Storage
from jaxvision.config import search_space
from jaxvision.config.search_space import Choice, Range, Sweep
from jaxvision.errors import UserError
from jaxvision.main import main
from jaxvision.training.run_directory import RunDirectory

RATES = Range(1e-3, 0.3, log=True)

FILE = '''"""A sweep."""

from jaxvision.config.search_space import Choice, Range, Sweep


def get_sweep():
  return Sweep({0})
'''


def _trials(workdir):
  """Returns number -> row of sweep.csv."""
  with (workdir / 'sweep.csv').open() as file:
    return {int(row['trial']): row for row in csv.DictReader(file)}


@pytest.fixture
def numbers():
  return {'optimizer.learning_rate': RATES, 'model.dropout': Range(0.0, 0.5)}


@pytest.mark.slow
def test_trials_that_differ_in_numbers_share_their_programs(
  digits_config, numbers, tmp_path, quick_compile, capsys
):
  one = Sweep(numbers, trials=1)
  alone = jaxvision.sweep(digits_config, one, tmp_path / 'one', quiet=True)
  wanted = Sweep({**numbers, 'seed': Range(0, 9)}, trials=6, pruner='none')
  swept = jaxvision.sweep(digits_config, wanted, tmp_path / 'six')
  workdir = tmp_path / 'six'
  assert swept.programs == alone.programs > 0
  assert swept.finished
  trials = _trials(workdir)
  assert sorted(trials) == list(range(6))
  assert {row['end'] for row in trials.values()} == {'done'}
  assert len({row['optimizer.learning_rate'] for row in trials.values()}) == 6
  record = json.loads((workdir / 'sweep.json').read_text())
  best = max(trials.values(), key=lambda row: float(row['accuracy']))
  assert record['best']['accuracy'] == float(best['accuracy'])
  assert sum(record['importances'].values()) == pytest.approx(1)
  assert record['held_out'] is True
  assert len(record['machine']['versions']) > 4
  # Every trial is a run that the other commands read; the best keeps its weights.
  number = record['best']['trial']
  for trial in range(6):
    run = RunDirectory(workdir / 'trials' / f'{trial:04d}')
    summary = run.summary()
    assert summary['validation_accuracy'] == float(trials[trial]['accuracy'])
    assert run.config().optimizer.learning_rate == float(
      trials[trial]['optimizer.learning_rate']
    )
    assert run.checkpoints.is_dir() == (trial == number)
    points = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    assert [(p['step'], p['split']) for p in points] == [
      (5, 'train'),
      (6, 'validation'),
      (10, 'train'),
      (12, 'train'),
      (12, 'validation'),
    ]
  evaluated = jaxvision.evaluate(workdir / 'trials' / f'{number:04d}', quiet=True)
  kept = RunDirectory(workdir / 'trials' / f'{number:04d}').summary()
  assert evaluated['accuracy'] == pytest.approx(kept['test_accuracy'])
  output = capsys.readouterr().out
  assert 'not on the test split' in output
  assert '--config.optimizer.learning_rate=' in output


@pytest.mark.slow
def test_grid_sweep_compiles_once_per_batch_size(
  digits_config, tmp_path, quick_compile
):
  space = {
    'batch_size': Choice(32, 64),
    'optimizer.learning_rate': Choice(0.05, 0.1),
    'optimizer.nesterov': Choice(True),
  }
  wanted = Sweep(space, 'grid', pruner='none')
  assert wanted.size == 4
  swept = jaxvision.sweep(digits_config, wanted, tmp_path, quiet=True)
  small = Sweep({'batch_size': Choice(32)}, 'grid')
  alone = jaxvision.sweep(digits_config, small, tmp_path / 'one', quiet=True)
  assert swept.programs == 2 * alone.programs > 0
  trials = _trials(tmp_path).values()
  points = {(row['batch_size'], row['optimizer.learning_rate']) for row in trials}
  assert points == {('32', '0.05'), ('32', '0.1'), ('64', '0.05'), ('64', '0.1')}
  again = jaxvision.sweep(digits_config, wanted, tmp_path, quiet=True)
  assert again.programs == 0
  assert len(_trials(tmp_path)) == 4


@pytest.mark.slow
def test_bad_trials_are_pruned(digits_config, tmp_path, quick_compile):
  digits_config.eval_every_steps = 3
  space = {'optimizer.learning_rate': Choice(0.05, 0.04, 0.06, 1e-6, 2e-6)}
  wanted = Sweep(space, 'grid', startup=3, patience=1)
  jaxvision.sweep(digits_config, wanted, tmp_path, quiet=True)
  ends = {
    row['optimizer.learning_rate']: row['end'] for row in _trials(tmp_path).values()
  }
  assert ends['0.05'] == ends['0.04'] == ends['0.06'] == 'done'
  assert ends['1e-06'] == 'pruned'


@pytest.mark.slow
def test_failed_trial_is_recorded_and_the_sweep_goes_on(
  digits_config, tmp_path, quick_compile, capsys
):
  space = {'optimizer.learning_rate': Choice(1e30, 0.05)}
  swept = jaxvision.sweep(digits_config, Sweep(space, 'grid'), tmp_path)
  assert swept.finished
  trials = _trials(tmp_path)
  assert (trials[0]['end'], trials[1]['end']) == ('failed', 'done')
  assert 'diverged' in trials[0]['error']
  assert 'diverged' in (tmp_path / 'sweep.html').read_text()
  assert 'trial 0: failed: training diverged' in capsys.readouterr().out


@pytest.mark.slow
def test_sweep_of_streaming_runs(digits_config, tmp_path, quick_compile):
  digits_config.data.pipeline = 'streaming'
  digits_config.data.workers = 0
  digits_config.report = True
  digits_config.eval_every_steps = 4
  space = {'optimizer.learning_rate': Choice(0.05, 0.1, 1e-7, 1e30)}
  wanted = Sweep(space, 'grid', startup=2, measure='loss')
  jaxvision.sweep(digits_config, wanted, tmp_path, quiet=True)
  trials = _trials(tmp_path)
  assert [trials[i]['end'] for i in range(4)] == ['done', 'done', 'pruned', 'failed']
  # The page of the sweep is the report of its trials.
  assert (tmp_path / 'sweep.html').is_file()
  assert not list(tmp_path.glob('trials/*/report'))
  assert 'diverged' in trials[3]['error']


SHORT = ('epochs=1', 'parallel.data=1', 'log_every_steps=5', 'eval_every_steps=7')


def _values(workdir):
  return {
    number: (row['end'], row['accuracy'], row['optimizer.learning_rate'])
    for number, row in _trials(workdir).items()
  }


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
  """The file of a sweep, and the directory of one that was not interrupted."""
  folder = tmp_path_factory.mktemp('uninterrupted')
  file = folder / 'rates.py'
  file.write_text(
    FILE.replace(
      '{0}',
      "space={'optimizer.learning_rate': Range(1e-3, 0.3, log=True)}, trials=6,"
      " startup=2, pruner='none'",
    )
  )
  loaded = config.load('configs/digits_cnn.py', SHORT)
  jaxvision.sweep(loaded, search_space.load(file, loaded), folder / 'whole', quiet=True)
  return file, folder / 'whole'


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM])
def test_killed_sweep_resumes_to_the_same_trials(
  number, command, uninterrupted, tmp_path
):
  file, whole = uninterrupted

  def start():
    return command(
      'sweep',
      '--config=configs/digits_cnn.py',
      f'--sweep={file}',
      f'--workdir={tmp_path}',
      *(f'--config.{field}' for field in SHORT),
    )

  killed = start()
  for line in killed.stdout:
    if line.startswith('[2/6]'):
      killed.send_signal(number)
      break
  rest = killed.stdout.read()
  assert killed.wait() == (-signal.SIGKILL if number == signal.SIGKILL else 4), rest
  if number == signal.SIGTERM:
    assert 'the same command goes on from here' in rest
  resumed = start()
  output = resumed.stdout.read()
  assert resumed.wait() == 0, output
  there = int(re.search(r'(\d) of 6 trials are there', output)[1])
  assert there >= 2
  assert output.count('] trial ') == 6 - there
  assert _values(tmp_path) == _values(whole)


def test_trial_finished_but_not_recorded_is_not_trained_again(
  digits_config, numbers, tmp_path, quick_compile, monkeypatch
):
  wanted = Sweep(numbers, trials=1)

  def end(*_, **__):
    raise SystemExit

  with monkeypatch.context() as patched:
    patched.setattr('jaxvision.commands.sweep_trial.StudyTrial.finish', end)
    with pytest.raises(SystemExit):
      jaxvision.sweep(digits_config, wanted, tmp_path, quiet=True)
  log = RunDirectory(tmp_path / 'trials' / '0000').metrics_file
  before = log.read_text()
  jaxvision.sweep(digits_config, wanted, tmp_path, quiet=True)
  assert log.read_text() == before
  assert _trials(tmp_path)[0]['end'] == 'done'


@pytest.mark.slow
def test_workdir_of_another_sweep_is_refused(
  digits_config, numbers, tmp_path, quick_compile
):
  digits_config.steps = 1
  jaxvision.sweep(digits_config, Sweep(numbers, trials=1), tmp_path, quiet=True)
  other = Sweep({**numbers, 'model.dropout': Range(0.0, 0.9)}, trials=1)
  with pytest.raises(UserError, match=r'space.model.dropout: Range\(low=0.0, high=0.5'):
    jaxvision.sweep(digits_config, other, tmp_path, quiet=True)
  digits_config.batch_size = 32
  with pytest.raises(UserError, match='config.batch_size: 64 -> 32'):
    jaxvision.sweep(digits_config, Sweep(numbers, trials=1), tmp_path, quiet=True)


def _open(wanted, config, tmp_path, name):
  """Opens a study and its directory, as a process does."""
  storage = Storage(f'sqlite:///{tmp_path}/{name}.db')
  study = Study(wanted, config, storage, 'accuracy', 'max')
  directory = SweepDirectory(tmp_path)
  directory.claim(study.note_workdir, study.workdirs)
  return study, directory


def test_two_processes_share_a_study(digits_config, numbers, tmp_path):
  wanted = search_space.validate(Sweep(numbers, trials=3, name='shared'), digits_config)
  one, directory = _open(wanted, digits_config, tmp_path, 'shared')
  two, _ = _open(wanted, digits_config, tmp_path, 'shared')
  trials = [study.begin(directory) for study in (one, two, one)]
  assert [trial.number for trial in trials] == [0, 1, 2]
  assert len({trial.values['model.dropout'] for trial in trials}) == 3
  assert two.begin(directory) is None
  assert len(two.under_way()) == 3
  trials[1].finish(0.5)
  trials[0].fail('no memory')
  assert [t.number for t in one.over()] == [0, 1]
  assert one.best().number == 1


def test_random_draws_do_not_depend_on_the_process(digits_config, numbers, tmp_path):
  wanted = search_space.validate(
    Sweep(numbers, 'random', trials=4, name='a'), digits_config
  )
  drawn = []
  for name in ('one', 'two'):
    (tmp_path / name).mkdir()
    values = []
    for _ in range(4):  # a process for each trial
      study, directory = _open(wanted, digits_config, tmp_path / name, 'sweep')
      trial = study.begin(directory)
      values.append(tuple(trial.values.values()))
      trial.finish(0.0)
    assert len(set(values)) == 4
    drawn.append(values)
  np.testing.assert_array_equal(drawn[0], drawn[1])


GOOD = "space={'optimizer.learning_rate': Range(0.01, 0.1)}"


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ("space={'optimizer.learning_rat': Range(0.1, 1.0)}", 'did you mean "optimizer'),
    ("space={'model.dropuot': Range(0.1, 0.5)}", 'no field "dropuot"'),
    ("space={'optimizer.learning_rate': Range(1.0, 0.1)}", 'it is empty'),
    ("space={'optimizer.learning_rate': Range(0, 1, log=True)}", 'above 0'),
    ("space={'batch_size': Choice()}", 'it is empty'),
    ("space={'batch_size': Choice(32, 32)}", 'named twice'),
    ("space={'batch_size': Choice(32, 5000)}", 'batch_size = 5000'),
    ("space={'optimizer.momentum': Range(0.5, 1.5)}", 'optimizer.momentum must be'),
    ("space={'optimizer.name': Choice('sgd', 'adamm')}", 'did you mean "adam"'),
    ('space={}', 'the space is empty'),
    ("space={'batch_size': 32}", 'takes Range(...) or Choice(...)'),
    (GOOD + ", sampler='grid'", 'a grid needs values'),
    (GOOD + ", sampler='tpee'", 'did you mean "tpe"'),
    (GOOD + ", pruner='no'", "pruner 'no' is unknown"),
    (GOOD + ", measure='f1'", 'there is no measure "f1"'),
    (GOOD + ', trials=-1', 'trials must be a whole number'),
    (GOOD + ', sidebyside=2', 'sidebyside'),
    ('space={1: Range(0.1, 1.0)}', 'config fields such as'),
    ('space={("seed",): Range(0, 1)}', 'config fields such as'),
    ('space=[("seed", Range(0, 1))]', 'the space is a dict'),
    ("space={'seed': range(9)}", 'takes Range(...) or Choice(...), not range(0, 9)'),
    ("space={'seed': Range(0, None)}", 'None is no number'),
    ("space={'seed\\n': Range(0, 1)}", 'config fields such as'),
    ("space={'seed': Choice([1])}", '[1] is no number'),
    ("space={'seed': Choice(1, True)}", 'named twice'),
    ("space={'seed': Range(0, 10**400)}", 'whole numbers go from'),
    ("space={'seed': Range('0', 9)}", "'0' is no number"),
    ("space={'model.x': Range(-1e308, 1e308)}", 'too wide'),
    ("space={'seed': Range(0, 10**12)}, sampler='grid'", '10,000 are the most'),
    ("space={'model.x': Range(0.0, 1.0, step=5e-324)}", 'too small'),
    (GOOD + ', trials=10**6', '10,000 are the most'),
    (GOOD + ', trials="9"', 'trials must be a whole number'),
    (GOOD + ', seed=2**32', 'seed must be a whole number from 0 and below 2**32'),
    (GOOD + ', validation="a"', 'validation must be at least 0'),
    (GOOD + ', validation=float("nan")', 'validation must be at least 0'),
    (GOOD + ', sampler=["tpe"]', 'sampler'),
    (GOOD + ', measure=1', 'measure must be a string'),
    (GOOD + ', name=1', 'name must be a string'),
    (GOOD + ', name="../elsewhere"', 'name'),
  ],
)
def test_invalid_search_space_is_a_usage_error(text, message, tmp_path, capsys):
  file = tmp_path / 'wrong.py'
  file.write_text(FILE.replace('{0}', text))
  arguments = ('--config=configs/digits_cnn.py', f'--sweep={file}')
  assert main(['sweep', *arguments, f'--workdir={tmp_path / "sweep"}']) == 2
  error = capsys.readouterr().err
  assert message in error
  assert error.startswith('error: ')
  assert error.count('\n') == 1
  assert not (tmp_path / 'sweep').exists()


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (('--config=configs/digits_cnn.py',), 'name the search space with --sweep=FILE'),
    (
      ('--sweep=experiments/sweeps/digits.py',),
      'sweep: name a config with --config=FILE',
    ),
    (('--config=configs/digits_cnn.py', '--sweep=no.py'), 'sweep file no.py is not'),
    (
      ('--config=configs/digits_cnn.py', '--sweep=configs/digits_cnn.py'),
      'defines no function get_sweep()',
    ),
    (
      (
        '--config=configs/digits_cnn.py',
        '--sweep=experiments/sweeps/digits.py',
        '--storage=postgresql://me:secret@localhost:1/none',
      ),
      'cannot be used',
    ),
    (
      (
        '--config=configs/digits_cnn.py',
        '--sweep=experiments/sweeps/digits.py',
        '--storage=sqlite:////no/such/folder/sweep.db',
      ),
      'cannot be used',
    ),
  ],
)
def test_sweep_usage_errors(
  arguments, message, tmp_path, capsys, monkeypatch, pytestconfig
):
  monkeypatch.chdir(pytestconfig.rootpath)
  assert main(['sweep', *arguments, f'--workdir={tmp_path / "sweep"}']) == 2
  error = capsys.readouterr().err
  assert message in error
  assert 'secret' not in error
  assert error.count('\n') == 1
  assert not (tmp_path / 'sweep').exists()


def test_the_sweep_file_of_the_readme_loads(pytestconfig):
  root = pytestconfig.rootpath
  loaded = config.load(root / 'configs' / 'digits_cnn.py')
  found = search_space.load(root / 'experiments' / 'sweeps' / 'digits.py', loaded)
  assert found.size == 20
  assert found.name == 'digits_cnn-digits'
