"""Mixup and CutMix in the training step of a task."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxvision
from jaxvision import config as config_lib
from jaxvision.data.augment.mixing import MixedTargets
from jaxvision.data.info import DatasetInfo
from jaxvision.errors import UserError
from jaxvision.training.run import Run


def info_of(kind='class'):
  return DatasetInfo(
    name='test',
    class_names=tuple('abcdefg'),
    image_shape=(8, 8, 1),
    mean=(0.4,),
    std=(0.3,),
    examples={'train': 64, 'test': 16},
    class_counts=(8, 8, 8, 8, 8, 8, 16),
    label_kind=kind,
  )


def task_of(kind='class', **fields):
  config = config_lib.base_config()
  config.batch_size = 16
  for path, value in fields.items():
    config_lib.put(config, path.replace('__', '.'), value)
  return Run.build(config, info_of(kind)).task


def batch_of(task, size=16):
  rng = np.random.default_rng(0)
  labels = jnp.asarray(rng.integers(0, 7, size), jnp.int32)
  if task.info.label_kind == 'multilabel':
    labels = jax.nn.one_hot(labels, 7)
  return {
    'image': jnp.asarray(rng.integers(0, 256, (size, 8, 8, 1), np.uint8)),
    'label': labels,
    'index': jnp.arange(size),
    'epoch': jnp.zeros(size, jnp.int32),
  }


def apply(task, state, batch, key):
  """Returns what `task.loss` compares: (outputs, targets)."""
  key_augment, key_dropout = jax.random.split(key)
  inputs, targets = task.training_batch(batch, key_augment)
  return task.forward(state.params, state, inputs, key_dropout)[0], targets


@pytest.mark.parametrize('method', ['mixup', 'cutmix'])
def test_the_loss_is_that_of_both_labels_by_their_shares(method):
  task = task_of(**{f'augment__{method}': 1.0, 'label_smoothing': 0.1})
  state, batch = task.init(jax.random.key(0)), batch_of(task)
  key = jax.random.key(3)
  outputs, targets = apply(task, state, batch, key)
  assert isinstance(targets, MixedTargets)
  share = float(targets.share)
  assert 0 < share < 1
  one_hot = jax.nn.one_hot(batch['label'], 7)
  soft = share * one_hot + (1 - share) * jnp.roll(one_hot, 1, axis=0)
  expected = optax.softmax_cross_entropy(outputs, optax.smooth_labels(soft, 0.1)).mean()
  loss, (_, metrics) = task.loss(state.params, state, batch, key)
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  measured = metrics.compute()
  np.testing.assert_allclose(measured['loss'], expected, rtol=1e-5)
  predicted = np.argmax(outputs, -1)
  own = np.mean(predicted == np.asarray(batch['label']))
  other = np.mean(predicted == np.roll(np.asarray(batch['label']), 1))
  np.testing.assert_allclose(
    measured['accuracy'], share * own + (1 - share) * other, rtol=1e-5
  )


def test_the_images_are_mixed_as_the_targets_are():
  task = task_of(augment__mixup=1.0, model__name='digits_cnn')
  batch, key = batch_of(task), jax.random.key(1)
  seen = []

  def record(variables, inputs, **options):
    seen.append(inputs)
    return jnp.zeros((len(inputs), 7)), {}

  object.__setattr__(task.model, 'apply', record)
  state = task_of().init(jax.random.key(0))
  _, targets = apply(task, state, batch, key)
  plain = (batch['image'] / 255 - 0.4) / 0.3
  mixed = targets.share * plain + (1 - targets.share) * jnp.roll(plain, 1, axis=0)
  np.testing.assert_allclose(seen[0], mixed, atol=1e-4)


@pytest.mark.parametrize(
  ('kind', 'fields'),
  [
    ('class', {'loss__name': 'focal'}),
    pytest.param(
      'class', {'loss__name': 'binary_cross_entropy'}, marks=pytest.mark.slow
    ),
    pytest.param('class', {'loss__class_weights': 'balanced'}, marks=pytest.mark.slow),
    pytest.param('class', {'grad_accumulation': 2}, marks=pytest.mark.slow),
    ('multilabel', {'task': 'multilabel'}),
  ],
)
def test_every_loss_takes_mixed_targets(kind, fields, quick_compile):
  task = task_of(kind, augment__mixup=0.5, augment__cutmix=1.0, **fields)
  state = task.init(jax.random.key(0))
  state, metrics = jax.jit(task.train_step)(state, batch_of(task), jax.random.key(1))
  assert np.isfinite(metrics.compute()['loss'])
  assert state.step == 1


def test_class_weights_weight_both_targets():
  weights = (1.0, 2.0, 0.0, 1.0, 1.0, 1.0, 3.0)
  task = task_of(augment__mixup=1.0, loss__class_weights=weights)
  state, batch, key = task.init(jax.random.key(0)), batch_of(task), jax.random.key(1)
  outputs, targets = apply(task, state, batch, key)
  own = optax.softmax_cross_entropy_with_integer_labels(outputs, targets.own)
  other = optax.softmax_cross_entropy_with_integer_labels(outputs, targets.partners)
  factors = np.array(weights)
  expected = targets.share * own * factors[targets.own]
  expected += (1 - targets.share) * other * factors[targets.partners]
  loss, _ = task.loss(state.params, state, batch, key)
  np.testing.assert_allclose(loss, expected.mean(), rtol=1e-5)


def test_evaluation_is_not_mixed():
  task = task_of(augment__mixup=1.0)
  state, batch = task.init(jax.random.key(0)), batch_of(task)
  metrics, outputs = task.eval_step(state, {**batch, 'mask': jnp.ones(16, bool)})
  plain, same = task_of().eval_step(state, {**batch, 'mask': jnp.ones(16, bool)})
  np.testing.assert_array_equal(outputs, same)
  assert metrics.compute()['loss'] == plain.compute()['loss']


def test_a_gan_has_no_targets_to_mix():
  config = jaxvision.load_config('configs/digits_dcgan.py', ['augment.mixup=1'])
  with pytest.raises(
    UserError, match=r'augment\.mixup and augment\.cutmix mix targets'
  ):
    Run.build(config, info_of())


@pytest.mark.slow
def test_a_run_with_everything_on_trains_from_both_pipelines(
  digits_config, tmp_path, quick_compile
):
  digits_config.steps = 3
  digits_config.callbacks = ()
  changed = {
    'policy': 'rand_augment',
    'grayscale': 0.1,
    'solarize': 0.2,
    'blur': 1.0,
    'noise': 0.05,
    'erasing': 0.25,
    'mixup': 0.2,
    'cutmix': 1.0,
  }
  for name, value in changed.items():
    digits_config.augment[name] = value
  states = []
  for pipeline in ('resident', 'streaming'):
    digits_config.data.pipeline = pipeline
    summary = jaxvision.train(digits_config, tmp_path / pipeline, quiet=True)
    assert np.isfinite(summary['test_loss'])
    states.append(jaxvision.load_run(tmp_path / pipeline).state.params)
  for one, other in zip(*map(jax.tree.leaves, states)):
    np.testing.assert_allclose(one, other, atol=1e-5)
