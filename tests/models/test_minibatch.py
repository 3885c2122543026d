"""What is said of a batch as a whole, against the formulas."""

import itertools

import chex
import jax
import numpy as np

from jaxvision.models.minibatch import append_stddev, closeness


def test_closeness_by_its_formula():
  features = np.random.default_rng(0).standard_normal((5, 3, 4)).astype(np.float32)
  expected = np.zeros((5, 3))
  for i, j in itertools.permutations(range(5), 2):
    expected[i] += np.exp(-np.abs(features[i] - features[j]).sum(-1)) / 4
  np.testing.assert_allclose(closeness(features), expected, rtol=1e-5, atol=1e-7)
  np.testing.assert_array_equal(closeness(np.ones((5, 3, 4))), np.ones((5, 3)))
  np.testing.assert_array_equal(closeness(features[:1]), np.zeros((1, 3)))


def test_stddev_by_its_formula_and_none_in_a_collapsed_batch():
  x = np.random.default_rng(0).standard_normal((6, 4, 4, 3)).astype(np.float32)
  result = np.asarray(append_stddev(x))
  np.testing.assert_array_equal(result[..., :3], x)
  np.testing.assert_allclose(result[..., 3], x.std(axis=0).mean(), rtol=1e-5)
  same = np.repeat(x[:1], 6, axis=0)
  np.testing.assert_allclose(append_stddev(same)[..., 3], 0, atol=1e-3)
  slopes = jax.grad(lambda x: append_stddev(x)[..., 3].sum())(same)
  chex.assert_tree_all_finite(slopes)
