"""Losses against scikit-learn and their definitions."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from sklearn.metrics import log_loss

from jaxvision.tasks.losses import cross_entropy


def test_cross_entropy_matches_scikit_learn():
  logits = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
  labels = np.arange(50) % 7
  ours = cross_entropy(jnp.asarray(logits), jnp.asarray(labels))
  chex.assert_shape(ours, (50,))
  expected = log_loss(labels, jax.nn.softmax(logits), labels=range(7))
  np.testing.assert_allclose(ours.mean(), expected, rtol=1e-5)


def test_label_smoothing_matches_its_definition():
  logits = jnp.asarray(np.random.default_rng(1).normal(size=(5, 4)), jnp.float32)
  labels = jnp.array([0, 1, 2, 3, 0])
  target = 0.9 * np.eye(4)[labels] + 0.1 / 4
  expected = -(target * np.asarray(jax.nn.log_softmax(logits))).sum(-1)
  np.testing.assert_allclose(cross_entropy(logits, labels, 0.1), expected, rtol=1e-5)
