"""The order of layers, for every model there is."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
import small_models

from jaxvision import models
from jaxvision.models.dcgan import DCGANDiscriminator


def groups(model, shape):
  images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  return jax.eval_shape(model.init, jax.random.key(0), images)['params']


@pytest.mark.long
@pytest.mark.parametrize('name', small_models.DEEPER_SLOW)
def test_every_group_of_parameters_once(name):
  model, shape = models.create(name, 5, **small_models.fields_of(name)), (24, 20, 3)
  order = models.layer_order(model, shape)
  assert sorted(order) == sorted(groups(model, shape))
  assert order[-1] == 'head'


def test_order_is_that_of_the_forward_pass():
  order = models.layer_order(models.create('resnet18', 10), (32, 32, 3))
  blocks = [f'stage{i}_block{j}' for i in (1, 2, 3, 4) for j in (1, 2)]
  assert order == ('stem_conv', 'stem_bn', *blocks, 'head')
  order = models.layer_order(models.create('wide_resnet16_8', 10), (9, 9, 1))
  assert order[:2] == ('stem_conv', 'stem_bn')
  assert order[-2:] == ('final_bn', 'head')
  order = models.layer_order(DCGANDiscriminator(), (32, 32, 3))
  assert order == ('conv1', 'conv2', 'bn2', 'conv3', 'bn3', 'conv4')


class Tokens(nn.Module):
  """Layers made in another order than called, one of them twice, and a bare array."""

  def setup(self):
    self.last = nn.Dense(2)
    self.first = nn.Dense(3)
    self.unused = nn.Dense(1)
    self.bare = self.param('bare', nn.initializers.ones, (3,))

  def __call__(self, x, train):
    return self.last(self.first(self.first(x)) + self.bare)


def test_layers_made_in_another_order_and_parameters_without_a_layer():
  assert models.layer_order(Tokens(), (4, 4, 3)) == ('bare', 'first', 'last')
