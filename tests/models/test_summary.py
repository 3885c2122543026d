"""Totals and rows of the summary, against the variables and against hand counts."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
import small_models

from jaxvision import models
from jaxvision.models.summary import WIDTH, summarize


@pytest.mark.long
@pytest.mark.parametrize('name', small_models.DEEPER_SLOW)
def test_rows_add_up_to_the_parameters_of_the_model(name):
  shape = (32, 32, 3)
  model = models.create(name, 10, **small_models.fields_of(name))
  variables = jax.eval_shape(
    lambda images: model.init(jax.random.key(0), images, train=False),
    jax.ShapeDtypeStruct((1, *shape), jnp.float32),
  )
  summary = summarize(model, shape)
  leaves = jax.tree.leaves(variables['params'])
  assert summary.params == sum(leaf.size for leaf in leaves)
  assert summary.params == sum(row.params for row in summary.rows)
  assert summary.flops == sum(row.flops for row in summary.rows)
  # Every product has found its layer: none is left with a module that has layers.
  with_products = {'Conv', 'Whitening', 'Dense', 'Attention', 'SequencePool'}
  with_params = {'Conv', 'Whitening', 'Dense', 'BatchNorm', 'LayerNorm'}
  with_params |= {'Embed', 'Tokenizer', 'ConvNeXtBlock'}  # positions, token, scale
  for row in summary.rows:
    assert bool(row.flops) == (row.type in with_products)
    assert row.type in with_params or row.params == 0


def test_flops_of_small_filters_cnn_by_hand():
  summary = summarize(models.create('small_filters_cnn', 100), (32, 32, 3))
  rows = {row.path: row for row in summary.rows}
  assert rows['conv1'].flops == 2 * 32 * 32 * 27 * 8
  assert rows['conv2'].flops == 2 * 16 * 16 * 72 * 16
  assert rows['conv3'].flops == 2 * 8 * 8 * 144 * 32
  assert rows['head'].flops == 2 * 512 * 100
  assert rows['conv2'].output == (16, 16, 16)
  assert rows['head'].output == (100,)
  assert rows['conv3'].params == 4640
  assert [row.path for row in summary.rows][:3] == ['', 'conv1', 'conv2']


# Multiply-adds that torchvision prints beside its weights: 1.81 and 4.09 billion.
@pytest.mark.parametrize(
  ('name', 'billions'), [('resnet18', 1.81), ('resnet50', 4.09), ('resnet152', 11.51)]
)
def test_flops_of_imagenet_resnets_are_the_published_ones(name, billions):
  summary = summarize(models.create(name, 1000, stem='imagenet'), (224, 224, 3))
  assert summary.flops / 2e9 == pytest.approx(billions, abs=0.006)


def test_flops_of_a_transformer_by_hand():
  model = models.create('vit_tiny', 10, patch=4, width=8, depth=1, heads=2)
  summary = summarize(model, (8, 12, 3))
  rows = {row.path: row for row in summary.rows}
  tokens = 7
  assert rows['embed/conv'].flops == 2 * 6 * 48 * 8
  assert rows['embed'].params == (tokens + 1) * 8
  assert rows['block1/attention'].flops == 2 * 2 * tokens * tokens * 8
  assert rows['block1/attention/qkv'].flops == 2 * tokens * 8 * 24
  assert rows['block1/dense1'].flops == 2 * tokens * 8 * 32
  assert rows['block1/norm1'].params == 2 * 8
  assert rows['norm'].output == (8,)


def test_dtype_does_not_change_the_counts():
  single, half = (
    summarize(models.create('resnet20', 10, dtype=dtype), (32, 32, 3))
    for dtype in models.DTYPES
  )
  assert single == half


class Oddities(nn.Module):
  """Products outside layers, repeated, rematerialised and transposed."""

  @nn.compact
  def __call__(self, x, train):
    x = nn.remat(nn.Conv)(4, (1, 1), feature_group_count=2, name='grouped')(x)
    x = nn.ConvTranspose(3, (4, 4), strides=(2, 2), name='transposed')(x)
    tokens = x.reshape(x.shape[0], -1, 3)
    scores = jnp.einsum('bnc,bmc->bnm', tokens, tokens)
    kernel = self.param('kernel', nn.initializers.ones, (3, 3))
    tokens, _ = jax.lax.scan(lambda t, _: (t @ kernel, None), tokens, length=5)
    return (scores @ tokens).mean((1, 2))[:, None]


def test_products_outside_layers_are_counted():
  summary = summarize(Oddities(), (4, 4, 2))
  rows = {row.path: row for row in summary.rows}
  assert rows['grouped'].flops == 2 * 16 * 1 * 4
  # Each of the 16 input pixels meets each tap once.
  assert rows['transposed'].flops == 2 * 16 * (4 * 4) * 4 * 3
  assert rows[''].flops == 2 * (64 * 64 * 3) * 2 + 5 * 2 * 64 * 3 * 3
  assert rows[''].params == 9
  assert summary.flops == sum(row.flops for row in summary.rows)


class Deep(nn.Module):
  depth: int = 6

  @nn.compact
  def __call__(self, x, train):
    if self.depth:
      x = Deep(self.depth - 1, name=f'a_rather_long_name_{self.depth}')(x, train)
    return nn.Dense(4, name='dense')(x)


@pytest.mark.parametrize(
  'model', [models.create('resnet50', 1000, width=512), Deep()], ids=['wide', 'deep']
)
def test_table_fits_its_width_and_aligns_its_numbers(model):
  summary = summarize(model, (32, 32, 3))
  text = str(summary)
  lines = text.splitlines()
  assert max(map(len, lines)) <= WIDTH
  assert text.isascii()
  total = next(line for line in lines if line.startswith('total'))
  assert total.split() == ['total', f'{summary.params:,}', f'{summary.flops:,}']
  rows = [line for line in lines if ' Dense ' in line or ' Conv ' in line]
  products = [row for row in summary.rows if row.type in {'Dense', 'Conv'}]
  assert len(rows) == len(products)
  for line, row in zip(rows, products):
    assert len(line) == len(total)
    assert line.endswith(f' {row.flops:,}')


def test_nothing_is_allocated():
  wide = models.create('resnet50', 1000, width=4096)  # 85 billion parameters
  assert summarize(wide, (512, 512, 3)).params > 50e9
