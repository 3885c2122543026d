"""The parts of a supervised task by their names: loss and metrics, ours and the user's."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from clu import metrics as clu_metrics
from flax.errors import FlaxError
from ml_collections import ConfigDict

from jaxvision.config import parts as parts_lib
from jaxvision.config.limits import above_zero, at_least
from jaxvision.config.values import check_option
from jaxvision.data.info import DatasetInfo
from jaxvision.errors import UserError, closest, quoted, short, shown
from jaxvision.models.resized import resized
from jaxvision.tasks.losses import LOSSES

# What the options of the losses may be.
_LIMITS = {'gamma': at_least(0, 100), 'delta': above_zero(1e6)}


def make_loss(
  config: ConfigDict, own: Callable | None, suitable: Sequence[str]
) -> tuple[Callable[..., jax.Array], bool]:
  """Returns the loss of a config, with its options.

  Args:
    config: of the run.
    own: the user's function, where the config names one.
    suitable: names of the losses that suit the task; the first is the default.

  Returns:
    ((outputs, targets) -> float [B], whether it takes `label_smoothing` too).

  Raises:
    UserError: no such loss, one that does not suit the task, or an unknown option.
  """
  options = dict(config.loss)
  options.pop('class_weights', None)  # see `make_class_weights`
  name = options.pop('name') or suitable[0]
  loss = own
  if loss is None:
    if name not in LOSSES:
      raise UserError(
        f'config: there is no loss.name {quoted(name)}{closest(name, LOSSES)} (known: '
        f'{", ".join(LOSSES)}, or file.py:function)'
      )
    if name not in suitable:
      raise UserError(
        f'config: loss.name {name} does not suit task {config.task}: take '
        f'{" or ".join(suitable)}, or set task'
      )
    loss = LOSSES[name]
  parameters = inspect.signature(loss).parameters
  takes = list(parameters)[2:]
  known = [option for option in takes if option != 'label_smoothing']
  if own is not None:
    name = parts_lib.describe(own)
  for option, value in options.items():
    if option not in known:
      raise UserError(
        f'config: loss {name} has no option "{option}"{closest(option, known)} '
        f'(options: {", ".join(known) or "none"})'
      )
    where = f'loss.{option} of {name}'
    check_option(where, value, parameters[option].default, strict=own is None)
    if own is None and not _LIMITS[option]['valid'](value):
      raise UserError(
        f'config: {where} must be {_LIMITS[option]["limits"]}, not {shown(value)}'
      )
  smoothed = 'label_smoothing' in takes
  if config.label_smoothing and not smoothed:
    raise UserError(
      f'config: label_smoothing does not hold for loss {name}: set it to 0'
    )
  return functools.partial(loss, **options), smoothed


def make_class_weights(
  config: ConfigDict, info: DatasetInfo, num_outputs: int
) -> np.ndarray | None:
  """Returns the factor of each class in the training loss, or None where it has none.

  'balanced' is n / (K n_c) for a class of n_c among n training images of K classes, so
  that every class counts alike and the mean factor of an image is 1.

  Args:
    config: of the run; `loss.class_weights` is 'balanced' or K numbers.
    info: of its data set.
    num_outputs: K.

  Returns:
    float32 [K] or None.

  Raises:
    UserError: the weights are no K numbers from 0 on, or the labels are no classes.
  """
  weights = config.loss.get('class_weights')
  if weights is None or (isinstance(weights, Sequence) and not weights):
    return None
  if info.label_kind != 'class' or len(info.class_names) != num_outputs:
    raise UserError(
      'config: loss.class_weights needs one class for each image, and task '
      f'{config.task} has other targets: leave it out'
    )
  if weights == 'balanced':
    counts = np.asarray(info.class_counts, np.float64)
    if not counts.all():
      name = info.class_names[int(np.argmin(counts))]
      raise UserError(
        f'config: loss.class_weights=balanced: class "{name}" has no training images'
      )
    return (counts.sum() / (num_outputs * counts)).astype(np.float32)
  values = list(weights) if isinstance(weights, Sequence | np.ndarray) else [weights]
  numbers = [v for v in values if isinstance(v, int | float) and 0 <= v < float('inf')]
  if len(values) != num_outputs or len(numbers) != num_outputs or not any(numbers):
    raise UserError(
      f'config: loss.class_weights must be "balanced" or {num_outputs} numbers from 0 on, '
      f'one for each class and not all of them 0, not {weights!r}'
    )
  return np.asarray(numbers, np.float32)


def make_metrics(
  measures: Sequence[str], own: Mapping[str, type]
) -> type[clu_metrics.Collection]:
  """Returns the metrics of a task: means over examples, and the user's own.

  Args:
    measures: names of further means beside the loss.
    own: clu Metric classes by name, made from the arguments loss, logits, labels, mask.
  """
  means = {name: clu_metrics.Average.from_output(name) for name in ('loss', *measures)}
  for name, metric in own.items():
    if not (isinstance(metric, type) and issubclass(metric, clu_metrics.Metric)):
      raise UserError(
        f'config: metrics: {parts_lib.describe(metric)} is no clu.metrics.Metric class'
      )
    if name in means:
      raise UserError(f'config: metrics: there is a measure "{name}" already')
  return clu_metrics.Collection.create(**means, **own)


def label_like(info: DatasetInfo, size: int) -> jax.ShapeDtypeStruct:
  """Returns the shape and dtype of a batch of `size` labels."""
  kind, count = info.label_kind, len(info.class_names)
  one = kind == 'class' or (kind == 'regression' and count == 1)
  dtype = np.int32 if kind == 'class' else np.float32
  return jax.ShapeDtypeStruct((size,) if one else (size, count), dtype)


def check_optimizer(
  own: Callable | None, learning_rate: optax.Schedule, options: Mapping[str, Any]
) -> None:
  """Raises UserError unless the user's constructor returns an optax transformation."""
  if own is None:
    return
  made = parts_lib.call('optimizer.name', own, learning_rate=learning_rate, **options)
  if not isinstance(made, optax.GradientTransformation):
    raise UserError(
      f'config: optimizer.name: {parts_lib.describe(own)} returned '
      f'{type(made).__name__}, not an optax GradientTransformation'
    )


def _check_augmentation(own: Callable, images: jax.ShapeDtypeStruct) -> None:
  key = jax.random.key(0)
  made = parts_lib.call('augment.custom', jax.eval_shape, own, key, images)
  if getattr(made, 'shape', None) != images.shape:
    raise UserError(
      f'config: augment.custom: {parts_lib.describe(own)} returned '
      f'{getattr(made, "shape", type(made).__name__)} for images of shape '
      f'{images.shape}: it must keep their shape'
    )


def check_sizes(task: Any) -> None:
  """Raises UserError where the model cannot be applied to each of the sizes of a run.

  Args:
    task: a `SupervisedTask`.
  """
  resize = task.config.resize
  if not resize.progressive:
    return
  variables = task.abstract_variables()
  images = jax.ShapeDtypeStruct((2, *task.info.image_shape), task.dtype)
  for size in resize.progressive:
    model = resized(task.model, size, resize.interpolation)
    try:
      jax.eval_shape(functools.partial(model.apply, train=False), variables, images)
    except (UserError, ValueError, TypeError, FlaxError) as error:
      raise UserError(
        f'config: resize.progressive: {task.config.model.name} cannot see images of '
        f'{size}x{size} with the weights that it has for '
        f'{"x".join(map(str, task.input_shape[:2]))} ({short(str(error))}): leave {size} '
        'out, or take a model that averages over its last maps'
      ) from error


def check_step(task: Any) -> None:
  """Takes a step on abstract arrays where any part of it is the user's own.

  Args:
    task: a `SupervisedTask`.

  Raises:
    UserError: with the user's file and line, what a part raised or returned.
  """
  parts = task.parts
  if not any((parts.loss, parts.optimizer, parts.augment, parts.metrics, parts.task)):
    return
  size = 4 * task.config.grad_accumulation
  for augmentation in parts.augment:
    like = jax.ShapeDtypeStruct((size, *task.info.image_shape), np.float32)
    _check_augmentation(augmentation, like)
  index = jax.ShapeDtypeStruct((size,), np.int32)
  batch = {
    'image': jax.ShapeDtypeStruct((size, *task.info.image_shape), np.uint8),
    'label': label_like(task.info, size),
    'index': index,
    'epoch': index,
  }

  def step(batch):
    key = jax.random.key(0)
    state = task.init(key)
    state = state.replace(teacher={})  # which is found when training begins
    inputs, targets = task.training_batch(batch, key)
    outputs, _ = task.forward(state.params, state, inputs, key)
    losses = task.example_losses(outputs, targets)
    if getattr(losses, 'shape', None) != (size,):
      loss = parts.loss or type(task).example_losses
      raise UserError(
        f'config: loss.name: {parts_lib.describe(loss)} returned shape '
        f'{getattr(losses, "shape", None)} for a batch of {size}, not ({size},): it must '
        'return the loss of each example'
      )
    state, _ = task.train_step(state, batch, key)
    return task.eval_step(state, {**batch, 'mask': jnp.ones(size, bool)})

  parts_lib.call('a part of your own', jax.eval_shape, step, batch)
