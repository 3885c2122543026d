"""The plain networks: their sizes and what their switches change."""

import chex
import jax
import jax.numpy as jnp
import pytest

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.models.summary import summarize

CIFAR = (32, 32, 3)


def variables_of(model, shape):
  images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  return jax.eval_shape(
    lambda images: model.init(jax.random.key(0), images, train=False), images
  )


def count(model, shape=CIFAR):
  return sum(
    leaf.size for leaf in jax.tree.leaves(variables_of(model, shape)['params'])
  )


def difference(one, other, images, variables):
  """Largest difference of the logits that two models give with the same parameters."""

  @jax.jit
  def both(variables):
    return one.apply(variables, images), other.apply(variables, images)

  logits, others = both(variables)
  return jnp.abs(logits - others).max()


def test_small_filters_cnn_has_the_published_layers():
  params = variables_of(models.create('small_filters_cnn', 100), CIFAR)['params']
  layers = {
    name: sum(leaf.size for leaf in jax.tree.leaves(layer))
    for name, layer in params.items()
  }
  assert layers == {'conv1': 224, 'conv2': 1168, 'conv3': 4640, 'head': 51300}
  assert params['head']['kernel'].shape == (512, 100)


@pytest.mark.parametrize(
  ('fields', 'added'),
  [
    ({}, 0),
    ({'activation': 'leaky_relu'}, 0),
    ({'activation': 'swish'}, 0),
    ({'activation': 'gelu'}, 0),
    ({'residual': True}, 0),
    ({'attention': True}, 742),
    ({'attention': True, 'residual': True}, 742),
  ],
)
def test_small_filters_cnn_switches_add_what_they_say(fields, added):
  model = models.create('small_filters_cnn', 100, **fields)
  assert count(model) == 57_332 + added


@pytest.mark.parametrize(
  'fields',
  [
    {'activation': 'leaky_relu'},
    {'activation': 'swish'},
    {'activation': 'gelu'},
    {'residual': True},
  ],
)
def test_small_filters_cnn_switches_change_the_function(fields, fill):
  images = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
  plain = models.create('small_filters_cnn', 5)
  switched = models.create('small_filters_cnn', 5, **fields)
  assert difference(plain, switched, images, fill(plain, (8, 8, 3))) > 1e-4


def test_residual_is_the_identity_where_the_convolution_is_silent(fill):
  model = models.create('small_filters_cnn', 4, features=(2, 4), residual=True)
  images = jax.random.uniform(jax.random.key(1), (1, 4, 4, 1))
  params = fill(model, (4, 4, 1))['params']
  params['conv2'] = jax.tree.map(jnp.zeros_like, params['conv2'])
  params['head'] = {'kernel': jnp.eye(4), 'bias': jnp.zeros(4)}
  logits = model.apply({'params': params}, images)[0]
  chex.assert_trees_all_equal(logits[jnp.array([0, 3])], jnp.zeros(2))
  assert jnp.any(logits[1:3] > 0)


def test_residual_refuses_features_that_shrink():
  model = models.create('small_filters_cnn', 4, features=(8, 4), residual=True)
  with pytest.raises(UserError, match='must not shrink'):
    variables_of(model, CIFAR)


@pytest.mark.parametrize(
  ('name', 'shape', 'parameters'),
  [
    ('sim_cnn', CIFAR, 1_070_794),
    ('basic_cnn', CIFAR, 356_810),
    ('original_cnn', CIFAR, 1_180_490),
    ('custom_cnn', CIFAR, 1_792_698),
    ('mnist_cnn', (28, 28, 1), 75_450),
    ('digits_cnn', (8, 8, 1), 53_098),
  ],
)
def test_parameter_counts(name, shape, parameters):
  assert count(models.create(name, 10), shape) == parameters


def test_mnist_cnn_is_cheap_enough_for_a_cpu():
  assert summarize(models.create('mnist_cnn', 10), (28, 28, 1)).flops <= 12e6


@pytest.mark.parametrize('name', ['original_cnn', 'custom_cnn'])
def test_size_of_the_image_does_not_change_the_parameters(name):
  model = models.create(name, 10)
  assert count(model, (33, 47, 3)) == count(model, CIFAR)


def test_custom_cnn_shortcuts_have_no_parameters_and_matter(fill):
  images = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
  bridged = models.create('custom_cnn', 5, features=(4, 8))
  plain = models.create('custom_cnn', 5, features=(4, 8), residual=False)
  assert difference(plain, bridged, images, fill(plain, (8, 8, 3))) > 1e-4


@pytest.mark.parametrize(
  ('name', 'least'),
  [
    ('small_filters_cnn', 8),
    ('sim_cnn', 4),
    ('basic_cnn', 8),
    ('original_cnn', 8),
    ('custom_cnn', 4),
    ('mnist_cnn', 8),
    ('digits_cnn', 4),
  ],
)
def test_the_smallest_image_works_and_a_smaller_one_is_refused(name, least):
  model = models.create(name, 10)
  assert count(model, (least, least, 2)) > 0
  with pytest.raises(UserError, match=f'at least {least}x{least} pixels'):
    variables_of(model, (least, least - 1, 2))
