"""The DCGAN's networks: sizes, parameters, layers."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.errors import UserError
from jaxvision.models.dcgan import (
  ConvTranspose,
  DCGANDiscriminator,
  DCGANGenerator,
  ResizeConv,
  sides,
)

# It compiles much: not in `make test-fast`.
pytestmark = pytest.mark.long


def shapes(model, shape):
  return jax.eval_shape(
    model.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32)
  )


def count(variables):
  return sum(leaf.size for leaf in jax.tree.leaves(variables['params']))


def test_parameters_at_32x32_are_the_published_numbers():
  assert count(shapes(DCGANGenerator(), (1, 100))) == 370_624
  assert count(shapes(DCGANDiscriminator(), (1, 32, 32, 3))) == 167_808


def test_kernels_at_32x32():
  generator = shapes(DCGANGenerator(), (1, 100))['params']
  discriminator = shapes(DCGANDiscriminator(), (1, 32, 32, 3))['params']
  assert {k: v['kernel'].shape for k, v in generator.items() if 'kernel' in v} == {
    'up1': (4, 4, 100, 128),
    'up2': (4, 4, 128, 64),
    'up3': (4, 4, 64, 32),
    'up4': (4, 4, 32, 3),
  }
  assert {k: v['kernel'].shape for k, v in discriminator.items() if 'kernel' in v} == {
    'conv1': (4, 4, 3, 32),
    'conv2': (4, 4, 32, 64),
    'conv3': (4, 4, 64, 128),
    'conv4': (4, 4, 128, 1),
  }
  assert {k for k in generator if k.startswith('bn')} == {'bn1', 'bn2', 'bn3'}
  assert {k for k in discriminator if k.startswith('bn')} == {'bn2', 'bn3'}
  assert all(set(v) <= {'kernel', 'scale'} | {'bias'} for v in generator.values())
  assert 'bias' not in generator['up4']


@pytest.mark.parametrize(
  ('size', 'channels', 'smallest'), [(32, 3, 4), (28, 1, 4), (64, 3, 4), (48, 3, 6)]
)
def test_images_of_each_size(size, channels, smallest):
  generator = DCGANGenerator(image_size=size, channels=channels, width=4, latent=10)
  variables = shapes(generator, (2, 10))
  assert variables['params']['up1']['kernel'].shape[:2] == (smallest, smallest)
  images = jax.eval_shape(
    generator.apply, variables, jax.ShapeDtypeStruct((2, 10), jnp.float32)
  )
  assert images.shape == (2, size, size, channels)
  discriminator = DCGANDiscriminator(width=4)
  variables = shapes(discriminator, images.shape)
  last = variables['params'][f'conv{len(sides(size))}']['kernel']
  assert last.shape[:2] == (smallest, smallest)
  logits = jax.eval_shape(discriminator.apply, variables, images)
  assert (logits.shape, logits.dtype) == ((2,), jnp.float32)


def test_width_scales_every_layer():
  params = shapes(DCGANGenerator(width=8), (1, 100))['params']
  assert params['up1']['kernel'].shape == (4, 4, 100, 32)
  params = shapes(DCGANDiscriminator(width=8), (1, 32, 32, 3))['params']
  assert params['conv3']['kernel'].shape == (4, 4, 16, 32)


def test_weights_are_drawn_with_a_deviation_of_one_fiftieth():
  for model, shape in (
    (DCGANGenerator(width=8), (1, 100)),
    (DCGANDiscriminator(width=8), (1, 32, 32, 3)),
  ):
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros(shape))['params']
    kernels = [np.ravel(v['kernel']) for v in params.values() if 'kernel' in v]
    everything = np.concatenate(kernels)
    assert abs(everything.std() - 0.02) < 0.001
    assert abs(everything.mean()) < 0.001


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_training_moves_the_statistics_and_images_lie_between_minus_one_and_one(dtype):
  generator = DCGANGenerator(width=4, latent=10, dtype=dtype)
  discriminator = DCGANDiscriminator(width=4, dtype=dtype)
  noise = 100 * jax.random.normal(jax.random.key(1), (4, 10))

  @jax.jit
  def both(noise):
    results, x = [], noise
    for model in (generator, discriminator):
      variables = model.init(jax.random.key(0), x)
      x, updates = model.apply(variables, x, train=True, mutable=['batch_stats'])
      results.append((x, updates['batch_stats']))
    return results

  (images, of_generator), (logits, of_discriminator) = both(noise)
  assert images.dtype == logits.dtype == jnp.float32
  assert float(jnp.abs(images).max()) <= 1
  assert not np.allclose(of_generator['bn2']['mean'], 0)
  assert not np.allclose(of_discriminator['bn2']['var'], 1)
  chex.assert_tree_all_finite(logits)


def test_sizes_that_do_not_halve_are_refused():
  for size in (4, 7, 27, 30, 33):
    with pytest.raises(UserError, match=rf'{size} does not halve'):
      sides(size)
  with pytest.raises(UserError, match='square images, got 32x28'):
    shapes(DCGANDiscriminator(), (1, 32, 28, 3))
  with pytest.raises(ValueError, match=r'noise must be \[B, 100\]'):
    shapes(DCGANGenerator(), (1, 10))


@pytest.mark.parametrize('channels', [(3, 2), (16, 24)])
def test_resize_conv_is_nearest_neighbours_and_a_convolution(channels):
  random = np.random.default_rng(0)
  x = random.standard_normal((2, 6, 4, channels[0])).astype(np.float32)
  kernel = random.standard_normal((3, 3, *channels)).astype(np.float32)
  doubled = x.repeat(2, axis=1).repeat(2, axis=2)
  expected = jax.lax.conv_general_dilated(
    doubled, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )
  result = ResizeConv(channels[1]).apply({'params': {'kernel': kernel}}, x)
  np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(('size', 'side'), [(28, 4), (48, 6)])
def test_resize_has_kernels_of_three_after_the_first(size, side):
  model = DCGANGenerator(image_size=size, width=8, upsample='resize')
  params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 100)))['params']
  kernels = {k: v['kernel'].shape[:2] for k, v in params.items() if 'kernel' in v}
  convs = {f'conv{i}': (3, 3) for i in range(2, 5)}
  assert kernels == {'up1': (side, side)} | convs


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
  'fields',
  [
    {'kernel_size': (4, 4), 'strides': (2, 2)},
    {'kernel_size': (4, 4), 'padding': 'VALID'},
  ],
)
def test_transposed_convolution_equals_linens(fields, dtype):
  images = jax.random.normal(jax.random.key(0), (2, 5, 4, 16))
  ours = ConvTranspose(16, dtype=dtype, **fields)
  linens = nn.ConvTranspose(
    16,
    dtype=dtype,
    use_bias=False,
    kernel_init=nn.initializers.normal(0.02),
    **fields,
  )
  variables = ours.init(jax.random.key(1), images)
  chex.assert_trees_all_equal(variables, linens.init(jax.random.key(1), images))
  got, wanted = ours.apply(variables, images), linens.apply(variables, images)
  assert got.dtype == wanted.dtype == dtype
  chex.assert_trees_all_close(got, wanted, rtol=1e-4, atol=1e-5)
