"""Quick variables and quick compilation for tests that run models on tiny inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def quick_compilation(quick_compile):
  """All of these tests run models on tiny inputs."""


@pytest.fixture(scope='session')
def fill():
  """Returns a function (model, image shape) -> variables of plausible size.

  Compiling the initialisers of a deep model costs seconds; NumPy draws them at once:
  kernels of variance 2 / fan_in, small biases, scales and variances near one.
  """

  def draw(path, leaf, random):
    name = path[-1].key
    noise = random.standard_normal(leaf.shape)
    if name == 'kernel':
      value = noise * np.sqrt(2 / np.prod(leaf.shape[:-1]))
    elif name in {'scale', 'var'}:
      value = 1 + 0.1 * np.abs(noise)
    else:
      value = 0.1 * noise
    return jnp.asarray(value, leaf.dtype)

  def variables(model, image_shape):
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    shapes = jax.eval_shape(
      lambda images: model.init(jax.random.key(0), images, train=False), images
    )
    random = np.random.default_rng(0)
    return jax.tree_util.tree_map_with_path(
      lambda path, leaf: draw(path, leaf, random), shapes
    )

  return variables
