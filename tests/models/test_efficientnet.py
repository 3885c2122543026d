"""EfficientNet: the published sizes, its scaling, its padding and its stochastic depth."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.models.mobilenet import InvertedResidual
from jaxvision.models.summary import summarize

# The multiply-adds of the paper's table 2 are half of these: 0.39, 0.70, 1.0 and 1.8 billion.
PUBLISHED = {
  'efficientnet_b0': (224, 5_288_548, 0.772e9),
  'efficientnet_b1': (240, 7_794_184, 1.374e9),
  'efficientnet_b2': (260, 9_109_994, 1.987e9),
  'efficientnet_b3': (300, 12_233_232, 3.654e9),
  'efficientnet_lite0': (224, 4_652_008, 0.770e9),
}


@pytest.mark.parametrize('name', PUBLISHED)
def test_size_and_cost_are_the_published_ones(name):
  side, params, flops = PUBLISHED[name]
  found = summarize(models.create(name, 1000), (side, side, 3))
  assert found.model == 'EfficientNet'
  assert found.params == params
  assert found.flops == pytest.approx(flops, rel=0.005)


@pytest.mark.parametrize(('stem', 'last'), [('cifar', (4, 4)), ('imagenet', (1, 1))])
def test_the_stem_says_how_far_a_small_image_shrinks(stem, last):
  model = models.create('efficientnet_b0', 10, stem=stem)
  shapes = {}

  def record(call, args, kwargs, context):
    result = call(*args, **kwargs)
    shapes[context.module.name] = getattr(result, 'shape', None)
    return result

  with nn.intercept_methods(record):
    jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((2, 32, 32, 3)))
  assert shapes['last_conv'] == (2, *last, 1280)


def test_blocks_have_their_kernels_and_are_dropped_in_proportion_to_their_depth():
  model = models.create('efficientnet_b0', 10, drop_path=0.32)
  blocks = [
    model.block_fields(stage, j)
    for stage, depth in enumerate(model.depths)
    for j in range(depth)
  ]
  np.testing.assert_allclose(
    [block['drop_path'] for block in blocks], 0.02 * np.arange(16)
  )
  assert [block['kernel'] for block in blocks] == [3] * 3 + [5] * 2 + [3] * 3 + [
    5
  ] * 7 + [3]


@pytest.mark.parametrize(('padding', 'before'), [('symmetric', 1), ('same', 0)])
def test_a_stride_over_an_even_side_is_padded_as_pytorch_or_tensorflow_does(
  padding, before
):
  block = InvertedResidual(width=2, stride=2, expansion=1, padding=padding)
  images = jax.random.normal(jax.random.key(0), (2, 6, 6, 2))
  variables = block.init(jax.random.key(1), images, False)
  params = variables['params']
  padded = jnp.pad(images, ((0, 0), *2 * ((before, 1),), (0, 0)))
  kernel = params['depthwise_conv']['kernel']
  filtered = sum(
    padded[:, i : i + 5 : 2, j : j + 5 : 2] * kernel[i, j, 0]
    for i in range(3)
    for j in range(3)
  )
  scale = 1 / jnp.sqrt(1 + 1e-5)  # of both norms, as they begin
  filtered = nn.relu(filtered * scale)
  narrow = jnp.einsum('bhwc,cf->bhwf', filtered, params['project_conv']['kernel'][0, 0])
  chex.assert_trees_all_close(
    block.apply(variables, images, False), narrow * scale, atol=1e-5
  )


def test_attention_has_a_quarter_of_the_channels_of_the_input_and_swish(fill):
  model = models.create(
    'efficientnet_b0',
    3,
    widths=(8,),
    depths=(1,),
    strides=(1,),
    expansions=(4,),
    kernels=(3,),
    stem_width=16,
    last_width=8,
  )
  images = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype(np.float32)
  variables = fill(model, (8, 8, 3))
  attention = variables['params']['stage1_block1']['attention']
  assert attention['squeeze']['kernel'].shape == (64, 4)
  seen = {}

  def record(call, args, kwargs, context):
    result = call(*args, **kwargs)
    if context.module.name in ('squeeze', 'excite'):
      seen[context.module.name] = (args[0], result)
    return result

  with nn.intercept_methods(record):
    model.apply(variables, images)
  chex.assert_trees_all_close(
    seen['excite'][0], nn.swish(seen['squeeze'][1]), rtol=1e-5
  )


def test_epsilon_is_that_of_every_norm():
  epsilons = set()

  def record(call, args, kwargs, context):
    if isinstance(context.module, nn.BatchNorm):
      epsilons.add(context.module.epsilon)
    return call(*args, **kwargs)

  images = jnp.zeros((1, 32, 32, 3))
  for name, epsilon in (('efficientnet_b0', 1e-5), ('efficientnet_lite0', 1e-3)):
    epsilons.clear()
    with nn.intercept_methods(record):
      jax.eval_shape(models.create(name, 2).init, jax.random.key(0), images)
    assert epsilons == {epsilon}


def test_lite0_has_no_attention_and_no_sigmoid():
  model = models.create('efficientnet_lite0', 10)
  variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  assert not any('attention' in block for block in variables['params'].values())
  program = str(jax.make_jaxpr(model.apply)(variables, jnp.zeros((1, 32, 32, 3))))
  assert 'logistic' not in program
  assert (model.padding, model.stem) == ('same', 'imagenet')


def test_stages_must_agree_in_number():
  model = models.create('efficientnet_b0', 10, kernels=(3, 5))
  with pytest.raises(UserError, match='EfficientNet: .* and kernels must be equally'):
    model.init(jax.random.key(0), jnp.ones((1, 32, 32, 3)))
