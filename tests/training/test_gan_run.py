"""GAN runs resume, shard, log and evaluate as runs of other tasks do."""

import json

import chex
import numpy as np
import pytest
from PIL import Image

import jaxvision
from jaxvision.errors import TrainingDiverged, UserError
from jaxvision.inference.loading import load_run_that
from jaxvision.training.run_directory import read_history


@pytest.fixture
def config():
  return jaxvision.load_config(
    'configs/digits_dcgan.py',
    [
      'model.width=8',
      'data.image_size=8',
      'batch_size=16',
      'steps=12',
      'log_every_steps=4',
      'eval_every_steps=6',
      'parallel.data=1',
      'gan.diffaugment=()',
      'report=False',
    ],
  )


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
  """A classifier of digits, good enough to have an opinion."""
  workdir = tmp_path_factory.mktemp('classifier') / 'digits_cnn'
  config = jaxvision.load_config('configs/digits_cnn.py', ['steps=100', 'report=False'])
  jaxvision.train(config, workdir, quiet=True)
  return workdir


@pytest.fixture(scope='module')
def trained(tmp_path_factory, classifier):
  """A short run that was measured at the end, and its summary."""
  workdir = tmp_path_factory.mktemp('trained') / 'gan'
  config = jaxvision.load_config(
    'configs/digits_dcgan.py',
    [
      'model.width=8',
      'data.image_size=8',
      'steps=20',
      'log_every_steps=5',
      'eval_every_steps=10',
      f'evaluation.features={classifier}',
      'evaluation.samples=300',
      'evaluation.samples_while_training=100',
      'parallel.data=1',
    ],
  )
  return workdir, jaxvision.train(config, workdir, quiet=True)


@pytest.mark.slow
def test_gan_on_eight_devices_matches_one(config, tmp_path, quick_compile):
  config.model.minibatch = 'stddev'  # which sees the whole batch, as batch norm does
  config.gan.diffaugment = ('color', 'translation')
  jaxvision.train(config, tmp_path / 'one', quiet=True)
  config.parallel.data, config.parallel.fsdp = 4, 2
  jaxvision.train(config, tmp_path / 'eight', quiet=True)
  one, eight = (read_history(tmp_path / n / 'metrics.jsonl') for n in ('one', 'eight'))
  for a, b in zip(one, eight):
    assert a.keys() == b.keys()
    for name in a.keys() - {'images_per_second', 'split'}:
      assert b[name] == pytest.approx(a[name], rel=2e-3, abs=1e-4), (a['step'], name)


def test_gan_summary_has_both_networks_and_the_protocol(trained, classifier):
  workdir, summary = trained
  assert summary == json.loads((workdir / 'summary.json').read_text())
  assert summary['task'] == 'gan'
  assert summary['generator_params'] > summary['discriminator_params'] > 0
  assert 'params' not in summary
  assert summary['test_accuracy'] is None
  assert summary['fid'] is None  # never the name of a distance by our own features
  assert summary['fd_name'] == 'FD-digits_cnn'
  assert summary['fd'] > summary['fd_floor'] > 0
  for word in ('300 samples', 'test (359 images)', 'digits_cnn', 'sha256'):
    assert word in summary['protocol']
  assert sum(summary['class_shares']) == pytest.approx(1)
  assert 0 < summary['class_confidence'] <= 1
  for name in ('precision', 'recall', 'density', 'coverage', 'kid'):
    assert np.isfinite(summary[name])
  assert summary['inception_score'] is None
  history = read_history(workdir / 'metrics.jsonl')
  train = [p for p in history if p['split'] == 'train']
  assert [p['step'] for p in train] == [5, 10, 15, 20]
  assert all(0 < p['d_real'] < 1 and 0 < p['d_fake'] < 1 for p in train)
  samples = [p for p in history if p['split'] == 'samples']
  assert [p['step'] for p in samples] == [10, 20]
  assert all(p['fd'] > 0 and p['samples'] == 100 for p in samples)
  assert summary['best_fd'] == min(p['fd'] for p in samples)
  assert sorted(p.name for p in (workdir / 'samples').iterdir()) == [
    'step_00000010.png',
    'step_00000020.png',
  ]
  assert (workdir / 'report' / 'report.html').stat().st_size > 10_000
  report = json.loads((workdir / 'report' / 'report.json').read_text())
  assert report['scores']['protocol'] == summary['protocol']


def test_evaluate_reproduces_the_distance(trained):
  workdir, summary = trained
  measured = jaxvision.evaluate(workdir, quiet=True)
  assert measured['fd'] == pytest.approx(summary['fd'], rel=1e-4)
  more = jaxvision.evaluate(
    workdir, overrides=('evaluation.samples=400',), split='train', quiet=True
  )
  assert '400 samples against train (1,438 images)' in more['protocol']
  # The summary is of the split that the run is judged by, this report another one.
  assert (workdir / 'evaluations' / 'train' / 'report' / 'report.html').is_file()
  assert json.loads((workdir / 'summary.json').read_text())['fd'] == measured['fd']


@pytest.mark.slow
def test_exported_generator_draws_the_same_images(trained, tmp_path):
  workdir, _ = trained
  run = jaxvision.load_run(workdir)
  images = run.sample(5, seed=3)
  assert images.shape == (5, 8, 8, 1)
  chex.assert_type(images, np.uint8)
  # Image i is the same however many there are, in batches of any size.
  chex.assert_trees_all_close(
    run.sample(9, seed=3, batch_size=4)[:5].astype(int), images.astype(int), atol=1
  )
  assert (run.sample(5, seed=4) != images).any()
  path = jaxvision.export(workdir, tmp_path / 'generator.safetensors')
  again = jaxvision.load_generator(path)
  chex.assert_trees_all_equal(again.sample(5, seed=3), images)
  paths = jaxvision.sample(again, tmp_path / 'files', count=3, seed=3, single=True)
  found = np.stack([np.asarray(Image.open(p).convert('L')) for p in paths])
  chex.assert_trees_all_equal(found[..., None], images[:3])
  ways = again.interpolate(2, 4, seed=3)
  assert ways.shape == (2, 4, 8, 8, 1)
  ends = again.sample(4, seed=3)
  chex.assert_trees_all_close(ways[:, 0].astype(int), ends[::2].astype(int), atol=1)
  chex.assert_trees_all_close(ways[:, -1].astype(int), ends[1::2].astype(int), atol=1)


def test_predict_of_a_gan_is_refused_and_names_sample(trained, capsys, tmp_path):
  from jaxvision.main import main

  workdir, _ = trained
  Image.new('L', (8, 8)).save(tmp_path / 'a.png')
  assert main(['predict', f'--workdir={workdir}', str(tmp_path / 'a.png')]) == 2
  assert 'jaxvision sample' in capsys.readouterr().err
  output = tmp_path / 'nowhere' / 'samples.png'
  assert main(['sample', f'--workdir={workdir}', f'--output={output}']) == 2
  assert 'cannot be written' in capsys.readouterr().err
  output = tmp_path / 'samples.png'
  arguments = ['sample', f'--workdir={workdir}', f'--output={output}']
  assert main([*arguments, '--interpolate=3', '--scale=2']) == 0
  with Image.open(output) as picture:
    assert picture.size == (10 * 16 + 9 * 2, 3 * 16 + 2 * 2)
  assert main([*arguments, '--class=7', '--count=4']) == 0
  assert main([*arguments, '--count=0']) == 2


@pytest.mark.slow
def test_conditional_generator_draws_the_class_asked_for(config, tmp_path):
  config.model.conditional = True
  config.steps = 6
  jaxvision.train(config, tmp_path / 'run', quiet=True)
  run = jaxvision.load_run(tmp_path / 'run')
  # Sample i is of class i, of the noise that belongs to i.
  chex.assert_trees_all_equal(run.sample(4, label='3')[3:], run.sample(4)[3:])
  assert (run.sample(4, label=3)[:3] != run.sample(4)[:3]).any()
  with pytest.raises(UserError, match='no class "11"'):
    run.sample(1, label='11')


@pytest.mark.slow
def test_diverged_generator_stops_the_run(config, tmp_path):
  config.optimizer.name = 'sgd'
  del config.optimizer.options.b1
  config.optimizer.learning_rate = 1e30
  with pytest.raises(TrainingDiverged):
    jaxvision.train(config, tmp_path / 'run', quiet=True)


@pytest.mark.parametrize(
  ('fields', 'wanted'),
  [
    ({'evaluation.features': 'nowhere'}, 'neither the workdir'),
    ({'evaluation.classifier': 'nowhere'}, 'no workdir of a classifier'),
    ({'model.width': 0}, 'width'),
    ({'model.widht': 8}, 'did you mean "width"'),
    ({'data.image_size': 9}, 'halves the image'),
    ({'gan.diffaugment': ('colour',)}, 'color'),
    (
      {'gan.d_steps': 1000},
      'batch_size 16 for each of 1000 steps of the discriminator',
    ),
    ({'model.name': 'resnet18'}, 'dcgan'),
  ],
)
def test_gan_config_mistake_is_one_line_before_any_work(
  config, tmp_path, fields, wanted
):
  for path, value in fields.items():
    part, name = path.split('.')
    config[part][name] = value
  with pytest.raises(UserError) as error:
    jaxvision.train(config, tmp_path / 'run', quiet=True)
  assert wanted in str(error.value)
  assert '\n' not in str(error.value)
  assert not (tmp_path / 'run').exists()


def test_feature_extractor_of_another_kind_is_refused(trained, classifier):
  workdir, _ = trained
  for source, wanted in (
    (workdir, 'a run of task gan'),
    (__file__, 'must end in'),
    ('nowhere', 'inception'),
  ):
    with pytest.raises(UserError) as error:
      jaxvision.evaluate(
        workdir, overrides=(f'evaluation.features={source}',), quiet=True
      )
    assert wanted in str(error.value).lower()
  with pytest.raises(UserError, match='task classification, which cannot sample'):
    load_run_that('sample', classifier)


def test_collapse_and_a_perfect_discriminator_are_warned_of_once(
  config, tmp_path, caplog
):
  config.optimizer.learning_rate = 0.0  # the generator's
  config.gan.d_learning_rate = 0.02
  config.schedule.name = 'constant'
  config.steps, config.eval_every_steps, config.log_every_steps = 160, 80, 20
  jaxvision.train(config, tmp_path / 'run', quiet=True)
  assert caplog.text.count('the discriminator is saturated') == 1
  assert caplog.text.count('the diversity of the samples is') == 1


def test_distance_of_two_folders(trained, classifier, tmp_path, capsys):
  from jaxvision.main import main

  workdir, _ = trained
  run = jaxvision.load_run(workdir)
  jaxvision.sample(run, tmp_path / 'fake', count=30, single=True)
  jaxvision.sample(run, tmp_path / 'same', count=30, single=True)
  arguments = ['distance', str(tmp_path / 'fake'), str(tmp_path / 'same')]
  assert main([*arguments, f'--features={classifier}', '--json']) == 0
  scores = json.loads(capsys.readouterr().out)
  assert scores['value'] == pytest.approx(0, abs=1e-3)
  assert (scores['precision'], scores['recall'], scores['samples']) == (1, 1, 30)
  Image.new('L', (9, 9)).save(tmp_path / 'same' / 'z.png')
  assert main([*arguments, f'--features={classifier}']) == 2
  assert 'z.png is 9x9' in capsys.readouterr().err
  (tmp_path / 'one').mkdir()
  Image.new('L', (8, 8)).save(tmp_path / 'one' / 'a.png')
  assert main(['distance', str(tmp_path / 'one'), str(tmp_path / 'fake')]) == 2
  assert 'at least 2' in capsys.readouterr().err
