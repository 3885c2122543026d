"""The interface between a task and the engine."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import optax
from clu import metrics as clu_metrics

PyTree = Any
Batch = dict[str, jax.Array]


@flax.struct.dataclass
class TrainState:
  """Everything that changes while a classifier trains, and so every checkpoint.

  Attributes:
    step: int32 scalar, optimiser steps done.
    key: uint32 key data; step n draws from `fold_in(key, n)` and from nothing else.
    params: float32 parameters.
    batch_stats: float32 running statistics of batch normalisation, or {}.
    opt_state: the optimiser's.
    ema: {'params', 'batch_stats'} averaged over the steps or by Lookahead, or {}
      without.
  """

  step: jax.Array
  key: jax.Array
  params: PyTree
  batch_stats: PyTree
  opt_state: optax.OptState
  ema: PyTree

  @property
  def eval_variables(self) -> PyTree:
    """The variables that evaluation and prediction use: the average where kept."""
    if self.ema:
      return self.ema
    return {'params': self.params, 'batch_stats': self.batch_stats}


class Generator(NamedTuple):
  """What draws images.

  Attributes:
    draw: (variables, noise float32 [B, latent], labels int32 [B]) -> images uint8
      [B, H, W, C]; the labels count where it is conditional.
    latent: length of the noise, which is standard normal.
    classes: number of classes to choose from; 0: none, it is unconditional.
  """

  draw: Callable[[PyTree, jax.Array, jax.Array], jax.Array]
  latent: int
  classes: int


class Task(NamedTuple):
  """A task: pure functions over its state, its batches and a key.

  Attributes:
    init: key -> state.
    train_step: (state, batch, key) -> (state, metrics).
    metrics: the clu Collection that it returns.
    schedule: step -> learning rate, for the log.
    health: metrics -> scalar, a number that is finite as long as training is.
    best: name of the measure in an evaluation that says which checkpoint is the best, and
      whether that is its 'max' or its 'min'.
    eval_step: (state, batch) -> (metrics, outputs) of a task with labels; outputs have
      the batch's length. Else None.
    generator: which draws with the state's `eval_variables`, of a task that generates.
      Else None.
    init_from_data: (state at step 0, images uint8 [n, H, W, C]) -> state, where the
      initial weights depend on the data; else None.
    later_steps: ((first step, train_step from there on), ...), where parameters that are
      frozen at the start train later.
    features: (state, images uint8 [B, H, W, C]) -> float32 [B, D], where these never
      change in a run, because all but the classifier is frozen and nothing is augmented;
      `train_step` and `eval_step` take them in the place of images. Else None.
  """

  init: Callable[[jax.Array], PyTree]
  train_step: Callable[[PyTree, Batch, jax.Array], tuple[PyTree, Any]]
  metrics: type[clu_metrics.Collection]
  schedule: optax.Schedule
  health: Callable[[Any], jax.Array]
  best: tuple[str, str]
  eval_step: Callable[[PyTree, Batch], tuple[Any, jax.Array]] | None = None
  generator: Generator | None = None
  init_from_data: Callable[[PyTree, jax.Array], PyTree] | None = None
  later_steps: tuple[tuple[int, Callable[..., tuple[PyTree, Any]]], ...] = ()
  features: Callable[[PyTree, jax.Array], jax.Array] | None = None

  def phases(self) -> tuple[tuple[int, Callable[..., tuple[PyTree, Any]]], ...]:
    """Returns every (first step, train_step from there on), the first at 0."""
    return ((0, self.train_step), *self.later_steps)


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
