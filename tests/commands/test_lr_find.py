"""The command `lr-find`: what it writes and where, and what it says."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import DIGITS, assert_refused
from PIL import Image

from jaxvision.commands import lr_find
from jaxvision.training.lr_finder import LearningRateCurve
from jaxvision.training.run_directory import RunDirectory

TRAINED = Path(__file__).resolve().parents[1] / 'fixtures' / 'trained'
QUICK = (
  '--config.model.name=small_filters_cnn',
  '--config.model.features=(4,4,4)',
  '--config.parallel.data=1',
)


def contents(folder):
  return {p: p.read_bytes() for p in folder.rglob('*') if p.is_file()}


@pytest.mark.long
def test_a_run_in_the_workdir_is_left_as_it_is(call, tmp_path, quick_compile):
  finished = shutil.copytree(TRAINED / 'digits_cnn', tmp_path / 'run')
  before = contents(finished)
  code, output, errors = call('lr-find', DIGITS, *QUICK, f'--workdir={finished}')
  assert code == 0, errors
  after = contents(finished)
  new = {path.name for path in after.keys() - before.keys()}
  assert new == {'lr_find.json', 'lr_find.png'}
  assert all(after[path] == content for path, content in before.items())
  found = json.loads((finished / 'lr_find.json').read_text())
  assert found['config_name'] == 'digits_cnn'
  rates = found['learning_rates']
  assert rates[0] == 1e-6
  assert len(rates) == len(found['losses']) == len(found['smoothed_losses'])
  assert found['steps'] == len(rates) <= found['steps_of_ramp'] == 22
  for label, name in (
    ('steepest descent', 'steepest'),
    ('a tenth of the minimum', 'minimum_tenth'),
  ):
    (line,) = [line for line in output.splitlines() if line.startswith(label)]
    assert float(line.split()[-1]) == float(f'{found["suggestions"][name]:.3g}')
  with Image.open(finished / 'lr_find.png') as chart:
    assert chart.width > 1000


def test_a_run_may_begin_where_rates_were_sought(tmp_path, digits_config):
  for name in ('lr_find.json', 'lr_find.png'):
    (tmp_path / name).touch()
  RunDirectory(tmp_path).check(digits_config)


def test_lr_find_usage_errors(call, tmp_path):
  assert_refused(call('lr-find'), 'name a config')
  assert_refused(call('lr-find', DIGITS, '--min=1', '--max=0.1'), 'from 1 to 0.1')
  assert_refused(call('lr-find', DIGITS, '--steps=2'), 'at least 10 steps')
  assert_refused(call('lr-find', '--config=configs/digits_dcgan.py'), 'task gan')
  (tmp_path / 'file').touch()
  assert_refused(
    call('lr-find', DIGITS, f'--workdir={tmp_path / "file"}'), 'no directory'
  )
  assert_refused(call('lr-find', DIGITS, '--maximum=3'), 'no option')


def test_lines_of_a_curve_that_does_not_fall():
  rates = tuple(np.geomspace(1, 10, 12).tolist())
  losses = tuple(np.linspace(1, 4, 12).tolist())
  found = lr_find.lines(LearningRateCurve(rates, losses, losses, 40, 8, 'it grew'))
  assert found[0] == '12 of 40 steps of 8 images, at rates from 1 to 10: it grew'
  assert 'smaller --min' in found[1]
