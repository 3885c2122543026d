"""What a task is: the interface between what is trained and what trains it.

A task is a class. It is built once, from a `TaskContext`, and every mistake in the config
that concerns it is found there. Its methods are pure functions that the engine compiles,
shards and repeats, and that anyone may call:

    task = Run.build(config, dataset).task
    state = task.init(jax.random.key(0))
    state, metrics = task.train_step(state, batch, key)

`SupervisedTask` is the usual base class of a task of one's own: see
examples/rotation_task.py.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import flax
import jax
import jax.numpy as jnp
import optax
from clu import metrics as clu_metrics
from ml_collections import ConfigDict

from jaxvision.config.hparams import hparams
from jaxvision.config.plan import RunPlan
from jaxvision.data.dataset import Dataset
from jaxvision.data.info import DatasetInfo
from jaxvision.data.order import seed_words
from jaxvision.optim import make_schedule
from jaxvision.optim.schedule_free import averaged

PyTree = Any
Batch = dict[str, jax.Array]


@flax.struct.dataclass
class TrainState:
  """Everything that changes while a model trains, and the numbers that it trains by.

  Attributes:
    step: int32 scalar, optimiser steps done.
    key: uint32 key data; step n draws from `fold_in(key, n)` and from nothing else.
    params: float32 parameters.
    batch_stats: float32 running statistics of batch normalisation, or {}.
    opt_state: state of the optimiser.
    ema: {'params', 'batch_stats'} averaged over the steps or by Lookahead, or {}
      without.
    order_seed: uint32 [2], the seed of the order of the training examples; None in a
      state that does not train.
    hparams: path of a config field -> float32 scalar, see `jaxvision.config.hparams`.
    teacher: variables of the network that the run learns from, see `init.teacher`; None
      without.
  """

  step: jax.Array
  key: jax.Array
  params: PyTree
  batch_stats: PyTree
  opt_state: optax.OptState
  ema: PyTree
  order_seed: jax.Array | None = None
  hparams: dict[str, jax.Array] = flax.struct.field(default_factory=dict)
  teacher: PyTree = None

  @property
  def eval_variables(self) -> PyTree:
    """The variables that evaluation and prediction use: the average where kept.

    That of a schedule-free optimiser is computed of its state, which holds what the
    average lacks; `batch_stats` are then those of the parameters that train.
    """
    if self.ema:
      return self.ema
    params = averaged(self.opt_state, self.params)
    return {'params': params, 'batch_stats': self.batch_stats}


# They come from the config whenever a run starts, and are in no checkpoint.
_FROM_CONFIG = ('order_seed', 'hparams', 'teacher')


def with_numbers(
  state: PyTree, config: ConfigDict, place: Callable = lambda x: x
) -> PyTree:
  """Returns a train state with the seed and the numbers of a config.

  Args:
    state: a `TrainState` or another dataclass with `order_seed` and `hparams`.
    config: valid.
    place: puts an array where the state is.
  """
  return state.replace(
    order_seed=place(seed_words(config.seed)),
    hparams={path: place(value) for path, value in hparams(config).items()},
  )


def saved_fields(state: PyTree) -> dict[str, PyTree]:
  """Returns the part of a train state that a checkpoint holds, by field."""
  return {
    field.name: getattr(state, field.name)
    for field in dataclasses.fields(state)
    if field.name not in _FROM_CONFIG
  }


@dataclasses.dataclass(frozen=True)
class Parts:
  """The parts of a run that are the user's own, as objects.

  Attributes:
    model: a linen module class, a function that returns a module, or a module.
    loss: (outputs, targets, **options) -> float [B].
    optimizer: optax constructor.
    schedule: (peak, total_steps) -> optax schedule.
    augment: functions (key, images) -> images.
    metrics: clu Metric classes by name.
    task: a `Task` class.
    data: a function that returns a data set, or a `Dataset`.
    callbacks: `Callback` objects.
  """

  model: Any = None
  loss: Callable | None = None
  optimizer: Callable | None = None
  schedule: Callable | None = None
  augment: tuple[Callable, ...] = ()
  metrics: dict[str, type] = dataclasses.field(default_factory=dict)
  task: type | None = None
  data: Any = None
  callbacks: tuple[Any, ...] = ()


@dataclasses.dataclass(frozen=True)
class TaskContext:
  """What a task is built from.

  Attributes:
    config: valid and frozen.
    info: what is known of the data set.
    plan: the steps of the run.
    parts: the user's own parts.
  """

  config: ConfigDict
  info: DatasetInfo
  plan: RunPlan
  parts: Parts = Parts()


class Task(abc.ABC):
  """What is trained, and how.

  Attributes:
    best: the name of the measure in an evaluation that says which checkpoint is the best,
      and whether its 'max' or its 'min' is.
    holds_out: whether training is judged by labelled images that it did not train on, so
      that a sweep holds some out; not where it is judged by what it draws.
    metrics: the clu Collection that `train_step` and `eval_step` return.
    normalization: per-channel (mean, std), in units of [0, 1], of the images that the
      model sees.
  """

  best: ClassVar[tuple[str, str]] = ('loss', 'min')
  holds_out: ClassVar[bool] = True
  metrics: type[clu_metrics.Collection]
  normalization: tuple[tuple[float, ...], tuple[float, ...]]

  def __init__(self, context: TaskContext):
    self.config, self.info = context.config, context.info
    self.plan, self.parts = context.plan, context.parts

  @property
  def input_shape(self) -> tuple[int, ...]:
    """The shape (H, W, C) of the images that the model sees."""
    return self.info.image_shape

  @classmethod
  def batches_per_step(cls, config: ConfigDict) -> int:
    """Returns how many batches of `batch_size` images an optimiser step takes."""
    del config
    return 1

  def number(self, state: PyTree, path: str) -> Any:
    """Returns a number of the config, from the state where it lives there.

    Args:
      state: a train state.
      path: of the field, such as 'ema_decay'.
    """
    if path in state.hparams:
      return state.hparams[path]
    value: Any = self.config
    for name in path.split('.'):
      value = value[name]
    return value

  @abc.abstractmethod
  def init(self, key: jax.Array) -> PyTree:
    """Returns the train state at step 0."""

  @abc.abstractmethod
  def train_step(
    self, state: PyTree, batch: Batch, key: jax.Array
  ) -> tuple[PyTree, Any]:
    """Takes one optimiser step; returns (state, metrics of the batch)."""

  def phases(self) -> tuple[tuple[int, Callable[..., tuple[PyTree, Any]]], ...]:
    """Returns (first step, train step from there on) for each phase of the run."""
    return ((0, self.train_step),)

  def eval_step(self, state: PyTree, batch: Batch) -> tuple[Any, jax.Array]:
    """Evaluates a batch; returns (metrics, outputs [B, ...]).

    Args:
      state: a train state.
      batch: 'image' and 'label' as in training, and 'mask' bool [B], False for padding.
    """
    raise NotImplementedError(f'{type(self).__name__} has no eval_step')

  def init_from_data(self, state: PyTree, images: jax.Array) -> PyTree:
    """Returns the state at step 0 with weights that depend on training images.

    Args:
      state: from `init`.
      images: uint8 [n, H, W, C].
    """
    del images
    return state

  @property
  def needs_data_to_init(self) -> bool:
    """Whether `init_from_data` does anything."""
    return type(self).init_from_data is not Task.init_from_data

  @property
  def features(self) -> Callable[[PyTree, jax.Array], jax.Array] | None:
    """(state, images uint8 [B, H, W, C]) -> float32 [B, D] where these never change.

    So it is where all but the classifier is frozen and nothing is augmented; then
    `train_step` and `eval_step` take features in the place of images. Else None.
    """
    return None

  def health(self, metrics: Any) -> jax.Array:
    """Returns a scalar that is finite as long as training is."""
    return metrics.loss.compute()

  def _rate(self, peak: Any, until: float = 1.0, stop: float = 1.0) -> optax.Schedule:
    return make_schedule(
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
    return float(self._rate_at(self.config.optimizer.learning_rate, step))

  @functools.cached_property
  def _rate_at(self) -> Callable[[float, int], jax.Array]:
    # One small program, and not one for each of its operations; the same for all peaks.
    return jax.jit(lambda peak, step: self._rate(peak)(step))

  def count_parameters(self, params: PyTree) -> dict[str, int]:
    """Returns the numbers of parameters by their names in summary.json."""
    return {'params': sum(leaf.size for leaf in jax.tree.leaves(params))}

  def prepare_training(self, directory: Any) -> None:
    """Finds what training needs beside the data; raises UserError where it is missing.

    Args:
      directory: the `RunDirectory` that the run goes on in; None: it begins.
    """
    del directory

  def for_training(self, state: PyTree, place: Callable) -> PyTree:
    """Returns a state with what training needs and no checkpoint has.

    Args:
      state: of step 0, or out of a checkpoint.
      place: puts an array where the state is.
    """
    del place
    return state

  def sources(self) -> dict[str, Any]:
    """Returns where such things come from, by name, for the run directory and summary."""
    return {}

  def prepare_evaluation(self) -> None:
    """Finds what evaluation needs beside the data; raises UserError where it is missing."""
    return

  @abc.abstractmethod
  def evaluator(
    self, run: Any, dataset: Dataset, inputs: Dataset, state: PyTree
  ) -> Any:
    """Returns the `RunEvaluator` of a run.

    Args:
      run: the `Run`.
      dataset: as loaded, with its images.
      inputs: the same, or with features in the place of the images.
      state: whose shapes the programs are compiled for.
    """

  @abc.abstractmethod
  def load(self, state: PyTree, step: int, origin: str) -> Any:
    """Returns a trained run that predicts or draws, for `load_run`."""

  def summaries(self) -> Sequence[Any]:
    """Returns the `ModelSummary` of each network: layers, parameters, FLOPs."""
    return ()

  @property
  def flops_per_image(self) -> int | None:
    """FLOPs of the first network for one image, of drawing one where it draws, or None."""
    tables = self.summaries()
    return tables[0].flops if tables else None

  def augmented(
    self, key: jax.Array, images: jax.Array, flips: jax.Array | None = None
  ) -> jax.Array:
    """Returns training images as the model sees them, as pixels uint8 [B, H, W, C]."""
    del key, flips
    return images

  def enabled_augmentations(self) -> tuple[str, ...]:
    """Lists the fields beside `augment` that change training images, with values."""
    return ()

  @property
  def measure(self) -> dict[str, Any]:
    """What runs of this task are ranked by, for `compare`."""
    name, mode = self.best
    return {
      'key': f'test_{name}',
      'label': f'test {name}',
      'split': 'test',
      'logged': name,
      'mode': mode,
      'percent': name.startswith('accuracy'),
    }


def copied(tree: PyTree) -> PyTree:
  """Returns a copy: a state whose leaves share buffers could not be donated."""
  return jax.tree.map(jnp.copy, tree)
