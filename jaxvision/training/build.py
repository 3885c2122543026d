"""From a config and the facts of a data set to a model and a task."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxvision import models, optim
from jaxvision.data import augment, streaming
from jaxvision.data.augment import diffaugment
from jaxvision.data.augment.resized_crop import Crop
from jaxvision.data.dataset import Dataset, Source
from jaxvision.errors import UserError
from jaxvision.tasks import Task, make_classification, make_gan
from jaxvision.training.checkpoints import Checkpoints
from jaxvision.training.logging import warn
from jaxvision.training.loop import Plan
from jaxvision.training.mesh import replicated
from jaxvision.training.run_directory import RunDirectory
from jaxvision.training.step import (
  Compiler,
  ResidentTrainer,
  StreamingTrainer,
  abstract_state,
  init_state,
)

_INIT_IMAGES = 5000  # as many as the speed runs take: plenty for a few statistics


@dataclasses.dataclass(frozen=True)
class DataFacts:
  """What a task must know of its data: small enough for the run directory.

  Attributes:
    name: of the set.
    class_names: in the order of the labels.
    image_shape: (H, W, C).
    mean, std: per channel, in units of [0, 1].
    examples: split name -> number of examples.
    synthetic: whether the images are made up.
    skipped: unreadable files passed over.
    crop_fraction, interpolation: how images of other sizes are brought to the shape.
  """

  name: str
  class_names: tuple[str, ...]
  image_shape: tuple[int, int, int]
  mean: tuple[float, ...]
  std: tuple[float, ...]
  examples: dict[str, int]
  synthetic: bool = False
  skipped: int = 0
  crop_fraction: float = 1.0
  interpolation: str = 'bilinear'

  @classmethod
  def of(cls, dataset: Dataset) -> 'DataFacts':
    """Returns the facts of a loaded data set."""
    return cls(
      name=dataset.name,
      class_names=tuple(dataset.class_names),
      image_shape=tuple(int(n) for n in dataset.image_shape),
      mean=tuple(float(m) for m in dataset.mean),
      std=tuple(float(s) for s in dataset.std),
      examples={split: len(source) for split, source in dataset.splits.items()},
      synthetic=dataset.synthetic,
      skipped=dataset.skipped,
      crop_fraction=float(dataset.crop_fraction),
      interpolation=dataset.interpolation,
    )

  @classmethod
  def from_dict(cls, values: dict[str, Any]) -> 'DataFacts':
    """Returns the facts that `dataclasses.asdict` wrote to JSON."""
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def make_model(config: ConfigDict, num_classes: int) -> nn.Module:
  """Returns the model that the config names; raises UserError if there is none."""
  fields = dict(config.model)
  return models.create(fields.pop('name'), num_classes, config.dtype, **fields)


def make_networks(config: ConfigDict, facts: DataFacts) -> models.GAN:
  """Returns the generator and the discriminator that the config names, or raises."""
  fields = dict(config.model)
  return models.create_gan(
    fields.pop('name'),
    facts.image_shape,
    len(facts.class_names),
    config.dtype,
    **fields,
  )


def make_task(config: ConfigDict, facts: DataFacts) -> tuple[Task, Plan]:
  """Returns the task and the plan of a run, or raises UserError.

  Everything that can be wrong with a config beside its data is found here, before any
  work.
  """
  examples = facts.examples['train']
  plan = Plan.of(config, examples)
  if plan.images > examples:
    raise UserError(
      f'config: batch_size {config.batch_size} is larger than the training split of '
      f'{facts.name}, which has {examples} images'
      if plan.images == config.batch_size
      else f'config: gan.d_steps times batch_size is {plan.images}, more than the '
      f'training split of {facts.name}, which has {examples} images'
    )
  if plan.total * plan.images >= 2**32:
    raise UserError(
      f'config: {plan.total} steps of {plan.images} images are more than the '
      '4,294,967,295 that a run can count: lower steps, epochs or batch_size'
    )
  augment.check(config.augment, facts.image_shape)
  make = _make_gan if config.task == 'gan' else _make_classification
  return make(config, facts, plan), plan


def _rates(config: ConfigDict, plan: Plan) -> Callable[..., optax.Schedule]:
  """Returns (peak, until, stop) -> the run's schedule with these."""

  def rate(peak: float, until: float = 1.0, stop: float = 1.0) -> optax.Schedule:
    return optim.make_schedule(
      config.schedule, peak, plan.total, plan.steps_per_epoch, until, stop
    )

  return rate


def _make_gan(config: ConfigDict, facts: DataFacts, plan: Plan) -> Task:
  diffaugment.check(config.gan.diffaugment)
  rate = _rates(config, plan)
  peak = config.optimizer.learning_rate
  optimizers = tuple(
    optim.make_optimizer(config.optimizer, rate(peak), config.grad_clip)
    for peak in (peak, config.gan.d_learning_rate or peak)
  )
  return make_gan(
    config,
    make_networks(config, facts),
    optimizers,
    rate(peak),
    facts.image_shape,
    len(facts.class_names),
  )


def _make_classification(config: ConfigDict, facts: DataFacts, plan: Plan) -> Task:
  model = make_model(config, len(facts.class_names))
  rate = _rates(config, plan)
  params, first_steps, layers = None, None, ()
  groups = config.optimizer.groups
  if groups or config.freeze:
    params = abstract_variables(model, facts.image_shape, config.dtype)['params']
  if config.optimizer.layer_decay < 1:
    layers = models.layer_order(model, facts.image_shape)
  schedule = rate(config.optimizer.learning_rate)
  optimizer = optim.make_optimizer(
    config.optimizer,
    schedule,
    config.grad_clip,
    schedule=rate,
    freeze=config.freeze,
    params=params,
    total_steps=plan.total,
    layers=layers,
  )
  if params is not None:
    named = {name: dict(group) for name, group in groups.items()}
    first_steps = optim.first_steps(params, config.freeze, named, plan.total)
    if all(first >= plan.total for first in jax.tree.leaves(first_steps)):
      raise UserError(
        'config: freeze matches every parameter, so that nothing is left to train: '
        'leave out the head, as in (?!head/).*'
      )
  return make_classification(
    config,
    model,
    optimizer,
    schedule,
    facts.image_shape,
    facts.mean,
    facts.std,
    plan.total,
    first_steps,
  )


def abstract_variables(
  model: nn.Module, image_shape: tuple[int, int, int], dtype: str = 'float32'
) -> Any:
  """Returns the shapes and dtypes of a model's variables."""
  images = jax.ShapeDtypeStruct((1, *image_shape), dtype)
  return jax.eval_shape(model.init, jax.random.key(0), images)


def first_images(source: Source) -> np.ndarray:
  """Returns the images that weights may depend on: uint8 [n, H, W, C], n up to 5,000."""
  count = min(len(source), _INIT_IMAGES)
  images = getattr(source, 'images', None)
  if images is not None:
    return np.asarray(images[:count])
  return np.stack([source[i][0] for i in range(count)])


def fresh_state(
  task: Task, mesh: Mesh, seed: int, source: Source, compiler: Compiler
) -> Any:
  """Returns the state at step 0, by the training images where the model wants that.

  Args:
    task, mesh, seed: of the run.
    source: the training split, whose first 5,000 images count, in its own order.
    compiler: keeps account of what is compiled.
  """
  state = init_state(task, mesh, seed, compiler)
  if task.init_from_data is None:
    return state
  images = jax.device_put(first_images(source), replicated(mesh))
  shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
  return compiler(
    task.init_from_data, state, images, donate_argnums=(0,), out_shardings=shardings
  )(state, images)


def steps_per_dispatch(config: ConfigDict, plan: Plan) -> int:
  """Returns the steps that a resident run takes in one compiled call."""
  wanted = config.steps_per_dispatch
  if not wanted:
    # XLA:CPU takes a slow path for convolution gradients inside a loop, and has no
    # dispatch to hide.
    wanted = 1 if jax.default_backend() == 'cpu' else config.log_every_steps
  return min(wanted, plan.total)


def make_trainer(
  config: ConfigDict,
  plan: Plan,
  task: Task,
  mesh: Mesh,
  dataset: Dataset,
  state: Any,
  position: dict[str, Any] | None,
  compiler: Compiler,
  step: int = 0,
) -> ResidentTrainer | StreamingTrainer:
  """Returns the compiled training steps of a run, by the pipeline of its data.

  Args:
    config, plan, task, mesh, dataset: of the run.
    state: whose shapes and shardings the programs are compiled for.
    position: of the stream, from a checkpoint; None: at the start.
    compiler: keeps account of what is compiled.
    step: of the state.
  """
  source = dataset.splits['train']
  crop = Crop.of(config.augment)
  if dataset.pipeline == 'resident':
    return ResidentTrainer(
      task,
      mesh,
      source,
      state,
      config.seed,
      plan.images,
      steps_per_dispatch(config, plan),
      compiler,
      step,
      crop,
    )
  stream = streaming.train_stream(
    source,
    config.seed,
    plan.images,
    plan.total,
    config.data.workers,
    position or None,
    (jax.process_index(), jax.process_count()),
    crop,
  )
  return StreamingTrainer(task, mesh, stream, state, compiler, step)


def checkpoint_tree(task: Task, mesh: Mesh) -> dict[str, Any]:
  """Returns the abstract contents of a checkpoint: state, and metrics under way."""
  metrics = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=replicated(mesh)
    ),
    jax.eval_shape(task.metrics.empty),
  )
  return {'state': abstract_state(task, mesh), 'metrics': metrics}


def restore(
  directory: RunDirectory, task: Task, mesh: Mesh, which: str = 'last'
) -> tuple[Any, int]:
  """Returns (train state, its step) of a checkpoint; changes nothing on disk.

  Args:
    directory: of a run, which may be training meanwhile.
    task, mesh: what the state belongs to, and where it goes.
    which: 'last', 'best', or a step.

  Raises:
    UserError: there is no such checkpoint, or none that is whole.
  """
  nothing = UserError(f'{directory.path} has no trained weights yet: train it first')
  if not directory.checkpoints.is_dir():
    raise nothing
  checkpoints = Checkpoints(directory.checkpoints, best=task.best, read_only=True)
  try:
    steps = checkpoints.steps()
    if not steps:
      raise nothing
    step = None
    if which == 'best':
      step = checkpoints.best_step()
    elif which != 'last':
      step = int(which) if which.isdigit() else -1
      if step not in steps:
        raise UserError(
          f'{directory.path} has no checkpoint "{which}": take last, best, or one of '
          f'the steps {", ".join(map(str, steps))}'
        )
    restored = checkpoints.restore(checkpoint_tree(task, mesh), step)
  finally:
    checkpoints.close()
  if restored is None:
    raise UserError(
      f'{directory.path}: no checkpoint is whole: {checkpoints.warnings[-1]}'
    )
  for warning in checkpoints.warnings:
    warn(warning)
  tree, record = restored
  return tree['state'], record['step']
