"""A schedule-free run: what evaluates, predicts and leaves is the average; it resumes."""

import shutil

import chex
import jax
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file

import jaxvision
from jaxvision import config as config_lib
from jaxvision.training.opening import open_run
from jaxvision.training.run_directory import RunDirectory

pytestmark = [pytest.mark.long, pytest.mark.usefixtures('quick_compile')]

FIELDS = (
  'steps=60',
  'eval_every_steps=30',
  'checkpoint.every_steps=30',
  'optimizer.schedule_free=True',
  'optimizer.learning_rate=0.3',
  'schedule.name=constant',
  'schedule.warmup_steps=5',
)


@pytest.fixture(scope='module')
def trained(short_run, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('schedule_free') / 'run'
  config = config_lib.override(short_run(), FIELDS)
  # As by `quick_compile`, with which the run is resumed.
  jax.config.update('jax_disable_most_optimizations', True)
  try:
    return workdir, config, jaxvision.train(config, workdir, quiet=True)
  finally:
    jax.config.update('jax_disable_most_optimizations', False)


def expected(state):
  """Returns the average by optax's own function."""
  (inner,) = [
    node
    for node in jax.tree.leaves(
      state.opt_state, is_leaf=lambda n: isinstance(n, optax.contrib.ScheduleFreeState)
    )
    if isinstance(node, optax.contrib.ScheduleFreeState)
  ]
  return optax.contrib.schedule_free_eval_params(inner, state.params)


def test_everything_that_reads_the_run_uses_the_average(trained, tmp_path):
  workdir, _, summary = trained
  run = jaxvision.load_run(workdir)
  params = expected(run.state)
  chex.assert_trees_all_close(run.state.eval_variables['params'], params, rtol=1e-6)
  test = jaxvision.data.load('digits').splits['test']
  with_average = run.predict(test.images)
  accuracy = float((with_average.labels == test.labels).mean())
  assert accuracy == pytest.approx(summary['test_accuracy'])
  assert accuracy > 0.9
  model, (mean, std) = run.task.model, run.task.normalization
  images = (test.images / np.float32(255) - np.float32(mean)) / np.float32(std)
  variables = {'params': params, 'batch_stats': run.state.batch_stats}
  logits = model.apply(variables, images, train=False)
  np.testing.assert_allclose(
    with_average.probabilities, jax.nn.softmax(logits), rtol=1e-3, atol=1e-5
  )
  exported = load_file(jaxvision.export(workdir, tmp_path / 'x.safetensors'))
  kernel = np.asarray(params['head']['kernel'])
  np.testing.assert_allclose(exported['head.weight'].T, kernel, rtol=1e-6)


def test_resumed_run_is_bit_identical(trained, tmp_path):
  finished, config, whole = trained
  workdir = shutil.copytree(finished, tmp_path / 'run')
  shutil.rmtree(workdir / 'checkpoints' / '60')
  (workdir / 'summary.json').unlink()
  again = jaxvision.train(config, workdir, quiet=True)
  states = [
    jax.device_get(open_run(RunDirectory(path)).restore()[0])
    for path in (finished, workdir)
  ]
  chex.assert_trees_all_equal(*states)
  assert again['test_loss'] == whole['test_loss']


def test_pretrained_weights_are_where_it_begins(trained, short_run, tmp_path):
  first = jaxvision.load_run(trained[0]).state.eval_variables['params']
  config = config_lib.override(
    short_run(),
    [
      *FIELDS,
      'steps=8',
      'optimizer.learning_rate=1e-6',
      f'init.pretrained={trained[0]}',
    ],
  )
  jaxvision.train(config, tmp_path / 'run', quiet=True)
  second = jaxvision.load_run(tmp_path / 'run').state.eval_variables['params']
  chex.assert_trees_all_close(first, second, atol=1e-4)
