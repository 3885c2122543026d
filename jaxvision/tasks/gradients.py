"""The gradient of a batch, computed at once or in parts."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxvision.tasks.base import Batch, PyTree, TrainState
from jaxvision.tasks.phases import Phase

_EPSILON = 1e-12  # as the authors': a gradient of 0 moves nothing


def mean_gradients(
  loss: Callable[..., tuple[jax.Array, tuple[PyTree, Any]]],
  state: TrainState,
  batch: Batch,
  key: jax.Array,
  phase: Phase,
  parts: int,
  metrics: Any,
) -> tuple[PyTree, PyTree, Any]:
  """Computes the gradient of the mean loss of a batch, in `parts` one after the other.

  Args:
    loss: (params, state, batch, key, phase) -> (loss, (batch statistics, metrics)), as
      `SupervisedTask.loss`.
    state: the train state.
    batch: arrays [B, ...]; B divides by `parts`.
    key: of the step.
    phase: see `SupervisedTask.loss`.
    parts: `grad_accumulation`; the memory of one part is that of B / parts examples.
    metrics: the class of the metrics, to begin with.

  Returns:
    (gradient like the parameters, batch statistics, metrics of the whole batch).
  """
  grad_fn = jax.grad(loss, has_aux=True)
  if parts == 1:
    grads, (batch_stats, measured) = grad_fn(state.params, state, batch, key, phase)
    return grads, batch_stats, measured
  # Strided parts: each takes the same share of every device's images.
  split = jax.tree.map(
    lambda x: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1),
    batch,
  )

  def accumulate(carry, inputs):
    grads, batch_stats, measured = carry
    index, part = inputs
    new_grads, (batch_stats, new) = grad_fn(
      state.params,
      state.replace(batch_stats=batch_stats),
      part,
      jax.random.fold_in(key, index),
      phase,
    )
    grads = jax.tree.map(jnp.add, grads, new_grads)
    return (grads, batch_stats, measured.merge(new)), None

  start = (
    jax.tree.map(jnp.zeros_like, state.params),
    state.batch_stats,
    metrics.empty(),
  )
  (grads, batch_stats, measured), _ = jax.lax.scan(
    accumulate, start, (jnp.arange(parts), split)
  )
  return jax.tree.map(lambda g: g / parts, grads), batch_stats, measured


def ascended(params: PyTree, grads: PyTree, rho: Any) -> PyTree:
  r"""Returns the parameters a step of length `rho` up the gradient.

  Sharpness-aware minimisation takes the gradient of the batch there,

  .. math::
    g_{SAM} = \nabla L(w + \rho\, g / \|g\|_2), \quad g = \nabla L(w),

  and the optimiser's step by it from :math:`w`. The norm is that of all gradients
  together; leaves without a gradient, as frozen ones are, stay where they are.

  Args:
    params: float32.
    grads: like the parameters, of the whole batch.
    rho: may be traced.

  Returns:
    Like the parameters.

  Examples:
    >>> moved = ascended({'w': jnp.zeros(2)}, {'w': jnp.array([3.0, 4.0])}, 0.5)
    >>> [round(float(value), 6) for value in moved['w']]
    [0.3, 0.4]

  References:
    Foret et al., `Sharpness-Aware Minimization for Efficiently Improving Generalization
    <https://arxiv.org/abs/2010.01412>`_, 2021
  """
  scale = rho / (optax.global_norm(grads) + _EPSILON)
  return jax.tree.map(lambda p, g: p + scale * g, params, grads)
