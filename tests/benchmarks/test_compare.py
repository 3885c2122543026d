"""Two results of a benchmark: what is a loss, what is noise, what cannot be compared."""

import copy
import json

import pytest

RESULT = {
  'benchmark': 'train_throughput',
  'machine': {'processor': 'A', 'cores': 2},
  'versions': {'jax': '0.10.1'},
  'dtypes': ['float32'],
  'rows': [
    {
      'name': name,
      'batch_size': 64,
      'inference': False,
      'parameters': 9,
      'ratio': {'n': 5, 'min': 1.0, 'median': 1.1, 'max': 1.2},
      'ours': {'n': 5, 'min': 1.0, 'median': 1.1, 'max': 1.2},
    }
    for name in ('resnet18', 'vit_small')
  ],
}


@pytest.fixture
def compare(module, tmp_path, capsys):
  """Returns a function of two results: (exit code, standard output, standard error)."""

  def run(old, new):
    paths = []
    for name, content in (('old', old), ('new', new)):
      paths.append(tmp_path / f'{name}.json')
      paths[-1].write_text(json.dumps(content))
    code = module('compare').main([str(path) for path in paths])
    return code, *capsys.readouterr()

  return run


def with_ratio(least, median, most, n=5):
  result = copy.deepcopy(RESULT)
  spread = {'n': n, 'min': least, 'median': median, 'max': most}
  result['rows'][0]['ratio'] = spread
  return result


@pytest.mark.parametrize(
  ('new', 'verdict', 'code'),
  [
    (with_ratio(0.7, 0.8, 0.9), 'loss', 1),
    (with_ratio(1.3, 1.4, 1.5), 'gain', 0),
    # One turn of the new as fast as the old's median: it may be chance.
    (with_ratio(0.7, 0.8, 1.15), 'noise', 0),
    # The median of the new is one of the old's turns.
    (with_ratio(0.95, 1.0, 1.05), 'noise', 0),
    (with_ratio(0.7, 0.8, 0.9, n=2), 'too few turns', 0),
  ],
)
def test_a_loss_is_what_the_turns_of_neither_side_explain(compare, new, verdict, code):
  found, out, _ = compare(RESULT, new)
  assert found == code
  row = next(line for line in out.splitlines() if line.startswith('| resnet18'))
  assert row.split('|')[-2].strip() == verdict
  assert ('loss: resnet18' in out) == bool(code)
  assert 'not the same' not in out


def test_fewer_seconds_are_no_loss(compare):
  def growth(low):
    spread = {'n': 5, 'min': low, 'median': low + 1, 'max': low + 2}
    row = {'axis': 'batch', 'at': 32, 'work': 7.0, 'seconds': spread}
    return {'benchmark': 'growth', 'rows': [row]}

  code, out, _ = compare(growth(10), growth(5))
  assert code == 0
  assert out.count('gain') == 1
  code, out, _ = compare(growth(5), growth(10))
  assert code == 1
  assert out.count('loss: batch at=32:') == 1


def test_the_seeds_of_a_speed_run_are_its_turns(compare):
  def runs(seconds, accuracy):
    rows = [
      {'seed': i, 'loss': 0.1, 'seconds': seconds + i, 'accuracy': accuracy + i / 1e3}
      for i in range(4)
    ]
    return {'benchmark': 'speedrun', 'config': {'name': 'airbench'}, 'rows': rows}

  code, out, _ = compare(runs(5, 0.94), runs(5, 0.93))
  assert code == 1
  assert 'loss: airbench: accuracy -1.1%' in out
  assert 'loss: airbench: seconds' not in out


def test_other_machines_and_rows_of_one_file_are_named(compare):
  new = copy.deepcopy(RESULT)
  new['machine']['processor'], new['dtypes'] = 'B', ['bfloat16']
  new['rows'][1]['batch_size'] = 128
  code, out, _ = compare(RESULT, new)
  assert code == 0
  lines = out.splitlines()
  assert lines[0] == "not the same: dtypes ['float32'], ['bfloat16']; processor A, B"
  assert lines[1].endswith('old.json: vit_small batch_size=64')
  assert lines[2].endswith('new.json: vit_small batch_size=128')
  assert len([line for line in lines if line.startswith('| vit_small')]) == 0


@pytest.mark.parametrize(
  ('new', 'message'),
  [
    ({**RESULT, 'benchmark': 'latency'}, 'train_throughput and latency'),
    ({**RESULT, 'rows': []}, 'no row of train_throughput is in both'),
    ({'rows': []}, 'is no result of a benchmark'),
    ([], 'is no result of a benchmark'),
  ],
)
def test_what_cannot_be_compared_is_one_line(compare, new, message):
  code, out, err = compare(RESULT, new)
  assert (code, out) == (2, '')
  assert message in err
  assert err.count('\n') == 1


def test_every_result_of_the_project_with_turns_equals_itself(module, pytestconfig):
  compared = 0
  for path in pytestconfig.rootpath.glob('benchmarks/results/*.json'):
    content = json.loads(path.read_text())
    if content['benchmark'] != 'scaling':  # which measures nothing
      measured, *only = module('compare').compare(content, content)
      for found in measured:  # of two turns nothing can be told
        assert found.verdict == ('noise' if found.old['n'] >= 3 else '')
      assert only == [[], []]
      compared += 1
  assert compared >= 4
