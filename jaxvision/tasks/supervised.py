"""Tasks that train one network by gradient descent: classification and its like.

A task of one's own overrides what differs: the inputs and targets of a batch, the loss of
an example, the measures. The rest is here once: augmentation, gradients in parts,
optimiser groups and freezing, averages of the weights, evaluation.
"""

import contextlib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxvision import models, optim
from jaxvision.config.hparams import MODEL_RATES
from jaxvision.config.limits import switched_on
from jaxvision.data.augment import (
  alternating_flips,
  augments,
  check,
  make_augment,
  mix_batch,
  mixes,
  normalize,
)
from jaxvision.data.augment.mixing import MixedTargets, mean_over_targets
from jaxvision.data.dataset import Dataset
from jaxvision.errors import UserError
from jaxvision.inference.predictor import Predictor
from jaxvision.models import own
from jaxvision.models.summary import summarize
from jaxvision.optim.averaging import update_ema, update_lookahead
from jaxvision.tasks import freezing, tta
from jaxvision.tasks.assembly import (
  check_optimizer,
  check_step,
  make_class_weights,
  make_loss,
  make_metrics,
)
from jaxvision.tasks.base import Batch, PyTree, Task, TaskContext, TrainState, copied
from jaxvision.tasks.gradients import mean_gradients
from jaxvision.tasks.losses import LOSSES
from jaxvision.training.evaluation import Evaluation, SupervisedEvaluator


class SupervisedTask(Task):
  """Trains `make_model()` on the inputs and targets of each batch.

  Batches hold `image` uint8 [B, H, W, C] and `label` [B, ...]; those of training also
  `index` and `epoch` int32 [B]; those of evaluation also `mask` bool [B], False for
  padding. Where `features` is not None, `image` may be float32 [B, D].

  Attributes:
    losses: names of the losses that suit the task; the first is the default.
    label_kinds: kinds of labels that it takes, see `DatasetInfo.label_kind`.
    measures: names of the means over examples that `example_measures` returns.
    checks_outputs: whether a model of the user's own must return [B, num_outputs].
    augment: (key, images uint8, flips or None) -> normalised images to train on.
    model: the linen module, called as `model.apply(variables, images, train=...)`.
  """

  losses: ClassVar[tuple[str, ...]] = tuple(LOSSES)
  label_kinds: ClassVar[tuple[str, ...]] = ('class', 'multilabel', 'regression')
  measures: ClassVar[tuple[str, ...]] = ()
  checks_outputs: ClassVar[bool] = True

  def __init__(self, context: TaskContext):
    super().__init__(context)
    config, info = self.config, self.info
    if info.label_kind not in self.label_kinds:
      raise UserError(
        f'config: task {config.task} takes labels of kind {" or ".join(self.label_kinds)},'
        f' and {info.name} has labels of kind {info.label_kind}'
        + self._other_task(info.label_kind)
      )
    check(config.augment, info.image_shape)
    self.dtype = jnp.dtype(config.dtype)
    self.normalization = (info.mean, info.std)
    self.augment = make_augment(
      config.augment, info.mean, info.std, self.dtype, custom=self.parts.augment
    )
    self._loss, self._smoothed = make_loss(config, self.parts.loss, self.losses)
    self.metrics = make_metrics(self.measures, self.parts.metrics)
    self._class_weights = make_class_weights(config, info, self.num_outputs)
    self.model = self.make_model()
    self._averaged = switched_on(config.ema_decay) or bool(config.lookahead.every)
    self._first_steps, self._layers = self._check_parameters()
    check_optimizer(self.parts.optimizer, self._schedule, config.optimizer.options)
    self.make_optimizer({})  # finds what is wrong with its options
    check_step(self)

  @staticmethod
  def _other_task(kind: str) -> str:
    name = {'class': 'classification', 'multilabel': 'multilabel'}.get(
      kind, 'regression'
    )
    return f': set task to {name}'

  # What a task of one's own may override.

  @property
  def output_names(self) -> tuple[str, ...]:
    """The names of the model's outputs: those of the classes, labels or values."""
    return self.info.class_names

  @property
  def num_outputs(self) -> int:
    """The number of outputs of the model per image."""
    return len(self.output_names)

  def make_model(self) -> nn.Module:
    """Returns the network that the config names."""
    config = self.config
    fields = dict(config.model)
    name = fields.pop('name')
    if self.parts.model is not None:
      return own.build(self.parts.model, self.num_outputs, config.dtype, fields)
    return models.create(name, self.num_outputs, config.dtype, **fields)

  def inputs_and_targets(
    self, batch: Batch, key: jax.Array | None, train: bool
  ) -> tuple[jax.Array, jax.Array]:
    """Returns what the model sees and what it should say.

    Args:
      batch: see the class.
      key: for augmentation; None in evaluation.
      train: whether to augment.

    Returns:
      Images of the compute dtype [B, H, W, C], normalised, and the targets [B, ...].
    """
    if train:
      return self.augment(key, batch['image'], batch.get('flip')), batch['label']
    mean, std = self.normalization
    return normalize(batch['image'], mean, std, self.dtype), batch['label']

  def example_losses(
    self, outputs: jax.Array, targets: jax.Array, label_smoothing: Any = 0.0
  ) -> jax.Array:
    """Returns the loss of each example, float32 [B].

    Args:
      outputs: of the model.
      targets: from `inputs_and_targets`.
      label_smoothing: 0 in evaluation.
    """
    if self._smoothed and switched_on(label_smoothing):
      return self._loss(outputs, targets, label_smoothing=label_smoothing)
    return self._loss(outputs, targets)

  def example_measures(
    self, outputs: jax.Array, targets: jax.Array
  ) -> dict[str, jax.Array]:
    """Returns further values of each example by the names in `measures`, float [B]."""
    del outputs, targets
    return {}

  def picture(
    self, images: Sequence[np.ndarray], labels: np.ndarray, outputs: np.ndarray
  ) -> np.ndarray | None:
    """Draws a few images with what the model says of them, uint8 [h, w, 3], or None."""
    del images, labels, outputs
    return None

  def write_report(
    self, directory: Path, evaluation: Evaluation, summary: dict[str, Any]
  ) -> Path:
    """Writes the report of an evaluated split; returns the path of its page."""
    from jaxvision.reports.run import generic  # matplotlib: once there is a result

    return generic.write_report(
      directory,
      measures=evaluation.measures,
      **self.report_context(evaluation, summary),
    )

  def report_context(
    self, evaluation: Evaluation, summary: dict[str, Any]
  ) -> dict[str, Any]:
    """Returns the arguments that `write_report` of every module of `reports.run` takes."""
    return {
      'summary': summary,
      'config': self.config.to_dict(),
      'history': evaluation.history,
      'split': evaluation.split,
      'notes': evaluation.notes,
    }

  # The optimiser.

  def make_optimizer(self, hparams: dict[str, Any]) -> optax.GradientTransformation:
    """Returns the optimiser, its numbers taken from `hparams` where they are there."""
    config = self.config
    section = config.optimizer
    peak = hparams.get('optimizer.learning_rate', section.learning_rate)
    rate = self._rate(peak)
    return optim.make_optimizer(
      section,
      rate,
      weight_decay=hparams.get('optimizer.weight_decay'),
      momentum=hparams.get('optimizer.momentum'),
      grad_clip=hparams.get('grad_clip', config.grad_clip),
      schedule=self._rate,
      freeze=config.freeze,
      params=self._abstract_params,
      total_steps=self.plan.total_steps,
      layers=self._layers,
      constructor=self.parts.optimizer,
    )

  def _rate(self, peak: Any, until: float = 1.0, stop: float = 1.0) -> optax.Schedule:
    return optim.make_schedule(
      self.config.schedule,
      peak,
      self.plan.total_steps,
      self.plan.steps_per_epoch,
      until,
      stop,
      constructor=self.parts.schedule,
    )

  def learning_rate(self, step: int) -> float:
    """Returns the learning rate of a step, for the log."""
    return float(self._schedule(step))

  @functools.cached_property
  def _schedule(self) -> optax.Schedule:
    return self._rate(self.config.optimizer.learning_rate)

  # The state and its steps.

  def abstract_variables(self) -> PyTree:
    """Returns the shapes and dtypes of the model's variables."""
    images = jax.ShapeDtypeStruct((1, *self.info.image_shape), self.dtype)
    return jax.eval_shape(
      lambda images: self.model.init(jax.random.key(0), images, train=False), images
    )

  def init(self, key: jax.Array) -> TrainState:
    """Returns the train state at step 0."""
    key_params, key_run = jax.random.split(key)
    images = jnp.zeros((1, *self.info.image_shape), self.dtype)
    variables = self.model.init({'params': key_params}, images, train=False)
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

  @property
  def needs_data_to_init(self) -> bool:
    """Whether the model has `init_from_data(params, images float32) -> params`."""
    return hasattr(self.model, 'init_from_data')

  def init_from_data(self, state: TrainState, images: jax.Array) -> TrainState:
    """Returns the state with weights that depend on training images, uint8."""
    mean, std = self.normalization
    params = self.model.init_from_data(state.params, normalize(images, mean, std))
    ema = {**state.ema, 'params': copied(params)} if self._averaged else {}
    return state.replace(params=params, ema=ema)

  def loss(
    self,
    params: PyTree,
    state: TrainState,
    batch: Batch,
    key: jax.Array,
    frozen: PyTree = None,
  ) -> tuple[jax.Array, tuple[PyTree, Any]]:
    """Computes the mean loss of a training batch.

    Args:
      params: the parameters to differentiate by.
      state: the rest of the variables, and the numbers.
      batch: see the class.
      key: for augmentation and dropout.
      frozen: tree of bools like the parameters: no gradient there, and batch norms
        whose every parameter is frozen work as in inference; None: nothing is.

    Returns:
      (float32 scalar, (new batch statistics, metrics)).
    """
    outputs, targets, batch_stats = self.forward(params, state, batch, key, frozen)
    smoothing = self.number(state, 'label_smoothing')
    weights = self._class_weights

    def losses_of(targets: jax.Array) -> tuple[jax.Array, jax.Array]:
      losses = self.example_losses(outputs, targets, smoothing)
      if weights is None:
        return losses, losses
      return losses, losses * jnp.asarray(weights)[targets]

    # The measured loss is that of evaluation, which weights no classes.
    measured, losses = mean_over_targets(losses_of, targets)
    metrics = self._measure(measured, outputs, targets)
    return losses.mean(), (batch_stats, metrics)

  def forward(
    self,
    params: PyTree,
    state: TrainState,
    batch: Batch,
    key: jax.Array,
    frozen: PyTree = None,
  ) -> tuple[jax.Array, Any, PyTree]:
    """Applies the model to a training batch; arguments as for `loss`.

    Returns:
      (outputs [B, ...], targets [B, ...] or `MixedTargets`, new batch statistics).
    """
    key_augment, key_dropout = jax.random.split(key)
    norms: contextlib.AbstractContextManager = contextlib.nullcontext()
    if frozen is not None:
      params = freezing.without_gradient(params, frozen)
      norms = freezing.frozen_norms(frozen)
    variables = {'params': params, 'batch_stats': state.batch_stats}
    if self._holds_features(batch):
      outputs = self.model.apply(variables, batch['image'], method='classify')
      return outputs, batch['label'], state.batch_stats
    inputs, targets = self.inputs_and_targets(batch, key_augment, train=True)
    if mixes(self.config.augment):
      inputs, share = mix_batch(self.config.augment, key_augment, inputs)
      targets = MixedTargets.of(targets, share)
    model = self.model
    rates = {
      rate: state.hparams[f'model.{rate}']
      for rate in MODEL_RATES
      if f'model.{rate}' in state.hparams
    }
    if rates:
      model = model.clone(**rates)
    with norms:
      outputs, updated = model.apply(
        variables,
        inputs,
        train=True,
        rngs={'dropout': key_dropout},
        mutable=['batch_stats'],
      )
    return outputs, targets, updated.get('batch_stats', {})

  def _holds_features(self, batch: Batch) -> bool:
    return batch['image'].ndim == 2

  def train_step(
    self, state: TrainState, batch: Batch, key: jax.Array, frozen: PyTree = None
  ) -> tuple[TrainState, Any]:
    """Takes one optimiser step.

    Args:
      state: the train state.
      batch: see the class.
      key: of the step.
      frozen: as for `loss`.

    Returns:
      (the new state, the metrics of the batch).
    """
    config = self.config
    if config.augment.flip and config.augment.flip_mode == 'alternating':
      flips = alternating_flips(state.key, batch['index'], batch['epoch'])
      batch = {**batch, 'flip': flips}
    grads, batch_stats, metrics = mean_gradients(
      self.loss, state, batch, key, frozen, config.grad_accumulation, self.metrics
    )
    optimizer = self.make_optimizer(state.hparams)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    new = {
      'params': optax.apply_updates(state.params, updates),
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
    """Returns (first step, train step) for each set of parameters that train."""
    if self._first_steps is None:
      return super().phases()
    found = []
    for first in freezing.phases(self._first_steps, self.plan.total_steps):
      frozen = freezing.frozen_at(self._first_steps, first)
      found.append((first, functools.partial(self.train_step, frozen=frozen)))
    return tuple(found)

  def eval_step(self, state: TrainState, batch: Batch) -> tuple[Any, jax.Array]:
    """Evaluates a batch; returns (metrics, outputs [B, ...])."""
    if self._holds_features(batch):
      outputs = self.model.apply(
        state.eval_variables, batch['image'], method='classify'
      )
      targets = batch['label']
    else:
      inputs, targets = self.inputs_and_targets(batch, None, train=False)
      outputs = self.apply(state.eval_variables, inputs)
    losses = self.example_losses(outputs, targets)
    return self._measure(losses, outputs, targets, batch['mask']), outputs

  def apply(self, variables: PyTree, inputs: jax.Array) -> jax.Array:
    """Returns the outputs in inference mode, averaged over the views of `evaluation.tta`.

    Args:
      variables: {'params', 'batch_stats'}.
      inputs: normalised images [B, H, W, C].
    """
    return tta.mean_logits(
      lambda shown: self.model.apply(variables, shown, train=False),
      inputs,
      self.config.evaluation.tta,
    )

  @functools.cached_property
  def features(self) -> Callable[[PyTree, jax.Array], jax.Array] | None:
    """See `Task.features`."""
    first_steps, config = self._first_steps, self.config
    if first_steps is None or not hasattr(self.model, 'classify'):
      return None
    body = {name: steps for name, steps in first_steps.items() if name != 'head'}
    fixed = all(step >= self.plan.total_steps for step in jax.tree.leaves(body))
    changes = augments(config.augment) or config.augment.custom or self.parts.augment
    drops = any(switched_on(getattr(self.model, rate, 0)) for rate in MODEL_RATES)
    if len(self.phases()) > 1 or not fixed or changes or drops:
      return None
    if config.evaluation.tta != 'none':
      return None

    def features(state: TrainState, images: jax.Array) -> jax.Array:
      mean, std = self.normalization
      shown = normalize(images, mean, std, self.dtype)
      return self.model.apply(state.eval_variables, shown, method='features')

    return features

  # Evaluation and use.

  def evaluator(
    self, run: Any, dataset: Dataset, inputs: Dataset, state: PyTree
  ) -> SupervisedEvaluator:
    """See `Task.evaluator`."""
    return SupervisedEvaluator(run, dataset, inputs, state)

  def load(self, state: PyTree, step: int, origin: str) -> Predictor:
    """Returns the trained run for `load_run`."""
    return Predictor(self, state, step, origin)

  def probabilities(self, outputs: jax.Array) -> jax.Array:
    """Returns what `predict` returns, from the outputs of the model."""
    return outputs

  def summaries(self) -> Sequence[Any]:
    """Returns the layers, parameters and FLOPs of the model."""
    return (summarize(self.model, self.info.image_shape),)

  def augmented(
    self, key: jax.Array, images: jax.Array, flips: jax.Array | None = None
  ) -> jax.Array:
    """Returns training images as the model sees them, as pixels."""
    mean, std = self.normalization
    seen, _ = mix_batch(self.config.augment, key, self.augment(key, images, flips))
    seen = seen.astype(jnp.float32)
    pixels = 255 * (seen * jnp.array(std) + jnp.array(mean))
    return jnp.round(jnp.clip(pixels, 0, 255)).astype(jnp.uint8)

  # How it is put together.

  def _measure(
    self,
    losses: jax.Array,
    outputs: jax.Array,
    targets: Any,
    mask: jax.Array | None = None,
  ) -> Any:
    measures = mean_over_targets(
      lambda targets: self.example_measures(outputs, targets), targets
    )
    return self.metrics.single_from_model_output(
      loss=losses,
      logits=outputs,
      outputs=outputs,
      labels=targets.own if isinstance(targets, MixedTargets) else targets,
      mask=mask,
      **measures,
    )

  def _check_parameters(self) -> tuple[PyTree, tuple[str, ...]]:
    """Returns the step from which each parameter trains, and the order of the layers."""
    config, total = self.config, self.plan.total_steps
    layers: tuple[str, ...] = ()
    if self.parts.model is not None:
      shape = (self.num_outputs,) if self.checks_outputs else None
      own.check(self.model, self.info.image_shape, config.dtype, shape)
    if config.optimizer.layer_decay < 1:
      layers = models.layer_order(self.model, self.info.image_shape)
    self._abstract_params = None
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
