"""What a trained run gives in Python."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import jaxvision
from jaxvision import data
from jaxvision.errors import UserError

TRAINED = Path(__file__).resolve().parent.parent / 'fixtures' / 'trained'


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs') / 'digits'
  return Path(shutil.copytree(TRAINED / 'digits_cnn', folder))


@pytest.fixture(scope='module')
def run(workdir):
  return jaxvision.load_run(workdir)


@pytest.fixture(scope='module')
def images():
  return data.load('digits').splits['test'].images[:20]


def test_features_and_logits_are_those_of_the_prediction(run, images):
  logits, features = run.logits(images, batch_size=16), run.features(images)
  head = run.state.eval_variables['params']['head']
  assert logits.dtype == features.dtype == np.float32
  np.testing.assert_allclose(
    logits, features @ np.asarray(head['kernel']) + head['bias'], rtol=1e-4, atol=1e-4
  )
  shares = np.exp(logits - logits.max(-1, keepdims=True))
  np.testing.assert_allclose(
    run.predict(images).probabilities, shares / shares.sum(-1, keepdims=True), atol=1e-5
  )
  assert run.logits(images[:0]).shape == (0, 10)


def test_grad_cam_is_a_map_of_each_image(run, images):
  maps = run.grad_cam(images)
  assert maps.shape == (20, 8, 8)
  assert maps.dtype == np.float32
  assert maps.min() >= 0
  assert maps.max() == 1
  labels = run.predict(images).labels
  same = labels == labels[0]
  assert 0 < same.sum() < 20
  of_one = run.grad_cam(images, label=str(labels[0]))
  np.testing.assert_allclose(of_one[same], maps[same], atol=1e-5)
  assert np.abs(of_one[~same] - maps[~same]).max() > 0.01
  assert run.grad_cam(images[:0]).shape == (0, 8, 8)
  with pytest.raises(UserError, match='no class "ten"'):
    run.grad_cam(images, label='ten')


def test_history_is_that_of_the_run(run):
  history = run.history()
  assert {'train', 'test'} & {point['split'] for point in history}
  assert history[-1]['step'] <= run.step


def test_a_run_is_shown_in_a_few_lines(run, workdir):
  gan = jaxvision.load_run(TRAINED / 'digits_dcgan')
  for one in (run, gan):
    lines = repr(one).splitlines()
    assert 2 <= len(lines) <= 5
    assert max(map(len, lines)) < 200
  assert 'digits_cnn' in repr(run)
  assert str(workdir) in repr(run)
  assert gan.history()


def test_a_checkpoint_is_named_by_its_step(workdir):
  steps = sorted(int(path.name) for path in (workdir / 'checkpoints').iterdir())
  for step in steps:
    assert jaxvision.load_run(workdir, checkpoint=step).step == step
  with pytest.raises(UserError, match='no checkpoint "7"'):
    jaxvision.load_run(workdir, checkpoint=7)
