"""The learning-rate finder: training on a ramp of learning rates until the loss diverges.

L. N. Smith, "Cyclical Learning Rates for Training Neural Networks", 2017,
https://arxiv.org/abs/1506.01186, section 3.3; with the exponential ramp, the end and the
two suggestions of fastai's finder.

    curve = find(jaxvision.load_config('configs/digits_cnn.py'))
    config.optimizer.learning_rate = curve.steepest
"""

import contextlib
import dataclasses
import math
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxvision import config as config_lib
from jaxvision import data as data_lib
from jaxvision.config.hparams import group_rates
from jaxvision.data.info import DatasetInfo
from jaxvision.errors import TrainingDiverged, UserError
from jaxvision.placement import place
from jaxvision.tasks.base import PyTree
from jaxvision.training import pretrained, runtime
from jaxvision.training.features import precompute
from jaxvision.training.logging import speaker
from jaxvision.training.mesh import replicated
from jaxvision.training.parts import resolve_parts
from jaxvision.training.run import Run
from jaxvision.training.summary import describe_data

FEWEST_STEPS = 10
_DIVERGED = 4  # times the best loss
# Shares of the ramp: what the average of the losses goes back over, and what a slope is
# taken over to each side.
_AVERAGED, _SLOPE = 1 / 20, 1 / 40


@dataclasses.dataclass(frozen=True)
class LearningRateCurve:
  """The loss over a ramp of learning rates.

  Attributes:
    rates: of each step that was taken, rising; one at least.
    losses: mean loss of the batch of each, before the step.
    smoothed: exponential moving average of the losses, without the bias of its start.
    steps: of the whole ramp.
    batch_size: images of a step.
    stopped: why it ended before the last step, or ''.
  """

  rates: tuple[float, ...]
  losses: tuple[float, ...]
  smoothed: tuple[float, ...]
  steps: int
  batch_size: int
  stopped: str = ''

  @property
  def lowest(self) -> int | None:
    """The place of the lowest smoothed loss; None where no step came before it."""
    return int(np.argmin(self.smoothed)) or None

  @property
  def steepest(self) -> float | None:
    """The rate at which the loss falls most over the logarithm of the rate."""
    return None if self.steepest_step is None else self.rates[self.steepest_step]

  @property
  def steepest_step(self) -> int | None:
    """The place of `steepest`; None where the loss does not fall."""
    side = max(1, round(_SLOPE * self.steps))
    if self.lowest is None or self.lowest < 2 * side:
      return None
    before = np.asarray(self.smoothed[: self.lowest + 1])
    fall = before[: -2 * side] - before[2 * side :]
    return int(np.argmax(fall)) + side if fall.max() > 0 else None

  @property
  def minimum_tenth(self) -> float | None:
    """A tenth of the rate at which the loss is lowest; None where it does not fall."""
    return None if self.lowest is None else self.rates[self.lowest] / 10

  def to_json(self) -> dict[str, Any]:
    """Returns the numbers for lr_find.json."""
    return {
      'batch_size': self.batch_size,
      'steps': len(self.rates),
      'steps_of_ramp': self.steps,
      'stopped': self.stopped or None,
      'suggestions': {
        'steepest': self.steepest,
        'minimum_tenth': self.minimum_tenth,
      },
      'learning_rates': list(self.rates),
      'losses': list(self.losses),
      'smoothed_losses': list(self.smoothed),
    }


def find(
  config: ConfigDict,
  *,
  minimum: float = 1e-6,
  maximum: float = 10.0,
  steps: int = 200,
  quiet: bool = True,
  data: Any = None,
  **parts: Any,
) -> LearningRateCurve:
  """Trains on an exponential ramp of learning rates; writes nothing but the caches.

  The model, its first weights, the data and the optimiser are those of a run of the
  config, without its schedule. The rates of layers and of `optimizer.groups` keep their
  ratios to `optimizer.learning_rate`, a group with a `start` trains from the beginning,
  and images have the size of evaluation. One compiled step serves all rates.

  Args:
    config: from `load_config` or `base_config`.
    minimum: learning rate of the first step.
    maximum: of the last step, unless the smoothed loss rises to four times its lowest, or
      is not finite, before.
    steps: of the ramp; no more than are in an epoch are taken.
    quiet: print nothing.
    data, **parts: as for `jaxvision.train`.

  Returns:
    The curve with its suggestions.

  Raises:
    UserError: the config or the data are not usable, the ramp is none, or the task has
      not one loss, as a GAN.
    TrainingDiverged: the loss is not finite before any step.
  """
  if not 0 < minimum < maximum or not math.isfinite(maximum):
    raise UserError(
      'lr-find: the rates must rise from a minimum above 0 to a larger maximum, not from '
      f'{minimum:g} to {maximum:g}'
    )
  if steps < FEWEST_STEPS:
    raise UserError(f'lr-find: a ramp has at least {FEWEST_STEPS} steps, not {steps}')
  say = speaker(quiet)
  config = config_lib.freeze(config)
  runtime.start(config, say)
  adopted, start = pretrained.begin(config)
  ramp = _without_schedule(adopted, steps)
  resolved = resolve_parts(ramp, {**parts, 'schedule': None, 'data': data})
  dataset = data_lib.load(ramp.data, source=resolved.data)
  info = DatasetInfo.of(dataset)
  run = Run.build(ramp, info, parts=resolved)
  if not hasattr(run.task.metrics.empty(), 'loss'):
    raise UserError(
      f'lr-find: task {config.task} has not one loss that falls as it learns: try its '
      'learning rates in runs of their own'
    )
  _check_rates(config)
  run.task.prepare_training(None)
  say(describe_data(dataset, info))
  steps = min(steps, int(run.plan.steps_per_epoch))
  if steps < FEWEST_STEPS:
    raise UserError(
      f'lr-find: an epoch of {info.name} has {steps} steps of {run.plan.images_per_step} '
      f'images, and a ramp at least {FEWEST_STEPS}: lower batch_size'
    )
  # A stream ends with the ramp.
  plan = dataclasses.replace(run.plan, total_steps=steps)
  run = dataclasses.replace(run, plan=plan)
  state = run.init(dataset.splits['train'])
  if start and start.weights:
    state = pretrained.insert(state, pretrained.match(start.weights, run))
  if run.task.features:
    dataset = precompute(run, dataset, state)
  rates = np.geomspace(minimum, maximum, steps).tolist()
  state = run.for_training(state)
  return _climb(run, run.trainer(dataset, state), state, rates)


def _without_schedule(config: ConfigDict, steps: int) -> ConfigDict:
  """Returns a config that trains everything at constant rates, a step a dispatch."""
  config = config_lib.thaw(config)
  config.steps, config.steps_per_dispatch = steps, 1
  config.schedule = config_lib.base_config().schedule
  config.schedule.name = 'constant'
  config.resize.progressive = ()
  for group in config.optimizer.groups.values():
    for part_of_run in ('start', 'until', 'stop'):
      if part_of_run in group:
        del group[part_of_run]
  return config_lib.freeze(config)


def _check_rates(config: ConfigDict) -> None:
  groups = group_rates(config)
  if groups and not config.optimizer.learning_rate:
    raise UserError(
      'config: optimizer.learning_rate is 0, to which the learning rates of '
      f'optimizer.groups ({", ".join(groups)}) have no ratio: set it'
    )


def _at_rate(run: Run, state: PyTree, rate: float) -> PyTree:
  """Returns a state with a learning rate; those of groups keep their ratios to it."""
  section, everywhere = run.config.optimizer, replicated(run.mesh)
  rates = {'optimizer.learning_rate': rate}
  for name, path in group_rates(run.config).items():
    share = section.groups[name].learning_rate / section.learning_rate
    rates[path] = share * rate
  placed = {path: place(np.float32(value), everywhere) for path, value in rates.items()}
  return state.replace(hparams={**state.hparams, **placed})


def _climb(
  run: Run, trainer: Any, state: PyTree, rates: list[float]
) -> LearningRateCurve:
  """Takes a step at each rate until the loss diverges; ends the trainer."""
  kept = math.exp(-1 / (_AVERAGED * len(rates)))
  losses: list[float] = []
  smoothed: list[float] = []
  average, stopped = 0.0, ''
  with contextlib.closing(trainer):
    for count, rate in enumerate(rates, start=1):
      state = _at_rate(run, state, rate)
      state, metrics, _, _ = trainer.run(state, trainer.empty_metrics(), 1)
      loss = float(metrics.loss.compute())
      if not math.isfinite(loss):
        if count == 1:
          raise TrainingDiverged(
            f'lr-find: the loss is {loss} before any step: look at the data and the model'
          )
        stopped = f'the loss is {loss}'
        break
      average = kept * average + (1 - kept) * loss
      losses.append(loss)
      smoothed.append(average / (1 - kept**count))
      best = min(smoothed)
      if smoothed[-1] > best + (_DIVERGED - 1) * abs(best):
        stopped = f'the loss is {_DIVERGED} times its lowest'
        break
  return LearningRateCurve(
    tuple(rates[: len(losses)]),
    tuple(losses),
    tuple(smoothed),
    len(rates),
    run.plan.images_per_step,
    stopped,
  )
