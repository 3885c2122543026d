"""A run: everything that training, evaluating or measuring a config is made of.

    config  = jaxvision.load_config('configs/digits_cnn.py')
    dataset = jaxvision.data.load(config.data)
    run     = Run.build(config, DatasetInfo.of(dataset))
    state   = run.init(dataset.splits['train'])
    trainer = run.trainer(dataset, state)
    state, metrics, loss, steps = trainer.run(state, trainer.empty_metrics(), limit=1)

`Run.build` finds every mistake in a config that is not in its data.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxvision import config as config_lib
from jaxvision import tasks
from jaxvision.config.hparams import program_signature
from jaxvision.config.parts import call
from jaxvision.config.plan import RunPlan
from jaxvision.data import streaming
from jaxvision.data.augment.resized_crop import Crop
from jaxvision.data.dataset import Dataset, Source
from jaxvision.data.info import DatasetInfo
from jaxvision.errors import UserError
from jaxvision.optim.averaging import mean
from jaxvision.placement import place
from jaxvision.tasks.base import (
  Parts,
  PyTree,
  Task,
  TaskContext,
  saved_fields,
  with_numbers,
)
from jaxvision.training import runtime
from jaxvision.training.checkpoints import Checkpoints
from jaxvision.training.compiler import Compiler, Program
from jaxvision.training.logging import warn
from jaxvision.training.mesh import check_batch, make_mesh, replicated, state_shardings
from jaxvision.training.parts import resolve_parts
from jaxvision.training.run_directory import RunDirectory
from jaxvision.training.step import ResidentTrainer, StreamingTrainer
from jaxvision.weights.tensors import check_finite

_INIT_IMAGES = 5000  # as the speed runs take: plenty for a few statistics


@dataclasses.dataclass(frozen=True)
class Run:
  """The context of a run.

  Attributes:
    config: valid and frozen.
    info: what is known of the data set.
    task: what is trained.
    plan: the steps.
    mesh: the devices.
    compiler: compiles the programs; runs may share one.
    directory: where the run is kept; None in a benchmark.
  """

  config: ConfigDict
  info: DatasetInfo
  task: Task
  plan: RunPlan
  mesh: Mesh
  compiler: Compiler
  directory: RunDirectory | None = None

  @classmethod
  def build(
    cls,
    config: ConfigDict,
    info: DatasetInfo,
    *,
    parts: Parts | None = None,
    mesh: Mesh | None = None,
    compiler: Compiler | None = None,
    directory: RunDirectory | None = None,
  ) -> 'Run':
    """Builds a run; starts no training and compiles nothing.

    Args:
      config: of the run.
      info: of its data set.
      parts: the user's own parts; None: those that the config names.
      mesh: None: as `config.parallel` has it.
      compiler: None: a new one.
      directory: see the class.

    Raises:
      UserError: something in the config is impossible, alone or with these data.
    """
    config = config_lib.freeze(config)
    parts = resolve_parts(config) if parts is None else parts
    task_class = tasks.find(config.task, parts.task)
    batches = task_class.batches_per_step(config)
    if config.data.balanced:
      _check_classes(info)
    plan = RunPlan.of(config, info.examples['train'], batches)
    context = TaskContext(config, info, plan, parts)
    if parts.task is None:
      task = task_class(context)
    else:
      task = call('task', task_class, context)
    if mesh is None:
      mesh = make_mesh(config.parallel.data, config.parallel.fsdp)
      check_batch(mesh, config)
      _check_batch_memory(plan, info, mesh)
    run = cls(config, info, task, plan, mesh, compiler or Compiler(), directory)
    _check_state_memory(run)
    return run

  @property
  def signature(self) -> Any:
    """What is equal for runs that can share their compiled programs."""
    info = dataclasses.replace(self.info, fingerprint='')
    return program_signature(self.config), repr(info), str(self.mesh), repr(self.plan)

  def start_compiling(
    self, function: Callable, *args: Any, key: Any = (), shared: bool = True, **jit: Any
  ) -> Program:
    """Starts to compile a function of this run, or takes it from a run like this one.

    Args:
      function: a function of the task and the config, pure.
      *args: see `Compiler`.
      key: what else tells it from others of its name.
      shared: whether other runs may take it.
      **jit: options of `jax.jit`.
    """
    key = (self.signature, key) if shared else None
    return self.compiler.start(function, *args, key=key, **jit)

  def compile(self, function: Callable, *args: Any, **options: Any) -> Callable:
    """Returns a compiled function of this run; takes what `start_compiling` takes."""
    return self.compiler.wait(self.start_compiling(function, *args, **options))

  # The state.

  def abstract_state(self) -> PyTree:
    """Returns the shapes, dtypes and shardings of the state, without allocating it."""
    return self._abstract_state

  @functools.cached_property
  def _abstract_state(self) -> PyTree:
    abstract = jax.eval_shape(self.task.init, jax.random.key(0))
    return jax.tree.map(
      lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s),
      abstract,
      state_shardings(self.mesh, abstract),
    )

  def init(self, source: Source | None = None) -> PyTree:
    """Returns the state at step 0, each part made where it will lie.

    Args:
      source: the training split, whose first 5,000 images decide on weights that depend
        on data; None: no weights do.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, self.abstract_state())
    key = place(jax.random.key(self.config.seed), replicated(self.mesh))
    state = self.compile(self.task.init, key, out_shardings=shardings)(key)
    if source is not None and self.task.needs_data_to_init:
      images = place(first_images(source), replicated(self.mesh))
      state = self.compile(
        self.task.init_from_data,
        state,
        images,
        donate_argnums=(0,),
        out_shardings=shardings,
      )(state, images)
    return self.with_numbers(state)

  def with_numbers(self, state: PyTree) -> PyTree:
    """Returns the state with the seed and the numbers of this run's config."""
    everywhere = replicated(self.mesh)
    return with_numbers(state, self.config, lambda value: place(value, everywhere))

  def for_training(self, state: PyTree) -> PyTree:
    """Returns the state with what the task's `train_step` needs and no checkpoint has."""
    everywhere = replicated(self.mesh)
    return self.task.for_training(state, lambda value: place(value, everywhere))

  def checkpoint_tree(self) -> dict[str, Any]:
    """Returns the abstract contents of a checkpoint: state, and metrics under way."""
    metrics = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=replicated(self.mesh)
      ),
      jax.eval_shape(self.task.metrics.empty),
    )
    return {'state': saved_fields(self.abstract_state()), 'metrics': metrics}

  def from_checkpoint(self, tree: dict[str, Any]) -> PyTree:
    """Returns the state out of a checkpoint, with the numbers of this run."""
    return self.with_numbers(self.abstract_state().replace(**tree['state']))

  def restore(self, which: str | int = 'last') -> tuple[PyTree, int]:
    """Returns (state, its step) of a checkpoint; changes nothing on disk.

    Args:
      which: 'last', 'best', or a step.

    Raises:
      UserError: there is no such checkpoint, or none that is whole; or a weight in it
        is NaN or infinite.
    """
    which = str(which)
    directory = self.directory
    assert directory, 'a run without a directory has no checkpoints'
    checkpoints = Checkpoints(
      directory.checkpoints, best=self.task.best, read_only=True
    )
    try:
      wanted: Any = int(which) if which.isascii() and which.isdigit() else which
      steps = checkpoints.steps()
      if steps and wanted not in ('last', 'best', *steps):
        raise UserError(
          f'{directory.path} has no checkpoint "{which}": take last, best, or one of '
          f'the steps {", ".join(map(str, steps))}'
        )
      restored = checkpoints.restore(self.checkpoint_tree(), wanted)
    finally:
      checkpoints.close()
    if restored is None:
      raise UserError(f'{directory.path} has no trained weights yet: train it first')
    for warning in checkpoints.warnings:
      warn(warning)
    tree, record = restored
    where = f'{directory.path}: checkpoint of step {record["step"]}'
    _check_finite(tree['state'], where)
    return self.from_checkpoint(tree), record['step']

  def restore_average(
    self, count: int, which: str | int = 'last'
  ) -> tuple[PyTree, tuple[int, ...]]:
    """Returns the state of the last checkpoint, evaluated by the mean of the last few.

    The mean is that of the variables that evaluation uses, parameters and running
    statistics alike, such as timm's avg_checkpoints takes of files. It is in the `ema` of
    the state, and so in its `eval_variables`.

    Args:
      count: of checkpoints.
      which: 'last': those that are averaged are the newest.

    Returns:
      (state, the steps of the checkpoints, oldest first).

    Raises:
      UserError: there are fewer, or as `restore` of each.
    """
    directory = self.directory
    assert directory, 'a run without a directory has no checkpoints'
    if which != 'last':
      raise UserError(
        f'{directory.path}: the average is of the last checkpoints, and checkpoint '
        f'"{which}" is one: ask for one of the two'
      )
    if count < 1:
      raise UserError(
        f'{directory.path}: an average is of 1 checkpoint or more, not {count}'
      )
    checkpoints = Checkpoints(
      directory.checkpoints, best=self.task.best, read_only=True
    )
    steps = checkpoints.steps()
    checkpoints.close()
    if steps and count > len(steps):
      raise UserError(
        f'{directory.path} has no {count} checkpoints to average, only {len(steps)}, of '
        f'step {", ".join(map(str, steps))}: average fewer, or train with a larger '
        'checkpoint.keep'
      )
    state, _ = self.restore(steps[-1] if steps else 'last')
    if not (hasattr(state, 'ema') and hasattr(state, 'eval_variables')):
      raise UserError(
        f'{directory.path}: the state of task {self.config.task} has no eval_variables '
        'and ema, which an average takes and becomes'
      )
    averaged = tuple(steps[-count:])
    variables = (
      (state if step == averaged[-1] else self.restore(step)[0]).eval_variables
      for step in averaged
    )
    return state.replace(ema=mean(variables)), averaged

  # Its steps.

  def steps_per_dispatch(self) -> int:
    """Returns the steps that a resident run takes in one compiled call."""
    wanted = self.config.steps_per_dispatch
    if not wanted:
      # XLA:CPU takes a slow path for convolution gradients inside a loop, and has no
      # dispatch to hide.
      cpu = jax.default_backend() == 'cpu'
      wanted = 1 if cpu else self.config.log_every_steps
    return min(wanted, self.plan.total_steps)

  @property
  def norm_parts(self) -> int:
    """The parts of a batch whose statistics a batch norm takes by themselves."""
    return self.mesh.size if self.config.parallel.norm_scope == 'device' else 1

  @property
  def balanced_classes(self) -> int:
    """The number of classes where training draws each equally often, else 0."""
    return len(self.info.class_names) if self.config.data.balanced else 0

  def start_trainer(
    self,
    dataset: Dataset,
    state: PyTree,
    position: dict[str, Any] | None = None,
    step: int = 0,
  ) -> ResidentTrainer | StreamingTrainer:
    """Returns the training steps, which are being compiled, by the pipeline of the data.

    Args:
      dataset: with the training split.
      state: whose shapes and shardings the programs are compiled for.
      position: of the stream, from a checkpoint; None: at the start.
      step: of the state.

    Returns:
      A trainer, whose `wait` comes before its first step.
    """
    source = dataset.splits['train']
    if dataset.pipeline == 'resident':
      return ResidentTrainer(self, source, state, step)
    stream = streaming.train_stream(
      source,
      self.config.seed,
      self.plan.images_per_step,
      self.plan.total_steps,
      self.config.data.workers,
      position or None,
      (jax.process_index(), jax.process_count()),
      Crop.of(self.config.augment),
      self.balanced_classes,
    )
    try:
      return StreamingTrainer(self, stream, state, step)
    except BaseException:  # Ctrl-C while it traces, too
      stream.close()
      raise

  def trainer(self, *args: Any, **options: Any) -> ResidentTrainer | StreamingTrainer:
    """Returns the compiled training steps; takes what `start_trainer` takes."""
    trainer = self.start_trainer(*args, **options)
    try:
      trainer.wait()
    except BaseException:  # Ctrl-C while it compiles, too
      trainer.close()
      raise
    return trainer


def _check_classes(info: DatasetInfo) -> None:
  """Raises UserError unless every class has training images to draw."""
  if info.label_kind != 'class':
    raise UserError(
      f'config: data.balanced draws classes equally often, and the labels of {info.name} '
      'are no classes: leave it out'
    )
  for name, count in zip(info.class_names, info.class_counts):
    if not count:
      raise UserError(
        f'config: data.balanced: class "{name}" of {info.name} has no training images'
      )


def _check_finite(fields: dict[str, PyTree], where: str) -> None:
  """Raises UserError if a number in a state, but for its optimiser's, is not finite."""
  if jax.process_count() > 1:  # no host has all of it
    return
  for name in sorted(fields.keys() - {'opt_state'}, key=lambda n: (n != 'params', n)):
    leaves = jax.tree_util.tree_leaves_with_path(fields[name])
    check_finite(
      {
        f'{name}/{jax.tree_util.keystr(path, simple=True, separator="/")}': np.asarray(
          leaf
        )
        for path, leaf in leaves
      },
      where,
    )


def first_images(source: Source) -> np.ndarray:
  """Returns the images that weights may depend on: uint8 [n, H, W, C], n up to 5,000."""
  count = min(len(source), _INIT_IMAGES)
  images = getattr(source, 'images', None)
  if images is not None:
    return np.asarray(images[:count])
  return np.stack([source[i][0] for i in range(count)])


# What does not fit is told before minutes of compiling and an end by the system, which
# says nothing. What is held for certain counts: activations, which depend on the
# compiler, may still be too large.


def _check_state_memory(run: Run) -> None:
  """Raises UserError where the state of a run is larger than a device's memory."""
  leaves = jax.tree.leaves(run.abstract_state())
  parts = run.mesh.shape['fsdp']
  size = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves) / parts
  has = runtime.memory_bytes()
  if has and size > has:
    raise UserError(
      f'config: the state of model.name {run.config.model.name} and its optimizer takes '
      f'{size / 2**30:,.0f} GiB, and there are {has / 2**30:,.0f} GiB of memory: choose '
      'smaller numbers for its fields model.*'
    )


def _check_batch_memory(plan: RunPlan, info: DatasetInfo, mesh: Mesh) -> None:
  """Raises UserError where the images of a step are larger than a device's memory."""
  size = 4 * plan.images_per_step * math.prod(info.image_shape) / mesh.size
  has = runtime.memory_bytes()
  if has and size > has:
    shape = 'x'.join(map(str, info.image_shape))
    raise UserError(
      f'config: a batch of {plan.images_per_step:,} images of {shape} takes '
      f'{size / 2**30:,.0f} GiB, and there are {has / 2**30:,.0f} GiB of memory: lower '
      'batch_size or data.image_size'
    )
