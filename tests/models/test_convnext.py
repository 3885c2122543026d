"""ConvNeXt: published sizes, torchvision's numbers, small images, what is refused."""

import chex
import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torchvision_parts import torchvision

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.models.layers import DropPath
from jaxvision.models.summary import summarize

# It compiles much: not in `make test-fast`.
pytestmark = pytest.mark.long

SMALL = {'widths': (4, 6, 8, 12), 'depths': (1, 1, 2, 1)}


def small(**fields):
  return models.create('convnext_tiny', 5, **SMALL | fields)


def shapes_of(model, shape):
  images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  return jax.eval_shape(model.init, jax.random.key(0), images)['params']


def expected_count(widths, depths, patch, classes):
  """Counts by the paper's definition, layer by layer, on images of three channels."""
  total = (3 * patch**2 + 1) * widths[0] + 2 * widths[0]
  for i, (width, depth) in enumerate(zip(widths, depths)):
    if i:
      total += 2 * widths[i - 1] + (4 * widths[i - 1] + 1) * width
    depthwise, norm, scale = (49 + 1) * width, 2 * width, width
    dense = (width + 1) * 4 * width + (4 * width + 1) * width
    total += depth * (depthwise + norm + dense + scale)
  return total + 2 * widths[-1] + (widths[-1] + 1) * classes


@pytest.mark.parametrize(
  ('name', 'widths', 'published'),
  [
    ('convnext_atto', (40, 80, 160, 320), 3.70),
    ('convnext_femto', (48, 96, 192, 384), 5.22),
  ],
)
def test_parameters_of_small_sizes_are_those_of_timm(name, widths, published):
  params = shapes_of(models.create(name, 1000), (224, 224, 3))
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  assert count == expected_count(widths, (2, 2, 6, 2), 4, 1000)
  assert round(count / 1e6, 2) == published


def test_size_and_cost_of_tiny_are_those_of_torchvision():
  found = summarize(models.create('convnext_tiny', 1000), (224, 224, 3))
  assert found.params == 28_589_128
  assert found.params == expected_count((96, 192, 384, 768), (3, 3, 9, 3), 4, 1000)
  assert round(found.flops / 2e9, 3) == 4.456


@pytest.mark.slow
def test_logits_and_gradients_are_those_of_torchvision():
  torch_parity = pytest.importorskip('torch_parity')
  module = torchvision('models.convnext')
  stages = [module.CNBlockConfig(4, 6, 1), module.CNBlockConfig(6, None, 1)]
  peer = module.ConvNeXt(stages, num_classes=5)
  names = [
    ('^stem_conv', 'features/0/0'),
    ('^stem_norm', 'features/0/1'),
    (
      r'^stage(\d)_block(\d)/',
      lambda m: f'features/{2 * int(m[1]) - 1}/{int(m[2]) - 1}/',
    ),
    (r'^stage(\d)_down/', lambda m: f'features/{2 * int(m[1]) - 2}/'),
    ('^(features/2)/norm', r'\1/0'),
    ('^(features/2)/conv', r'\1/1'),
    ('depthwise_conv', 'block/0'),
    (r'^(features/.*)/norm', r'\1/block/2'),
    ('dense1', 'block/3'),
    ('dense2', 'block/5'),
    ('^norm', 'classifier/0'),
    ('^head', 'classifier/2'),
  ]
  model = small(widths=(4, 6), depths=(1, 1))
  # Downsampling drops the last row of 5.
  images = np.random.default_rng(0).standard_normal((2, 20, 24, 3), np.float32)
  torch_parity.check(model, torch_parity.drawn(peer), names, images)


@pytest.mark.parametrize(
  ('patch', 'size', 'last'), [(1, (8, 12), (1, 1)), (2, (32, 48), (2, 3))]
)
def test_small_images_keep_their_pixels_in_the_stem(patch, size, last):
  maps = {}

  def record(call, args, kwargs, context):
    result = call(*args, **kwargs)
    if context.method_name == '__call__' and context.module.path:
      maps['/'.join(context.module.path)] = result.shape[1:3]
    return result

  with nn.intercept_methods(record):
    params = shapes_of(small(stem_patch=patch), (*size, 3))
  chex.assert_shape(params['stem_conv']['kernel'], (patch, patch, 3, 4))
  assert maps['stem_conv'] == tuple(n // patch for n in size)
  assert maps['stage4_block1'] == last


def test_branches_begin_at_the_layer_scale():
  assert models.fields('convnext_tiny')['layer_scale'] == 1e-6
  model = small(widths=(4,), depths=(1,), layer_scale=0.5)
  params = jax.jit(model.init)(jax.random.key(0), jnp.ones((1, 8, 8, 3)))['params']
  np.testing.assert_array_equal(params['stage1_block1']['layer_scale'], np.full(4, 0.5))


def test_paths_are_dropped_the_more_often_the_deeper_they_are():
  rates = []

  def record(call, args, kwargs, context):
    if isinstance(context.module, DropPath) and context.method_name == '__call__':
      rates.append(context.module.rate)
    return call(*args, **kwargs)

  model = small(drop_path=0.4)
  images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
  with nn.intercept_methods(record):
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
  np.testing.assert_allclose(rates, [0, 0.1, 0.2, 0.3, 0.4])
  with pytest.raises(flax.errors.InvalidRngError, match='dropout'):
    jax.eval_shape(lambda v, x: model.apply(v, x, train=True), variables, images)


@pytest.mark.parametrize(
  ('fields', 'size', 'words'),
  [
    ({}, (66, 64), ['4x4', '66x64', 'data.image_size', 'model.stem_patch']),
    ({}, (28, 32), ['32x32', '28x32', 'data.image_size', 'model.stem_patch']),
    ({'depths': (1, 1)}, (64, 64), ['widths', 'depths', '4 and 2']),
  ],
)
def test_what_does_not_fit_is_refused_in_one_line(fields, size, words):
  with pytest.raises(UserError) as info:
    shapes_of(small(**fields), (*size, 3))
  message = str(info.value)
  assert message.startswith('ConvNeXt')
  assert '\n' not in message
  for word in words:
    assert word in message


def test_layers_are_in_order():
  order = models.layer_order(small(), (32, 32, 3))
  blocks = ['stage1_block1', 'stage2_down', 'stage2_block1', 'stage3_down']
  blocks += ['stage3_block1', 'stage3_block2', 'stage4_down', 'stage4_block1']
  assert order == ('stem_conv', 'stem_norm', *blocks, 'norm', 'head')
