"""The classification task: loss, metrics, train step, evaluation step."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.metrics import accuracy_score, log_loss, top_k_accuracy_score

from jaxvision import config as config_lib
from jaxvision.data.info import DatasetInfo
from jaxvision.errors import UserError
from jaxvision.tasks.classification import in_top_k
from jaxvision.training.run import Run

INFO = DatasetInfo(
  name='test',
  class_names=tuple('abcdefg'),
  image_shape=(8, 8, 1),
  mean=(0.4,),
  std=(0.3,),
  examples={'train': 64, 'test': 16},
)


def batch_of(size, seed=0):
  rng = np.random.default_rng(seed)
  return {
    'image': jnp.asarray(rng.integers(0, 256, (size, 8, 8, 1), np.uint8)),
    'label': jnp.asarray(rng.integers(0, 7, size), jnp.int32),
    'mask': jnp.ones(size, bool),
  }


def task_of(**fields):
  config = config_lib.base_config()
  config.batch_size = 16
  for path, value in fields.items():
    config_lib.override(config, [f'{path}={value}'])
    node, *keys = path.split('.')
    if keys:
      config[node][keys[0]] = value
    else:
      config[node] = value
  return Run.build(config, INFO).task


def test_in_top_k_matches_scikit_learn():
  logits = np.random.default_rng(2).normal(size=(200, 9)).astype(np.float32)
  labels = np.arange(200) % 9
  for k in (1, 3, 5):
    ours = in_top_k(jnp.asarray(logits), jnp.asarray(labels), k).mean()
    expected = top_k_accuracy_score(labels, logits, k=k, labels=range(9))
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_gradients_reach_every_parameter():
  task = task_of(**{'optimizer.weight_decay': 0.0})
  state = task.init(jax.random.key(0))
  new, _ = jax.jit(task.train_step)(state, batch_of(16), jax.random.key(1))
  chex.assert_tree_all_finite(new.params)
  for old, changed in zip(jax.tree.leaves(state.params), jax.tree.leaves(new.params)):
    assert (old != changed).any()
  assert new.step == 1


def test_batch_statistics_change_in_training_only():
  task = task_of()
  state = task.init(jax.random.key(0))
  assert jax.tree.leaves(state.batch_stats)
  new, _ = jax.jit(task.train_step)(state, batch_of(16), jax.random.key(1))
  for old, changed in zip(
    jax.tree.leaves(state.batch_stats), jax.tree.leaves(new.batch_stats)
  ):
    assert (old != changed).any()
  metrics, logits = jax.jit(task.eval_step)(new, batch_of(16))
  chex.assert_shape(logits, (16, 7))
  chex.assert_type(logits, jnp.float32)
  assert metrics.loss.count == 16


def test_eval_logits_do_not_depend_on_the_batch():
  task = task_of()
  state = task.init(jax.random.key(0))
  whole, alone = batch_of(16), jax.tree.map(lambda x: x[:1], batch_of(16))
  _, many = task.eval_step(state, whole)
  _, one = task.eval_step(state, alone)
  np.testing.assert_allclose(many[:1], one, rtol=1e-5, atol=1e-5)


def test_eval_metrics_ignore_masked_examples():
  task = task_of()
  state = task.init(jax.random.key(0))
  batch = batch_of(16)
  batch['mask'] = jnp.arange(16) < 11
  metrics, logits = task.eval_step(state, batch)
  labels = np.asarray(batch['label'])[:11]
  expected = accuracy_score(labels, np.argmax(logits, -1)[:11])
  found = metrics.compute()
  assert metrics.accuracy.count == 11
  np.testing.assert_allclose(found['accuracy'], expected, rtol=1e-6)
  np.testing.assert_allclose(
    found['loss'],
    log_loss(labels, jax.nn.softmax(logits)[:11], labels=range(7)),
    rtol=1e-5,
  )


def test_metrics_merge_over_batches_of_uneven_size():
  task = task_of()
  state = task.init(jax.random.key(0))
  whole, _ = task.eval_step(state, batch_of(16))
  merged = task.metrics.empty()
  for part in (slice(0, 5), slice(5, 16)):
    metrics, _ = task.eval_step(state, jax.tree.map(lambda x: x[part], batch_of(16)))  # noqa: B023
    merged = merged.merge(metrics)
  for name, value in whole.compute().items():
    np.testing.assert_allclose(merged.compute()[name], value, rtol=1e-5)


def test_train_step_is_a_function_of_its_key():
  task = task_of(**{'augment.crop_padding': 2})
  state = task.init(jax.random.key(0))
  step = jax.jit(task.train_step)
  same = [step(state, batch_of(16), jax.random.key(1))[0] for _ in range(2)]
  chex.assert_trees_all_equal(*same)
  other, _ = step(state, batch_of(16), jax.random.key(2))
  assert any(
    (a != b).any()
    for a, b in zip(jax.tree.leaves(same[0].params), jax.tree.leaves(other.params))
  )


@pytest.mark.slow
def test_bfloat16_keeps_the_state_in_float32():
  task = task_of(dtype='bfloat16')
  state = task.init(jax.random.key(0))
  new, metrics = jax.jit(task.train_step)(state, batch_of(16), jax.random.key(1))
  for leaf in jax.tree.leaves((new.params, new.batch_stats, new.opt_state)):
    assert leaf.dtype in (jnp.float32, jnp.int32)
  assert np.isfinite(metrics.compute()['loss'])


@pytest.mark.parametrize('decayed', [True, False])
def test_weight_decay_applies_to_kernels_only(decayed):
  # With zero gradients nothing but the decay moves a parameter.
  from jaxvision.optim import make_optimizer

  config = config_lib.base_config().optimizer
  config.name, config.weight_decay = ('adamw', 0.1) if decayed else ('sgd', 0.1)
  optimizer = make_optimizer(config, 1.0)
  params = {
    'kernel': jnp.ones((3, 3, 2, 4)),
    'bias': jnp.ones(4),
    'bn': {'scale': jnp.ones(4)},
  }
  zeros = jax.tree.map(jnp.zeros_like, params)
  updates, _ = optimizer.update(zeros, optimizer.init(params), params)
  new = optax.apply_updates(params, updates)
  assert (new['kernel'] < 1).all()
  chex.assert_trees_all_equal(new['bias'], params['bias'])
  chex.assert_trees_all_equal(new['bn'], params['bn'])


def test_one_class_is_refused_and_named():
  info = dataclasses.replace(INFO, class_names=('cat',))
  with pytest.raises(UserError, match=r'one class only \("cat"\)'):
    Run.build(config_lib.override(config_lib.base_config(), ['batch_size=16']), info)
