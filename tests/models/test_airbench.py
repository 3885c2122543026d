"""The speed-run networks: sizes, how they begin, what is frozen, batch norm."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.models.airbench import dirac, unit_std, whitening_kernel

# It compiles much: not in `make test-fast`.
pytestmark = pytest.mark.long


def images(batch=6, side=16, channels=3):
  # Neighbouring pixels alike, as in photographs: that is what whitening undoes.
  noise = np.random.default_rng(0).standard_normal((batch, side, side, channels))
  smooth = noise + np.roll(noise, 1, 1) + np.roll(noise, 1, 2)
  return jnp.asarray(smooth, jnp.float32)


def small(**fields):
  return models.create('airbench94', 7, widths=(8, 12), **fields)


@pytest.mark.parametrize('name', ['airbench94', 'airbench95', 'airbench96'])
def test_as_many_parameters_as_the_recipe(name):
  widths, convs = {
    'airbench94': ((64, 256, 256), 2),
    'airbench95': ((128, 384, 384), 2),
    'airbench96': ((128, 384, 512), 3),
  }[name]
  whiten = 2 * 3 * 2 * 2
  expected = 3 * 2 * 2 * whiten + whiten  # kernel and bias
  before = whiten
  for width in widths:
    expected += 9 * before * width + (convs - 1) * 9 * width * width
    expected += convs * width  # the offsets of batch norm, which has no scale
    before = width
  expected += before * 10
  shapes = jax.eval_shape(
    models.create(name, 10).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3))
  )
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes['params'])) == expected


def test_dirac_hands_channels_through_and_draws_the_rest():
  kernel = dirac(jax.random.key(0), (3, 3, 4, 10))
  x = images(2, 6, 4)
  out = jax.lax.conv_general_dilated(
    x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )
  np.testing.assert_allclose(out[..., :4], x, atol=1e-6)
  rest, bound = np.asarray(kernel[..., 4:]), 1 / 6  # 1 / sqrt(3 * 3 * 4)
  assert np.abs(rest).max() <= bound
  np.testing.assert_allclose(rest.std(), bound / np.sqrt(3), rtol=0.15)


def test_head_of_unit_standard_deviation():
  kernel = np.asarray(unit_std(jax.random.key(0), (20, 10)))
  np.testing.assert_allclose(kernel.std(ddof=1), 1, rtol=1e-5)


def test_whitened_patches_are_uncorrelated():
  model, x = small(), images(20)
  params = model.init(jax.random.key(0), x)['params']
  params = model.init_from_data(params, x)
  chex.assert_trees_all_equal(params['whiten']['kernel'], whitening_kernel(x))
  out = jax.lax.conv_general_dilated(
    x,
    params['whiten']['kernel'],
    (1, 1),
    'VALID',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  half = np.asarray(out).reshape(-1, 24)[:, :12]
  np.testing.assert_allclose(half.T @ half / len(half), np.eye(12), atol=0.02)
  np.testing.assert_allclose(out[..., 12:], -out[..., :12], atol=1e-5)


def test_the_whitening_kernel_has_no_gradient_and_all_else_has():
  model, x = small(form='sgd'), images()
  variables = model.init(jax.random.key(0), x)

  def loss(params):
    out, _ = model.apply(
      {**variables, 'params': params}, x, train=True, mutable=['batch_stats']
    )
    return jnp.sum(out[:, 0] ** 2)

  gradient = jax.jit(jax.grad(loss))(variables['params'])
  assert not gradient['whiten'].pop('kernel').any()
  for leaf in jax.tree.leaves(gradient):
    assert leaf.any()


def test_batch_norm_keeps_its_share_of_the_statistics_and_has_no_scale():
  model, x = small(bn_momentum=0.6), images()
  variables = model.init(jax.random.key(0), x)
  assert set(variables['params']['group1']['norm1']) == {'bias'}
  _, captured = model.apply(
    variables,
    x,
    train=True,
    mutable=['batch_stats', 'intermediates'],
    capture_intermediates=lambda module, _: module.name in ('whiten', 'norm1'),
  )
  statistics = captured['batch_stats']['group1']['norm1']
  out = captured['intermediates']['group1']['norm1']['__call__'][0]
  np.testing.assert_allclose(out.mean((0, 1, 2)), 0, atol=1e-5)
  np.testing.assert_allclose(out.var((0, 1, 2)), 1, atol=1e-4)
  # What goes in, once more: the whitened image, convolved and pooled.
  y = jax.nn.gelu(captured['intermediates']['whiten']['__call__'][0], approximate=False)
  y = jax.lax.conv_general_dilated(
    y,
    variables['params']['group1']['conv1']['kernel'],
    (1, 1),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  y = np.asarray(y)[:, :14, :14].reshape(6, 7, 2, 7, 2, 8).max((2, 4))
  np.testing.assert_allclose(statistics['mean'], 0.4 * y.mean((0, 1, 2)), atol=1e-4)
  expected = 0.6 + 0.4 * y.var((0, 1, 2))
  np.testing.assert_allclose(statistics['var'], expected, rtol=1e-3)


def test_three_convolutions_have_a_shortcut_over_the_last_two():
  x = images()
  variables = small(convs=3).init(jax.random.key(0), x)
  # A last convolution of zeros leaves what the first one gave.
  conv3 = variables['params']['group1']['conv3']
  conv3['kernel'] = jnp.zeros_like(conv3['kernel'])

  def first_group(convs):
    _, captured = small(convs=convs).apply(
      variables,
      x,
      mutable=['intermediates'],
      capture_intermediates=lambda module, _: module.name == 'group1',
    )
    return captured['intermediates']['group1']['__call__'][0]

  expected = jax.nn.gelu(first_group(1), approximate=False)
  np.testing.assert_allclose(first_group(3), expected, atol=1e-6)


def test_forms_differ_in_the_scale_of_the_logits():
  x = images()
  variables = small(form='muon').init(jax.random.key(0), x)
  muon = small(form='muon').apply(variables, x)
  sgd = small(form='sgd').apply(variables, x)
  np.testing.assert_allclose(12 * muon, 9 * sgd, rtol=1e-5)
  begins = small(form='sgd').init(jax.random.key(0), x)['params']['whiten']['bias']
  assert not begins.any()
  assert variables['params']['whiten']['bias'].any()


def test_images_too_small_to_be_halved():
  with pytest.raises(UserError, match='at least 5x5 pixels, got 4x9'):
    small().init(jax.random.key(0), jnp.zeros((1, 4, 9, 3)))
