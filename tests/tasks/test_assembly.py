"""The parts of a supervised task that a config names: weights of the classes."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxvision.config import base_config
from jaxvision.data.info import DatasetInfo
from jaxvision.errors import UserError
from jaxvision.tasks.assembly import make_class_weights
from jaxvision.training.mesh import make_mesh
from jaxvision.training.run import Run

INFO = DatasetInfo(
  name='three',
  class_names=('a', 'b', 'c'),
  image_shape=(8, 8, 1),
  mean=(0.5,),
  std=(0.25,),
  examples={'train': 12, 'test': 6},
  class_counts=(2, 4, 6),
)


def with_weights(value):
  config = base_config()
  config.steps, config.batch_size = 10, 6
  config.loss = ConfigDict({'name': '', 'class_weights': value})
  return config


def batch(labels):
  size = len(labels)
  images = np.random.default_rng(0).integers(0, 256, (size, 8, 8, 1), np.uint8)
  index = jnp.arange(size)
  zeros = jnp.zeros(size, jnp.int32)
  return {'image': images, 'label': jnp.array(labels), 'index': index, 'epoch': zeros}


def test_balanced_weights_make_every_class_count_alike():
  weights = make_class_weights(with_weights('balanced'), INFO, 3)
  chex.assert_shape(weights, (3,))
  shares = weights * np.array(INFO.class_counts)
  np.testing.assert_allclose(shares, shares[0], rtol=1e-6)
  np.testing.assert_allclose(shares.sum(), sum(INFO.class_counts), rtol=1e-6)


@pytest.mark.parametrize('value', [None, ()])
def test_no_weights(value):
  assert make_class_weights(with_weights(value), INFO, 3) is None
  assert make_class_weights(base_config(), INFO, 3) is None


@pytest.mark.parametrize(
  'value',
  ['balance', (1.0, 2.0), (1.0, 2.0, -1.0), (1.0, float('nan'), 1.0), 3, (0, 0, 0)],
)
def test_wrong_weights_are_refused_in_one_line(value):
  with pytest.raises(
    UserError, match='^config: loss.class_weights must be .*3 numbers'
  ):
    make_class_weights(with_weights(value), INFO, 3)


def test_weights_need_classes():
  with pytest.raises(UserError, match='task classification has other targets'):
    make_class_weights(with_weights('balanced'), INFO, 4)


def test_balanced_weights_need_an_image_of_each_class():
  config = with_weights('balanced')
  with pytest.raises(UserError, match='class "b" has no training images'):
    make_class_weights(
      config, DatasetInfo(**{**vars(INFO), 'class_counts': (1, 0, 1)}), 3
    )


def test_the_training_loss_is_weighted_and_the_measured_one_is_not():
  mesh = make_mesh(data=1)
  plain = Run.build(with_weights(()), INFO, mesh=mesh).task
  weighted = Run.build(with_weights((0.0, 1.0, 4.0)), INFO, mesh=mesh).task
  state = plain.init(jax.random.key(0))
  key = jax.random.key(1)

  def losses(task, labels):
    loss, (_, metrics) = task.loss(state.params, state, batch(labels), key)
    return float(loss), float(metrics.compute()['loss'])

  labels = [0, 1, 2, 2, 1, 0]
  key_augment, key_dropout = jax.random.split(key)
  inputs, targets = plain.training_batch(batch(labels), key_augment)
  outputs, _ = plain.forward(state.params, state, inputs, key_dropout)
  each = np.asarray(plain.example_losses(outputs, targets))
  expected = (each * np.array([0, 1, 4, 4, 1, 0])).mean()
  np.testing.assert_allclose(
    losses(plain, labels), (each.mean(), each.mean()), rtol=1e-5
  )
  np.testing.assert_allclose(
    losses(weighted, labels), (expected, each.mean()), rtol=1e-5
  )
