"""Flow-matching runs resume, shard, log, evaluate and draw as runs of other tasks do."""

import dataclasses
import json
import shutil

import chex
import jax
import numpy as np
import pytest
from PIL import Image

import jaxvision
from jaxvision.errors import TrainingDiverged, UserError
from jaxvision.training.run_directory import read_history

pytestmark = pytest.mark.long

TINY = (
  'data.image_size=8',
  'model.width=4',
  'model.multipliers=(1,)',
  'model.embedding=8',
  'flow.steps=2',
  'batch_size=16',
  'eval_batch_size=32',
  'steps=12',
  'log_every_steps=4',
  'eval_every_steps=6',
  'schedule.warmup_steps=2',
  'parallel.data=1',
)


@pytest.fixture
def config():
  return jaxvision.load_config('configs/digits_flow.py', [*TINY, 'report=False'])


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
  """A classifier of digits that has learned for some steps."""
  workdir = tmp_path_factory.mktemp('classifier') / 'digits_cnn'
  config = jaxvision.load_config('configs/digits_cnn.py', ['steps=40', 'report=False'])
  jaxvision.train(config, workdir, quiet=True)
  return workdir


@pytest.fixture(scope='module')
def trained(tmp_path_factory, classifier):
  """A short run that was measured at the end, and its summary."""
  workdir = tmp_path_factory.mktemp('trained') / 'flow'
  config = jaxvision.load_config(
    'configs/digits_flow.py',
    [
      *TINY,
      f'evaluation.features={classifier}',
      'evaluation.samples=100',
      'evaluation.samples_while_training=50',
    ],
  )
  return workdir, jaxvision.train(config, workdir, quiet=True)


def state_of(workdir):
  return jaxvision.load_run(workdir).state


def log_of(workdir):
  return [
    {k: v for k, v in point.items() if k != 'images_per_second'}
    for point in read_history(workdir / 'metrics.jsonl')
  ]


def test_summary_and_report_of_a_run(trained):
  workdir, summary = trained
  assert summary == json.loads((workdir / 'summary.json').read_text())
  assert summary['task'] == 'flow_matching'
  assert summary['params'] > 0
  assert 0 < summary['train_loss'] < 3
  assert 0 < summary['test_loss'] < 3
  assert summary['fd_name'] == 'FD-digits_cnn'
  assert summary['fd'] > summary['fd_floor'] > 0
  assert summary['measure']['key'] == 'fd'
  assert '100 samples' in summary['protocol']
  log = log_of(workdir)
  assert [p['step'] for p in log if p['split'] == 'train'] == [4, 8, 12]
  samples = [p for p in log if p['split'] == 'samples']
  assert [p['step'] for p in samples] == [6, 12]
  assert all(p['fd'] > 0 and 0 < p['loss'] < 3 for p in samples)
  assert summary['best_fd'] == min(p['fd'] for p in samples)
  assert len(list((workdir / 'samples').iterdir())) == 2
  report = json.loads((workdir / 'report' / 'report.json').read_text())
  assert report['scores']['protocol'] == summary['protocol']
  assert report['flow'] == {'sampler': 'midpoint', 'steps': 2, 'guidance': 1.0}
  assert report['steps'] == 12
  page = (workdir / 'report' / 'report.html').read_text()
  assert 'midpoint, 2 steps' in page
  assert 'discriminator' not in page
  assert (workdir / 'report' / 'losses.png').is_file()


@pytest.mark.parametrize(
  'pipeline', ['resident', pytest.param('streaming', marks=pytest.mark.slow)]
)
def test_a_run_goes_on_to_the_bit(config, tmp_path, pipeline):
  config.data.pipeline, config.data.workers = pipeline, 0
  config.checkpoint.every_steps = 5
  whole, cut = tmp_path / 'whole', tmp_path / 'cut'
  jaxvision.train(config, whole, quiet=True)
  shutil.copytree(whole, cut)
  # As if it had been killed after step 10.
  (cut / 'summary.json').unlink()
  shutil.rmtree(cut / 'checkpoints' / '12')
  jaxvision.train(config, cut, quiet=True)
  chex.assert_trees_all_equal(state_of(cut), state_of(whole))
  assert log_of(cut) == log_of(whole)


@pytest.mark.slow
def test_eight_devices_match_one(config, tmp_path, quick_compile):
  jaxvision.train(config, tmp_path / 'one', quiet=True)
  config.parallel.data, config.parallel.fsdp = 4, 2
  jaxvision.train(config, tmp_path / 'eight', quiet=True)
  one, eight = (log_of(tmp_path / name) for name in ('one', 'eight'))
  assert len(one) == len(eight)
  for a, b in zip(one, eight):
    assert a.keys() == b.keys()
    for name in a.keys() - {'split'}:
      assert b[name] == pytest.approx(a[name], rel=2e-3, abs=1e-4), (a['step'], name)


@pytest.mark.slow
def test_bfloat16_trains_and_draws(config, tmp_path, quick_compile):
  config.dtype = 'bfloat16'
  config.model.attention = (4,)
  config.steps, config.grad_accumulation = 4, 2
  summary = jaxvision.train(config, tmp_path / 'run', quiet=True)
  assert np.isfinite(summary['test_loss'])
  run = jaxvision.load_run(tmp_path / 'run')
  chex.assert_trees_all_equal_dtypes(run.state.params, run.state.ema['params'])
  chex.assert_type(run.sample(2), np.uint8)


def test_exported_flow_draws_the_same_images(trained, tmp_path):
  workdir, _ = trained
  run = jaxvision.load_run(workdir)
  images = run.sample(5, seed=3)
  assert images.shape == (5, 8, 8, 1)
  path = jaxvision.export(workdir, tmp_path / 'flow.safetensors')
  again = jaxvision.load_generator(path)
  chex.assert_trees_all_equal(again.sample(5, seed=3), images)
  assert again.model.settings == run.model.settings
  chex.assert_trees_all_close(
    run.sample(9, seed=3, batch_size=4)[:5].astype(int), images.astype(int), atol=1
  )
  assert again.interpolate(2, 4, seed=3).shape == (2, 4, 8, 8, 1)
  assert 'parameters' in repr(again)


def test_flow_in_onnx_draws_the_same_images(trained, tmp_path):
  pytest.importorskip('onnxruntime')
  workdir, _ = trained
  run = jaxvision.load_run(workdir)
  path = jaxvision.export(workdir, tmp_path / 'flow.onnx')
  again = jaxvision.load_model(path)
  assert again.class_names == run.class_names
  for drawn in (run, again):
    with pytest.raises(UserError, match='no class'):
      drawn.sample(1, label='zebra')
  for asked in ({'count': 5, 'seed': 3}, {'count': 3, 'label': 7, 'batch_size': 2}):
    found, wanted = again.sample(**asked), run.sample(**asked)
    chex.assert_shape(found, (asked['count'], 8, 8, 1))
    chex.assert_trees_all_close(found.astype(int), wanted.astype(int), atol=1)
  rows = run.interpolate(2, 4, seed=3)
  chex.assert_trees_all_close(
    again.interpolate(2, 4, seed=3).astype(int), rows.astype(int), atol=1
  )


@pytest.mark.slow
def test_more_steps_converge(trained):
  run = jaxvision.load_run(trained[0])
  random = np.random.default_rng(0)
  moved = jax.tree.map(  # so short a run has hardly a velocity
    lambda leaf: np.asarray(
      leaf + 0.2 * random.standard_normal(leaf.shape), np.float32
    ),
    run.variables,
  )
  run = dataclasses.replace(run, variables=moved)
  coarse, fine, finer = (
    run.with_settings({'steps': steps}).sample(4).astype(int) for steps in (1, 40, 80)
  )
  assert np.abs(fine - finer).max() <= 3
  assert np.abs(coarse - finer).max() > 20


@pytest.mark.slow
def test_commands_draw_and_measure_by_other_settings(trained, call, tmp_path):
  workdir, summary = trained
  output = tmp_path / 'samples.png'
  arguments = ['sample', f'--workdir={workdir}', f'--output={output}', '--count=4']
  assert call(*arguments)[0] == 0
  first = np.asarray(Image.open(output))
  more = ['--config.flow.steps=5', '--config.flow.guidance=3', '--class=7']
  assert call(*arguments, *more)[0] == 0
  assert (np.asarray(Image.open(output)) != first).any()
  for wrong, said in (
    ('--config.flow.steps=0', 'flow.steps must be at least 1'),
    ('--config.flow.stepz=5', 'it reads flow.sampler, flow.steps, flow.guidance'),
    ('--config.flow.time=uniform', 'takes no --config.flow.time'),
  ):
    code, _, errors = call(*arguments, wrong)
    assert code == 2
    assert said in errors
  override = '--config.flow.steps=1'
  code, said, _ = call('eval', f'--workdir={workdir}', override)
  assert code == 0
  assert (workdir / 'evaluations' / 'steps-1' / 'report' / 'report.html').is_file()
  assert json.loads((workdir / 'summary.json').read_text()) == summary
  code, said, _ = call('summary', f'--workdir={workdir}')
  assert code == 0
  assert 'UNet on one image at a time' in said


def test_a_gan_has_no_steps(call, pytestconfig, tmp_path):
  weights = (
    pytestconfig.rootpath / 'experiments' / 'generators' / 'digits_dcgan.safetensors'
  )
  output = f'--output={tmp_path / "a.png"}'
  code, _, errors = call(
    'sample', f'--weights={weights}', output, '--config.flow.steps=5'
  )
  assert code == 2
  assert 'flow.steps is of task flow_matching' in errors


def test_a_flow_and_a_gan_are_compared(trained, call, pytestconfig, tmp_path):
  workdir, summary = trained
  gan = shutil.copytree(
    pytestconfig.rootpath / 'tests' / 'fixtures' / 'trained' / 'digits_dcgan',
    tmp_path / 'gan',
  )
  code, said, errors = call(
    'compare', str(workdir), str(gan), f'--output={tmp_path / "comparison"}'
  )
  assert code == 0, errors
  assert f'{summary["fd"]:.2f}' in said
  assert 'digits_dcgan' in said


@pytest.mark.slow  # as in any other task
def test_a_diverged_network_stops_the_run(config, tmp_path, quick_compile):
  config.optimizer.name = 'sgd'
  config.optimizer.learning_rate = 1e30
  with pytest.raises(TrainingDiverged):
    jaxvision.train(config, tmp_path / 'run', quiet=True)


@pytest.mark.parametrize(
  ('fields', 'wanted'),
  [
    (['data.image_size=9'], 'multiple of 2'),
    (['evaluation.features=nowhere'], 'neither the workdir'),
    (['model.name=resnet18'], 'unet'),
    (['flow.guidance=2', 'model.conditional=False'], 'model.conditional'),
  ],
)
def test_a_mistake_is_one_line_before_any_work(config, tmp_path, fields, wanted):
  config = jaxvision.config.override(config, fields)
  with pytest.raises(UserError) as error:
    jaxvision.train(config, tmp_path / 'run', quiet=True)
  assert wanted in str(error.value)
  assert '\n' not in str(error.value)
  assert not (tmp_path / 'run').exists()
