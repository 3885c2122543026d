"""Schedule-free optimisers: an average of the weights in the place of a falling rate.

A. Defazio et al., "The Road Less Scheduled", 2024, https://arxiv.org/abs/2405.15682.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import ScheduleFreeState

PyTree = Any


def schedule_free(
  inner: optax.GradientTransformation, learning_rate: optax.ScalarOrSchedule, b1: Any
) -> optax.GradientTransformation:
  r"""Averages the steps of an optimiser that has no momentum of its own.

  .. math::
    z_{t+1} = z_t + u(\nabla f(y_t)), \quad
    x_{t+1} = (1 - c_t) x_t + c_t z_{t+1}, \quad
    y_{t+1} = \beta_1 x_{t+1} + (1 - \beta_1) z_{t+1}

  where u is the update of `inner` and :math:`c_t` the share of the squared largest rate
  so far in the sum of these. The parameters that train are y; x, which is evaluated, is
  computed of y and z by `averaged`.

  These are the steps of `optax.contrib.schedule_free`, with two differences: b1 may be
  another number from a step on, since the state keeps the one that y was made with; and z
  begins where the parameters are at the first step, which may be pretrained weights that
  were not there when the state was made.

  Args:
    inner: the optimiser; its updates are those of z.
    learning_rate: that of `inner`, a number or a schedule that does not fall.
    b1: above 0 and below 1; may be traced.

  Returns:
    A transformation whose `update` needs the parameters.

  Examples:
    >>> tx = schedule_free(optax.sgd(0.1), 0.1, 0.9)
    >>> params = {'w': jnp.array([1.0])}
    >>> state = tx.init(params)
    >>> for _ in range(2):
    ...   updates, state = tx.update(params, state, params)  # of f(w) = w**2 / 2
    ...   params = optax.apply_updates(params, updates)
    >>> round(float(averaged(state, params)['w'][0]), 4)  # of z = 0.9 and 0.81
    0.855

  References:
    Defazio et al., `The Road Less Scheduled <https://arxiv.org/abs/2405.15682>`_, 2024
  """

  def init(params: PyTree) -> ScheduleFreeState:
    return ScheduleFreeState(
      b1=jnp.ones(()),  # y is x
      weight_sum=jnp.zeros(()),
      step_count=jnp.ones((), jnp.int32),
      max_lr=jnp.zeros(()),
      base_optimizer_state=inner.init(params),
      z=jax.tree.map(jnp.copy, params),
    )

  def update(grads: PyTree, state: ScheduleFreeState, params: Any = None) -> Any:
    if params is None:
      raise ValueError(optax.NO_PARAMS_MSG)
    count = state.step_count
    before = jax.tree.map(lambda y, z: jnp.where(count == 1, y, z), params, state.z)
    moves, inner_state = inner.update(grads, state.base_optimizer_state, params)
    z = optax.apply_updates(before, moves)
    rate = learning_rate(count) if callable(learning_rate) else learning_rate
    largest = jnp.maximum(state.max_lr, rate)
    total = state.weight_sum + largest**2
    share = jnp.where(total > 0, largest**2 / jnp.where(total > 0, total, 1), 0)

    def change(y: jax.Array, before: jax.Array, z: jax.Array) -> jax.Array:
      x = _average(state.b1, y, before)
      x = (1 - share) * x + share * z
      return b1 * x + (1 - b1) * z - y

    return jax.tree.map(change, params, before, z), ScheduleFreeState(
      b1=jnp.asarray(b1, jnp.float32),
      weight_sum=total,
      step_count=optax.safe_increment(count),
      max_lr=largest,
      base_optimizer_state=inner_state,
      z=z,
    )

  return optax.GradientTransformation(init, update)


def _average(b1: jax.Array, y: jax.Array, z: jax.Array) -> jax.Array:
  return (y - (1 - b1) * z) / b1


def averaged(opt_state: PyTree, params: PyTree) -> PyTree:
  """Returns the parameters to evaluate with: the averages x where there are any.

  Args:
    opt_state: of any optimiser; of each `ScheduleFreeState` in it, such as those of
      groups, the parameters that it holds are averaged.
    params: y.

  Returns:
    Like the parameters, which themselves come back where nothing is averaged.

  >>> averaged(optax.sgd(0.1).init({'w': 1.0}), {'w': 1.0})
  {'w': 1.0}
  """
  for state in jax.tree.leaves(opt_state, is_leaf=_is_state):
    if _is_state(state):
      params = _averaged_in(state, params)
  return params


def _averaged_in(state: ScheduleFreeState, params: PyTree) -> PyTree:
  def average(z: Any, y: Any) -> Any:
    return y if _is_elsewhere(z) else _average(state.b1, y, z)

  return jax.tree.map(average, state.z, params, is_leaf=_is_elsewhere)


def _is_state(node: Any) -> bool:
  return isinstance(node, ScheduleFreeState)


def _is_elsewhere(node: Any) -> bool:
  """Whether a parameter belongs to another group, or is frozen."""
  return isinstance(node, optax.MaskedNode)


# The optimisers that can be averaged, without their momentum and the memory for it.


def _adam(
  learning_rate: optax.ScalarOrSchedule,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
) -> optax.GradientTransformation:
  """Adam whose b1 is the wrapper's: the square root of a mean of squares alone."""
  del b1
  return optax.chain(
    _scale_by_adam(b2, eps), optax.scale_by_learning_rate(learning_rate)
  )


def _adamw(
  learning_rate: optax.ScalarOrSchedule,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  weight_decay: float = 0.0,
  mask: Any = None,
) -> optax.GradientTransformation:
  """AdamW likewise; the decay is that of y."""
  del b1
  return optax.chain(
    _scale_by_adam(b2, eps),
    optax.add_decayed_weights(weight_decay, mask),
    optax.scale_by_learning_rate(learning_rate),
  )


def _scale_by_adam(b2: float, eps: float) -> optax.GradientTransformation:
  return optax.scale_by_rms(decay=b2, eps=eps, eps_in_sqrt=False, bias_correction=True)


BASES: dict[str, Callable[..., optax.GradientTransformation]] = {
  'adam': _adam,
  'adamw': _adamw,
  'sgd': optax.sgd,
}
