"""The files of a comparison: HTML, CSV, JSON and the charts."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxvision.io import write_all
from jaxvision.reports import html, style
from jaxvision.reports.comparison import plots
from jaxvision.reports.comparison.groups import (
  Comparison,
  Difference,
  Measure,
  RunGroup,
)

# A column of the table: title, key in comparison.json, value and its text.
Column = tuple[str, str, Callable[[RunGroup], Any], Callable[[Any], str]]
# Further metrics of summary.json that are shown if a run has them: title, key, format.
_FURTHER = (('test loss', 'test_loss', '.4f'), ('recall', 'recall', '.3f'))


def write_comparison(directory: str | Path, comparison: Comparison) -> Path:
  """Writes a comparison into a directory.

  The files are comparison.html, which needs no other file, comparison.csv with a row for
  each run, comparison.json and the charts as PNG. Each is replaced as a whole.

  Args:
    directory: is created if it does not exist.
    comparison: the comparison.

  Returns:
    Path of comparison.html.
  """
  charts = _charts(comparison)
  values = {
    'measure': comparison.measure,
    'notes': comparison.notes,
    'groups': comparison.groups,
    'columns': [title for title, *_ in columns(comparison)],
    'rows': [_row(comparison, group) for group in comparison.groups],
    'fields': comparison.fields,
    'setting': lambda group, path: html.text(group.runs[0].fields.get(path)),
    'tests': [sentence(comparison, test) for test in comparison.tests],
    'charts': charts,
    'circumstances': lambda run: html.circumstances(run.summary),
    'command': lambda run: html.command_line(run.summary.get('command')),
    'measured': lambda value: measured(comparison.measure, value),
  }
  files: dict[str, str | bytes] = {
    **{plot.file: plot.light for plot in charts.values()},
    'comparison.html': html.render('comparison.html.j2', **values),
    'comparison.csv': as_csv(comparison),
    'comparison.json': html.lined_json(as_json(comparison)),
  }
  target = Path(directory)
  write_all(target, files)
  return target / 'comparison.html'


def _row(comparison: Comparison, group: RunGroup) -> list[tuple[Any, str]]:
  """Returns (value, its text) of each column."""
  (_, _, first, _), *others = columns(comparison)
  return [
    (first(group), spread(comparison.measure, group)),
    *((value(group), text(value(group))) for _, _, value, text in others),
  ]


def measured(measure: Measure, value: float | None) -> str:
  """Formats a value of the measure, or the dash.

  >>> error = Measure('test_mae', 'MAE', 'test', 'mae', 'min', percent=False)
  >>> measured(error, 0.012345), measured(error, 123.456)
  ('0.01235', '123.46')
  """
  if measure.percent:
    return html.percent(value)
  return html.number(value, _spec(value))


def _spec(value: float | None) -> str:
  """Returns the format of a value that is no share."""
  return '.4g' if value is not None and abs(value) < 1 else '.2f'


def spread(measure: Measure, group: RunGroup) -> str:
  """Formats mean and standard deviation: '93.10% ± 0.12', '6.58', or the dash.

  The deviation of a percentage is in percentage points.
  """
  text = measured(measure, group.mean)
  if group.deviation is None:
    return text
  if measure.percent:
    return f'{text} ± {100 * group.deviation:.2f}'
  return f'{text} ± {html.number(group.deviation, _spec(group.mean))}'


def _further(comparison: Comparison) -> list[tuple[str, str, str]]:
  """Returns those of `_FURTHER` that a run has and that are not the measure."""
  return [
    (title, key, spec)
    for title, key, spec in _FURTHER
    if key != comparison.measure.key
    and any(group.average(key) is not None for group in comparison.groups)
  ]


def columns(comparison: Comparison) -> list[Column]:
  """Returns the columns of the table."""
  measure = comparison.measure
  return [
    (measure.label, measure.key, lambda g: g.mean, lambda v: measured(measure, v)),
    ('seeds', 'seeds', lambda g: len(g.runs), _number(',')),
    *(_average(title, key, _number(spec)) for title, key, spec in _further(comparison)),
    ('parameters', 'params', lambda g: g.params, _number(',')),
    ('FLOPs', 'flops', lambda g: g.flops, _number(',')),
    _average('epochs', 'epochs', _number('.4g')),
    _average('training time', 'seconds_train', html.elapsed_time),
    _average('images/s', 'images_per_second', _number(',.0f')),
  ]


def _average(title: str, key: str, text: Callable[[Any], str]) -> Column:
  """Returns the column of a number in summary.json."""
  return title, key, lambda group: group.average(key), text


def _number(spec: str) -> Callable[[Any], str]:
  return lambda value: html.number(value, spec)


def lines(comparison: Comparison) -> list[str]:
  """Returns the table, the tests and the notes as lines for the terminal."""
  measure = comparison.measure
  width = max(len(group.label) for group in comparison.groups)
  found = []
  for group in comparison.groups:
    seeds = f'{len(group.runs)} seed{"s" if len(group.runs) > 1 else ""}'
    line = (
      f'{group.label:{width}}  {spread(measure, group)}  ({seeds}; '
      f'{html.number(group.params)} parameters, '
      f'{html.elapsed_time(group.average("seconds_train"))})'
    )
    found.append('; '.join([line, *group.incomparable_because]))
  found += [sentence(comparison, test) for test in comparison.tests]
  return found + [f'note: {note}' for note in comparison.notes]


def sentence(comparison: Comparison, test: Difference) -> str:
  """Describes the result of a test in a sentence."""
  measure = comparison.measure

  def text(value: float) -> str:
    return f'{100 * value:.2f}' if measure.percent else measured(measure, value)

  difference = text(abs(test.difference)) + (' points' if measure.percent else '')
  if test.significant:
    better = 'above' if measure.sign > 0 else 'below'
    low, high = (text(end) for end in sorted(map(abs, test.interval)))
    return (
      f'{test.best} is {difference} {better} {test.other} (95 % interval {low} to '
      f'{high}, p = {test.p:.2g})'
    )
  return (
    f'{test.best} and {test.other} differ by {difference}, which may be chance '
    f'(p = {test.p:.2g})'
  )


def as_csv(comparison: Comparison) -> str:
  """Returns a table with a row for each run and unrounded numbers."""
  keys = (
    comparison.measure.key,
    *(key for _, key, _ in _further(comparison)),
    'steps',
    'epochs',
    'seconds_train',
    'seconds_total',
    'images_per_second',
    'device_kind',
    'device_count',
    'dtype',
    'git_commit',
  )
  buffer = io.StringIO()
  writer = csv.writer(buffer, lineterminator='\n')
  writer.writerow(
    ['entry', 'run', 'seed', 'params', 'flops', *keys, *comparison.fields, 'marks']
  )
  for group in comparison.groups:
    for run in group.runs:
      writer.writerow(
        [
          group.label,
          run.name,
          run.summary.get('seed'),
          group.params,
          group.flops,
          *(run.summary.get(key) for key in keys),
          *(run.fields.get(path) for path in comparison.fields),
          '; '.join(group.incomparable_because),
        ]
      )
  return buffer.getvalue()


def as_json(comparison: Comparison) -> dict[str, Any]:
  """Returns the content of comparison.json."""
  return {
    'measure': comparison.measure.key,
    'notes': comparison.notes,
    'entries': [
      {
        'label': group.label,
        'runs': [run.name for run in group.runs],
        'seeds_values': group.values,
        'deviation': group.deviation,
        **{key: value(group) for _, key, value, _ in columns(comparison)},
        'hardware': group.shared('device_kind'),
        'fields': {path: group.runs[0].fields.get(path) for path in comparison.fields},
        'marks': group.incomparable_because,
      }
      for group in comparison.groups
    ],
    'tests': [
      {
        'best': test.best,
        'other': test.other,
        'difference': test.difference,
        'interval_95': test.interval,
        'p_holm': test.p,
      }
      for test in comparison.tests
    ],
  }


def _charts(comparison: Comparison) -> dict[str, style.Plot]:
  groups, measure = comparison.groups, comparison.measure
  names = ', '.join(group.label for group in groups[: plots.DRAWN])
  charts = {}
  if any(group.values for group in groups):
    charts['ranking'] = style.draw(
      'ranking.png',
      f'{measure.label} of {names}, with its standard deviation over seeds.',
      lambda theme: plots.bars(groups, measure, theme),
      narrow=True,
    )
  if any(
    point.get('split') == measure.split and point.get(measure.logged) is not None
    for group in groups
    for run in group.runs
    for point in run.history
  ):
    charts['curves'] = style.draw(
      'curves.png',
      f'{measure.label} against the training step for {names}.',
      lambda theme: plots.curves(groups, measure, theme),
      narrow=True,
    )
  for name, label, costs in (
    ('time', 'training time (s)', [g.average('seconds_train') for g in groups]),
    ('parameters', 'parameters', [g.params for g in groups]),
    ('flops', 'FLOPs per image', [g.flops for g in groups]),
  ):
    known = {c for c, group in zip(costs, groups) if c and group.values}
    if len(known) > 1:
      charts[name] = style.draw(
        f'against_{name}.png',
        f'{measure.label} against {label} for {names}.',
        lambda theme, label=label, costs=costs: plots.against(
          groups, costs, label, measure, theme
        ),
        narrow=True,
      )
  return charts
