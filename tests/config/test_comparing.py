"""What tells two configs apart, and what may change in a run."""

import fnmatch

from jaxvision import config as config_lib
from jaxvision.config import base_config, override


def test_what_a_run_is_called_and_when_it_logs_may_change():
  changed = override(
    base_config(),
    [
      'name=other',
      'log_every_steps=7',
      'eval_every_steps=7',
      'checkpoint.every_steps=7',
      'data.workers=3',
    ],
  )
  assert config_lib.differences(base_config(), changed) == []


def test_every_pattern_of_what_may_be_extended_is_of_a_field():
  paths = [path for path, _ in config_lib.walk(base_config())]
  paths.append('optimizer.groups.NAME')
  for pattern in config_lib.EXTENDABLE:
    assert fnmatch.filter(paths, pattern), pattern
  assert config_lib.fixed(['epochs', 'distillation.weight', 'data.name']) == [
    'data.name'
  ]
