"""The command `export`: averages of checkpoints and of runs."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import assert_refused
from safetensors.numpy import load_file

import jaxvision

TRAINED = Path(__file__).resolve().parents[1] / 'fixtures' / 'trained'


@pytest.fixture
def runs(tmp_path):
  """Two runs of one model: the fixture, and the same at its first checkpoint."""
  late, early = (
    Path(shutil.copytree(TRAINED / 'digits_cnn', tmp_path / name))
    for name in ('late', 'early')
  )
  shutil.rmtree(early / 'checkpoints' / '60')
  return late, early


def test_runs_are_averaged(call, runs, tmp_path):
  output = tmp_path / 'soup.safetensors'
  code, printed, errors = call('export', *runs, f'--output={output}')
  assert code == 0, errors
  assert str(output) in printed
  single = [
    load_file(jaxvision.export(run, tmp_path / f'{run.name}.safetensors'))
    for run in runs
  ]
  found = load_file(output)
  assert found.keys() == single[0].keys()
  for name, tensor in found.items():
    mean = (single[0][name].astype(np.float64) + single[1][name]) / 2
    np.testing.assert_allclose(tensor, mean, rtol=1e-5, atol=1e-6)
  # The two are the checkpoints of one run.
  of_run = load_file(jaxvision.export(runs[0], tmp_path / 'x.safetensors', average=2))
  for name, tensor in found.items():
    np.testing.assert_allclose(tensor, of_run[name], rtol=1e-5, atol=1e-6)


def test_average_of_checkpoints_is_exported(call, runs):
  code, _, errors = call('export', f'--workdir={runs[0]}', '--average=2')
  assert code == 0, errors
  assert 'mean of the checkpoints of steps 30, 60' in errors
  assert (runs[0] / 'model.safetensors').is_file()
  assert_refused(call('export', f'--workdir={runs[0]}', '--average=3'), '30, 60')


def test_runs_that_cannot_be_averaged_are_refused(call, runs, tmp_path):
  output = f'--output={tmp_path / "soup.safetensors"}'
  assert_refused(call('export', runs[0], output), 'name it with --workdir')
  assert_refused(call('export', *runs), '--output=FILE')
  assert_refused(call('export', *runs, f'--workdir={runs[0]}', output), 'several')
  gan = TRAINED / 'digits_dcgan'
  assert_refused(call('export', runs[0], gan, output), 'differ in task, model')
  assert_refused(call('export', runs[0], tmp_path, output), 'is no run')
  assert not (tmp_path / 'soup.safetensors').exists()
