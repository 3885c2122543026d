"""Optimisers by name, with clipping, weight decay and groups put around them."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from jaxvision.config import parts as parts_lib
from jaxvision.config.limits import at_least, between, one_of, switched_on
from jaxvision.config.values import check_option
from jaxvision.errors import UserError, closest, quoted, shown
from jaxvision.models.paths import kernels
from jaxvision.optim import groups as groups_lib
from jaxvision.optim.muon import muon
from jaxvision.optim.schedule_free import BASES, schedule_free

OPTIMIZERS = {
  'adabelief': optax.adabelief,
  'adadelta': optax.adadelta,
  'adafactor': optax.adafactor,
  'adagrad': optax.adagrad,
  'adam': optax.adam,
  'adamax': optax.adamax,
  'adamaxw': optax.adamaxw,
  'adamw': optax.adamw,
  'adan': optax.adan,
  'amsgrad': optax.amsgrad,
  'lamb': optax.lamb,
  'lars': optax.lars,
  'lion': optax.lion,
  'muon': muon,
  'radam': optax.radam,
  'rmsprop': optax.rmsprop,
  'sgd': optax.sgd,
  'sign_sgd': optax.sign_sgd,
  'yogi': optax.yogi,
}

# These take `optimizer.momentum` and `optimizer.nesterov`; what other optimisers
# call momentum is another thing with another default, set under `optimizer.options`.
_WITH_MOMENTUM = ('sgd', 'lars', 'muon')


# What options of these names may be, beside of the type of their defaults.
_RATE = between(0, 1, open_end=True)
_DTYPE = one_of('float32', 'bfloat16')
_LIMITS: dict[str, dict[str, Any]] = {
  **dict.fromkeys(('b1', 'b2', 'b3', 'rho', 'decay', 'decay_rate', 'momentum'), _RATE),
  **dict.fromkeys(('eps', 'eps_root', 'initial_accumulator_value'), at_least(0, 1000)),
  **dict.fromkeys(('initial_scale', 'trust_coefficient'), at_least(0, 1000)),
  **dict.fromkeys(('mu_dtype', 'accumulator_dtype'), _DTYPE),
  **dict.fromkeys(('dtype_momentum', 'ns_dtype'), _DTYPE),
  'clipping_threshold': at_least(1e-6, 1e6),
  'threshold': at_least(0, 1000),
  'decay_offset': at_least(0, 2**31 - 1),
  'min_dim_size_to_factor': at_least(1, 2**31 - 1),
  'ns_steps': at_least(1, 100),
}


def decay_mask(params):
  """Returns a tree of bools: True for the leaves that weight decay applies to.

  Those are the kernels, see `models.paths.kernels`, and not biases, the scales and
  offsets of normalisation (He et al. 2019, section 3.1) and learned positions.
  """
  return kernels(params)


@dataclasses.dataclass(frozen=True)
class _Rule:
  """One optimiser and its numbers, which may be traced.

  Attributes:
    name: of the optimiser.
    learning_rate: a number or a schedule.
    weight_decay, momentum: numbers.
    nesterov: whether momentum looks ahead.
    options: further arguments.
    constructor: a user's own optax constructor; None: the library's of that name.
    schedule_free: whether it has no momentum, and its steps are averaged.
    before_average: what the updates go through before they are averaged.
  """

  name: str
  learning_rate: Any
  weight_decay: Any
  momentum: Any
  nesterov: bool
  options: dict[str, Any]
  constructor: Callable[..., optax.GradientTransformation] | None = None
  schedule_free: bool = False
  before_average: tuple[optax.GradientTransformation, ...] = ()


def make_optimizer(
  optimizer: ConfigDict,
  learning_rate: optax.ScalarOrSchedule,
  *,
  weight_decay: Any = None,
  momentum: Any = None,
  grad_clip: Any = 0.0,
  constructor: Callable[..., optax.GradientTransformation] | None = None,
  schedule: Callable[..., optax.Schedule] | None = None,
  peaks: Mapping[str, Any] | None = None,
  freeze: Sequence[str] = (),
  params: Any = None,
  total_steps: int = 0,
  layers: Sequence[str] = (),
) -> optax.GradientTransformation:
  """Returns the optax transformation that the config asks for.

  Gradients are clipped to the global norm `grad_clip` first (0: they are not). Weight
  decay is the optimiser's own where it has one (decoupled: adamw, lamb, lion, ...), else
  it is added to the gradient (L2, as in PyTorch's SGD); either way for kernels only.

  A group of `optimizer.groups` takes the parameters that its pattern `match` matches; what
  it does not set it has from the base. A weight decay that it sets holds for all its
  leaves, biases too. With `until`, its schedule ends, and its learning rate is 0, at that
  share of the run; with `stop`, the schedule is the run's own, cut off there; with
  `start`, it begins to train at that share, and nothing of it changes before. Leaves that
  `freeze` matches get no update and no memory.

  With `schedule_free`, the base and each group average their steps (see
  `optim.schedule_free`): momentum, or b1 of adam and adamw, says how far they train from
  the average, which `averaged` returns.

  With `layer_decay` d, the updates of a layer are multiplied by d to the power of the
  number of layers between it and the last one (Clark et al. 2020, "ELECTRA", and
  discriminative fine-tuning, Howard and Ruder 2018).

  Args:
    optimizer: the `optimizer` section of the config.
    learning_rate: a number or a schedule; its numbers may be traced.
    weight_decay: None: that of the config; may be traced.
    momentum: likewise.
    grad_clip: largest global norm of the gradient; may be traced.
    constructor: optax constructor of the user's own, where `optimizer.name` means one.
      It gets learning_rate (a schedule), the options, and, where it has parameters of
      these names, weight_decay, mask, momentum and nesterov as in the config.
    schedule: (peak, until, stop) -> the run's schedule with these, see `make_schedule`;
      for groups. None: their rates are constant.
    peaks: group -> its peak learning rate, which may be traced, and under '' that of
      groups that set none; where it is missing, that of the config.
    freeze: patterns of parameter paths.
    params: what will be trained, shapes are enough: to check groups and patterns.
    total_steps: of the run, for groups with `start`.
    layers: top-level keys of the parameters from the first layer to the last, for
      `layer_decay`.

  Raises:
    UserError: an unknown optimiser, an option that it does not take, a group without
      effect, or a pattern that matches nothing.

  >>> from jaxvision.config import base_config
  >>> import jax.numpy as jnp
  >>> tx = make_optimizer(base_config().optimizer, 0.5)
  >>> grads = {'bias': jnp.ones(2)}
  >>> updates, _ = tx.update(grads, tx.init(grads), grads)
  >>> updates['bias'].tolist()  # Nesterov: (1 + 0.9) x 0.5
  [-0.949999988079071, -0.949999988079071]
  """
  by_layer = []
  if optimizer.layer_decay < 1:
    by_layer = [_scale_by_layer(optimizer.layer_decay, layers)]
  base = _Rule(
    name=optimizer.name,
    learning_rate=learning_rate,
    weight_decay=optimizer.weight_decay if weight_decay is None else weight_decay,
    momentum=optimizer.momentum if momentum is None else momentum,
    nesterov=optimizer.nesterov,
    options=dict(optimizer.options),
    constructor=constructor,
    schedule_free=optimizer.schedule_free,
    before_average=tuple(by_layer) if optimizer.schedule_free else (),
  )
  parts = [optax.clip_by_global_norm(grad_clip)] if switched_on(grad_clip) else []
  named = {name: dict(group) for name, group in optimizer.groups.items()}
  groups_lib.check(named)
  last = [] if optimizer.schedule_free else by_layer
  if not named and not freeze:
    return optax.chain(*parts, *_make(base, decay_mask), *last)
  transforms = {
    _BASE: optax.chain(*_make(base, decay_mask)),
    _FROZEN: optax.set_to_zero(),
  }
  peaks = dict(peaks or {})
  for name, group in named.items():
    own = group.get('learning_rate', peaks.get('', optimizer.learning_rate))
    peak = peaks.get(name, own)
    transforms[name] = _group(name, group, base, peak, schedule, total_steps)
  patterns = {name: group['match'] for name, group in named.items()}

  def labels(params):
    by_group = groups_lib.labels(params, patterns, _BASE)
    return jax.tree.map(
      lambda label, is_frozen: _FROZEN if is_frozen else label,
      by_group,
      groups_lib.frozen(params, freeze),
    )

  if params is not None:
    labels(params)
  return optax.chain(*parts, optax.partition(transforms, labels), *last)


def _scale_by_layer(
  decay: float, layers: Sequence[str]
) -> optax.GradientTransformation:
  """Multiplies the updates of each top-level layer, the last one's by 1."""
  share = {name: decay**i for i, name in enumerate(reversed(layers))}

  def update(updates, params=None):
    del params
    return {
      name: jax.tree.map(lambda leaf, by=share[name]: leaf * by, layer)
      for name, layer in updates.items()
    }

  return optax.stateless(update)


# Labels that no group can have: a name in a config is an identifier.
_BASE, _FROZEN = '*', '-'


def _group(
  name: str,
  group: dict[str, Any],
  base: _Rule,
  peak: Any,
  schedule: Callable[..., optax.Schedule] | None,
  total_steps: int,
) -> optax.GradientTransformation:
  """Returns the transformation of one group, or raises UserError."""
  for end in ('until', 'stop'):
    if base.schedule_free and end in group:
      raise UserError(
        f'config: optimizer.groups.{name}.{end} ends a learning rate that '
        'optimizer.schedule_free wants constant: leave it out'
      )
  changes: dict[str, Any] = {
    field: float(group[field])
    for field in ('weight_decay', 'momentum')
    if field in group
  }
  if 'nesterov' in group:
    changes['nesterov'] = group['nesterov']
  if group.get('name', base.name) != base.name:
    # The options of the base are another optimiser's.
    changes |= {'name': group['name'], 'options': {}, 'constructor': None}
  if 'options' in group:
    changes['options'] = dict(group['options'])
  mask = None if 'weight_decay' in group else decay_mask
  rate = peak
  if schedule is not None:
    rate = schedule(peak, group.get('until', 1.0), group.get('stop', 1.0))
  first = groups_lib.first_step(group, total_steps)
  if not first:
    return optax.chain(
      *_make(dataclasses.replace(base, learning_rate=rate, **changes), mask)
    )
  # What is inside counts steps from its own first one.
  late = (lambda step: rate(first + step)) if callable(rate) else rate
  rule = dataclasses.replace(base, learning_rate=late, **changes)
  inner = optax.chain(*_make(rule, mask))
  return optax.conditionally_mask(inner, lambda step: step >= first)


def _make(rule: _Rule, decayed: Any) -> list[optax.GradientTransformation]:
  """Returns what `_single` does, averaged where the rule says so."""
  made = _single(rule, decayed)
  if not rule.schedule_free:
    return made
  inner = optax.chain(*made, *rule.before_average)
  return [schedule_free(inner, rule.learning_rate, _interpolation(rule))]


def _single(rule: _Rule, decayed: Any) -> list[optax.GradientTransformation]:
  """Returns one optimiser and its weight decay, over the leaves that `decayed` says."""
  name = rule.name
  if rule.schedule_free and (rule.constructor is not None or name not in BASES):
    raise UserError(
      f'config: optimizer.schedule_free averages {", ".join(BASES)}, and optimizer.name '
      f'is {quoted(name)}: take one of them, or set optimizer.schedule_free to False'
    )
  if rule.constructor is not None:
    return [_own(rule, decayed)]
  if name not in OPTIMIZERS:
    raise UserError(
      f'config: there is no optimizer.name {quoted(name)}{closest(name, OPTIMIZERS)} '
      f'(known: {", ".join(OPTIMIZERS)}, or file.py:function)'
    )
  make = BASES[name] if rule.schedule_free else OPTIMIZERS[name]
  takes = inspect.signature(make).parameters
  own = {'learning_rate', 'weight_decay', 'weight_decay_rate'}
  own |= {'mask', 'weight_decay_mask'}
  if name in _WITH_MOMENTUM:
    own |= {'momentum', 'nesterov'}
  _check_options(name, rule.options, own, takes)
  options = dict(rule.options)
  parts = []
  if 'weight_decay' in takes:
    mask = 'mask' if 'mask' in takes else 'weight_decay_mask'
    options['weight_decay'] = rule.weight_decay
    if mask in takes:
      options[mask] = decayed
  elif 'weight_decay_rate' in takes:
    on = switched_on(rule.weight_decay)
    options['weight_decay_rate'] = rule.weight_decay if on else None
    options['weight_decay_mask'] = decayed
  elif switched_on(rule.weight_decay):
    parts.append(optax.add_decayed_weights(rule.weight_decay, decayed))
  if name in _WITH_MOMENTUM:
    options['momentum'] = rule.momentum
    if name == 'sgd' and (rule.schedule_free or not switched_on(rule.momentum)):
      options['momentum'] = None  # and no memory for it
    options['nesterov'] = rule.nesterov
  try:
    parts.append(make(rule.learning_rate, **options))
  except (TypeError, ValueError) as error:
    raise UserError(
      f'config: optimizer {name}: {" ".join(str(error).split())}'
    ) from error
  return parts


def _interpolation(rule: _Rule) -> Any:
  """Returns b1 of `schedule_free`, from where the optimiser has its momentum."""
  if rule.name in _WITH_MOMENTUM:
    where, value = 'optimizer.momentum', rule.momentum
  else:
    where, value = 'optimizer.options.b1', rule.options.get('b1', 0.9)
  if not switched_on(value):
    raise UserError(
      f'config: optimizer.schedule_free wants {where} above 0, such as 0.9: it says how '
      'near to the average of the weights the gradient is taken'
    )
  return value


_SECTION = ('learning_rate', 'weight_decay', 'momentum', 'nesterov')


def _check_options(
  name: str, options: dict[str, Any], own: set[str], takes: Any
) -> None:
  """Raises UserError for an option that the optimiser lacks, that it cannot have, or that
  has its own field.
  """
  free = [key for key in takes if key not in own]
  for option, value in options.items():
    if option in own and option in _SECTION:
      raise UserError(
        f'config: set optimizer.{option} instead of optimizer.options.{option}'
      )
    if option not in free:
      raise UserError(
        f'config: optimizer {name} has no option "{option}"{closest(option, free)} '
        f'(options: {", ".join(free) or "none"})'
      )
    _check_option(name, option, value, takes[option].default)


def _check_option(name: str, option: str, value: Any, default: Any) -> None:
  """Raises UserError where an optimiser of the library cannot have the option's value."""
  where = f'optimizer.options.{option} of {name}'
  if value is None and (default is None or option == 'clipping_threshold'):
    return
  check_option(where, value, default, strict=name in OPTIMIZERS)
  if name not in OPTIMIZERS or option not in _LIMITS:
    return
  possible, limits = _LIMITS[option]['valid'], _LIMITS[option]['limits']
  if default is None and 'dtype' not in option:
    check_option(where, value, 0.5)
  if not possible(value):
    raise UserError(f'config: {where} must be {limits}, not {shown(value)}')


def _own(rule: _Rule, decayed: Any) -> optax.GradientTransformation:
  """Returns what a user's optax constructor makes."""
  make = rule.constructor
  assert make is not None
  takes = inspect.signature(make).parameters
  anything = any(p.kind is p.VAR_KEYWORD for p in takes.values())
  offered = {
    'weight_decay': rule.weight_decay,
    'mask': decayed,
    'momentum': rule.momentum,
    'nesterov': rule.nesterov,
  }
  options = {key: value for key, value in offered.items() if key in takes}
  if not anything:
    _check_options(rule.name, rule.options, {'learning_rate'}, takes)
  if 'learning_rate' in rule.options:
    raise UserError(
      'config: set optimizer.learning_rate instead of optimizer.options.learning_rate'
    )
  options |= rule.options
  made = parts_lib.call(
    'optimizer.name', make, learning_rate=rule.learning_rate, **options
  )
  if not (hasattr(made, 'init') and hasattr(made, 'update')):
    raise UserError(
      f'config: optimizer.name: {parts_lib.describe(make)} returned '
      f'{type(made).__name__}, not an optax.GradientTransformation'
    )
  return made
