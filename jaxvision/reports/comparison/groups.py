"""Groups finished runs by their configs, ranks the groups and tests their differences."""

import collections
import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from jaxvision.errors import UserError
from jaxvision.metrics.significance import holm, welch_test

# Fields in which the runs of one group may differ.
_NOT_COMPARED = ('seed', 'data.split_seed', 'name')
_MOST_NAMED = (
  3  # fields in a label; groups that differ in more are named by a directory
)
_LEVEL = 0.05  # of significance


@dataclasses.dataclass(frozen=True)
class FinishedRun:
  """One finished run.

  Attributes:
    name: name of its directory.
    fields: path -> value of the config's fields that change what it computes.
    summary: its summary.json.
    history: its metrics.jsonl, parsed.
    flops: FLOPs of the forward pass of one image, or of drawing one sample, or None.
  """

  name: str
  fields: Mapping[str, Any]
  summary: Mapping[str, Any]
  history: Sequence[Mapping[str, Any]] = ()
  flops: int | None = None

  @property
  def choices(self) -> dict[str, Any]:
    """Returns the fields without the seeds and the name."""
    return {p: value for p, value in self.fields.items() if p not in _NOT_COMPARED}

  @property
  def config_name(self) -> str:
    """Returns the name of its config, by default the name of its directory."""
    return str(self.summary.get('config_name') or self.name)


@dataclasses.dataclass(frozen=True)
class Measure:
  """The metric that runs are ranked by, as "measure" in summary.json.

  Attributes:
    key: its key in summary.json.
    label: its name for readers.
    split, logged: split and key of its values in metrics.jsonl.
    mode: 'max' if higher values are better, 'min' if lower ones are.
    percent: whether it is shown in per cent.
  """

  key: str
  label: str
  split: str
  logged: str
  mode: str
  percent: bool

  @property
  def sign(self) -> int:
    """Returns 1 if higher values are better, otherwise -1."""
    return 1 if self.mode == 'max' else -1


# Measures of runs whose summary.json does not name one, by task.
MEASURES = {
  'classification': Measure(
    'test_accuracy', 'test accuracy', 'test', 'accuracy', 'max', True
  ),
  'gan': Measure('fd', 'Fréchet distance', 'samples', 'fd', 'min', False),
}


def measure_of(run: FinishedRun) -> Measure:
  """Returns the measure that summary.json names, by default that of the task.

  Raises:
    UserError: summary.json names no measure, or an incomplete one.
  """
  given, task = run.summary.get('measure'), run.summary.get('task')
  if given is None and task in MEASURES:
    return MEASURES[task]
  try:
    measure = Measure(**(given or {}))
  except TypeError:
    measure = None
  if measure is None or measure.mode not in ('max', 'min'):
    names = ', '.join(field.name for field in dataclasses.fields(Measure))
    raise UserError(
      f'compare: summary.json of {run.name} does not say what to rank by: it needs '
      f'"measure" with {names}, mode being "max" or "min"'
    )
  return measure


@dataclasses.dataclass(frozen=True)
class RunGroup:
  """Runs that differ only in their seeds.

  Attributes:
    label: name of the group.
    runs: runs in the order of their seeds.
    values: measure of the runs that have it.
    incomparable_because: differences to most other groups that forbid a comparison.
  """

  label: str
  runs: tuple[FinishedRun, ...]
  values: tuple[float, ...]
  incomparable_because: tuple[str, ...] = ()

  @property
  def mean(self) -> float | None:
    """Returns the mean of the measure."""
    return statistics.mean(self.values) if self.values else None

  @property
  def deviation(self) -> float | None:
    """Returns the standard deviation over seeds (n - 1), None for fewer than two."""
    return statistics.stdev(self.values) if len(self.values) > 1 else None

  def average(self, key: str) -> float | None:
    """Returns the mean of a number of summary.json over the runs that have it."""
    found = [
      run.summary[key]
      for run in self.runs
      if isinstance(run.summary.get(key), int | float)
    ]
    return statistics.mean(found) if found else None

  def shared(self, key: str) -> str:
    """Returns the text that the runs have in summary.json, joined if they differ."""
    return ', '.join(
      sorted({str(run.summary[key]) for run in self.runs if run.summary.get(key)})
    )

  @property
  def params(self) -> int | None:
    """Returns the number of parameters of all networks of the run."""
    summary = self.runs[0].summary
    counts = [
      count
      for key, count in summary.items()
      if (key == 'params' or key.endswith('_params')) and isinstance(count, int)
    ]
    return sum(counts) if counts else None

  @property
  def flops(self) -> int | None:
    """See `FinishedRun`."""
    return self.runs[0].flops


@dataclasses.dataclass(frozen=True)
class Difference:
  """Welch's t-test of the means of two groups.

  Attributes:
    best, other: labels of the groups.
    difference: mean of `best` minus mean of `other`.
    interval: 95 % confidence interval of the difference.
    p: two-sided p-value after Holm's correction.
  """

  best: str
  other: str
  difference: float
  interval: tuple[float, float]
  p: float

  @property
  def significant(self) -> bool:
    """Returns whether p is below 5 %."""
    return self.p < _LEVEL


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Several groups of runs, ranked.

  Attributes:
    measure: the metric that they are ranked by.
    groups: the best first, groups without a value last.
    fields: paths of the config fields in which groups differ.
    tests: tests of the best comparable group against the other comparable ones.
    notes: warnings that stand at the head of the page.
  """

  measure: Measure
  groups: tuple[RunGroup, ...]
  fields: tuple[str, ...]
  tests: tuple[Difference, ...]
  notes: tuple[str, ...]


def compare(runs: Sequence[FinishedRun]) -> Comparison:
  """Groups runs by their configs, ranks the groups and tests the best against the rest.

  Raises:
    UserError: fewer than two runs, or runs that are not ranked by one measure.
  """
  if len(runs) < 2:
    raise UserError('compare: name two or more workdirs')
  measure = _common_measure(runs)
  members = _grouped(runs)
  first = [group[0] for group in members]
  groups = [
    RunGroup(
      label,
      tuple(group),
      tuple(
        float(run.summary[measure.key])
        for run in group
        if run.summary.get(measure.key) is not None
      ),
      reasons,
    )
    for label, group, reasons in zip(_labels(first), members, _incomparable(first))
  ]
  groups.sort(
    key=lambda g: -math.inf if g.mean is None else measure.sign * g.mean, reverse=True
  )
  comparable = [g for g in groups if g.values and not g.incomparable_because]
  tests = welch([(comparable[0], other) for other in comparable[1:]])
  fields = _differing([run.choices for run in first])
  notes = tuple(_notes(measure, groups, tests))
  return Comparison(measure, tuple(groups), fields, tests, notes)


def _common_measure(runs: Sequence[FinishedRun]) -> Measure:
  tasks = sorted({str(run.summary.get('task')) for run in runs})
  measures = {measure.key: measure for measure in map(measure_of, runs)}
  # Samples are measured in one way, whatever task drew them.
  drawn = all(measure.split == 'samples' for measure in measures.values())
  if len(tasks) > 1 and not drawn:
    raise UserError(
      f'compare: runs of the tasks {", ".join(tasks)} have no measure in common: compare '
      'runs of one task'
    )
  if len(measures) > 1:
    raise UserError(
      f'compare: the runs are ranked by several measures ({", ".join(measures)}): compare '
      'runs with one measure'
    )
  return measures.popitem()[1]


def _grouped(runs: Sequence[FinishedRun]) -> list[list[FinishedRun]]:
  """Returns the runs that differ only in their seeds together, by seed."""
  groups: list[list[FinishedRun]] = []
  for run in runs:
    for group in groups:
      first = group[0]
      if (first.config_name, first.choices) == (run.config_name, run.choices):
        group.append(run)
        break
    else:
      groups.append([run])
  return [
    sorted(group, key=lambda run: run.summary.get('seed') or 0) for group in groups
  ]


def _differing(choices: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
  """Returns the paths whose values are not the same everywhere."""
  paths = sorted(set().union(*choices))
  return tuple(
    path for path in paths if any(c.get(path) != choices[0].get(path) for c in choices)
  )


def _labels(runs: Sequence[FinishedRun]) -> list[str]:
  """Names each run by its config and, where configs repeat, by its own settings."""
  configs = [run.config_name for run in runs]
  labels = []
  for run, config in zip(runs, configs):
    same = [r for r, c in zip(runs, configs) if c == config]
    label = config
    if len(same) > 1:
      own = _differing([r.choices for r in same])
      if len(own) <= _MOST_NAMED:
        label += ' ' + ' '.join(f'{path}={run.choices.get(path)}' for path in own)
      else:
        label = run.name
    labels.append(label)
  counts = collections.Counter(labels)
  return [run.name if counts[label] > 1 else label for run, label in zip(runs, labels)]


def _conditions(run: FinishedRun) -> dict[str, str]:
  """Returns what must be equal for two runs to be comparable."""
  epochs = run.summary.get('epochs')
  found = {
    'data': str(run.summary.get('dataset')),
    'length': '' if epochs is None else f'{epochs:.3g} epochs',
    'protocol': str(run.summary.get('protocol') or ''),
  }
  for path in ('data.image_size', 'data.train_fraction', 'data.examples_per_class'):
    if path in run.fields:
      found[path] = f'{path}={run.fields[path]}'
  return found


def _incomparable(runs: Sequence[FinishedRun]) -> list[tuple[str, ...]]:
  """Returns for each run the conditions in which it differs from most of the others."""
  conditions = [_conditions(run) for run in runs]
  reasons: list[list[str]] = [[] for _ in runs]
  for name in dict.fromkeys(name for found in conditions for name in found):
    values = [found.get(name, '') for found in conditions]
    (usual, _), *_ = collections.Counter(values).most_common()
    for own, value in zip(reasons, values):
      if value != usual:
        own.append(f'{value or "not known"}, not {usual or "not known"}')
  return [tuple(own) for own in reasons]


def welch(pairs: Sequence[tuple[RunGroup, RunGroup]]) -> tuple[Difference, ...]:
  """Tests the mean of each first group against that of its second.

  Pairs that `welch_test` cannot test are left out. Holm's correction is for the number
  of tests that remain.
  """
  tested = [(one, other, welch_test(one.values, other.values)) for one, other in pairs]
  found = [(one, other, test) for one, other, test in tested if test]
  corrected = holm([test.p for *_, test in found])
  return tuple(
    Difference(one.label, other.label, test.difference, test.interval, p)
    for (one, other, test), p in zip(found, corrected)
  )


def _notes(
  measure: Measure, groups: Sequence[RunGroup], tests: Sequence[Difference]
) -> list[str]:
  notes = []
  if any(run.summary.get('synthetic') for group in groups for run in group.runs):
    notes.append('Some runs were measured on synthetic data.')
  if any(group.incomparable_because for group in groups):
    notes.append(
      'Marked runs differ from the others in data, length or protocol: their rank has '
      'no meaning.'
    )
  missing = [group.label for group in groups if not group.values]
  if missing:
    notes.append(f'{", ".join(missing)}: no {measure.label} was measured.')
  devices = {group.shared('device_kind') for group in groups} - {''}
  if len(devices) > 1:
    notes.append('Times come from several kinds of hardware: do not compare them.')
  if len(groups) > 1 and not tests:
    notes.append(
      'No differences were tested: tests need two or more seeds of the best and of '
      'another group.'
    )
  return notes
