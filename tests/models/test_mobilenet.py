"""MobileNetV2: the published size, the block's formula, what it refuses."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.models.mobilenet import InvertedResidual
from jaxvision.models.summary import summarize

# It compiles much: not in `make test-fast`.
pytestmark = pytest.mark.long


@pytest.mark.parametrize(
  ('classes', 'stem', 'side', 'params', 'flops'),
  [(10, 'cifar', 32, 2_236_682, 0.176e9), (1000, 'imagenet', 224, 3_504_872, 0.602e9)],
)
def test_size_and_cost_are_the_published_ones(classes, stem, side, params, flops):
  found = summarize(models.create('mobilenet_v2', classes, stem=stem), (side, side, 3))
  assert found.params == params
  assert found.flops == pytest.approx(flops, rel=0.005)


def test_a_block_is_its_formula(fill):
  block = InvertedResidual(width=4, expansion=3)
  images = jax.random.normal(jax.random.key(0), (2, 5, 5, 4))
  variables = block.init(jax.random.key(1), images, False)
  variables = jax.tree.map(
    lambda leaf: leaf + 0.1 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape),
    variables,
  )
  params, stats = variables['params'], variables['batch_stats']

  def norm(name, x):
    part, seen = params[f'{name}_bn'], stats[f'{name}_bn']
    scaled = (x - seen['mean']) / jnp.sqrt(seen['var'] + 1e-5)
    return scaled * part['scale'] + part['bias']

  wide = jnp.einsum('bhwc,cf->bhwf', images, params['expand_conv']['kernel'][0, 0])
  wide = nn.relu(norm('expand', wide))
  padded = jnp.pad(wide, ((0, 0), (1, 1), (1, 1), (0, 0)))
  kernel = params['depthwise_conv']['kernel']
  chex.assert_shape(kernel, (3, 3, 1, 12))
  filtered = sum(
    padded[:, i : i + 5, j : j + 5] * kernel[i, j, 0]
    for i in range(3)
    for j in range(3)
  )
  filtered = nn.relu(norm('depthwise', filtered))
  narrow = jnp.einsum('bhwc,cf->bhwf', filtered, params['project_conv']['kernel'][0, 0])
  expected = images + norm('project', narrow)
  chex.assert_trees_all_close(
    block.apply(variables, images, False), expected, atol=1e-5
  )


def test_only_blocks_that_keep_the_shape_have_a_shortcut():
  images = jnp.ones((1, 8, 8, 4))
  for width, stride in ((6, 1), (4, 2)):
    block = InvertedResidual(width=width, stride=stride, expansion=2)
    variables = block.init(jax.random.key(0), images, False)
    variables = jax.tree.map(jnp.zeros_like, variables)
    result = block.apply(variables, images, False)
    chex.assert_shape(result, (1, 8 // stride, 8 // stride, width))
    assert not jnp.any(result)


def test_stages_must_agree_in_number():
  model = models.create('mobilenet_v2', 10, widths=(16, 24))
  with pytest.raises(UserError, match='must be equally long, got 2, 7, 7, 7'):
    model.init(jax.random.key(0), jnp.ones((1, 32, 32, 3)))
