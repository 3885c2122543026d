"""The command `benchmark`."""

import json
from pathlib import Path

import pytest
from command_line import DIGITS, assert_refused


def test_benchmark_prints_throughput_and_leaves_no_run(call):
  options = (
    DIGITS,
    '--steps=12',
    '--config.batch_size=8',
    '--config.model.name=small_filters_cnn',
    '--config.model.features=(2,2,2)',
    '--config.parallel.data=1',
    '--config.name=measured',
  )
  code, output, errors = call('benchmark', *options)
  assert code == 0, errors
  assert 'images/s over 12 steps' in output
  assert 'of the peak' in output
  code, output, _ = call('benchmark', *options, '--json')
  assert code == 0
  assert json.loads(output)['steps'] == 12
  assert not Path('runs/measured').exists()


@pytest.mark.parametrize(
  ('arguments', 'wanted'),
  [
    ([], 'benchmark: name a config with --config=FILE'),
    ([DIGITS, '--steps=0'], '--steps must be at least 1'),
    ([DIGITS, '--config.batch_size=9999'], 'batch_size 9999'),
  ],
)
def test_benchmark_usage_errors(call, arguments, wanted):
  assert_refused(call('benchmark', *arguments), wanted)
