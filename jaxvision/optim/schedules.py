"""How the learning rate goes over a run."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvision.config import parts
from jaxvision.errors import UserError, closest, quoted

SCHEDULES = ('constant', 'cosine', 'step', 'one_cycle', 'linear')


def make_schedule(
  schedule: ConfigDict,
  peak: float,
  total_steps: int,
  steps_per_epoch: float,
  until: float = 1.0,
  stop: float = 1.0,
  constructor: Callable[..., optax.Schedule] | None = None,
) -> optax.Schedule:
  """Returns the learning rate as a function of the optimiser step.

  constant, linear, cosine (Loshchilov and Hutter 2017, without restarts), step
  (times `factor` at each of `boundaries`) and one_cycle (Smith and Topin 2018, with
  PyTorch's divisors 25 and 1e4). A linear warm-up from `start_factor` times the peak
  precedes all but one_cycle, which has its own; the rest of the run is then shared out
  as the schedule says.

  Args:
    schedule: the `schedule` part of the config.
    peak: the highest learning rate; may be traced.
    total_steps: optimiser steps of the run.
    steps_per_epoch: to turn `warmup_epochs` into steps.
    until: share of the run in which the whole schedule goes by; 0 from there on.
    stop: share of the run at which it is cut off: 0 from there on.
    constructor: a schedule of the user's own, (peak, total_steps) -> optax schedule.

  Raises:
    UserError: the warm-up is as long as the run, or one_cycle is given a warm-up.

  >>> from jaxvision.config import base_config
  >>> rate = make_schedule(base_config().schedule, 0.1, 100, 10)
  >>> [round(float(rate(step)), 3) for step in (0, 50, 100)]
  [0.1, 0.05, 0.0]
  """
  if constructor is not None:
    return _own(constructor, peak, total_steps, min(until, stop))
  if schedule.name not in SCHEDULES:
    raise UserError(
      f'config: there is no schedule.name {quoted(schedule.name)}'
      f'{closest(schedule.name, SCHEDULES)} (known: {", ".join(SCHEDULES)}, or '
      'file.py:function)'
    )
  if not isinstance(peak, int | float):  # traced; optax computes some parts on the host
    share = make_schedule(schedule, 1.0, total_steps, steps_per_epoch, until, stop)
    return lambda step: peak * share(step)
  if min(until, stop) < 1:
    whole = make_schedule(
      schedule, peak, max(1, round(until * total_steps)), steps_per_epoch
    )
    end = round(min(until, stop) * total_steps)
    return lambda step: jnp.where(step < end, whole(step), 0.0)
  warmup = schedule.warmup_steps or round(schedule.warmup_epochs * steps_per_epoch)
  if schedule.name == 'one_cycle':
    if warmup:
      raise UserError(
        'config: schedule.name one_cycle warms up by itself: leave '
        'schedule.warmup_steps and schedule.warmup_epochs at 0, and set schedule.peak'
      )
    return optax.schedules.cosine_onecycle_schedule(
      total_steps, peak, pct_start=schedule.peak
    )
  if warmup >= total_steps and warmup:
    raise UserError(
      f'config: a warm-up of {warmup} steps leaves none of the {total_steps} steps of '
      'the run: lower schedule.warmup_steps or schedule.warmup_epochs'
    )
  rest = total_steps - warmup
  if schedule.name == 'constant':
    main = optax.schedules.constant_schedule(peak)
  elif schedule.name == 'linear':
    main = optax.schedules.linear_schedule(peak, peak * schedule.end_factor, rest)
  elif schedule.name == 'cosine':
    main = optax.schedules.cosine_decay_schedule(peak, rest, schedule.end_factor)
  else:
    at = {round(share * total_steps) - warmup: None for share in schedule.boundaries}
    main = optax.schedules.piecewise_constant_schedule(
      peak, dict.fromkeys(at, schedule.factor)
    )
  if not warmup:
    return main
  rise = optax.schedules.linear_schedule(peak * schedule.start_factor, peak, warmup)
  return optax.schedules.join_schedules([rise, main], [warmup])


def _own(
  constructor: Callable[..., optax.Schedule], peak: float, total_steps: int, end: float
) -> optax.Schedule:
  """Returns a schedule of the user's own, cut off at a share `end` of the run."""
  made = parts.call('schedule.name', constructor, peak, total_steps)
  if not callable(made):
    raise UserError(
      f'config: schedule.name: {parts.describe(constructor)} returned '
      f'{type(made).__name__}, not a function of the step'
    )
  value = parts.call(
    'schedule.name', jax.eval_shape, made, jax.ShapeDtypeStruct((), jnp.int32)
  )
  if getattr(value, 'shape', None) != ():
    raise UserError(
      f'config: schedule.name: {parts.describe(constructor)}: the learning rate of a step '
      'must be one number'
    )
  if end >= 1:
    return made
  last = round(end * total_steps)
  return lambda step: jnp.where(step < last, made(step), 0.0)
