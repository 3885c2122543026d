"""Pre-activation and wide residual networks: published sizes, order, dropout."""

import functools

import chex
import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.models.preact import PreActBlock, PreActBottleneckBlock, PreActResNet
from jaxvision.models.resnet import conv

# It compiles much: not in `make test-fast`.
pytestmark = pytest.mark.long

BLOCKS = [PreActBlock, PreActBottleneckBlock]


def expected_count(stem, widths, sizes, kernels, expansion, classes=10):
  """Counts by the papers' tables, layer by layer, on images of three channels."""
  total, channels = 9 * 3 * stem, stem
  for width, size in zip(widths, sizes):
    for _ in range(size):
      outs = [width] * (len(kernels) - 1) + [width * expansion]
      if channels != outs[-1]:
        total += channels * outs[-1]  # the projection, which has no norm
      for side, features in zip(kernels, outs):
        total += 2 * channels + side * side * channels * features
        channels = features
  return total + 2 * channels + channels * classes + classes


@pytest.mark.parametrize(
  ('name', 'millions', 'layers'),
  [
    ('preact_resnet18', 11.17, (64, (64, 128, 256, 512), (2, 2, 2, 2), (3, 3), 1)),
    ('preact_resnet34', 21.28, (64, (64, 128, 256, 512), (3, 4, 6, 3), (3, 3), 1)),
    ('preact_resnet50', 23.51, (64, (64, 128, 256, 512), (3, 4, 6, 3), (1, 3, 1), 4)),
    ('wide_resnet28_10', 36.5, (16, (160, 320, 640), (4, 4, 4), (3, 3), 1)),
    ('wide_resnet40_4', 8.9, (16, (64, 128, 256), (6, 6, 6), (3, 3), 1)),
    ('wide_resnet16_8', 11.0, (16, (128, 256, 512), (2, 2, 2), (3, 3), 1)),
  ],
)
def test_parameters_are_the_papers(name, millions, layers):
  images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  model = models.create(name, 10)
  params = jax.eval_shape(model.init, jax.random.key(0), images)['params']
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  assert count == expected_count(*layers)
  decimals = len(str(millions).split('.')[1])
  assert round(count / 1e6, decimals) == millions


@pytest.mark.parametrize('block', BLOCKS)
def test_a_block_whose_last_kernel_is_zero_is_its_shortcut(block, fill):
  x = jax.random.normal(jax.random.key(0), (2, 5, 6, 8))
  last = f'conv{len(block.kernels)}'

  def run(width, stride):
    layer = block(width, stride)
    variables = fill(layer, x.shape[1:])
    kernel = variables['params'][last]['kernel']
    variables['params'][last]['kernel'] = jnp.zeros_like(kernel)
    return variables, layer.apply(variables, x, train=False)

  # As it came: nothing is normed or cut off on the way.
  _, y = run(8 // block.expansion, 1)
  chex.assert_trees_all_equal(y, x)
  # A projection, of the input after the first norm and activation.
  variables, y = run(8, 2)
  params, statistics = variables['params'], variables['batch_stats']['bn1']
  active = (x - statistics['mean']) / jnp.sqrt(statistics['var'] + 1e-5)
  active = nn.relu(active * params['bn1']['scale'] + params['bn1']['bias'])
  kernel = params['shortcut_conv']['kernel'][0, 0]
  chex.assert_shape(y, (2, 3, 3, 8 * block.expansion))
  chex.assert_trees_all_close(y, active[:, ::2, ::2] @ kernel, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('block', BLOCKS)
def test_norm_activation_convolution_in_this_order(block):
  layer, calls = block(4, 2), []

  def record(call, args, kwargs, context):
    if context.method_name == '__call__' and context.module.path:
      calls.append(context.module.name)
    return call(*args, **kwargs)

  with nn.intercept_methods(record):
    x = jax.ShapeDtypeStruct((1, 4, 4, 3), jnp.float32)
    jax.eval_shape(functools.partial(layer.init, train=True), jax.random.key(0), x)
  pairs = [
    name for i in range(1, len(block.kernels) + 1) for name in (f'bn{i}', f'conv{i}')
  ]
  assert [name for name in calls if 'Dropout' not in name] == [*pairs, 'shortcut_conv']
  assert calls.index('Dropout_0') == calls.index(pairs[-1]) - 1


def test_the_whole_network_by_hand(fill):
  model = PreActResNet(3, (1, 1), PreActBlock, width=4)
  images = jax.random.normal(jax.random.key(0), (2, 7, 6, 3))
  variables = fill(model, images.shape[1:])
  params, stats = variables['params'], variables['batch_stats']

  def act(x, *names):
    own, seen = params, stats
    for name in names:
      own, seen = own[name], seen[name]
    x = (x - seen['mean']) / jnp.sqrt(seen['var'] + 1e-5)
    return nn.relu(x * own['scale'] + own['bias'])

  def convolve(x, tree, stride=1):
    side, _, _, features = tree['kernel'].shape
    layer = conv(features, (side, side), strides=stride, padding=side // 2)
    return layer.apply({'params': tree}, x)

  # Both branches of the first block start after the stem's activation.
  x = act(convolve(images, params['stem_conv']), 'stem_bn')
  first, second = params['stage1_block1'], params['stage2_block1']
  assert 'bn1' not in first
  y = act(convolve(x, first['conv1']), 'stage1_block1', 'bn2')
  x = x + convolve(y, first['conv2'])
  active = act(x, 'stage2_block1', 'bn1')
  y = act(convolve(active, second['conv1'], 2), 'stage2_block1', 'bn2')
  x = convolve(active, second['shortcut_conv'], 2) + convolve(y, second['conv2'])
  features = act(x, 'final_bn').mean((1, 2))
  chex.assert_trees_all_close(
    model.apply(variables, images, method='features'), features, rtol=1e-4, atol=1e-5
  )
  logits = features @ params['head']['kernel'] + params['head']['bias']
  chex.assert_trees_all_close(
    model.apply(variables, images), logits, rtol=1e-4, atol=1e-5
  )


def test_widen_and_dropout_are_fields_that_are_checked():
  model = models.create('wide_resnet16_8', 10, widen=2, dropout=0.3)
  assert (model.widen, model.dropout) == (2, 0.3)
  for wrong in ({'widen': 0}, {'widen': 1.5}, {'dropout': 1.0}):
    with pytest.raises(UserError, match=f'model.{next(iter(wrong))}'):
      models.create('wide_resnet16_8', 10, **wrong)


def test_only_training_with_dropout_draws():
  images = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)

  def apply(dropout, train):
    model = PreActResNet(3, (1,), PreActBlock, width=4, dropout=dropout)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    return jax.eval_shape(
      lambda v, x: model.apply(v, x, train=train, mutable=['batch_stats']),
      variables,
      images,
    )

  apply(0.0, train=True)
  apply(0.5, train=False)
  with pytest.raises(flax.errors.InvalidRngError, match='dropout'):
    apply(0.5, train=True)


def test_a_train_step_reaches_every_parameter_with_dropout(fill):
  model = PreActResNet(3, (1, 1), PreActBottleneckBlock, width=4, dropout=0.5)
  images = np.random.default_rng(1).standard_normal((4, 8, 8, 3), np.float32)
  variables = fill(model, images.shape[1:])

  def loss(params, key):
    logits, _ = model.apply(
      variables | {'params': params},
      images,
      train=True,
      rngs={'dropout': key},
      mutable=['batch_stats'],
    )
    return -jax.nn.log_softmax(logits)[:, 0].mean()

  step = jax.jit(jax.value_and_grad(loss))
  value, gradient = step(variables['params'], jax.random.key(0))
  chex.assert_tree_all_finite(gradient)
  assert all(jax.tree.leaves(jax.tree.map(jnp.any, gradient)))
  assert step(variables['params'], jax.random.key(1))[0] != value
