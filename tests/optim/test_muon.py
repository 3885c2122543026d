"""Muon against NumPy, leaf by leaf, over several steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvision.config import base_config
from jaxvision.errors import UserError
from jaxvision.optim import make_optimizer
from jaxvision.optim.muon import muon, orthogonalize


def reference(matrix, steps):
  """The iteration as it is written: one matrix, rows never more than columns."""
  a, b, c = 3.4445, -4.7750, 2.0315
  x = matrix / (np.sqrt((matrix**2).sum()) + 1e-7)
  turned = x.shape[0] > x.shape[1]
  x = x.T if turned else x
  for _ in range(steps):
    gram = x @ x.T
    x = a * x + b * gram @ x + c * gram @ gram @ x
  return x.T if turned else x


def test_orthogonalize_batches_of_either_shape():
  rng = np.random.default_rng(0)
  for shape in ((3, 4, 9), (2, 9, 4), (5, 5)):
    matrices = rng.standard_normal(shape).astype(np.float32)
    got = orthogonalize(jnp.asarray(matrices), 3, jnp.float32)
    expected = [reference(m, 3) for m in matrices.reshape(-1, *shape[-2:])]
    np.testing.assert_allclose(got, np.reshape(expected, shape), atol=2e-5)
  # Singular values: near one after enough steps.
  values = np.linalg.svd(orthogonalize(jnp.asarray(matrices), 6), compute_uv=False)
  assert (np.abs(values - 1) < 0.4).all()


@pytest.mark.parametrize('nesterov', [True, False])
def test_muon_against_numpy(nesterov):
  rng = np.random.default_rng(1)
  shapes = {'a': (3, 3, 2, 6), 'b': (3, 3, 2, 6), 'c': (3, 3, 6, 6), 'd': (5, 4)}
  draw = {k: rng.standard_normal(s).astype(np.float32) for k, s in shapes.items()}
  # Neither is a matrix that maps features.
  params = {**draw, 'bias': np.ones(4, np.float32)}
  params['positions'] = np.ones((2, 3), np.float32)
  tx = muon(lambda step: 0.1 * (1 + step), 0.6, nesterov, ns_dtype='float32')
  ours = jax.tree.map(jnp.asarray, params)
  state = tx.init(ours)
  memory = {name: np.zeros_like(value) for name, value in params.items()}
  for step in range(3):
    rate = 0.1 * (1 + step)
    grads = {
      k: rng.standard_normal(v.shape).astype(np.float32) for k, v in params.items()
    }
    updates, state = tx.update(grads, state, ours)
    ours = optax.apply_updates(ours, updates)
    for name, grad in grads.items():
      memory[name] = 0.6 * memory[name] + grad
      moved = grad + 0.6 * memory[name] if nesterov else memory[name]
      value = params[name]
      if name in shapes:
        filters = value.shape[-1]
        value = value * np.sqrt(filters) / np.sqrt((value**2).sum())
        rows = np.moveaxis(moved, -1, 0).reshape(filters, -1)
        rows = reference(rows, 3).reshape(filters, *moved.shape[:-1])
        moved = np.moveaxis(rows, 0, -1)
      params[name] = value - rate * moved
  for name, value in params.items():
    np.testing.assert_allclose(ours[name], value, atol=1e-4, err_msg=name)


def test_a_kernel_of_zeros_takes_the_orthogonal_step():
  params, grads = {'w': jnp.zeros((2, 2))}, {'w': jnp.diag(jnp.array([3.0, 4.0]))}
  tx = muon(0.5, 0.0, nesterov=False, ns_dtype='float32')
  updates, _ = tx.update(grads, tx.init(params), params)
  expected = -0.5 * reference(np.diag([3.0, 4.0]), 3)
  np.testing.assert_allclose(updates['w'], expected, rtol=1e-4, atol=1e-6)


def test_options_reach_muon_and_mistakes_are_told():
  config = base_config().optimizer
  config.name, config.nesterov, config.momentum = 'muon', False, 0.0
  config.options.ns_steps, config.options.normalize_weights = 1, False
  tx = make_optimizer(config, 1.0)
  grads = {'w': jnp.diag(jnp.array([3.0, 4.0]))}
  updates, _ = tx.update(grads, tx.init(grads), grads)
  np.testing.assert_allclose(
    updates['w'], -reference(np.diag([3.0, 4.0]), 1), rtol=1e-4
  )
  for option, value in (('ns_steps', 0), ('ns_dtype', 'float16')):
    bad = base_config().optimizer
    bad.name, bad.options[option] = 'muon', value
    with pytest.raises(UserError, match=option):
      make_optimizer(bad, 1.0)
