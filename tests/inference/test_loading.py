"""Runs whose weights are no numbers, and the mean of checkpoints."""

import json
import logging
import shutil
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

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


def average_of(states):
  return jax.tree.map(
    lambda *leaves: np.mean(leaves, axis=0, dtype=np.float64),
    *(jax.device_get(state.eval_variables) for state in states),
  )


@pytest.mark.parametrize(
  ('name', 'steps'), [('digits_cnn', (30, 60)), ('digits_dcgan', (20, 40))]
)
def test_average_is_the_mean_of_what_the_checkpoints_evaluate(name, steps, caplog):
  caplog.set_level(logging.INFO, 'jaxvision')
  run = jaxvision.load_run(TRAINED / name, average=2)
  states = [jaxvision.load_run(TRAINED / name, step).state for step in steps]
  expected = average_of(states)
  assert jax.tree.leaves(expected['batch_stats'])
  found = run.state.eval_variables
  chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-7)
  assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype('float32')}
  apart = jax.tree.map(lambda a, b: abs(a - b).max(), found, states[1].eval_variables)
  assert min(jax.tree.leaves(apart)) > 0  # nothing is left as in the last
  assert run.step == steps[1]
  assert f'mean of the checkpoints of steps {steps[0]}, {steps[1]}' in caplog.text


def test_average_of_one_is_the_last_checkpoint():
  one, last = (
    jaxvision.load_run(TRAINED / 'digits_cnn', **how) for how in ({'average': 1}, {})
  )
  chex.assert_trees_all_equal(one.state.eval_variables, last.state.eval_variables)


def test_average_predicts_and_is_exported(tmp_path):
  folder = TRAINED / 'digits_cnn'
  run = jaxvision.load_run(folder, average=2)
  images = jaxvision.data.load('digits').splits['test'].images[:16]
  mean, std = run.task.normalization
  inputs = (images / np.float32(255) - np.float32(mean)) / np.float32(std)
  expected = average_of(jaxvision.load_run(folder, step).state for step in (30, 60))
  logits = run.task.model.apply(expected, inputs, train=False)
  np.testing.assert_allclose(run.logits(images), logits, rtol=1e-3, atol=1e-4)
  file = jaxvision.export(folder, tmp_path / 'x.safetensors', average=2)
  tensors = load_file(file)
  kernel = expected['params']['head']['kernel']
  np.testing.assert_allclose(tensors['head.weight'].T, kernel, rtol=1e-6)


def test_average_of_a_run_with_an_average_of_its_steps(tmp_path):
  states = [jaxvision.load_run(TRAINED / 'digits_cnn', step).state for step in (30, 60)]
  states = [
    state.replace(ema=jax.tree.map(lambda leaf: 3 * leaf, state.eval_variables))
    for state in states
  ]
  folder = shutil.copytree(TRAINED / 'digits_cnn', tmp_path / 'run')
  shutil.rmtree(folder / 'checkpoints')
  file = folder / 'config.json'
  file.write_text(json.dumps({**json.loads(file.read_text()), 'ema_decay': 0.5}))
  directory = RunDirectory(folder)
  metrics = jax.tree.map(np.asarray, open_run(directory).task.metrics.empty())
  kept = checkpoints_lib.Checkpoints(directory.checkpoints, keep=9)
  for step, state in zip((30, 60), states):
    tree = {'state': saved_fields(state), 'metrics': metrics}
    assert kept.save(step, tree, {'position': {}, 'clock': {}})
  kept.close()
  found = jaxvision.load_run(folder, average=2).state
  expected = average_of(states)
  chex.assert_trees_all_close(found.eval_variables, expected, rtol=1e-5, atol=1e-6)
  chex.assert_trees_all_equal(found.params, states[1].params)


@pytest.mark.parametrize(
  ('how', 'wanted'),
  [
    ({'average': 3}, 'no 3 checkpoints to average, only 2, of step 30, 60'),
    ({'average': 0}, '1 checkpoint or more, not 0'),
    ({'average': 2, 'checkpoint': 'best'}, 'checkpoint "best" is one'),
  ],
)
def test_no_average_of_checkpoints_that_are_not_there(how, wanted):
  with pytest.raises(UserError) as error:
    jaxvision.load_run(TRAINED / 'digits_cnn', **how)
  assert wanted in str(error.value)
  assert '\n' not in str(error.value)


def test_a_damaged_checkpoint_is_in_no_average(tmp_path):
  folder = shutil.copytree(TRAINED / 'digits_cnn', tmp_path / 'run')
  record = folder / 'checkpoints' / '30' / 'record' / 'metadata'
  record.write_bytes(record.read_bytes()[:-9])
  with pytest.raises(UserError, match='checkpoint 30 is damaged'):
    jaxvision.load_run(folder, average=2)
  assert jaxvision.load_run(folder, average=1).step == 60


def test_a_run_without_checkpoints_has_no_average(tmp_path):
  folder = shutil.copytree(TRAINED / 'digits_cnn', tmp_path / 'run')
  shutil.rmtree(folder / 'checkpoints')
  with pytest.raises(UserError, match='no trained weights yet'):
    jaxvision.load_run(folder, average=2)
