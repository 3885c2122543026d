"""Averages of the weights over the steps, and of those of several checkpoints."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any


def update_ema(ema: PyTree, new: PyTree, decay: float, step: jax.Array) -> PyTree:
  """Returns `decay * ema + (1 - decay) * new`, the decay rising over the first steps.

  The decay is at most (1 + step) / (10 + step), so that the average forgets the random
  initial weights quickly (as TensorFlow's ExponentialMovingAverage with num_updates).
  """
  step = step.astype(jnp.float32)
  decay = jnp.minimum(decay, (1 + step) / (10 + step))
  return jax.tree.map(lambda e, n: e + (1 - decay) * (n - e), ema, new)


def update_lookahead(
  slow: PyTree, fast: PyTree, step: jax.Array, every: int, decay: float, total: int
) -> tuple[PyTree, PyTree]:
  """Returns the slow and the fast weights after a step.

  At each `every`-th step the slow weights move towards the fast ones, which then start
  over from there: `slow = fast = a slow + (1 - a) fast` with
  `a = decay (step / total)**3`, so that early pulls change little and late ones average.
  The run ends on the slow weights. Zhang et al., "Lookahead Optimizer: k steps forward,
  1 step back", 2019; the rising share is that of K. Jordan, arXiv 2404.00498.

  Args:
    slow, fast: alike.
    step: int32 scalar, steps done, this one included.
    every: steps between pulls.
    decay: a at the end of the run.
    total: steps of the run.
  """
  kept = decay * (step.astype(jnp.float32) / total) ** 3
  pull = step % every == 0
  slow = jax.tree.map(
    lambda s, f: jnp.where(pull, s + (1 - kept) * (f - s), s), slow, fast
  )
  over = pull | (step == total)
  return slow, jax.tree.map(lambda s, f: jnp.where(over, s, f), slow, fast)


def mean(trees: Iterable[PyTree]) -> PyTree:
  """Returns the mean of trees, leaf by leaf; they are taken one after the other.

  Args:
    trees: alike, one at least. Of leaves that are not of floats, such as counters, the
      last one's is returned.

  >>> mean([{'a': jnp.array([1.0])}, {'a': jnp.array([4.0])}])['a'].tolist()
  [2.5]
  """

  def is_float(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)

  total, count = None, 0
  for tree in trees:
    count += 1
    if total is None:
      total = tree
      continue
    total = jax.tree.map(
      lambda old, new: old + new if is_float(new) else new, total, tree
    )
  return jax.tree.map(
    lambda leaf: (leaf / count).astype(leaf.dtype) if is_float(leaf) else leaf, total
  )
