"""Runs side by side: what they reached, by what they differ, what may be compared."""

import collections
import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from jaxvision.errors import UserError
from jaxvision.metrics.significance import holm, welch_test

# Fields that are not a choice: what is drawn again, and what the run is called.
_CHOSEN_BY_NOBODY = ('seed', 'data.split_seed', 'name')
_NAMED = 3  # fields that a label may name; by more, the directory's name says it better
_LEVEL = 0.05  # of significance


@dataclasses.dataclass(frozen=True)
class Run:
  """One finished run.

  Attributes:
    name: of its directory.
    fields: path -> value of the config's fields that change what it computes.
    summary: its summary.json.
    history: its metrics.jsonl, parsed.
    flops: of one image forward, of a GAN of one sample; None where not known.
  """

  name: str
  fields: Mapping[str, Any]
  summary: Mapping[str, Any]
  history: Sequence[Mapping[str, Any]] = ()
  flops: int | None = None

  @property
  def choices(self) -> dict[str, Any]:
    """The fields without the seeds and the name."""
    return {p: value for p, value in self.fields.items() if p not in _CHOSEN_BY_NOBODY}

  @property
  def config_name(self) -> str:
    """Of its config, or else of its directory."""
    return str(self.summary.get('config_name') or self.name)


@dataclasses.dataclass(frozen=True)
class Measure:
  """What runs of a task are ranked by.

  Attributes:
    key: in summary.json.
    label: for people.
    split, logged: where the log has it.
    sign: 1 where more is better, -1 where less is.
    percent: whether it is a share that people read in per cent.
  """

  key: str
  label: str
  split: str
  logged: str
  sign: int
  percent: bool


MEASURES = {
  'classification': Measure(
    'test_accuracy', 'test accuracy', 'test', 'accuracy', 1, True
  ),
  'gan': Measure(
    'fd',
    'Fr\N{LATIN SMALL LETTER E WITH ACUTE}chet distance',
    'samples',
    'fd',
    -1,
    False,
  ),
}


@dataclasses.dataclass(frozen=True)
class Entry:
  """Runs that differ in nothing but their seeds.

  Attributes:
    label: what it is called beside the others.
    runs: by their seeds.
    values: of the measure, of the runs that have it.
    marks: why it may not be compared with most of the others.
  """

  label: str
  runs: tuple[Run, ...]
  values: tuple[float, ...]
  marks: tuple[str, ...] = ()

  @property
  def mean(self) -> float | None:
    """Mean of the measure."""
    return statistics.mean(self.values) if self.values else None

  @property
  def deviation(self) -> float | None:
    """Standard deviation over the seeds (n - 1); None of fewer than two."""
    return statistics.stdev(self.values) if len(self.values) > 1 else None

  def average(self, key: str) -> float | None:
    """Mean of a number of summary.json over the runs that have it."""
    found = [
      run.summary[key]
      for run in self.runs
      if isinstance(run.summary.get(key), int | float)
    ]
    return statistics.mean(found) if found else None

  def shared(self, key: str) -> str:
    """Returns a text of summary.json, or several where the runs do not agree."""
    return ', '.join(
      sorted({str(run.summary[key]) for run in self.runs if run.summary.get(key)})
    )

  @property
  def params(self) -> int | None:
    """Parameters of the model; of a GAN, of both networks."""
    summary = self.runs[0].summary
    if summary.get('generator_params') is not None:
      return summary['generator_params'] + summary['discriminator_params']
    return summary.get('params')

  @property
  def flops(self) -> int | None:
    """See `Run`."""
    return self.runs[0].flops


@dataclasses.dataclass(frozen=True)
class Difference:
  """Welch's t-test of one entry, in a ranking the best, against another, over seeds.

  Attributes:
    best, other: labels.
    difference: of the means, best minus other.
    interval: 95 % confidence interval of it.
    p: two-sided, after Holm's correction.
  """

  best: str
  other: str
  difference: float
  interval: tuple[float, float]
  p: float

  @property
  def significant(self) -> bool:
    """Whether chance would rarely make such a difference."""
    return self.p < _LEVEL


@dataclasses.dataclass(frozen=True)
class Comparison:
  """What there is to say of several runs.

  Attributes:
    measure: what they are ranked by.
    entries: the best first, those without a value last.
    fields: paths in which entries differ.
    tests: of the best unmarked entry against the others, where there are seeds.
    notes: sentences that a reader must know.
  """

  measure: Measure
  entries: tuple[Entry, ...]
  fields: tuple[str, ...]
  tests: tuple[Difference, ...]
  notes: tuple[str, ...]


def compare(runs: Sequence[Run]) -> Comparison:
  """Groups runs by their configs, ranks the groups and marks what is unlike.

  Raises:
    UserError: fewer than two runs, or runs of several tasks.
  """
  if len(runs) < 2:
    raise UserError('compare: name two or more workdirs')
  tasks = {run.summary.get('task') for run in runs}
  if len(tasks) > 1:
    raise UserError(
      'compare: classifiers and GANs have no measure in common: compare one task at a '
      'time'
    )
  measure = _measure(runs[0].summary)
  groups = _grouped(runs)
  fields = _differing([group[0].choices for group in groups])
  labels = _labels([group[0] for group in groups])
  marks = _marks(groups, measure)
  entries = [
    Entry(
      label,
      tuple(group),
      tuple(
        float(run.summary[measure.key])
        for run in group
        if run.summary.get(measure.key) is not None
      ),
      mark,
    )
    for label, group, mark in zip(labels, groups, marks)
  ]
  entries.sort(
    key=lambda e: -math.inf if e.mean is None else measure.sign * e.mean, reverse=True
  )
  tests = _tests(entries)
  return Comparison(
    measure, tuple(entries), fields, tests, tuple(_notes(measure, entries, tests))
  )


def _measure(summary: dict[str, Any]) -> Measure:
  """Returns what runs are ranked by, as their task has it."""
  if known := summary.get('measure'):
    known = dict(known)
    sign = 1 if known.pop('mode') == 'max' else -1
    return Measure(sign=sign, **known)
  return MEASURES[summary['task']]  # of a run of an earlier version


def _grouped(runs: Sequence[Run]) -> list[list[Run]]:
  """Returns the runs that differ in their seeds alone, together and by seed."""
  groups: list[list[Run]] = []
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


def _labels(runs: Sequence[Run]) -> list[str]:
  """Names each by its config, and where that is not enough by what it differs in."""
  configs = [run.config_name for run in runs]
  labels = []
  for run, config in zip(runs, configs):
    same = [r for r, c in zip(runs, configs) if c == config]
    label = config
    if len(same) > 1:
      own = _differing([r.choices for r in same])
      if len(own) <= _NAMED:
        label += ' ' + ' '.join(f'{path}={run.choices.get(path)}' for path in own)
      else:
        label = run.name
    labels.append(label)
  counts = collections.Counter(labels)
  return [run.name if counts[label] > 1 else label for run, label in zip(runs, labels)]


def _marks(groups: Sequence[Sequence[Run]], measure: Measure) -> list[tuple[str, ...]]:
  """Returns for each group in what it is unlike most of them."""

  def of(group: Sequence[Run]) -> dict[str, str]:
    run = group[0]
    epochs = run.summary.get('epochs')
    found = {
      'data': str(run.summary.get('dataset')),
      'length': '' if epochs is None else f'{epochs:.3g} epochs',
    }
    for path in ('data.image_size', 'data.train_fraction', 'data.examples_per_class'):
      if path in run.fields:
        found[path] = f'{path}={run.fields[path]}'
    if measure.key == 'fd':
      found['judge'] = str(run.summary.get('protocol'))
    return found

  facts = [of(group) for group in groups]
  marks: list[list[str]] = [[] for _ in groups]
  for name in facts[0]:
    values = [fact.get(name, '') for fact in facts]
    (usual, _), *others = collections.Counter(values).most_common()
    if not others:
      continue
    for mark, value in zip(marks, values):
      if value != usual:
        mark.append(f'{value or "not known"}, not {usual or "not known"}')
  return [tuple(mark) for mark in marks]


def _tests(entries: Sequence[Entry]) -> tuple[Difference, ...]:
  """Tests the best of the entries that are alike against the others of them."""
  alike = [entry for entry in entries if entry.values and not entry.marks]
  return welch([(alike[0], other) for other in alike[1:]]) if alike else ()


def welch(pairs: Sequence[tuple[Entry, Entry]]) -> tuple[Difference, ...]:
  """Tests the mean of each first entry against that of its second.

  Pairs that `welch_test` cannot test are left out. Holm's correction is for the number
  of those that stay.
  """
  tested = [(one, other, welch_test(one.values, other.values)) for one, other in pairs]
  found = [(one, other, test) for one, other, test in tested if test]
  corrected = holm([test.p for *_, test in found])
  return tuple(
    Difference(one.label, other.label, test.difference, test.interval, p)
    for (one, other, test), p in zip(found, corrected)
  )


def _notes(
  measure: Measure, entries: Sequence[Entry], tests: Sequence[Difference]
) -> list[str]:
  notes = []
  if any(run.summary.get('synthetic') for entry in entries for run in entry.runs):
    notes.append(
      'Some of the data are synthetic: what was measured on them says nothing.'
    )
  if any(entry.marks for entry in entries):
    notes.append(
      'Marked runs are unlike the others in data or length: their place in the table '
      'says nothing.'
    )
  missing = [entry.label for entry in entries if not entry.values]
  if missing:
    notes.append(f'No {measure.label} was measured of {", ".join(missing)}.')
  devices = {entry.shared('device_kind') for entry in entries} - {''}
  if len(devices) > 1:
    notes.append(
      'Times were measured on several kinds of hardware: do not compare them.'
    )
  if len(entries) > 1 and not tests:
    notes.append(
      'Which differences are chance cannot be said: it takes two or more seeds of the '
      'best and of another.'
    )
  return notes
