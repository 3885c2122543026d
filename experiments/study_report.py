"""The tables and plots of a study, made from its JSON alone.

They are those of `jaxvision compare`, with the variants named as the study names them.
"""

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.figure import Figure
from study import Measured, Report, Study

from jaxvision.reports import html, style
from jaxvision.reports.comparison import groups, plots
from jaxvision.reports.comparison.groups import Comparison, RunGroup
from jaxvision.reports.comparison.report import columns, sentence, spread

MEASURE = groups.MEASURES['classification']
# Columns that go into the line above a table where they say the same of all.
_COMMON = {
  'seeds': lambda n: f'{n} seed{"s" * (n != 1)}',
  'epochs': lambda n: f'{n:.4g} epochs',
  'params': lambda n: f'{n:,} parameters',
  'flops': lambda n: f'{n:,} FLOPs',
}


def compared(measured: Measured, only: Sequence[str] = ()) -> Comparison | None:
  """Ranks the variants by the runs that did not diverge; None of fewer than two."""
  flops = {variant['label']: variant['flops'] for variant in measured['variants']}
  runs = [
    groups.FinishedRun(
      record['label'],
      record['fields'],
      {k: v for k, v in record.items() if k not in ('label', 'fields', 'history')},
      _points(record['history']),
      flops[record['label']],
    )
    for record in measured['runs']
    if not record['diverged'] and (not only or record['label'] in only)
  ]
  return groups.compare(runs) if len(runs) > 1 else None


def _points(history: dict[str, list[Any]]) -> list[dict[str, Any]]:
  return [
    {'split': MEASURE.split, 'step': step, 'accuracy': accuracy, 'loss': loss}
    for step, accuracy, loss in zip(*(history[k] for k in ('step', 'accuracy', 'loss')))
  ]


def section(
  study: Study, measured: Measured, folder: str = 'experiments/studies/'
) -> str:
  """Returns a study as the README shows it: what was asked, the answer, one plot.

  Args:
    study: how it is shown.
    measured: its JSON.
    folder: of the plots, as the page that shows them reaches it.
  """
  parts = [f'**{study.question}** {circumstances(measured)}']
  found = compared(measured)
  if found and study.axis and study.axis.lines:
    best = _best_of_lines(study, measured, found)
    among = compared(measured, best)
    parts += [grid(study, measured)]
    if among:
      parts += [f'Each at its best {study.axis.label}:', *_ranking(study, among)]
  elif found:
    parts += _ranking(study, found)
  parts += _diverged(measured)
  if found:
    parts += _pictures(study, measured, folder, study.plots[:1])
  return '\n\n'.join(parts)


def page_of(study: Study, measured: Measured) -> str:
  """Returns the page of a study: what the README shows, then all else there is."""
  parts = [section(study, measured, folder='')]
  if found := compared(measured):
    parts += _pictures(study, measured, '', study.plots[1:])
    if study.axis and study.axis.lines:
      parts += _ranking(study, found)
    parts += [_settings(measured, found)]
  return '\n\n'.join(filter(None, parts)) + '\n'


def pictures(study: Study, measured: Measured) -> dict[str, bytes]:
  """Returns the plots of a study as PNG, by name."""
  found = compared(measured)
  if not found:
    return {}
  return {
    name: style.reduced(style.png(PLOTS[name](study, measured, found)))
    for name in study.plots
  }


def circumstances(measured: Measured) -> str:
  """Returns what all runs have in common: budget, seeds, length, hardware, time."""
  runs = [record for record in measured['runs'] if not record['diverged']]
  said = []
  if found := compared(measured):
    for _, key, value, _ in columns(found):
      values = {value(entry) for entry in found.groups}
      if key in _COMMON and len(values) == 1 and None not in values:
        said.append(_COMMON[key](values.pop()))
  steps = {record['steps'] for record in runs}
  if len(steps) == 1:
    said.append(f'{steps.pop():,} steps')
  images = _training_images(measured)
  if len(images) == 1:
    said.append(f'{images.pop():,} training images')
  devices = ', '.join(sorted({str(record['device_kind']) for record in runs}))
  seconds = sum(record['seconds_total'] or 0 for record in runs)
  return (
    f'Budget `{measured["budget"]["name"]}`: {", ".join(said)}; {devices}, '
    f'{html.elapsed_time(seconds)} for {len(runs)} runs.'
  )


def _training_images(measured: Measured) -> set[int]:
  """Returns the sizes of the training splits: steps, batch and epochs say them."""
  batches = {v['label']: v['config']['batch_size'] for v in measured['variants']}
  return {
    round(record['steps'] * batches[record['label']] / record['epochs'])
    for record in measured['runs']
    if record['epochs']
  }


def _ranking(study: Study, found: Comparison) -> list[str]:
  """Returns the table of the variants, the best first, and what follows from it."""
  shown = [
    column
    for column in columns(found)
    if column[1] not in _COMMON or len({column[2](e) for e in found.groups}) > 1
  ]
  others = shown[1:]
  references = [e for e in found.groups if e.label == study.reference and e.values]
  titles = ['', MEASURE.label]
  if references:
    titles.append(f'against {study.reference}, points')
  titles += ['training accuracy', *(title for title, *_ in others)]
  changes = _changes(found, references[0]) if references else {}
  rows = []
  for entry in found.groups:
    label = entry.label + ' (marked)' * bool(entry.incomparable_because)
    row = [html.markdown(label), html.markdown(spread(MEASURE, entry))]
    if references:
      row.append(changes[entry.label])
    row.append(html.percent(entry.average('train_accuracy')))
    rows.append(row + [text(value(entry)) for _, _, value, text in others])
  parts = [_table(titles, rows)]
  said = [
    f'{entry.label} is marked: {"; ".join(entry.incomparable_because)}'
    for entry in found.groups
    if entry.incomparable_because
  ]
  if not references:
    said += [sentence(found, test) for test in found.tests]
  said += [note.removesuffix('.') for note in found.notes]
  if said:
    parts.append('\n'.join(f'- {html.markdown(text)}.' for text in said))
  return parts


def _changes(found: Comparison, reference: RunGroup) -> dict[str, str]:
  """Returns for each variant how far it is from the reference, and whether by chance."""
  pairs = [(e, reference) for e in found.groups if e is not reference and e.values]
  tests = {test.best: test for test in groups.welch(pairs)}
  said = {reference.label: ''}
  for entry, _ in pairs:
    text = f'{100 * (entry.mean - reference.mean):+.2f}'
    if test := tests.get(entry.label):
      text += f' (p = {test.p:.2g})'
    said[entry.label] = text
  return {entry.label: said.get(entry.label, '') for entry in found.groups}


def grid(study: Study, measured: Measured) -> str:
  """Returns the measure as a table: a row for each line, a column for each number."""
  lines = by_line(study, measured)
  numbers = sorted({number for points in lines.values() for number in points})
  rows = []
  for line, points in lines.items():
    row = [html.markdown(line)]
    for number in numbers:
      row.append(_cell(points[number]) if number in points else '')
    rows.append(row)
  assert study.axis
  return _table(
    [f'{MEASURE.label} by {study.axis.label}', *(f'{n:g}' for n in numbers)], rows
  )


def _cell(records: Sequence[dict[str, Any]]) -> str:
  values = [r[MEASURE.key] for r in records if not r['diverged']]
  if not values:
    return 'diverged'
  text = html.percent(statistics.mean(values))
  if len(values) > 1:
    text += f' ± {100 * statistics.stdev(values):.2f}'
  gone = len(records) - len(values)
  return text + (f' ({gone} of {len(records)} diverged)' if gone else '')


def by_line(
  study: Study, measured: Measured
) -> dict[str, dict[float, list[dict[str, Any]]]]:
  """Returns line -> number on the axis -> records, in the order of the variants."""
  axis = study.axis
  assert axis
  found: dict[str, dict[float, list[dict[str, Any]]]] = {}
  for variant in measured['variants']:
    config = variant['config']
    line = str(config[axis.lines]) if axis.lines else MEASURE.label
    found.setdefault(line, {})[config[axis.field]] = [
      record for record in measured['runs'] if record['label'] == variant['label']
    ]
  return found


def _best_of_lines(study: Study, measured: Measured, found: Comparison) -> list[str]:
  """Returns the label of the best variant of each line."""
  ranks = {entry.label: rank for rank, entry in enumerate(found.groups)}
  best = []
  for points in by_line(study, measured).values():
    labels = {records[0]['label'] for records in points.values() if records}
    best += sorted(labels & ranks.keys(), key=ranks.__getitem__)[:1]
  return best


def _diverged(measured: Measured) -> list[str]:
  counts = []
  for variant in measured['variants']:
    runs = [r for r in measured['runs'] if r['label'] == variant['label']]
    if gone := sum(record['diverged'] for record in runs):
      counts.append(f'{html.markdown(variant["label"])} ({gone} of {len(runs)} seeds)')
  return [f'The loss became infinite: {", ".join(counts)}.'] if counts else []


def _settings(measured: Measured, found: Comparison) -> str:
  """Returns the table of the fields in which the variants differ."""
  if not found.fields:
    return ''
  fields = {record['label']: record['fields'] for record in measured['runs']}
  rows = [
    [html.markdown(label), *(html.markdown(own.get(p, '')) for p in found.fields)]
    for label, own in fields.items()
  ]
  return _table(['', *(html.markdown(path) for path in found.fields)], rows)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  head = '|---' + '|--:' * (len(titles) - 1) + '|'
  return '\n'.join(
    ['| ' + ' | '.join(titles) + ' |', head]
    + ['| ' + ' | '.join(row) + ' |' for row in rows]
  )


def _pictures(
  study: Study, measured: Measured, folder: str, plots: Sequence[str]
) -> list[str]:
  stem = f'{folder}{study.name}-{measured["budget"]["name"]}'
  return [f'![{_ALT[plot]}: {study.question}]({stem}-{plot}.png)' for plot in plots]


def _curves(study: Study, measured: Measured, found: Comparison) -> Figure:
  del study
  sizes = {variant['config']['batch_size'] for variant in measured['variants']}
  return plots.curves(found.groups, MEASURE, by_epoch=len(sizes) > 1)


def _time(study: Study, measured: Measured, found: Comparison) -> Figure:
  del study, measured
  minutes = [(e.average('seconds_train') or 0) / 60 for e in found.groups]
  return plots.against(found.groups, minutes, 'training time (minutes)', MEASURE)


def _over_axis(study: Study, measured: Measured, found: Comparison) -> Figure:
  """Draws the measure over the axis, a line through the means, bars for deviations."""
  del found
  theme, axis = style.LIGHT, study.axis
  assert axis
  figure = style.new_figure(6.8, 3.9, theme)
  axes = figure.subplots()
  style.tidy(axes, theme)
  lines = [
    (line, points, MEASURE.key) for line, points in by_line(study, measured).items()
  ]
  if not axis.lines:
    lines += [('training accuracy', points, 'train_accuracy') for _, points, _ in lines]
  numbers = set()
  for index, (line, points, key) in enumerate(lines):
    means, errors = {}, []
    for number, records in sorted(points.items()):
      values = [record[key] for record in records if not record['diverged']]
      if values:
        means[number] = statistics.mean(values)
        errors.append(statistics.stdev(values) if len(values) > 1 else 0.0)
    numbers |= set(means)
    axes.errorbar(
      list(means),
      list(means.values()),
      yerr=errors,
      markersize=5,
      markeredgecolor=theme.background,
      linewidth=1.5,
      elinewidth=1.2,
      capsize=3,
      label=line,
      **plots.line_style(index, theme),
    )
  if axis.log:
    axes.set_xscale('log')
  axes.set_xticks(sorted(numbers), [f'{number:g}' for number in sorted(numbers)])
  axes.minorticks_off()
  axes.set_xlabel(axis.label, color=theme.ink, fontsize=style.NORMAL)
  label = MEASURE.label if axis.lines else 'accuracy'
  plots.measured_axis(axes, dataclasses.replace(MEASURE, label=label), 'y', theme)
  style.legend(axes, theme, loc='best')
  return figure


# The plots that a study may ask for, by the end of their files' names.
PLOTS: dict[str, Callable[[Study, Measured, Comparison], Figure]] = {
  'curves': _curves,
  'ranking': lambda study, measured, found: plots.bars(found.groups, MEASURE),
  'time': _time,
  'axis': _over_axis,
}
_ALT = {
  'curves': 'Test accuracy on the way',
  'ranking': 'Test accuracy with its spread over seeds',
  'time': 'Test accuracy against training time',
  'axis': 'Test accuracy by setting',
}

REPORT = Report(section, page_of, pictures)
