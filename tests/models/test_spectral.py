"""The largest singular value of a kernel, by power iteration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.models.spectral import power_iteration


def test_power_iteration_finds_the_largest_singular_value_and_its_slope():
  kernel = np.random.default_rng(0).standard_normal((3, 3, 4, 8)).astype(np.float32)
  left, values, right = np.linalg.svd(kernel.reshape(-1, 8), full_matrices=False)
  u = jnp.ones(8)
  for _ in range(50):
    sigma, u = power_iteration(kernel, u)
  assert sigma == pytest.approx(values[0], rel=1e-3)
  slope = jax.grad(lambda kernel: power_iteration(kernel, u)[0])(kernel)
  expected = np.outer(left[:, 0], right[0]).reshape(kernel.shape)
  np.testing.assert_allclose(slope, expected, atol=0.02)
