"""The trace of some training steps."""

import gzip
import json

import pytest

import jaxvision
from jaxvision.config import load


@pytest.fixture
def tiny_config(digits_config):
  digits_config.model = {'name': 'small_filters_cnn', 'features': (2, 2, 2)}
  digits_config.batch_size = 8
  digits_config.eval_every_steps = digits_config.checkpoint.every_steps = 12
  return digits_config


def events(directory):
  (trace,) = directory.rglob('perfetto_trace.json.gz')
  with gzip.open(trace) as file:
    return json.load(file)['traceEvents']


@pytest.mark.slow
def test_trace_holds_the_steps_asked_for(tiny_config, tmp_path, capsys):
  tiny_config.profile = 4
  jaxvision.train(tiny_config, tmp_path / 'run')
  directory = tmp_path / 'run' / 'profile'
  assert list(directory.rglob('*.xplane.pb'))  # TensorBoard and XProf read this one
  steps = {
    int(event['args']['step_num'])
    for event in events(directory)
    if event.get('name') == 'train' and 'step_num' in event.get('args', {})
  }
  assert steps == {3, 4, 5, 6}
  assert f'profile: trace of 4 steps in {directory}' in capsys.readouterr().out


def test_no_trace_without_config_profile(tiny_config, tmp_path, capsys):
  jaxvision.train(tiny_config, tmp_path / 'run')
  assert not (tmp_path / 'run' / 'profile').exists()
  assert 'profile' not in capsys.readouterr().out


@pytest.mark.slow
def test_short_run_writes_the_steps_that_it_traced(tiny_config, tmp_path, capsys):
  tiny_config.profile = 100
  jaxvision.train(tiny_config, tmp_path / 'long')
  assert 'profile: trace of 9 steps' in capsys.readouterr().out
  tiny_config.steps = 2
  jaxvision.train(tiny_config, tmp_path / 'short')
  assert 'profile: no trace' in capsys.readouterr().out


def test_profile_may_change_on_resume(tiny_config, tmp_path):
  jaxvision.train(tiny_config, tmp_path / 'run', quiet=True)
  tiny_config.profile = 4
  assert jaxvision.train(tiny_config, tmp_path / 'run', quiet=True)['steps'] == 12


def test_profile_is_validated(request):
  from jaxvision.errors import UserError

  config = request.config.rootpath / 'configs' / 'digits_cnn.py'
  assert load(config, ['profile=3']).profile == 3
  with pytest.raises(UserError, match='profile'):
    load(config, ['profile=-1'])
