"""Residual networks: published sizes, shortcuts, padding, initialisation."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import models
from jaxvision.models.layers import head
from jaxvision.models.paths import paths
from jaxvision.models.resnet import BasicBlock, BottleneckBlock, ResNet, conv


def shapes_of(name, num_classes=10, size=32, **fields):
  images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  model = models.create(name, num_classes, **fields)
  init = lambda images: model.init(jax.random.key(0), images, train=False)  # noqa: E731
  return jax.eval_shape(init, images)


def count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
  ('name', 'parameters'),
  [
    ('resnet18', 11_173_962),
    ('resnet34', 21_282_122),
    ('resnet50', 23_520_842),
    ('resnet101', 42_512_970),
    ('resnet152', 58_156_618),
    ('resnet20', 269_722),
    ('resnet32', 464_154),
    ('resnet44', 658_586),
    ('resnet56', 853_018),
    ('resnet110', 1_727_962),
  ],
)
def test_parameter_counts(name, parameters):
  assert count(shapes_of(name)['params']) == parameters


@pytest.mark.parametrize('name', ['resnet20', 'resnet56'])
def test_option_b_adds_two_projections(name):
  added = count(shapes_of(name, shortcut='B')['params']) - count(
    shapes_of(name, shortcut='A')['params']
  )
  # 1x1 kernels 16 -> 32 -> 64, and scale and bias of their batch norms.
  assert added == (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64) == 2_752


# torchvision's networks on 1,000 classes.
@pytest.mark.parametrize(
  ('name', 'parameters'),
  [
    ('resnet18', 11_689_512),
    ('resnet34', 21_797_672),
    ('resnet50', 25_557_032),
    ('resnet101', 44_549_160),
    ('resnet152', 60_192_808),
  ],
)
def test_imagenet_stem_gives_the_published_sizes(name, parameters):
  variables = shapes_of(name, 1000, size=64, stem='imagenet')
  assert count(variables['params']) == parameters


# PyTorch's floor((n + 2 padding - kernel) / stride) + 1, layer by layer.
@pytest.mark.parametrize('name', ['resnet18', 'preact_resnet18'])
@pytest.mark.parametrize(
  ('stem', 'size', 'last'),
  [
    ('cifar', (32, 32), (4, 4)),
    ('imagenet', (32, 32), (1, 1)),
    ('imagenet', (224, 224), (7, 7)),
    ('imagenet', (193, 161), (7, 6)),
    ('cifar', (33, 5), (5, 1)),
  ],
)
def test_resolution_of_the_last_stage(name, stem, size, last):
  model = models.create(name, 10, stem=stem)
  images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
  _, captured = jax.eval_shape(
    lambda variables, images: model.apply(
      variables, images, capture_intermediates=True, mutable='intermediates'
    ),
    shapes_of(name, stem=stem),
    images,
  )
  (output,) = captured['intermediates']['stage4_block2']['__call__']
  chex.assert_shape(output, (1, *last, 512))


@pytest.mark.parametrize('size', [7, 8])
def test_a_strided_convolution_pads_both_sides_of_the_image(size):
  # Output pixel (i, j) is centred on input pixel (2 i, 2 j), as in PyTorch with
  # padding=1; SAME would centre it on (2 i + 1, 2 j + 1) where the size is even.
  kernel = np.zeros((3, 3, 1, 1), np.float32)
  kernel[1, 1] = 1.0
  x = jax.random.normal(jax.random.key(0), (1, size, size, 1))
  layer = conv(1, (3, 3), strides=2, padding=1)
  y = layer.apply({'params': {'kernel': kernel}}, x)
  chex.assert_trees_all_close(y, x[:, ::2, ::2])


@pytest.mark.parametrize('block', [BasicBlock, BottleneckBlock])
@pytest.mark.parametrize('shortcut', ['A', 'B'])
@pytest.mark.parametrize('size', [6, 5])
def test_blocks_stride_and_widen(block, shortcut, size):
  x = jax.ShapeDtypeStruct((2, size, size, 4), jnp.float32)
  layer = block(width=8, stride=2, shortcut=shortcut)
  y, variables = jax.eval_shape(
    lambda x: layer.init_with_output(jax.random.key(1), x, train=False), x
  )
  chex.assert_shape(y, (2, 3, 3, 8 * block.expansion))
  assert ('shortcut_conv' in variables['params']) == (shortcut == 'B')


@pytest.mark.parametrize('block', [BasicBlock, BottleneckBlock])
def test_zero_init_starts_a_block_as_its_shortcut(block):
  x = jax.random.normal(jax.random.key(0), (2, 4, 4, 8))
  width = 8 // block.expansion
  y, _ = block(width, zero_init=True).init_with_output(jax.random.key(1), x, True)
  chex.assert_trees_all_close(y, nn.relu(x))
  y, _ = block(width, zero_init=False).init_with_output(jax.random.key(1), x, True)
  assert jnp.abs(y - nn.relu(x)).max() > 0.1


@pytest.mark.long
@pytest.mark.parametrize('block', [BasicBlock, BottleneckBlock])
@pytest.mark.parametrize('zero_init', [False, True])
def test_zero_init_reaches_the_last_norm_of_every_block_only(block, zero_init):
  model = ResNet(10, (1, 2), block, width=4, zero_init=zero_init)
  params = model.init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))['params']
  zero = {
    '/'.join(key.key for key in path)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    if path[-1].key == 'scale' and not jnp.any(leaf)
  }
  blocks = [name for name in params if name.startswith('stage')]
  last = 'bn2' if block is BasicBlock else 'bn3'
  assert len(blocks) == 3
  assert zero == ({f'{name}/{last}/scale' for name in blocks} if zero_init else set())


def test_kernels_are_drawn_with_the_variance_of_the_fan_out():
  layer = conv(256, (3, 3), padding=1)
  x = jnp.zeros((1, 3, 3, 128))
  kernel = layer.init(jax.random.key(0), x)['params']['kernel']
  assert np.std(kernel) == pytest.approx(np.sqrt(2 / (9 * 256)), rel=0.01)


@pytest.mark.long
@pytest.mark.parametrize(
  ('block', 'shortcut', 'stem'),
  [
    (BasicBlock, 'A', 'cifar'),
    (BasicBlock, 'B', 'imagenet'),
    (BottleneckBlock, 'A', 'imagenet'),
    (BottleneckBlock, 'B', 'cifar'),
  ],
)
def test_gradients_reach_every_parameter(block, shortcut, stem, fill):
  model = ResNet(3, (1, 1), block, width=4, shortcut=shortcut, stem=stem)
  images = np.random.default_rng(1).standard_normal((4, 16, 16, 3), np.float32)
  variables = fill(model, images.shape[1:])

  def loss(params):
    logits, _ = model.apply(
      variables | {'params': params}, images, train=True, mutable=['batch_stats']
    )
    return -jax.nn.log_softmax(logits)[:, 0].mean()

  grads = jax.jit(jax.grad(loss))(variables['params'])
  chex.assert_tree_all_finite(grads)
  still = [
    jax.tree_util.keystr(path)
    for path, gradient in jax.tree_util.tree_leaves_with_path(grads)
    if not jnp.any(gradient)
  ]
  assert still == []


def test_names_of_the_parameters_are_those_that_checkpoints_hold():
  model = ResNet(3, (1, 1), BottleneckBlock, width=4)
  images = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), images)
  layers = {f'{kind}{i}' for kind in ('conv', 'bn') for i in (1, 2, 3)}
  layers |= {'shortcut_conv', 'shortcut_bn'}
  blocks = {
    f'{block}/{layer}'
    for block in ('stage1_block1', 'stage2_block1')
    for layer in layers
  }
  expected = {'head/kernel', 'head/bias'}
  for layer in {'stem_conv', 'stem_bn'} | blocks:
    own = {'kernel'} if 'conv' in layer else {'scale', 'bias'}
    expected |= {f'{layer}/{name}' for name in own}
  assert set(jax.tree.leaves(paths(variables['params']))) == expected
  statistics = {path.rsplit('/', 1)[0] for path in expected if path.endswith('scale')}
  assert set(jax.tree.leaves(paths(variables['batch_stats']))) == {
    f'{layer}/{name}' for layer in statistics for name in ('mean', 'var')
  }


def test_initial_values_are_those_of_layers_made_in_one_compact_method():
  class Compact(nn.Module):
    @nn.compact
    def __call__(self, x):
      x = conv(4, (3, 3), padding=1, name='stem_conv')(x)
      return head(3)(x.mean((1, 2)))

  images = jnp.ones((1, 4, 4, 3))
  params = ResNet(3, (), BasicBlock, width=4).init(jax.random.key(5), images)['params']
  expected = Compact().init(jax.random.key(5), images)['params']
  assert set(params) == {*expected, 'stem_bn'}
  chex.assert_trees_all_equal({name: params[name] for name in expected}, expected)


@pytest.mark.parametrize('name', ['resnet18', 'wide_resnet16_8'])
def test_logits_are_the_classifier_on_the_features(name, fill):
  model = models.create(name, 5, 'bfloat16', width=2, stem='imagenet')
  images = jax.random.normal(jax.random.key(1), (3, 17, 20, 3))
  variables = fill(model, (17, 20, 3))

  @jax.jit
  def both(variables):
    features = model.apply(variables, images, method='features')
    logits = model.apply(variables, features, method='classify')
    return features, logits, model.apply(variables, images)

  features, logits, whole = both(variables)
  chex.assert_shape(features, (3, variables['params']['head']['kernel'].shape[0]))
  chex.assert_type([features, logits], jnp.float32)
  chex.assert_trees_all_close(logits, whole, rtol=1e-5, atol=1e-5)


def test_any_image_size_gives_the_same_parameters():
  assert count(shapes_of('resnet20', size=9)) == count(shapes_of('resnet20', size=48))


def test_batch_norm_follows_the_conventions_of_pytorch(fill):
  model = ResNet(10, (1,), BasicBlock, width=4)
  images = 3 + jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
  variables = fill(model, (8, 8, 3))
  _, updates = jax.jit(
    lambda variables: model.apply(
      variables, images, train=True, mutable=['batch_stats']
    )
  )(variables)
  features = conv(4, (3, 3), padding=1).apply(
    {'params': variables['params']['stem_conv']}, images
  )
  before = variables['batch_stats']['stem_bn']['mean']
  expected = 0.9 * before + 0.1 * features.mean((0, 1, 2))
  chex.assert_trees_all_close(
    updates['batch_stats']['stem_bn']['mean'], expected, rtol=1e-4
  )
