"""Compact convolutional transformers: sizes, a PyTorch network of the same definition."""

import functools
import itertools

import chex
import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.models.cct import SequencePool

# It compiles much: not in `make test-fast`.
pytestmark = pytest.mark.long

SMALL = {'width': 8, 'depth': 2, 'heads': 2, 'drop_path': 0, 'attention_dropout': 0}


def small(**fields):
  return models.create('cct_2_3x2', 5, **SMALL | fields)


def pictures(*shape):
  return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def outputs(model, variables, images):
  """Returns the outputs of all layers."""
  _, seen = model.apply(
    variables, images, capture_intermediates=True, mutable='intermediates'
  )
  return seen['intermediates']


def shapes_of(model, shape):
  images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  return jax.eval_shape(model.init, jax.random.key(0), images)['params']


@pytest.mark.parametrize(
  ('name', 'count'),
  [
    ('cct_2_3x2', 283_723),
    ('cct_4_3x2', 482_123),
    ('cct_6_3x1', 3_233_803),
    ('cct_7_3x1', 3_760_139),
  ],
)
def test_parameters_are_those_of_the_authors_code(name, count):
  params = shapes_of(models.create(name, 10), (32, 32, 3))
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def test_the_authors_rates_are_the_defaults():
  for name in ('cct_2_3x2', 'cct_4_3x2', 'cct_6_3x1', 'cct_7_3x1'):
    fields = models.fields(name)
    rates = [fields[f] for f in ('dropout', 'attention_dropout', 'drop_path')]
    assert rates == [0.0, 0.1, 0.1]


def peer_of(width, heads, hidden, tokens, depth, convs, classes):
  """Returns the network in PyTorch, written after the paper."""
  torch = pytest.importorskip('torch')
  layer, functional = torch.nn, torch.nn.functional

  class Block(layer.Module):
    def __init__(self):
      super().__init__()
      self.norm1, self.norm2 = layer.LayerNorm(width), layer.LayerNorm(width)
      self.qkv = layer.Linear(width, 3 * width, bias=False)
      self.proj = layer.Linear(width, width)
      self.dense1 = layer.Linear(width, hidden)
      self.dense2 = layer.Linear(hidden, width)

    def forward(self, x):
      split = [
        part.unflatten(-1, (heads, -1)).transpose(1, 2)
        for part in self.qkv(self.norm1(x)).chunk(3, dim=-1)
      ]
      y = functional.scaled_dot_product_attention(*split)
      x = self.norm2(x + self.proj(y.transpose(1, 2).flatten(2)))
      return x + self.dense2(functional.gelu(self.dense1(x)))

  class Network(layer.Module):
    def __init__(self):
      super().__init__()
      channels = [3, *[64] * (convs - 1), width]
      self.convs = layer.ModuleList(
        layer.Conv2d(*pair, 3, padding=1, bias=False)
        for pair in itertools.pairwise(channels)
      )
      self.positions = layer.Parameter(torch.zeros(1, tokens, width))
      self.blocks = layer.ModuleList(Block() for _ in range(depth))
      self.norm = layer.LayerNorm(width)
      self.score = layer.Linear(width, 1)
      self.head = layer.Linear(width, classes)

    def forward(self, x):
      for conv in self.convs:
        x = functional.max_pool2d(functional.relu(conv(x)), 3, 2, 1)
      x = x.flatten(2).transpose(1, 2) + self.positions
      for block in self.blocks:
        x = block(x)
      x = self.norm(x)
      shares = self.score(x).softmax(dim=1)
      return self.head((shares * x).sum(dim=1))

  return Network()


@pytest.mark.long
def test_logits_and_gradients_are_those_of_pytorch():
  torch_parity = pytest.importorskip('torch_parity')
  peer = peer_of(12, heads=3, hidden=18, tokens=15, depth=2, convs=2, classes=5)
  names = [
    (r'^tokenizer/conv(\d)', lambda m: f'convs/{int(m[1]) - 1}'),
    ('^tokenizer/', ''),
    (r'^block(\d)', lambda m: f'blocks/{int(m[1]) - 1}'),
    ('attention/', ''),
    ('^pool/', ''),
  ]
  model = small(width=12, heads=3, mlp_ratio=1.5)
  torch_parity.check(model, torch_parity.drawn(peer), names, pictures(2, 18, 11, 3))


def test_the_pool_weighs_tokens_by_a_softmax_over_them():
  tokens = jnp.asarray(pictures(2, 6, 4))
  score = {'kernel': jnp.asarray(pictures(4, 1)), 'bias': jnp.ones(1)}
  weights = jnp.exp(tokens @ score['kernel'] + score['bias'])
  expected = (weights / weights.sum(1, keepdims=True) * tokens).sum(1)
  found = SequencePool().apply({'params': {'score': score}}, tokens)
  chex.assert_trees_all_close(found, expected, atol=1e-6)


# A kernel of 7 has stride 2 and padding 3, as in the authors' networks for ImageNet.
@pytest.mark.parametrize('size', [(16, 16), (17, 10), (5, 30)])
@pytest.mark.parametrize(('kernel', 'convs'), [(3, 1), (3, 2), (5, 1), (7, 2)])
def test_as_many_tokens_as_the_map_has_pixels(size, kernel, convs):
  model = small(kernel=kernel, convs=convs)
  maps = []

  def record(call, args, kwargs, context):
    result = call(*args, **kwargs)
    if context.module.name == f'conv{convs}' and context.method_name == '__call__':
      maps.append(-(-np.array(result.shape[1:3]) // 2))
    return result

  with nn.intercept_methods(record):
    params = shapes_of(model, (*size, 3))
  path, *grid = model.token_map((*size, 3))
  assert path == ('norm',)
  assert grid == maps[0].tolist()
  chex.assert_shape(params['tokenizer']['positions'], (np.prod(grid), 8))
  chex.assert_shape(
    params['tokenizer'][f'conv{convs}']['kernel'],
    (kernel, kernel, 3 if convs == 1 else 64, 8),
  )


def test_maps_are_of_the_normed_tokens(fill):
  model = small()
  images, labels = jnp.tile(pictures(1, 16, 12, 3), (5, 1, 1, 1)), jnp.arange(5)
  variables = fill(model, images.shape[1:])
  params = variables['params']
  seen = outputs(model, variables, images)
  tokens = seen['norm']['__call__'][0]

  def logits(tokens):
    pooled = SequencePool().apply({'params': params['pool']}, tokens)
    return (pooled @ params['head']['kernel'])[labels, labels].sum()

  weights = jax.jit(jax.grad(logits))(tokens).mean(1)
  expected = nn.relu(jnp.einsum('bnd,bd->bn', tokens, weights)).reshape(5, 4, 3)
  expected = jax.image.resize(expected, (5, 16, 12), 'bilinear')
  most = expected.max((1, 2), keepdims=True)
  assert jnp.any(most > 0)  # of a class that speaks against itself nothing is shown
  expected = expected / jnp.where(most > 0, most, 1)
  found = jax.jit(functools.partial(models.grad_cam, model))(variables, images, labels)
  chex.assert_trees_all_close(found, expected, atol=1e-4)


def test_only_training_with_a_rate_draws():
  images = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)

  def apply(train, **fields):
    model = small(**fields)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    return jax.eval_shape(
      lambda v, x: model.apply(v, x, train=train), variables, images
    )

  apply(train=True)
  for rate in ('dropout', 'attention_dropout', 'drop_path'):
    apply(train=False, **{rate: 0.5})
    with pytest.raises(flax.errors.InvalidRngError, match='dropout'):
      apply(train=True, **{rate: 0.5})


def test_layers_are_in_order_and_heads_divide_the_width():
  order = models.layer_order(small(), (8, 8, 3))
  assert order == ('tokenizer', 'block1', 'block2', 'norm', 'pool', 'head')
  with pytest.raises(UserError, match='CCT .*3 heads.*model.heads or model.width'):
    shapes_of(small(heads=3), (8, 8, 3))
