"""Knowledge distillation: the loss, what the teacher sees, runs that learn from runs."""

import dataclasses
import json
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvision
from jaxvision import config as config_lib
from jaxvision.data.info import DatasetInfo
from jaxvision.errors import UserError
from jaxvision.models.resized import resize
from jaxvision.tasks import distillation as module
from jaxvision.tasks.distillation import Teacher
from jaxvision.tasks.losses import binary_distillation, distillation
from jaxvision.training.run import Run


def logits_of(seed):
  return jnp.asarray(np.random.default_rng(seed).normal(size=(5, 4)), jnp.float32) * 3


@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_distillation_is_the_divergence_of_softened_probabilities(temperature):
  own, taught = logits_of(0), logits_of(1)
  p, q = (
    np.asarray(jax.nn.softmax(x / temperature), np.float64) for x in (taught, own)
  )
  expected = temperature**2 * (p * np.log(p / q)).sum(-1)
  found = distillation(own, taught, temperature)
  chex.assert_shape(found, (5,))
  np.testing.assert_allclose(found, expected, rtol=1e-4)
  assert np.all(np.abs(distillation(own, own, temperature)) < 1e-5)


def test_its_gradient_is_the_difference_of_probabilities():
  own, taught = logits_of(0), logits_of(1)
  grads = jax.grad(lambda x: distillation(x, taught, 2.0).sum())(own)
  expected = 2.0 * (jax.nn.softmax(own / 2.0) - jax.nn.softmax(taught / 2.0))
  np.testing.assert_allclose(grads, expected, atol=1e-5)


def test_distillation_of_labels_is_that_of_each_for_itself():
  own, taught = logits_of(0), logits_of(1)
  p, q = (np.asarray(jax.nn.sigmoid(x / 3), np.float64) for x in (taught, own))
  each = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
  found = binary_distillation(own, taught, 3.0)
  np.testing.assert_allclose(found, 9 * each.mean(-1), rtol=1e-3, atol=1e-5)


def test_a_teacher_sees_images_as_it_was_trained():
  seen = []

  @dataclasses.dataclass
  class Model:
    def apply(self, variables, images, train):
      assert not train
      seen.append(images)
      return jnp.zeros((len(images), 3))

  @dataclasses.dataclass
  class Info:
    image_shape: tuple = (12, 12, 3)

  @dataclasses.dataclass
  class Task:
    model: Model = dataclasses.field(default_factory=Model)
    info: Info = dataclasses.field(default_factory=Info)
    dtype: object = jnp.float32
    normalization: tuple = ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))

  pixels = jnp.asarray(np.random.default_rng(0).random((2, 8, 8, 3)), jnp.float32)
  mean, std = (0.4, 0.5, 0.6), (0.3, 0.2, 0.1)
  inputs = (pixels - jnp.array(mean)) / jnp.array(std)
  Teacher(Task(), {}, {}).outputs({}, inputs, (mean, std))
  own_mean, own_std = Task.normalization
  expected = resize((pixels - jnp.array(own_mean)) / jnp.array(own_std), 12)
  np.testing.assert_allclose(seen[0], expected, atol=1e-5)


@pytest.fixture(scope='module')
def teacher(tmp_path_factory, short_run):
  config = config_lib.override(short_run(), ['steps=8', 'eval_every_steps=8'])
  workdir = tmp_path_factory.mktemp('teacher') / 'run'
  jaxvision.train(config, workdir, quiet=True)
  return workdir


@pytest.fixture
def config(digits_config, teacher):
  return config_lib.override(
    digits_config,
    [f'init.teacher={teacher}', 'augment.mixup=0.2', 'log_every_steps=1', 'steps=8'],
  )


@pytest.mark.long
def test_the_loss_is_shared_between_labels_and_teacher(config, teacher):
  dataset = jaxvision.data.load(config.data)
  run = Run.build(config, DatasetInfo.of(dataset))
  state = run.for_training(run.init())
  images, labels = zip(*(dataset.splits['train'][i] for i in range(8)))
  batch = {
    'image': jnp.asarray(np.stack(images)),
    'label': jnp.asarray(labels, jnp.int32),
    'index': jnp.arange(8),
    'epoch': jnp.zeros(8, jnp.int32),
  }
  key = jax.random.key(3)
  task = run.task
  loss, (_, metrics) = task.loss(state.params, state, batch, key)
  key_augment, key_dropout = jax.random.split(key)
  inputs, _ = task.training_batch(batch, key_augment)
  outputs, _ = task.forward(state.params, state, inputs, key_dropout)
  there = jaxvision.load_run(teacher)
  taught = there.task.apply(there.state.eval_variables, inputs)
  expected = 0.9 * distillation(outputs, taught, 4.0).mean()
  expected += 0.1 * metrics.compute()['loss']
  np.testing.assert_allclose(loss, expected, rtol=1e-4)
  with pytest.raises(ValueError, match='for_training'):
    task.loss(state.params, run.init(), batch, key)


@pytest.mark.slow
def test_a_student_learns_resumes_and_forgets_where_its_teacher_was(
  config, teacher, tmp_path, quick_compile
):
  source = tmp_path / 'teacher'
  shutil.copytree(teacher, source)
  config.init.teacher = str(source)
  whole = jaxvision.train(config, tmp_path / 'whole', quiet=True)
  assert whole['teacher']['source'] == str(source)
  assert len(whole['teacher']['sha256']) == 64

  class Stop(jaxvision.Callback):
    def on_log(self, step, measures):
      if step == 6:
        raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    jaxvision.train(config, tmp_path / 'parts', quiet=True, callbacks=[Stop()])
  parts = jaxvision.train(config, tmp_path / 'parts', quiet=True)
  assert parts['train_loss'] == whole['train_loss']
  # A checkpoint is no larger for the teacher, and what is finished does not need it.
  saved = jaxvision.load_run(tmp_path / 'whole').state
  assert saved.teacher is None
  shutil.rmtree(source)
  again = jaxvision.train(config, tmp_path / 'whole', quiet=True)
  assert again['test_accuracy'] == whole['test_accuracy']
  assert jaxvision.evaluate(tmp_path / 'whole', quiet=True)


@pytest.mark.slow
def test_another_teacher_than_the_run_began_with_is_refused(config, teacher, tmp_path):
  class Stop(jaxvision.Callback):
    def on_log(self, step, measures):
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    jaxvision.train(config, tmp_path / 'run', quiet=True, callbacks=[Stop()])
  file = tmp_path / 'run' / 'sources.json'
  found = json.loads(file.read_text())
  found['teacher']['sha256'] = '0' * 64
  file.write_text(json.dumps(found))
  with pytest.raises(UserError, match='is not what the run in .* learns from'):
    jaxvision.train(config, tmp_path / 'run', quiet=True)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'source': 'nowhere'}, 'is no workdir of a trained run'),
    ({'classes': list('abcdefghij')}, 'knows other classes'),
    ({'shape': [8, 8, 3], 'mean': [0.5] * 3, 'std': [0.5] * 3}, '3 channels'),
  ],
)
def test_a_teacher_of_something_else_is_refused(
  config, teacher, tmp_path, change, message, monkeypatch
):
  if 'source' in change:
    config.init.teacher = str(tmp_path / change['source'])
  original = module.load_run

  def changed(path):
    run = original(path)
    fields = {'classes': 'class_names', 'shape': 'image_shape'}
    values = {fields.get(k, k): tuple(v) for k, v in change.items()}
    run.task.info = dataclasses.replace(run.task.info, **values)
    return run

  if 'source' not in change:
    monkeypatch.setattr(module, 'load_run', changed)
  with pytest.raises(UserError, match=message):
    jaxvision.train(config, tmp_path / 'run', quiet=True)
  assert not (tmp_path / 'run').exists()
