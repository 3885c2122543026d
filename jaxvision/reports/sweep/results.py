"""Results of a sweep."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxvision.config.search_space import Choice, Range
from jaxvision.reports import html

_ENDS = {'COMPLETE': 'done', 'PRUNED': 'pruned', 'FAIL': 'failed'}


@dataclasses.dataclass(frozen=True)
class Result:
  """Result of a trial.

  Attributes:
    number: number of the trial, from 0.
    values: path of the field -> value.
    end: 'done', 'pruned' or 'failed'.
    value: final value of the measure, for a pruned trial the last one; None if it failed.
    reports: step -> value of the measure.
    error: why it failed, or ''.
    seconds: training time, or None.
    host: host name, or ''.
  """

  number: int
  values: Mapping[str, Any]
  end: str
  value: float | None
  reports: Mapping[int, float]
  error: str
  seconds: float | None
  host: str

  @classmethod
  def of(cls, trial: Any, values: Mapping[str, Any]) -> 'Result':
    """Returns the result of an Optuna trial that has ended."""
    attributes = trial.user_attrs
    return cls(
      number=trial.number,
      values=values,
      end=_ENDS[trial.state.name],
      value=trial.value,
      reports=dict(trial.intermediate_values),
      error=attributes.get('error', ''),
      seconds=attributes.get('seconds_train'),
      host=attributes.get('host', ''),
    )


@dataclasses.dataclass(frozen=True)
class Results:
  """A sweep with its trials.

  Attributes:
    name, config_name: names of the sweep and of its config.
    measure, mode: metric that ranks trials, and 'max' or 'min'.
    sampler: 'tpe', 'random' or 'grid'.
    size: number of trials of the complete sweep.
    space: path of the field -> search space.
    trials: trials that have ended, by number.
    importances: field -> share of the variance that it explains, largest first.
    machine: hardware and commit, as in summary.json.
    synthetic: whether the images are synthetic.
    held_out: whether trials are measured on images held out of the training split.
  """

  name: str
  config_name: str
  measure: str
  mode: str
  sampler: str
  size: int
  space: Mapping[str, Range | Choice]
  trials: Sequence[Result]
  importances: Mapping[str, float]
  machine: Mapping[str, Any]
  synthetic: bool
  held_out: bool

  @property
  def percent(self) -> bool:
    """Returns whether the measure is a share."""
    return is_share(self.measure)

  def text(self, value: float | None) -> str:
    """Formats a value of the measure."""
    return measured(self.measure, value)

  def ranked(self) -> list[Result]:
    """Returns finished trials by value, then pruned ones, then failed ones."""
    sign = -1 if self.mode == 'max' else 1
    places = {'done': 0, 'pruned': 1, 'failed': 2}
    return sorted(
      self.trials,
      key=lambda t: (
        places[t.end],
        sign * t.value if t.value is not None else np.inf,
        t.number,
      ),
    )

  def best(self) -> Result | None:
    """Returns the best finished trial, or None."""
    first = self.ranked()[:1]
    return first[0] if first and first[0].end == 'done' else None

  def best_so_far(self) -> list[tuple[int, float]]:
    """Returns (number, best value so far) for each finished trial."""
    better = max if self.mode == 'max' else min
    found: list[tuple[int, float]] = []
    for trial in self.trials:
      if trial.end == 'done' and trial.value is not None:
        value = better(trial.value, found[-1][1]) if found else trial.value
        found.append((trial.number, value))
    return found

  def counts(self) -> dict[str, int]:
    """Returns the number of trials for each way to end."""
    return {
      end: sum(t.end == end for t in self.trials)
      for end in ('done', 'pruned', 'failed')
    }


def is_share(measure: str) -> bool:
  """Returns whether a measure is shown in per cent."""
  return measure.startswith('accuracy') or measure == 'confidence'


def measured(measure: str, value: float | None) -> str:
  """Formats a value of a measure.

  >>> measured('accuracy', 0.98765), measured('loss', 0.0123456)
  ('98.77%', '0.01235')
  """
  return html.percent(value) if is_share(measure) else html.number(value, '.4g')


def setting(value: Any) -> str:
  """Formats the value of a field.

  >>> setting(0.00123456), setting('adam'), setting(64)
  ('0.00123', 'adam', '64')
  """
  return f'{value:.3g}' if isinstance(value, float) else html.text(value)


def overrides(values: Mapping[str, Any]) -> str:
  """Returns the values as options of the train command.

  >>> overrides({'batch_size': 64, 'optimizer.name': 'adam'})
  '--config.batch_size=64 --config.optimizer.name=adam'
  """
  given = [f'--config.{path}={value}' for path, value in values.items()]
  return html.command_line(given)


def place(dimension: Range | Choice, value: Any) -> float:
  """Returns the position of a value on the axis of its field, from 0 to 1.

  >>> place(Range(1e-4, 1.0, log=True), 1e-2), place(Choice('a', 'b', 'c'), 'b')
  (0.5, 0.5)
  """
  if isinstance(dimension, Choice):
    options = list(dimension.options)
    return options.index(value) / (len(options) - 1) if len(options) > 1 else 0.5
  low, high = dimension.low, dimension.high
  if low == high:
    return 0.5
  if dimension.log:
    return float(np.log(value / low) / np.log(high / low))
  return (value - low) / (high - low)


def ticks(dimension: Range | Choice) -> list[tuple[float, str]]:
  """Returns (position, text) of the ticks of an axis."""
  if isinstance(dimension, Choice):
    return [(place(dimension, option), str(option)) for option in dimension.options]
  low, high = dimension.low, dimension.high
  if low == high:
    return [(0.5, f'{low:g}')]
  if dimension.log:
    first, last = np.ceil(np.log10(low) - 1e-9), np.floor(np.log10(high) + 1e-9)
    decades = [10.0**e for e in np.arange(first, last + 1)]
    values = decades if len(decades) > 1 else [low, float(np.sqrt(low * high)), high]
  else:
    values = np.linspace(low, high, 5).tolist()
    if dimension.whole:
      values = sorted({round(value) for value in values})
  return [(place(dimension, value), f'{value:.3g}') for value in values]
