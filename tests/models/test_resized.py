"""Networks that resize their images: as Pillow does, whatever applies them."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxvision import models
from jaxvision.models.resized import resize, resized
from jaxvision.models.summary import summarize

# It compiles much: not in `make test-fast`.
pytestmark = pytest.mark.long


def images_of(size, count=2, seed=0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.random((count, size, size, 3), np.float32))


@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
@pytest.mark.parametrize(('before', 'after'), [(8, 28), (32, 16), (10, 7), (6, 6)])
def test_resize_is_that_of_pillow(interpolation, before, after):
  images = images_of(before)
  filters = {'bilinear': Image.BILINEAR, 'bicubic': Image.BICUBIC}
  found = resize(images, after, interpolation)
  chex.assert_shape(found, (2, after, after, 3))
  for image, made in zip(np.asarray(images), np.asarray(found)):
    for channel in range(3):
      picture = Image.fromarray(image[..., channel])  # mode F: in float32
      expected = picture.resize((after, after), filters[interpolation])
      np.testing.assert_allclose(made[..., channel], np.asarray(expected), atol=1e-5)


def test_resize_keeps_the_type():
  images = images_of(4).astype(jnp.bfloat16)
  chex.assert_type(resize(images, 8), jnp.bfloat16)


def test_a_resized_network_is_the_network_on_resized_images():
  plain = models.create('resnet20', num_classes=5, width=4)
  model = resized(plain, 24, 'bicubic')
  images = images_of(16)
  variables = jax.jit(plain.init)(jax.random.key(0), images)
  chex.assert_trees_all_equal_shapes_and_dtypes(
    variables, jax.eval_shape(model.init, jax.random.key(0), images)
  )

  def both(model, images):
    features, logits = models.features_and_logits(model, variables, images)
    again = model.apply(variables, images, method='features')
    return features, again, logits, model.apply(variables, images)

  found = jax.jit(lambda x: both(model, x))(images)
  expected = jax.jit(lambda x: both(plain, resize(x, 24, 'bicubic')))(images)
  chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5)


def test_resizing_again_takes_the_last_size():
  plain = models.create('vit_tiny', 3, depth=1, patch=8, width=12)
  model = resized(resized(plain, 48), 32)
  variables = jax.eval_shape(model.init, jax.random.key(0), images_of(16))
  assert variables['params']['embed']['positions'].shape == (17, 12)


def test_maps_of_a_resized_network_have_the_size_of_its_images():
  model = resized(models.create('vit_tiny', 3, depth=1, patch=8), 32)
  images = images_of(16)

  def maps(images):
    variables = model.init(jax.random.key(0), images)
    return models.grad_cam(model, variables, images, jnp.array([0, 1]))

  assert jax.eval_shape(maps, images).shape == (2, 16, 16)


def test_a_summary_counts_the_work_at_the_size_that_is_seen():
  plain = models.create('resnet20', num_classes=10)
  small, large = (
    summarize(model, (16, 16, 3)) for model in (plain, resized(plain, 32))
  )
  assert 3.9 < large.flops / small.flops < 4.1
  assert large.params == small.params


def test_weights_that_depend_on_data_see_resized_images():
  plain = models.create('airbench94', num_classes=10)
  model = resized(plain, 32)
  images = images_of(16, count=8)
  params = jax.jit(model.init)(jax.random.key(0), images)['params']
  found = model.init_from_data(params, images)
  expected = plain.init_from_data(params, resize(images, 32))
  chex.assert_trees_all_close(found['whiten'], expected['whiten'], rtol=1e-4, atol=1e-5)
