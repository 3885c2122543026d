"""Shared by the tests of weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import models


@pytest.fixture
def variables():
  """Returns a function (model name, classes, fields) -> drawn float32 variables."""

  def draw(name, classes=10, **fields):
    model = models.create(name, classes, **fields)
    shapes = jax.eval_shape(
      lambda: model.init(jax.random.key(0), jnp.zeros([1, 32, 32, 3]))
    )
    random = np.random.default_rng(0)
    return jax.tree.map(
      lambda leaf: random.standard_normal(leaf.shape, np.float32), shapes
    )

  return draw
