"""Tasks that train one network by gradient descent.

What they share whatever the loss: the train state, optimiser groups and freezing,
gradients in parts, averages of the weights, the phases of a run.
"""

import abc
import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxvision import models, optim
from jaxvision.config.hparams import MODEL_RATES, group_rates
from jaxvision.config.limits import switched_on
from jaxvision.data.augment import alternating_flips
from jaxvision.errors import UserError
from jaxvision.models.summary import summarize
from jaxvision.optim.averaging import update_ema, update_lookahead
from jaxvision.tasks.assembly import check_optimizer
from jaxvision.tasks.base import Batch, PyTree, Task, TaskContext, TrainState, copied
from jaxvision.tasks.gradients import ascended, mean_gradients
from jaxvision.tasks.phases import WHOLE_RUN, Phase, make_phases


class OneNetworkTask(Task):
  """Trains one network by the gradient of `loss`.

  Attributes:
    dtype: of the computation.
    model: the linen module, called as `model.apply(variables, images, train=...)`; from
      `set_model`.
  """

  model: nn.Module
  # Without groups that begin late, frozen parameters and rates by layer.
  _first_steps: PyTree = None
  _layers: tuple[str, ...] = ()
  _abstract_params: PyTree = None

  def __init__(self, context: TaskContext):
    super().__init__(context)
    self.dtype = jnp.dtype(self.config.dtype)

  def set_model(self, model: nn.Module) -> None:
    """Takes the network that trains; raises UserError where the config does not fit it."""
    self.model = model
    self._first_steps, self._layers = self._check_parameters()
    options = self.config.optimizer.options
    schedule = self._rate(self.config.optimizer.learning_rate)
    check_optimizer(self.parts.optimizer, schedule, options)
    self.make_optimizer({})  # finds what is wrong with its options

  @property
  def _averaged(self) -> bool:
    config = self.config
    return switched_on(config.ema_decay) or bool(config.lookahead.every)

  @abc.abstractmethod
  def loss(
    self,
    params: PyTree,
    state: TrainState,
    batch: Batch,
    key: jax.Array,
    phase: Phase = WHOLE_RUN,
  ) -> tuple[jax.Array, tuple[PyTree, Any]]:
    """Computes the mean loss of a training batch.

    Args:
      params: the parameters to differentiate by.
      state: the rest of the variables, and the numbers.
      batch: of training.
      key: of the step.
      phase: of the run.

    Returns:
      (float32 scalar, (new batch statistics, metrics)).
    """

  def init_model(self, key: jax.Array) -> PyTree:
    """Returns the variables of the network at step 0."""
    images = jnp.zeros((1, *self.info.image_shape), self.dtype)
    return self.model.init({'params': key}, images, train=False)

  def with_rates(self, network: nn.Module, state: TrainState) -> nn.Module:
    """Returns a network whose rates, such as its dropout, are those in the state."""
    rates = {
      rate: state.hparams[f'model.{rate}']
      for rate in MODEL_RATES
      if f'model.{rate}' in state.hparams
    }
    return network.clone(**rates) if rates else network

  # The optimiser.

  def make_optimizer(self, hparams: dict[str, Any]) -> optax.GradientTransformation:
    """Returns the optimiser, its numbers taken from `hparams` where they are there."""
    config = self.config
    section = config.optimizer
    peak = hparams.get('optimizer.learning_rate', section.learning_rate)
    rate = self._rate(peak)
    peaks = {
      group: hparams[path]
      for group, path in group_rates(config).items()
      if path in hparams
    }
    return optim.make_optimizer(
      section,
      rate,
      weight_decay=hparams.get('optimizer.weight_decay'),
      momentum=hparams.get('optimizer.momentum'),
      grad_clip=hparams.get('grad_clip', config.grad_clip),
      schedule=self._rate,
      peaks={'': peak, **peaks},
      freeze=config.freeze,
      params=self._abstract_params,
      total_steps=self.plan.total_steps,
      layers=self._layers,
      constructor=self.parts.optimizer,
    )

  # The state and its steps.

  def abstract_variables(self) -> PyTree:
    """Returns the shapes and dtypes of the model's variables."""
    return jax.eval_shape(self.init_model, jax.random.key(0))

  def init(self, key: jax.Array) -> TrainState:
    """Returns the train state at step 0."""
    key_params, key_run = jax.random.split(key)
    variables = self.init_model(key_params)
    params = variables['params']
    batch_stats = variables.get('batch_stats', {})
    ema = {'params': params, 'batch_stats': batch_stats} if self._averaged else {}
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      key=jax.random.key_data(key_run),
      params=params,
      batch_stats=batch_stats,
      opt_state=self.make_optimizer({}).init(params),
      ema=copied(ema),
    )

  def train_step(
    self, state: TrainState, batch: Batch, key: jax.Array, phase: Phase = WHOLE_RUN
  ) -> tuple[TrainState, Any]:
    """Takes one optimiser step.

    Args:
      state: the train state; with `init.teacher` from `for_training`.
      batch: see the class.
      key: of the step.
      phase: of the run, one of `phases`.

    Returns:
      (the new state, the metrics of the batch).
    """
    config = self.config
    if config.augment.flip and config.augment.flip_mode == 'alternating':
      flips = alternating_flips(state.key, batch['index'], batch['epoch'])
      batch = {**batch, 'flip': flips}
    of_batch = (batch, key, phase, config.grad_accumulation, self.metrics)
    grads, batch_stats, metrics = mean_gradients(self.loss, state, *of_batch)
    if switched_on(config.optimizer.sam):
      rho = self.number(state, 'optimizer.sam')
      uphill = state.replace(params=ascended(state.params, grads, rho))
      grads, _, _ = mean_gradients(self.loss, uphill, *of_batch)
    optimizer = self.make_optimizer(state.hparams)
    params = state.params
    if config.parallel.norm_scope == 'device':
      # On GPUs XLA fuses the update of a kernel with its transposition for the backward
      # pass, which then waits for the sum of the kernel's gradient over the devices.
      params = jax.lax.optimization_barrier(params)
    updates, opt_state = optimizer.update(grads, state.opt_state, params)
    new = {
      'params': optax.apply_updates(params, updates),
      'batch_stats': batch_stats,
    }
    ema, step = state.ema, state.step + 1
    if switched_on(config.ema_decay):
      ema = update_ema(ema, new, self.number(state, 'ema_decay'), state.step)
    if every := config.lookahead.every:
      decay, total = config.lookahead.decay, self.plan.total_steps
      ema, new = update_lookahead(ema, new, step, every, decay, total)
    return state.replace(step=step, opt_state=opt_state, ema=ema, **new), metrics

  def phases(self) -> tuple[tuple[int, Callable[..., tuple[PyTree, Any]]], ...]:
    """Returns (first step, train step) for each set of parameters and image size."""
    sizes, until = self.config.resize.progressive, self.config.resize.until
    found = make_phases(self.plan.total_steps, self._first_steps, sizes, until)
    return tuple(
      (phase.first, functools.partial(self.train_step, phase=phase)) for phase in found
    )

  def summaries(self) -> Sequence[Any]:
    """Returns the layers, parameters and FLOPs of the model."""
    return (summarize(self.model, self.info.image_shape),)

  def _check_parameters(self) -> tuple[PyTree, tuple[str, ...]]:
    """Returns the step from which each parameter trains, and the order of the layers."""
    config, total = self.config, self.plan.total_steps
    layers: tuple[str, ...] = ()
    if config.optimizer.layer_decay < 1:
      layers = models.layer_order(self.model, self.info.image_shape)
    groups = config.optimizer.groups
    if not groups and not config.freeze:
      return None, layers
    self._abstract_params = self.abstract_variables()['params']
    named = {name: dict(group) for name, group in groups.items()}
    first = optim.first_steps(self._abstract_params, config.freeze, named, total)
    if all(step >= total for step in jax.tree.leaves(first)):
      raise UserError(
        'config: freeze matches every parameter, so that nothing is left to train: '
        'leave out the head, as in (?!head/).*'
      )
    return first, layers
