"""Averages of the weights against their definitions."""

import jax.numpy as jnp
import numpy as np

from jaxvision.optim.averaging import mean, update_ema, update_lookahead


def test_ema_matches_its_definition():
  old, new = {'w': jnp.array([1.0])}, {'w': jnp.array([3.0])}
  late = update_ema(old, new, 0.9, jnp.array(10_000))
  np.testing.assert_allclose(late['w'], [0.9 * 1 + 0.1 * 3], rtol=1e-6)
  first = update_ema(old, new, 0.9, jnp.array(0))
  np.testing.assert_allclose(first['w'], [0.1 * 1 + 0.9 * 3], rtol=1e-6)


def test_lookahead_matches_a_loop():
  rng = np.random.default_rng(0)
  every, decay, total = 3, 0.8, 10
  slow = fast = np.zeros(4, np.float32)
  ours = jnp.asarray(slow), jnp.asarray(fast)
  for step in range(1, total + 1):
    move = rng.standard_normal(4).astype(np.float32)
    fast = fast + move
    if step % every == 0:
      kept = decay * (step / total) ** 3
      slow = kept * slow + (1 - kept) * fast
      fast = slow
    if step == total:
      fast = slow
    ours = update_lookahead(
      ours[0], ours[1] + move, jnp.array(step), every, decay, total
    )
    np.testing.assert_allclose(ours[0], slow, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ours[1], fast, rtol=1e-4, atol=1e-6)


def test_mean_matches_numpy_and_leaves_counters_alone():
  rng = np.random.default_rng(0)
  values = rng.normal(size=(5, 3, 2)).astype(np.float32)
  trees = ({'w': value, 'count': np.int32(i)} for i, value in enumerate(values))
  found = mean(trees)
  np.testing.assert_allclose(found['w'], values.mean(0), rtol=1e-5, atol=1e-7)
  assert found['w'].dtype == np.float32
  assert found['count'] == 4
