"""ConvMixer: its size by hand, a PyTorch network of the same definition."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import models
from jaxvision.errors import UserError

# It compiles much: not in `make test-fast`.
pytestmark = pytest.mark.long


def shapes_of(model, shape):
  images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  return jax.eval_shape(model.init, jax.random.key(0), images)['params']


@pytest.mark.parametrize(('kernel', 'patch'), [(5, 2), (9, 1)])
def test_parameters_by_hand(kernel, patch):
  params = shapes_of(
    models.create('conv_mixer_256_8', 10, kernel=kernel, patch=patch), (32, 32, 3)
  )
  stem = (3 * patch**2 + 1) * 256 + 2 * 256
  block = (kernel**2 + 1) * 256 + 2 * 256 + (256 + 1) * 256 + 2 * 256
  expected = stem + 8 * block + (256 + 1) * 10
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected
  chex.assert_shape(
    params['block1']['depthwise_conv']['kernel'], (kernel, kernel, 1, 256)
  )


def peer_of(width, depth, kernel, patch, classes):
  """Returns the network in PyTorch, written after the paper's figure."""
  torch = pytest.importorskip('torch')
  layer = torch.nn

  def unit(*conv, **options):
    conv = layer.Conv2d(*conv, **options)
    return layer.Sequential(conv, layer.GELU(), layer.BatchNorm2d(width))

  class Block(layer.Module):
    def __init__(self):
      super().__init__()
      self.depthwise = unit(width, width, kernel, groups=width, padding='same')
      self.pointwise = unit(width, width, 1)

    def forward(self, x):
      return self.pointwise(x + self.depthwise(x))

  class Network(layer.Module):
    def __init__(self):
      super().__init__()
      self.stem = unit(3, width, patch, stride=patch)
      self.blocks = layer.Sequential(*(Block() for _ in range(depth)))
      self.head = layer.Linear(width, classes)

    def forward(self, x):
      return self.head(self.blocks(self.stem(x)).mean((2, 3)))

  return Network()


# Of an even kernel, PyTorch's padding is one more after than before, as XLA's.
@pytest.mark.long
def test_logits_and_gradients_are_those_of_pytorch():
  torch_parity = pytest.importorskip('torch_parity')
  peer = peer_of(8, depth=2, kernel=4, patch=3, classes=5)
  names = [
    (r'^block(\d)', lambda m: f'blocks/{int(m[1]) - 1}'),
    ('_conv', '/0'),
    ('_bn', '/2'),
  ]
  model = models.create('conv_mixer_256_8', 5, width=8, depth=2, kernel=4, patch=3)
  images = np.random.default_rng(0).standard_normal((2, 12, 18, 3), np.float32)
  torch_parity.check(model, torch_parity.drawn(peer), names, images)


def test_kernels_and_biases_begin_as_pytorchs():
  model = models.create('conv_mixer_256_8', 10, depth=1)
  params = jax.jit(model.init)(jax.random.key(0), jnp.ones((1, 8, 8, 3)))['params']
  block = params['block1']
  for layer, fan_in in (
    (params['stem_conv'], 12),
    (block['depthwise_conv'], 25),
    (block['pointwise_conv'], 256),
  ):
    for leaf in layer.values():
      values = np.asarray(leaf).ravel()
      assert 0.95 * fan_in**-0.5 < np.abs(values).max() <= fan_in**-0.5
      np.testing.assert_allclose(values.std(), (3 * fan_in) ** -0.5, rtol=0.1)


@pytest.mark.parametrize('size', [(9, 8), (8, 9), (3, 3)])
def test_images_that_patches_do_not_divide_are_refused(size):
  model = models.create('conv_mixer_256_8', 10, patch=4)
  message = f'ConvMixer .*4x4.*{size[0]}x{size[1]}: set data.image_size or model.patch'
  with pytest.raises(UserError, match=message) as info:
    shapes_of(model, (*size, 3))
  assert '\n' not in str(info.value)


def test_layers_are_in_order():
  model = models.create('conv_mixer_256_8', 10, depth=2)
  order = models.layer_order(model, (8, 8, 3))
  assert order == ('stem_conv', 'stem_bn', 'block1', 'block2', 'head')
