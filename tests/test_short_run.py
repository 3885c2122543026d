"""One short run from end to end: what `make test-fast` has of training."""

import json

import pytest

import jaxvision


@pytest.mark.usefixtures('quick_compile')
def test_a_short_run_learns_digits_and_predicts(digits_config, tmp_path):
  summary = jaxvision.train(digits_config, tmp_path, quiet=True)
  assert summary == json.loads((tmp_path / 'summary.json').read_text())
  assert summary['steps'] == 12
  assert summary['test_accuracy'] > 0.15  # chance is 0.1
