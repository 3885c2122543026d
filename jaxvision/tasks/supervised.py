"""Tasks that train one network by gradient descent: classification and its like.

A task of one's own overrides what differs: the inputs and targets of a batch, the loss of
an example, the measures. The rest is here once: augmentation, distillation, evaluation.
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

from jaxvision import models
from jaxvision.config.hparams import MODEL_RATES
from jaxvision.config.limits import switched_on
from jaxvision.data.augment import (
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
from jaxvision.models.fake_quantization import (
  fake_quantize_params,
  fake_quantized_inputs,
)
from jaxvision.models.resized import resized
from jaxvision.tasks import distillation, freezing, tta
from jaxvision.tasks.assembly import (
  check_sizes,
  check_step,
  make_class_weights,
  make_loss,
  make_metrics,
)
from jaxvision.tasks.base import Batch, PyTree, TaskContext, TrainState, copied
from jaxvision.tasks.losses import LOSSES, mean_squared_error
from jaxvision.tasks.one_network import OneNetworkTask
from jaxvision.tasks.phases import WHOLE_RUN, Phase
from jaxvision.training.evaluation import Evaluation, SupervisedEvaluator


def _are_features(inputs: jax.Array) -> bool:
  """Whether a batch holds the features of a frozen network in the place of images."""
  return inputs.ndim == 2


class SupervisedTask(OneNetworkTask):
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
    self.normalization = (info.mean, info.std)
    self.augment = make_augment(
      config.augment, info.mean, info.std, self.dtype, custom=self.parts.augment
    )
    self._loss, self._smoothed = make_loss(config, self.parts.loss, self.losses)
    self.metrics = make_metrics(self.measures, self.parts.metrics)
    self._class_weights = make_class_weights(config, info, self.num_outputs)
    model = self._resized(self.make_model(), config.resize.size)
    if self.parts.model is not None:
      outputs = (self.num_outputs,) if self.checks_outputs else None
      own.check(model, info.image_shape, config.dtype, outputs)
    self.set_model(model)
    check_sizes(self)
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
  def input_shape(self) -> tuple[int, ...]:
    """The shape (H, W, C) of the images that the model sees."""
    size = self.config.resize.size
    *_, channels = self.info.image_shape
    return (size, size, channels) if size else self.info.image_shape

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

  def distillation_losses(
    self, outputs: jax.Array, taught: jax.Array, temperature: Any
  ) -> jax.Array:
    """Returns how far outputs are from those of a teacher, float32 [B].

    By default their mean squared difference (Ba and Caruana, "Do deep nets really need
    to be deep?", 2014).

    Args:
      outputs: of the model.
      taught: of the teacher, of the same shape.
      temperature: that logits are divided by, where they become probabilities.
    """
    del temperature
    return mean_squared_error(outputs, taught)

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
    phase: Phase = WHOLE_RUN,
  ) -> tuple[jax.Array, tuple[PyTree, Any]]:
    """See `OneNetworkTask.loss`."""
    key_augment, key_dropout = jax.random.split(key)
    inputs, targets = self.training_batch(batch, key_augment)
    outputs, batch_stats = self.forward(params, state, inputs, key_dropout, phase)
    smoothing = self.number(state, 'label_smoothing')
    weights = self._class_weights

    def losses_of(targets: jax.Array) -> tuple[jax.Array, jax.Array]:
      losses = self.example_losses(outputs, targets, smoothing)
      if weights is None:
        return losses, losses
      return losses, losses * jnp.asarray(weights)[targets]

    # The measured loss is that of evaluation, which has no weights and no teacher.
    measured, losses = mean_over_targets(losses_of, targets)
    metrics = self._measure(measured, outputs, targets)
    if self._learns_from_teacher(state):
      taught = self.teacher.outputs(state.teacher, inputs, self.normalization)
      share, temperature = (
        self.number(state, f'distillation.{name}') for name in ('weight', 'temperature')
      )
      distances = self.distillation_losses(outputs, taught, temperature)
      losses = (1 - share) * losses + share * distances
    return losses.mean(), (batch_stats, metrics)

  def _learns_from_teacher(self, state: TrainState) -> bool:
    if not self.config.init.teacher:
      return False
    if state.teacher is None:
      raise ValueError('init.teacher: make the state by `for_training` first')
    return bool(state.teacher)

  def training_batch(self, batch: Batch, key: jax.Array) -> tuple[jax.Array, Any]:
    """Returns what the model sees and what it should say, augmented and mixed.

    Args:
      batch: see the class.
      key: for augmentation.

    Returns:
      (inputs [B, ...], targets [B, ...] or `MixedTargets`).
    """
    if _are_features(batch['image']):
      return batch['image'], batch['label']
    inputs, targets = self.inputs_and_targets(batch, key, train=True)
    if mixes(self.config.augment):
      inputs, share = mix_batch(self.config.augment, key, inputs)
      targets = MixedTargets.of(targets, share)
    return inputs, targets

  def forward(
    self,
    params: PyTree,
    state: TrainState,
    inputs: jax.Array,
    key: jax.Array,
    phase: Phase = WHOLE_RUN,
  ) -> tuple[jax.Array, PyTree]:
    """Applies the model in training.

    Args:
      params, state, phase: as for `loss`. Batch norms whose every parameter is frozen
        work as in inference.
      inputs: from `training_batch`.
      key: for dropout.

    Returns:
      (outputs [B, ...], new batch statistics).
    """
    layers = contextlib.ExitStack()
    if phase.frozen is not None:
      params = freezing.without_gradient(params, phase.frozen)
      layers.enter_context(freezing.frozen_norms(phase.frozen))
    if self.config.quantization_aware:
      params = fake_quantize_params(params)
      layers.enter_context(fake_quantized_inputs())
    variables = {'params': params, 'batch_stats': state.batch_stats}
    if _are_features(inputs):
      with layers:
        outputs = self.model.apply(variables, inputs, method='classify')
      return outputs, state.batch_stats
    model = self.with_rates(self._resized(self.model, phase.image_size), state)
    with layers:
      outputs, updated = model.apply(
        variables,
        inputs,
        train=True,
        rngs={'dropout': key},
        mutable=['batch_stats'],
      )
    return outputs, updated.get('batch_stats', {})

  def _resized(self, model: nn.Module, size: int) -> nn.Module:
    return resized(model, size, self.config.resize.interpolation) if size else model

  def eval_step(self, state: TrainState, batch: Batch) -> tuple[Any, jax.Array]:
    """Evaluates a batch; returns (metrics, outputs [B, ...])."""
    if _are_features(batch['image']):
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
  def teacher(self) -> distillation.Teacher | None:
    """The run that this one learns from, found when training asks for it."""
    source = self.config.init.teacher
    return distillation.load(source, self) if source else None

  def prepare_training(self, directory: Any) -> None:
    """Finds the teacher; raises UserError where a run in `directory` had another."""
    if self.teacher and directory:
      distillation.check_same(directory.path, directory.sources(), self.teacher)

  def for_training(self, state: TrainState, place: Callable) -> TrainState:
    """Returns the state with the weights of the teacher."""
    if not self.teacher:
      return state
    return state.replace(teacher=jax.tree.map(place, self.teacher.variables))

  def sources(self) -> dict[str, Any]:
    """Returns where the teacher comes from."""
    return {'teacher': self.teacher.origin} if self.teacher else {}

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
    if config.evaluation.tta != 'none' or config.init.teacher:
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
