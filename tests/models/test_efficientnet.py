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

# It compiles much: not in `make test-fast`.
pytestmark = pytest.mark.long


@pytest.mark.parametrize(
  ('name', 'params', 'flops'),
  [
    ('efficientnet_b0', 5_288_548, 0.772e9),
    ('efficientnet_lite0', 4_652_008, 0.770e9),
  ],
)
def test_size_and_cost_are_the_published_ones(name, params, flops):
  found = summarize(models.create(name, 1000), (224, 224, 3))
  assert found.model == 'EfficientNet'
  assert found.params == params
  # The multiply-adds of the paper's table 2 are half of it: 0.39 billion.
  assert found.flops == pytest.approx(flops, rel=0.005)


@pytest.mark.parametrize(
  ('name', 'params'),
  [
    ('efficientnet_b1', 7_794_184),
    ('efficientnet_b2', 9_109_994),
    ('efficientnet_b3', 12_233_232),
  ],
)
def test_the_scaled_ones_have_their_published_size(name, params):
  model = models.create(name, 1000)
  variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  assert sum(leaf.size for leaf in jax.tree.leaves(variables['params'])) == params


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


@pytest.mark.parametrize(
  ('name', 'epsilon', 'gates'),
  [('efficientnet_b0', 1e-5, 16), ('efficientnet_lite0', 1e-3, 0)],
)
def test_what_lite0_has_otherwise(name, epsilon, gates):
  model, images = models.create(name, 2), jnp.zeros((1, 32, 32, 3))
  epsilons, layers = set(), []

  def record(call, args, kwargs, context):
    if isinstance(context.module, nn.BatchNorm):
      epsilons.add(context.module.epsilon)
    if context.method_name == '__call__':
      layers.append(context.module.name)
    return call(*args, **kwargs)

  with nn.intercept_methods(record):
    jax.eval_shape(model.init, jax.random.key(0), images)
  assert epsilons == {epsilon}
  assert layers.count('attention') == gates
  assert model.stem == 'imagenet'
  expected = ('same', 'relu6') if gates == 0 else ('symmetric', 'swish')
  assert (model.padding, model.activation) == expected


def test_stages_must_agree_in_number():
  model = models.create('efficientnet_b0', 10, kernels=(3, 5))
  with pytest.raises(UserError, match='EfficientNet: .* and kernels must be equally'):
    model.init(jax.random.key(0), jnp.ones((1, 32, 32, 3)))
