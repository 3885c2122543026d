"""The description of a sweep: which fields, over which values, searched how.

A sweep file is a Python file with a docstring and a function `get_sweep()`:

    from jaxvision.sweeps import Choice, Range, Sweep

    def get_sweep():
      return Sweep(
        space={
          'optimizer.learning_rate': Range(1e-3, 1.0, log=True),
          'model.dropout': Range(0.0, 0.5),
          'batch_size': Choice(32, 64),
        },
        trials=20,
      )

Everything here works without JAX, so that a mistake is told before any work begins.
"""

import dataclasses
import math
import numbers
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvision.config import files
from jaxvision.config import loading as config_lib
from jaxvision.errors import UserError, closest, shown

SAMPLERS = ('tpe', 'random', 'grid')
PRUNERS = ('median', 'halving', 'hyperband', 'none')
_SCALARS = (bool, int, float, str)
_MOST_TRIALS = 10_000
_LARGEST = 2**53  # of whole numbers, all of which up to here are floats


@dataclasses.dataclass(frozen=True)
class Range:
  """Numbers from `low` to `high`, whole ones where both ends are whole.

  Attributes:
    low, high: both included.
    log: spread evenly over the logarithm.
    step: distance of the values; None: any (of whole numbers 1). A grid needs it.
  """

  low: float
  high: float
  log: bool = False
  step: float | None = None

  @property
  def whole(self) -> bool:
    """Whether the values are whole numbers."""
    return all(isinstance(end, int) for end in (self.low, self.high))

  def problem(self) -> str | None:
    """Returns what is wrong with it, or None."""
    for end in (self.low, self.high, 1 if self.step is None else self.step):
      if isinstance(end, bool) or not isinstance(end, numbers.Real):
        return f'{shown(end)} is no number'
      if isinstance(end, int) and abs(end) > _LARGEST:
        return 'whole numbers go from -2**53 to 2**53'
      if not math.isfinite(end):
        return f'{end!r} is not finite'
    if self.low > self.high:
      return f'it is empty: {self.low} is above {self.high}'
    if self.log and self.low <= 0:
      return f'log=True needs values above 0, not {self.low}'
    if self.step is not None and self.step <= 0:
      return f'step must be above 0, not {self.step}'
    if not math.isfinite(self.high - self.low):
      return f'it is too wide: from {self.low} to {self.high}'
    if self.step and (self.high - self.low) / self.step > _LARGEST:
      return f'step={self.step} is too small for so wide a range'
    if self.step is not None and self.log:
      return 'log=True takes no step: name the values with Choice'
    if self.whole and self.step is not None and not isinstance(self.step, int):
      return f'the ends are whole numbers, so step must be one, not {self.step}'
    return None

  def ends(self) -> tuple[float, ...]:
    """Returns the values that are tried out before the sweep begins."""
    return (self.low, self.high)

  def count(self) -> int | None:
    """Returns how many values there are, or None where there is no end of them."""
    if self.step is None and not (self.whole and not self.log):
      return None
    return math.floor((self.high - self.low) / (self.step or 1) + 1e-9) + 1

  def values(self) -> tuple[float, ...]:
    """Returns all values; none where there is no end of them."""
    return tuple(self.low + i * (self.step or 1) for i in range(self.count() or 0))


@dataclasses.dataclass(frozen=True, init=False)
class Choice:
  """Some values: numbers, strings, booleans, or tuples of these."""

  options: tuple[Any, ...]

  def __init__(self, *options: Any):
    object.__setattr__(self, 'options', options)

  def problem(self) -> str | None:
    """Returns what is wrong with it, or None."""
    if not self.options:
      return 'it is empty: name at least one value'
    for option in self.options:
      parts = option if isinstance(option, tuple) else (option,)
      if not all(isinstance(part, _SCALARS) for part in parts):
        return f'{shown(option)} is no number, string, boolean or tuple of these'
    if len(set(self.options)) < len(self.options):
      return 'a value is named twice'
    return None

  def ends(self) -> tuple[Any, ...]:
    """Returns the values that are tried out before the sweep begins."""
    return self.options

  def count(self) -> int:
    """Returns how many values there are."""
    return len(self.options)

  def values(self) -> tuple[Any, ...]:
    """Returns all values."""
    return self.options


@dataclasses.dataclass(frozen=True)
class Sweep:
  """What a sweep tries.

  Attributes:
    space: path of a config field -> `Range` or `Choice`.
    sampler: tpe (tree-structured Parzen estimator, Bergstra et al. 2011), random, or grid,
      which tries every combination once.
    trials: how many, those that failed or were pruned included; of a grid all, unless
      this is fewer. 0: of a grid all, else 20.
    measure: of an evaluation, such as accuracy or loss; empty: what the task is
      ranked by, such as accuracy, or fd of a GAN.
    pruner: what stops bad trials early: median (of the trials before it at the same step),
      halving (ASHA), hyperband, none.
    patience: evaluations of a trial before it may be pruned.
    startup: finished trials before anything is pruned, and drawn at random before tpe
      learns from them.
    seed: of the sampler.
    validation: share of the training split held out to measure trials, where the config
      holds out none: a choice by the test split would make its number too good.
    name: of the study in the database; empty: names of the config and the sweep file.
  """

  space: Mapping[str, Range | Choice]
  sampler: str = 'tpe'
  trials: int = 0
  measure: str = ''
  pruner: str = 'median'
  patience: int = 1
  startup: int = 5
  seed: int = 0
  validation: float = 0.1
  name: str = ''

  @property
  def size(self) -> int:
    """The number of trials."""
    grid = self.combinations() if self.sampler == 'grid' else 0
    if grid:
      return min(grid, self.trials) if self.trials else grid
    return self.trials or 20

  def combinations(self) -> int:
    """Returns how many points a grid over the space has."""
    return math.prod(one.count() or 0 for one in self.space.values())


def validate(sweep: Sweep, config: ConfigDict) -> Sweep:
  """Returns the sweep if it can be run on a config.

  Raises:
    UserError: in one line, the first thing that is wrong: an unknown field, an empty
      range, a value that the field cannot have.
  """
  _check_fields(sweep)
  for path, dimension in sweep.space.items():
    _check(path, dimension, config)
    if sweep.sampler == 'grid' and dimension.count() is None:
      raise UserError(
        f'sweep: {path}: a grid needs values to go through: set step, or use Choice'
      )
  if sweep.size > _MOST_TRIALS:
    raise UserError(
      f'sweep: it has {sweep.size:,} trials, and {_MOST_TRIALS:,} are the most: set '
      'trials, or larger steps'
    )
  return sweep


def _check_fields(sweep: Sweep) -> None:
  """Checks all that can be known without the config."""
  if not isinstance(sweep.space, Mapping):
    raise UserError(
      "sweep: the space is a dict such as {'optimizer.learning_rate': Range(0.01, 1.0)}, "
      f'not {shown(sweep.space)}'
    )
  if not sweep.space:
    raise UserError('sweep: the space is empty: name at least one field')
  for path in sweep.space:
    if not isinstance(path, str) or not path.isprintable():
      raise UserError(
        "sweep: the keys of the space are config fields such as 'batch_size', not "
        f'{shown(path)}'
      )
  for field, known in (('sampler', SAMPLERS), ('pruner', PRUNERS)):
    value = getattr(sweep, field)
    if not isinstance(value, str) or value not in known:
      near = closest(str(value), known)
      raise UserError(
        f'sweep: {field} {shown(value)} is unknown{near} (known: {", ".join(known)})'
      )
  for field in ('trials', 'patience', 'startup', 'seed'):
    value = getattr(sweep, field)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**32:
      raise UserError(
        f'sweep: {field} must be a whole number from 0 and below 2**32, not {shown(value)}'
      )
  share = sweep.validation
  if not isinstance(share, int | float) or not 0 <= share < 1:
    raise UserError(
      f'sweep: validation must be at least 0 and below 1, not {shown(share)}'
    )
  for field in ('measure', 'name'):
    value = getattr(sweep, field)
    if not isinstance(value, str):
      raise UserError(f'sweep: {field} must be a string, not {shown(value)}')
  if '/' in sweep.name or sweep.name in ('.', '..') or len(sweep.name) > 200:
    raise UserError(
      'sweep: name, which is that of its directory too, must have no / and at most 200 '
      f'characters: {shown(sweep.name)}'
    )


def _check(path: str, dimension: Any, config: ConfigDict) -> None:
  if not isinstance(dimension, Range | Choice):
    raise UserError(
      f'sweep: {path} takes Range(...) or Choice(...), not {shown(dimension)}'
    )
  problem = dimension.problem()
  if problem:
    raise UserError(f'sweep: {path}: {problem}')
  for value in dimension.ends():
    try:
      apply(config, {path: value})
    except UserError as error:
      raise UserError(str(error).replace('config: ', 'sweep: ', 1)) from error


def apply(config: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
  """Returns the config of a trial: a copy with the values put in, checked.

  Raises:
    UserError: see `config.validate`.

  >>> apply(config_lib.base_config(), {'batch_size': 32}).batch_size
  32
  """
  changed = config_lib.thaw(config_lib.validate(config))
  for path, value in values.items():
    config_lib.put(changed, path, value)
  return config_lib.validate(changed)


def load(path: str | Path, config: ConfigDict) -> Sweep:
  """Reads a sweep file and checks it against the config that it will vary.

  Raises:
    UserError: the file is missing or raises, or the sweep is not possible.
  """
  path = Path(path)
  found = files.call(path, 'get_sweep', 'sweep file')
  if not isinstance(found, Sweep):
    raise UserError(
      f'sweep file {path}: get_sweep() must return a Sweep, not {type(found).__name__}'
    )
  if not found.name:
    found = dataclasses.replace(found, name=f'{config.name}-{path.stem}')
  return validate(found, config)
