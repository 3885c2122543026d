"""The command `compare`."""

import copy
import json
import shutil

import pytest

import jaxvision
from jaxvision.config import to_json
from jaxvision.main import main


@pytest.fixture(scope='module')
def workdirs(tmp_path_factory):
  """A run, the same of another seed, and what one of another rate may have come to."""
  folder = tmp_path_factory.mktemp('runs')
  config = jaxvision.load_config(
    'configs/digits_cnn.py',
    ['steps=6', 'eval_every_steps=3', 'parallel.data=1', 'report=False'],
  )
  jaxvision.train(config, folder / 'one', quiet=True)
  for name, seed, rate, accuracy in (('two', 1, None, 0.9), ('low', 0, 1e-6, 0.01)):
    shutil.copytree(folder / 'one', folder / name)
    changed = copy.deepcopy(config)
    changed.seed = seed
    changed.optimizer.learning_rate = rate or changed.optimizer.learning_rate
    (folder / name / 'config.json').write_text(to_json(changed))
    path = folder / name / 'summary.json'
    summary = json.loads(path.read_text()) | {'seed': seed, 'test_accuracy': accuracy}
    path.write_text(json.dumps(summary))
  return folder


def test_compare_ranks_runs_and_groups_seeds(workdirs, tmp_path, capsys):
  names = [str(workdirs / name) for name in ('low', 'one', 'two')]
  assert main(['compare', *names, f'--output={tmp_path}/c']) == 0
  first, second, *_ = capsys.readouterr().out.splitlines()
  assert first.startswith('digits_cnn optimizer.learning_rate=')
  assert '2 seeds' in first
  assert second.startswith('digits_cnn optimizer.learning_rate=1e-06')
  record = json.loads((tmp_path / 'c' / 'comparison.json').read_text())
  summary = json.loads((workdirs / 'low' / 'summary.json').read_text())
  low = record['entries'][1]
  assert low['test_accuracy'] == summary['test_accuracy']
  assert low['params'] == summary['params']
  # Two for a multiply-add: at least as many as there are weights.
  assert low['flops'] > 2 * low['params']
  assert low['fields'] == {'optimizer.learning_rate': 1e-6}


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ((), 'name two or more workdirs'),
    (('{runs}/one',), 'name two or more workdirs'),
    (('{runs}/one', '{runs}/two/../one'), 'named twice'),
    (('{runs}/one', '{runs}/none'), 'is no run'),
    (('{runs}/one', '{runs}/unfinished'), 'has not finished'),
    (
      ('{runs}/one', '{runs}/two', '--output={runs}/one/config.json'),
      'is no directory',
    ),
    (('{runs}/one', '{runs}/two', '--config.seed=1'), 'no config'),
  ],
)
def test_compare_usage_errors(workdirs, capsys, arguments, message):
  unfinished = workdirs / 'unfinished'
  unfinished.mkdir(exist_ok=True)
  (unfinished / 'config.json').write_bytes((workdirs / 'one/config.json').read_bytes())
  arguments = [a.format(runs=workdirs) for a in arguments]
  assert main(['compare', *arguments]) == 2
  error = capsys.readouterr().err
  assert error.startswith('error: compare: ') or message == 'is no run'
  assert message in error
  assert error.count('\n') == 1
