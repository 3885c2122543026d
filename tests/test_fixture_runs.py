"""Run directories of an earlier version are read, evaluated, resumed and compared."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import jaxvision
from jaxvision import data
from jaxvision.training.run_directory import RunDirectory

TRAINED = Path(__file__).resolve().parent / 'fixtures' / 'trained'


@pytest.fixture
def classifier(tmp_path):
  return RunDirectory(shutil.copytree(TRAINED / 'digits_cnn', tmp_path / 'digits_cnn'))


@pytest.fixture
def gan(tmp_path):
  return RunDirectory(shutil.copytree(TRAINED / 'digits_dcgan', tmp_path / 'dcgan'))


def resumed(directory, call):
  """Drops the last checkpoint and goes on; returns (output, summary before, after)."""
  before = directory.summary()
  steps = sorted(int(p.name) for p in directory.checkpoints.iterdir())
  assert len(steps) == 2
  shutil.rmtree(directory.checkpoints / str(steps[-1]))
  directory.summary_file.unlink()
  code, output, errors = call(
    'train', f'--workdir={directory.path}', '--config.report=False'
  )
  assert code == 0, errors
  assert f'resumed at step {steps[0]}' in output
  return output, before, directory.summary()


def test_classifier_predicts(classifier):
  run = jaxvision.load_run(classifier.path)
  test = data.load('digits').splits['test']
  predictions = run.predict(test.images)
  accuracy = np.mean(predictions.labels == test.labels)
  assert accuracy == pytest.approx(classifier.summary()['test_accuracy'], abs=0.003)


def test_classifier_evaluates_to_its_summary(classifier):
  found = jaxvision.evaluate(classifier.path, quiet=True)
  assert found['loss'] == pytest.approx(classifier.summary()['test_loss'], rel=1e-5)


def test_classifier_resumes_to_the_same_loss(classifier, call):
  _, before, after = resumed(classifier, call)
  assert after['steps'] == before['steps']
  assert after['test_loss'] == pytest.approx(before['test_loss'], rel=1e-4)
  assert after['train_loss'] == pytest.approx(before['train_loss'], rel=1e-4)


@pytest.mark.slow
def test_classifier_is_compared_with_a_new_run(classifier, call, tmp_path):
  config = classifier.config()
  new = tmp_path / 'new'
  fields = {'seed': 1, 'report': False}
  for name, value in fields.items():
    config[name] = value
  assert jaxvision.train(config, new, quiet=True)['steps'] == config.steps
  output = tmp_path / 'comparison'
  code, printed, errors = call('compare', classifier.path, new, f'--output={output}')
  assert code == 0, errors
  assert '2 seeds' in printed
  record = json.loads((output / 'comparison.json').read_text())
  assert len(record['entries']) == 1


def test_gan_samples(gan):
  images = jaxvision.load_run(gan.path).sample(4, seed=1)
  assert images.shape == (4, *gan.dataset()['image_shape'])
  assert images.dtype == np.uint8


@pytest.mark.slow
def test_gan_resumes_to_the_same_losses(gan, call):
  _, before, after = resumed(gan, call)
  assert after['steps'] == before['steps']
  for name in ('discriminator_loss', 'generator_loss', 'd_real', 'd_fake'):
    assert after[name] == pytest.approx(before[name], rel=1e-4), name
