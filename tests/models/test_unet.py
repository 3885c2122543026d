"""U-Nets: shapes and sizes, what they see and do not see, what is refused."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import models
from jaxvision.config import base_config
from jaxvision.errors import UserError
from jaxvision.models.summary import summarize_flow
from jaxvision.models.unet import UNet, sides, time_waves

# It compiles much: not in `make test-fast`.
pytestmark = pytest.mark.long

SHAPE = (8, 8, 1)
CLASSES = 3
LABELS = np.array([0, 1, 2, 3], np.int32)  # the last one stands for any class
TIMES = np.array([0.0, 0.25, 0.5, 1.0], np.float32)
SMALL = {
  'width': 4,
  'multipliers': (1, 2),
  'attention': (4,),
  'embedding': 8,
  'conditional': True,
}


def flow_of(shape=SHAPE, dtype='float32', **fields):
  settings = base_config().flow
  return models.create_flow('unet', shape, settings, CLASSES, dtype, **SMALL | fields)


def filled(flow):
  """Variables of a network, none at zero."""
  random = np.random.default_rng(0)
  return jax.tree.map(
    lambda leaf: jnp.asarray(0.3 * random.standard_normal(leaf.shape), leaf.dtype),
    jax.eval_shape(flow.init, jax.random.key(0)),
  )


def images(shape=SHAPE):
  random = np.random.default_rng(1)
  return random.standard_normal((len(LABELS), *shape)).astype(np.float32)


def run(network, variables, *inputs, **options):
  return jax.jit(lambda v, *x: network.apply(v, *x, **options))(variables, *inputs)


@pytest.mark.parametrize('shape', [(8, 8, 1), (16, 16, 3)])
@pytest.mark.parametrize('patch', [1, 2])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_a_field_has_the_shape_of_the_images_in_float32(shape, patch, dtype):
  flow = flow_of(shape, dtype, patch=patch, blocks=2, attention=())

  def both(images):
    variables = flow.init(jax.random.key(0))
    return variables, flow.network.apply(variables, images, TIMES, LABELS)

  variables, field = jax.eval_shape(both, images(shape))
  chex.assert_shape(field, (len(LABELS), *shape))
  chex.assert_type([field, *jax.tree.leaves(variables)], jnp.float32)


def test_parameters_are_those_of_the_layers():
  width, channels, embedding = 4, 1, 8

  def convolution(inputs, outputs):
    return 9 * inputs * outputs + outputs

  def dense(inputs, outputs):
    return inputs * outputs + outputs

  def block(inputs, outputs):
    found = 2 * inputs + convolution(inputs, outputs) + dense(embedding, 2 * outputs)
    found += 2 * outputs + convolution(outputs, outputs)
    return found + (dense(inputs, outputs) if inputs != outputs else 0)

  def attention(features):
    return 2 * features + dense(features, 3 * features) + dense(features, features)

  expected = dense(width, embedding) + dense(embedding, embedding)
  expected += (CLASSES + 1) * embedding + convolution(channels, width)
  expected += block(4, 4) + block(4, 8) + attention(8)  # down
  expected += block(8, 8) + attention(8)
  expected += block(8 + 8, 8) + attention(8) + block(8 + 4, 4)  # up
  expected += 2 * width + convolution(width, channels)
  table = summarize_flow(flow_of())
  assert table.params == expected
  assert table.params == sum(row.params for row in table.rows)
  assert all(row.path for row in table.rows if row.params or row.flops)
  assert str(table).startswith('UNet on one image at a time of 8 x 8 x 1')


def test_a_network_of_the_configs_stays_in_its_budget():
  flow = models.create_flow(
    'unet',
    (32, 32, 3),
    base_config().flow,
    100,
    width=64,
    multipliers=(1, 1),
    embedding=64,
    patch=2,
    conditional=True,
  )
  table = summarize_flow(flow)
  assert table.params <= 538_432
  assert table.flops == pytest.approx(140e6, rel=1e-2)


@pytest.mark.long
def test_the_velocity_of_a_fresh_network_is_0():
  flow = flow_of()
  variables = jax.jit(flow.init)(jax.random.key(0))
  field = run(flow.network, variables, images(), TIMES, LABELS)
  np.testing.assert_array_equal(field, 0)


@pytest.mark.slow
def test_every_parameter_matters():
  flow = flow_of(blocks=2, heads=2)
  variables = filled(flow)
  weight = np.random.default_rng(4).standard_normal((len(LABELS), *SHAPE))

  @jax.jit
  def gradient(params):
    def total(params):
      field = flow.network.apply({'params': params}, images(), TIMES, LABELS)
      return (field * weight).sum()

    return jax.grad(total)(params)

  for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(variables['params'])):
    assert np.abs(leaf).max() > 1e-6, jax.tree_util.keystr(path)


@pytest.mark.long
def test_time_class_and_image_are_seen_and_other_images_are_not():
  flow = flow_of()
  variables, x = filled(flow), images()
  field = run(flow.network, variables, x, TIMES, LABELS)
  one = run(flow.network, variables, x[:1], TIMES[:1], LABELS[:1])
  np.testing.assert_allclose(one[0], field[0], atol=1e-4)
  for changed in (
    (x[::-1], TIMES, LABELS),
    (x, TIMES[::-1], LABELS),
    (x, TIMES, LABELS[::-1]),
  ):
    other = run(flow.network, variables, *changed)
    assert (np.abs(other - field).max((1, 2, 3)) > 1e-3).all()


def test_patches_are_squares_of_neighbouring_pixels():
  """With weights that pass the middle pixel through, what comes out is what went in."""
  flow = flow_of(patch=2, width=4, multipliers=(1,), attention=(), conditional=False)
  params = jax.tree.map(jnp.zeros_like, filled(flow)['params'])
  through = jnp.zeros((3, 3, 4, 4)).at[1, 1].set(jnp.eye(4))
  params['first']['kernel'] = params['last']['kernel'] = through
  params['up1_1']['shortcut']['kernel'] = jnp.eye(8, 4)  # not what was kept
  params['norm']['scale'] = jnp.ones(4)
  x = images()
  field = run(flow.network, {'params': params}, x, TIMES)
  # The last norm and SiLU act on each pixel alone: equal pixels of a patch stay equal.
  tokens = x.reshape(4, 4, 2, 4, 2, 1).swapaxes(2, 3).reshape(4, 16, 4)
  mean, variance = (f((1, 2), keepdims=True) for f in (tokens.mean, tokens.var))
  normed = (tokens - mean) / np.sqrt(variance + 1e-5)
  expected = normed / (1 + np.exp(-normed))
  expected = expected.reshape(4, 4, 4, 2, 2, 1).swapaxes(2, 3).reshape(4, 8, 8, 1)
  np.testing.assert_allclose(field, expected, atol=1e-4)


@pytest.mark.long
def test_dropout_is_in_every_block_and_in_training_alone():
  flow = flow_of(dropout=0.5)
  variables, x = filled(flow), images()

  def apply(key, train):
    return run(
      flow.network, variables, x, TIMES, LABELS, train=train, rngs={'dropout': key}
    )

  one, two = (apply(jax.random.key(i), True) for i in range(2))
  assert (np.asarray(one) != np.asarray(two)).any()
  still = run(flow.network, variables, x, TIMES, LABELS)
  np.testing.assert_array_equal(apply(jax.random.key(0), False), still)


def test_time_waves_are_of_a_thousand_radians_down_to_a_tenth():
  waves = np.asarray(time_waves(jnp.array([0.0, 1.0]), 6))
  chex.assert_shape(waves, (2, 6))
  np.testing.assert_allclose(waves[0], [1, 1, 1, 0, 0, 0])
  angles = 1000 * 10_000 ** (-np.arange(3) / 3)
  expected = [*np.cos(angles), *np.sin(angles)]
  np.testing.assert_allclose(waves[1], expected, atol=1e-3)


@pytest.mark.parametrize(
  ('shape', 'fields', 'words'),
  [
    ((28, 28, 1), {'multipliers': (1, 2, 2, 2)}, ['multiple of 8', '28x28']),
    ((9, 9, 1), {'patch': 2}, ['multiple of 4', '9x9', 'model.patch']),
    ((16, 8, 1), {}, ['square', '16x8']),
    (SHAPE, {'attention': (5,)}, ['side 5', 'sides 8, 4']),
    (SHAPE, {'heads': 3}, ['3 heads', 'width of 8']),
    (SHAPE, {'width': 5}, ['even', '5']),
    (SHAPE, {'multipliers': ()}, ['model.multipliers', 'whole numbers']),
    (SHAPE, {'multipliers': (1, 1000)}, ['from 1 to 100']),
    (SHAPE, {'dropout': 1.0}, ['below 1']),
    (SHAPE, {'widht': 8}, ['did you mean "width"']),
  ],
)
def test_what_does_not_fit_is_refused_in_one_line(shape, fields, words):
  with pytest.raises(UserError) as error:
    flow_of(shape, **fields)
  message = str(error.value)
  assert '\n' not in message
  for word in words:
    assert word in message


def test_labels_are_wanted_with_classes():
  network = UNet(width=4, num_classes=CLASSES)
  with pytest.raises(ValueError, match='wants labels'):
    jax.eval_shape(network.init, jax.random.key(0), images(), TIMES)


def test_sides_are_halved():
  assert sides(28, 1, 3) == (28, 14, 7)
  assert sides(32, 2, 4) == (16, 8, 4, 2)
