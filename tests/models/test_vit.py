"""Vision transformers: published sizes, PyTorch's numbers, positions, what is refused."""

import functools

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
from jaxvision.models.attention import Attention
from jaxvision.models.layers import DropPath
from jaxvision.models.summary import summarize
from jaxvision.models.vit import sincos2d

# It compiles much: not in `make test-fast`.
pytestmark = pytest.mark.long

SMALL = {'patch': 4, 'width': 8, 'depth': 2, 'heads': 2, 'mlp_ratio': 2}


def small(**fields):
  return models.create('vit_tiny', 5, **SMALL | fields)


def pictures(*shape):
  return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def outputs(model, variables, images):
  """Returns the outputs of all layers, and of the method `features`."""
  _, seen = model.apply(
    variables,
    images,
    capture_intermediates=lambda _, method: method in ('__call__', 'features'),
    mutable='intermediates',
  )
  return seen['intermediates']


def shapes_of(model, shape):
  images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  return jax.eval_shape(model.init, jax.random.key(0), images)['params']


# Multiply-adds, in billions: DeiT's paper has two, torchvision that beside its weights.
@pytest.mark.parametrize(
  ('name', 'count', 'billions'),
  [
    ('vit_tiny', 5_717_416, '1.3'),
    ('vit_small', 22_050_664, '4.6'),
    ('vit_base', 86_567_656, '17.564'),
  ],
)
def test_size_and_cost_are_the_published_ones(name, count, billions):
  found = summarize(models.create(name, 1000), (224, 224, 3))
  assert found.params == count
  decimals = len(billions.split('.')[1])
  assert f'{found.flops / 2e9:.{decimals}f}' == billions


@pytest.mark.slow
def test_logits_and_gradients_are_those_of_torchvision():
  torch_parity = pytest.importorskip('torch_parity')
  peer = torchvision('models.vision_transformer').VisionTransformer(
    image_size=24,
    patch_size=8,
    num_layers=2,
    num_heads=3,
    hidden_dim=12,
    mlp_dim=30,
    num_classes=5,
  )
  names = [
    ('^embed/conv', 'conv_proj'),
    ('^embed/token', 'class_token'),
    ('^embed/positions', 'encoder/pos_embedding'),
    (r'^block(\d)', lambda m: f'encoder/layers/encoder_layer_{int(m[1]) - 1}'),
    ('attention/qkv/kernel', 'self_attention/in_proj_weight'),
    ('attention/qkv/bias', 'self_attention/in_proj_bias'),
    ('attention/proj', 'self_attention/out_proj'),
    ('/norm', '/ln_'),
    ('/dense1', '/mlp/0'),
    ('/dense2', '/mlp/3'),
    ('^norm', 'encoder/ln'),
    ('^head', 'heads/head'),
  ]
  model = small(patch=8, width=12, heads=3, mlp_ratio=2.5)
  torch_parity.check(model, torch_parity.drawn(peer), names, pictures(2, 24, 24, 3))


def test_fixed_positions_are_waves_of_column_and_row():
  found = sincos2d(3, 4, 12)
  chex.assert_shape(found, (12, 12))
  for row in range(3):
    for column in range(4):
      for i, frequency in enumerate((1, 1e-2, 1e-4)):
        expected = [
          wave(place * frequency)
          for place in (column, row)
          for wave in (np.sin, np.cos)
        ]
        np.testing.assert_allclose(found[4 * row + column, i::3], expected, atol=1e-7)


@pytest.mark.parametrize('pool', ['token', 'mean'])
@pytest.mark.parametrize('positions', ['learned', 'sincos2d'])
def test_tokens_are_patches_in_rows_with_their_positions(pool, positions, fill):
  model = small(pool=pool, positions=positions)
  images = pictures(2, 8, 12, 3)
  variables = fill(model, images.shape[1:])
  embed = variables['params']['embed']
  seen = outputs(model, variables, images)
  patches = images.reshape(2, 2, 4, 3, 4, 3).transpose(0, 1, 3, 2, 4, 5)
  kernel = embed['conv']['kernel'].reshape(48, 8)
  expected = patches.reshape(2, 6, 48) @ kernel + embed['conv']['bias']
  if positions == 'sincos2d':
    expected = expected + sincos2d(2, 3, 8)
  if pool == 'token':
    token = jnp.broadcast_to(embed['token'], (2, 1, 8))
    expected = jnp.concatenate([token, expected], axis=1)
  if positions == 'learned':
    chex.assert_shape(embed['positions'], (7 if pool == 'token' else 6, 8))
    expected = expected + embed['positions']
  assert ('token' in embed) == (pool == 'token')
  assert ('positions' in embed) == (positions == 'learned')
  chex.assert_trees_all_close(seen['embed']['__call__'][0], expected, atol=1e-5)
  # What goes into the classifier: one normed token, or the mean of all.
  normed = seen['norm']['__call__'][0]
  features = seen['features'][0]
  chex.assert_trees_all_close(
    features, normed if pool == 'token' else normed.mean(1), atol=1e-6
  )


def test_the_first_logits_are_zero_and_layers_are_in_order():
  model = small()
  images = pictures(2, 8, 8, 3)
  variables = jax.jit(model.init)(jax.random.key(0), images)
  seen = outputs(model, variables, images)
  assert not jnp.any(seen['__call__'][0])
  assert jnp.any(seen['features'][0])
  order = models.layer_order(model, (8, 8, 3))
  assert order == ('embed', 'block1', 'block2', 'norm', 'head')


def test_attention_begins_with_matrices_of_one_variance():
  # The three matrices of the first projection are drawn as if each were by itself.
  layer, tokens = Attention(2), jnp.ones((1, 3, 128))
  variables = jax.jit(layer.init, static_argnums=2)(jax.random.key(0), tokens, False)
  bound = (6 / (128 + 128)) ** 0.5
  for name in ('qkv', 'proj'):
    kernel = np.asarray(variables['params'][name]['kernel'])
    assert 0.99 * bound < np.abs(kernel).max() <= bound
    np.testing.assert_allclose(kernel.std(), bound / 3**0.5, rtol=0.02)


@pytest.mark.parametrize(
  ('fields', 'size', 'words'),
  [
    ({'patch': 16}, (24, 32), ['16x16', '24x32', 'data.image_size', 'model.patch']),
    ({'patch': 16}, (32, 24), ['16x16', '32x24', 'data.image_size', 'model.patch']),
    ({'patch': 16}, (8, 8), ['16x16', '8x8', 'data.image_size', 'model.patch']),
    ({'heads': 3}, (8, 8), ['3 heads', 'width of 8', 'model.heads', 'model.width']),
    (
      {'positions': 'sincos2d', 'width': 6},
      (8, 8),
      ['sincos2d', 'model.width', 'multiple of 4', 'got 6'],
    ),
  ],
)
def test_what_does_not_divide_is_refused_in_one_line(fields, size, words):
  with pytest.raises(UserError) as info:
    shapes_of(small(**fields), (*size, 3))
  message = str(info.value)
  assert message.startswith('VisionTransformer')
  assert '\n' not in message
  for word in words:
    assert word in message


def test_only_training_with_a_rate_draws():
  images = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)

  def apply(train, **fields):
    model = small(**fields)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    return jax.eval_shape(
      lambda v, x: model.apply(v, x, train=train), variables, images
    )

  apply(train=True)
  for rate in ('dropout', 'drop_path'):
    apply(train=False, **{rate: 0.5})
    with pytest.raises(flax.errors.InvalidRngError, match='dropout'):
      apply(train=True, **{rate: 0.5})


def test_paths_are_dropped_the_more_often_the_deeper_they_are():
  rates = []

  def record(call, args, kwargs, context):
    if isinstance(context.module, DropPath) and context.method_name == '__call__':
      rates.append((context.module.path[0], context.module.rate))
    return call(*args, **kwargs)

  with nn.intercept_methods(record):
    shapes_of(small(depth=3, drop_path=0.3), (8, 8, 3))
  expected = [('block1', 0), ('block2', 0.15), ('block3', 0.3)]
  assert rates == [pair for pair in expected for _ in range(2)]


def test_the_map_of_a_mean_is_that_of_the_classifiers_weights(fill):
  model = small(pool='mean')
  images, labels = pictures(2, 16, 12, 3), jnp.array([3, 1])
  variables = fill(model, images.shape[1:])
  seen = outputs(model, variables, images)
  tokens = seen['norm']['__call__'][0]
  weights = variables['params']['head']['kernel'][:, labels]
  expected = nn.relu(jnp.einsum('bnd,db->bn', tokens, weights)).reshape(2, 4, 3)
  expected = jax.image.resize(expected, (2, 16, 12), 'bilinear')
  expected = expected / expected.max((1, 2), keepdims=True)
  found = jax.jit(functools.partial(models.grad_cam, model))(variables, images, labels)
  chex.assert_trees_all_close(found, expected, atol=1e-4)


def test_the_map_of_a_class_token_is_what_its_last_attention_reads(fill):
  model = small(depth=1)
  images, labels = pictures(2, 16, 12, 3), jnp.array([3, 1])
  variables = fill(model, images.shape[1:])
  params, block = variables['params'], variables['params']['block1']
  seen = outputs(model, variables, images)

  def norm(x, params):
    return nn.LayerNorm(1e-6).apply({'params': params}, x)

  def logits(read):
    x = seen['embed']['__call__'][0]
    x = x + Attention(2).apply({'params': block['attention']}, read, False)
    y = norm(x, block['norm2']) @ block['dense1']['kernel'] + block['dense1']['bias']
    y = nn.gelu(y, approximate=False) @ block['dense2']['kernel']
    x = norm(x + y + block['dense2']['bias'], params['norm'])[:, 0]
    x = x @ params['head']['kernel'] + params['head']['bias']
    return x[jnp.arange(2), labels].sum()

  read = seen['block1']['norm1']['__call__'][0]
  chex.assert_shape(read, (2, 13, 8))
  weights = jax.jit(jax.grad(logits))(read)[:, 1:].mean(1)
  expected = nn.relu(jnp.einsum('bnd,bd->bn', read[:, 1:], weights)).reshape(2, 4, 3)
  expected = jax.image.resize(expected, (2, 16, 12), 'bilinear')
  expected = expected / expected.max((1, 2), keepdims=True)
  found = jax.jit(functools.partial(models.grad_cam, model))(variables, images, labels)
  chex.assert_trees_all_close(found, expected, atol=1e-4)


def test_an_image_of_one_patch_has_no_map(fill):
  model = small(patch=8)
  variables = fill(model, (8, 8, 3))
  with pytest.raises(UserError, match='VisionTransformer .* more than a pixel') as info:
    models.grad_cam(model, variables, jnp.ones((1, 8, 8, 3)), jnp.zeros(1, int))
  assert '\n' not in str(info.value)
