"""The files of a comparison: HTML, CSV, JSON and the charts."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxvision.io import write_all
from jaxvision.reports import html, style
from jaxvision.reports.comparison import plots
from jaxvision.reports.comparison.groups import Comparison, Difference, Entry, Measure

# Columns of the table: title, key in comparison.csv and .json, value, and its text.
Column = tuple[str, str, Callable[[Entry], Any], Callable[[Any], str]]


def write_comparison(directory: str | Path, comparison: Comparison) -> Path:
  """Writes a comparison into a directory.

  comparison.html (one file that needs nothing else), .csv (one row for each run), .json,
  and the charts as PNG. Every file is replaced as a whole.

  Args:
    directory: is made where it is not there.
    comparison: what to write.

  Returns:
    Path of comparison.html.
  """
  charts = _charts(comparison)
  values = {
    'measure': comparison.measure,
    'notes': comparison.notes,
    'entries': comparison.entries,
    'columns': [title for title, *_ in columns(comparison.measure)],
    'rows': [_row(comparison.measure, entry) for entry in comparison.entries],
    'fields': comparison.fields,
    'setting': lambda entry, path: html.text(entry.runs[0].fields.get(path)),
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


def _row(measure: Measure, entry: Entry) -> list[tuple[Any, str]]:
  """Returns (value, its text) for each column."""
  (_, _, first, _), *others = columns(measure)
  return [
    (first(entry), spread(measure, entry)),
    *((value(entry), text(value(entry))) for _, _, value, text in others),
  ]


def measured(measure: Measure, value: float | None) -> str:
  """Formats a value of the measure, or the dash."""
  return html.percent(value) if measure.percent else html.number(value, '.2f')


def spread(measure: Measure, entry: Entry) -> str:
  """Formats mean and deviation: '93.10% ± 0.12', '6.58', or the dash.

  The deviation of a share is in points.
  """
  text = measured(measure, entry.mean)
  if entry.deviation is None:
    return text
  scale = 100 if measure.percent else 1
  return f'{text} \N{PLUS-MINUS SIGN} {scale * entry.deviation:.2f}'


def columns(measure: Measure) -> list[Column]:
  """Returns the columns of the table for a task."""
  gan = measure.key == 'fd'
  task: list[Column] = (
    [('recall', 'recall', lambda e: e.average('recall'), _number('.3f'))]
    if gan
    else [('test loss', 'test_loss', lambda e: e.average('test_loss'), _number('.4f'))]
  )
  return [
    (measure.label, measure.key, lambda e: e.mean, lambda v: measured(measure, v)),
    ('seeds', 'seeds', lambda e: len(e.runs), _number(',')),
    *task,
    ('parameters', 'params', lambda e: e.params, _number(',')),
    ('FLOPs', 'flops', lambda e: e.flops, _number(',')),
    ('epochs', 'epochs', lambda e: e.average('epochs'), _number('.4g')),
    (
      'training time',
      'seconds_train',
      lambda e: e.average('seconds_train'),
      html.elapsed_time,
    ),
    (
      'images/s',
      'images_per_second',
      lambda e: e.average('images_per_second'),
      _number(',.0f'),
    ),
  ]


def _number(spec: str) -> Callable[[Any], str]:
  return lambda value: html.number(value, spec)


def lines(comparison: Comparison) -> list[str]:
  """Returns the table and what follows from it for the terminal."""
  measure = comparison.measure
  width = max(len(entry.label) for entry in comparison.entries)
  found = []
  for entry in comparison.entries:
    seeds = f'{len(entry.runs)} seed{"s" if len(entry.runs) > 1 else ""}'
    line = (
      f'{entry.label:{width}}  {spread(measure, entry)}  ({seeds}; '
      f'{html.number(entry.params)} parameters, '
      f'{html.elapsed_time(entry.average("seconds_train"))})'
    )
    found.append('; '.join([line, *entry.marks]))
  found += [sentence(comparison, test) for test in comparison.tests]
  return found + [f'note: {note}' for note in comparison.notes]


def sentence(comparison: Comparison, test: Difference) -> str:
  """Returns what a test says, in words."""
  measure = comparison.measure
  scale, unit = (100, ' points') if measure.percent else (1, '')
  low, high = sorted(abs(scale * end) for end in test.interval)
  difference = f'{abs(scale * test.difference):.2f}{unit}'
  if test.significant:
    better = 'above' if measure.sign > 0 else 'below'
    return (
      f'{test.best} is {difference} {better} {test.other} (95 % interval {low:.2f} to '
      f'{high:.2f}, p = {test.p:.2g})'
    )
  return (
    f'{test.best} and {test.other} differ by {difference}, which may be chance '
    f'(p = {test.p:.2g})'
  )


def as_csv(comparison: Comparison) -> str:
  """Returns one row for each run, the numbers as they are."""
  keys = (
    comparison.measure.key,
    'test_loss' if comparison.measure.percent else 'recall',
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
  for entry in comparison.entries:
    for run in entry.runs:
      writer.writerow(
        [
          entry.label,
          run.name,
          run.summary.get('seed'),
          entry.params,
          entry.flops,
          *(run.summary.get(key) for key in keys),
          *(run.fields.get(path) for path in comparison.fields),
          '; '.join(entry.marks),
        ]
      )
  return buffer.getvalue()


def as_json(comparison: Comparison) -> dict[str, Any]:
  """Returns the comparison as comparison.json holds it."""
  return {
    'measure': comparison.measure.key,
    'notes': comparison.notes,
    'entries': [
      {
        'label': entry.label,
        'runs': [run.name for run in entry.runs],
        'seeds_values': entry.values,
        'deviation': entry.deviation,
        **{key: value(entry) for _, key, value, _ in columns(comparison.measure)},
        'hardware': entry.shared('device_kind'),
        'fields': {path: entry.runs[0].fields.get(path) for path in comparison.fields},
        'marks': entry.marks,
      }
      for entry in comparison.entries
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
  entries, measure = comparison.entries, comparison.measure
  names = ', '.join(entry.label for entry in entries[: plots.DRAWN])
  charts = {}
  if any(entry.values for entry in entries):
    charts['ranking'] = style.draw(
      'ranking.png',
      f'{measure.label} of {names}, with the deviation over seeds.',
      lambda theme: plots.bars(entries, measure, theme),
      narrow=True,
    )
  if any(
    point.get('split') == measure.split and point.get(measure.logged) is not None
    for entry in entries
    for run in entry.runs
    for point in run.history
  ):
    charts['curves'] = style.draw(
      'curves.png',
      f'{measure.label} against the training step for {names}.',
      lambda theme: plots.curves(entries, measure, theme),
      narrow=True,
    )
  for name, label, costs in (
    ('time', 'training time (s)', [e.average('seconds_train') for e in entries]),
    ('parameters', 'parameters', [e.params for e in entries]),
    ('flops', 'FLOPs of one image', [e.flops for e in entries]),
  ):
    known = {c for c, entry in zip(costs, entries) if c and entry.values}
    if len(known) > 1:
      charts[name] = style.draw(
        f'against_{name}.png',
        f'{measure.label} against {label} for {names}.',
        lambda theme, label=label, costs=costs: plots.against(
          entries, costs, label, measure, theme
        ),
        narrow=True,
      )
  return charts
