"""Runs whose weights are no numbers."""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxvision
from jaxvision.errors import UserError
from jaxvision.tasks.base import saved_fields
from jaxvision.training import checkpoints as checkpoints_lib
from jaxvision.training.opening import open_run
from jaxvision.training.run_directory import RunDirectory

TRAINED = Path(__file__).resolve().parent.parent / 'fixtures' / 'trained'


@pytest.fixture(scope='module')
def damaged(tmp_path_factory):
  """A run whose last checkpoint has an infinite weight, as several hosts may write it."""
  folder = tmp_path_factory.mktemp('runs') / 'digits'
  directory = RunDirectory(shutil.copytree(TRAINED / 'digits_cnn', folder))
  run = open_run(directory)
  state, step = run.restore()
  params = jax.tree.map(np.array, state.params)
  params['head']['kernel'][3, 4] = np.inf
  state = state.replace(params=params)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(checkpoints_lib.files, 'diverged', lambda *named: False)
    kept = checkpoints_lib.Checkpoints(directory.checkpoints, keep=9)
    metrics = jax.tree.map(np.asarray, run.task.metrics.empty())
    tree = {'state': saved_fields(state), 'metrics': metrics}
    assert kept.save(step + 1, tree, {'position': {}, 'clock': {}})
    kept.wait()
    kept.close()
  return folder, step


@pytest.mark.parametrize(
  'use',
  [
    jaxvision.load_run,
    lambda path: jaxvision.evaluate(path, quiet=True),
    jaxvision.export,
  ],
  ids=['load_run', 'evaluate', 'export'],
)
def test_weights_that_are_not_finite_are_named(use, damaged):
  folder, step = damaged
  with pytest.raises(UserError) as error:
    use(folder)
  assert 'params/head/kernel is not finite: 1 of its' in str(error.value)
  assert f'checkpoint of step {step + 1}' in str(error.value)
  assert len(str(error.value).splitlines()) == 1


def test_another_checkpoint_of_the_run_is_not_refused(damaged):
  folder, step = damaged
  assert jaxvision.load_run(folder, checkpoint=step).step == step


def test_the_command_line_refuses_them_too(damaged, call, tmp_path):
  for command in ('predict', 'eval', 'export'):
    more = [tmp_path] if command == 'predict' else []
    if more:
      from PIL import Image

      Image.new('L', (8, 8)).save(tmp_path / 'image.png')
    code, _, errors = call(command, f'--workdir={damaged[0]}', *more)
    assert code == 2
    assert errors.splitlines()[-1].startswith('error: ')
    assert 'not finite' in errors
