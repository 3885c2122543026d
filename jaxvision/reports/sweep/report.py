"""The files of a sweep: HTML, CSV, JSON and the charts."""

import csv
import io
from pathlib import Path
from typing import Any

from jaxvision.io import write_all
from jaxvision.reports import html, style
from jaxvision.reports.sweep import plots
from jaxvision.reports.sweep.results import Result, Results, overrides, setting


def write_sweep(directory: str | Path, results: Results) -> Path:
  """Writes the results of a sweep into its directory.

  The files are sweep.html, which needs no other file, sweep.csv with a row for each trial,
  sweep.json and the charts as PNG. Each is replaced as a whole.

  Args:
    directory: is created if it does not exist.
    results: a sweep with at least one trial.

  Returns:
    Path of sweep.html.
  """
  charts = _charts(results)
  best = results.best()
  values = {
    'results': results,
    'notes': notes(results),
    'ranked': results.ranked(),
    'best': best,
    'paths': list(results.space),
    'short': plots.short,
    'setting': setting,
    'measured': results.text,
    'charts': charts,
    'facts': _facts(results),
    'overrides': overrides(best.values) if best else '',
  }
  files: dict[str, str | bytes] = {
    **{plot.file: plot.light for plot in charts.values()},
    'sweep.html': html.render('sweep.html.j2', **values),
    'sweep.csv': as_csv(results),
    'sweep.json': html.lined_json(as_json(results)),
  }
  target = Path(directory)
  write_all(target, files)
  return target / 'sweep.html'


def notes(results: Results) -> list[str]:
  """Returns the warnings at the head of the page."""
  found = []
  if results.synthetic:
    found.append('The images are synthetic.')
  if len(results.trials) < results.size:
    found.append(f'{len(results.trials)} of {results.size} trials have ended.')
  if not results.held_out:
    found.append(
      'Trials are selected on the test split: the best value is an optimistic estimate.'
    )
  return found


def _facts(results: Results) -> list[tuple[str, str]]:
  seconds = [t.seconds for t in results.trials if t.seconds is not None]
  counts = results.counts()
  machine = results.machine
  commit = machine.get('git_commit')
  return [
    ('trials', html.number(len(results.trials))),
    ('finished', html.number(counts['done'])),
    ('pruned', html.number(counts['pruned'])),
    ('failed', html.number(counts['failed'])),
    ('sampler', results.sampler),
    ('total training time', html.elapsed_time(sum(seconds) if seconds else None)),
    ('device', html.text(machine.get('device_kind'))),
    ('commit', html.text(commit[:10] if commit else None)),
  ]


def as_csv(results: Results) -> str:
  """Returns a table with a row for each trial and unrounded numbers."""
  buffer = io.StringIO()
  writer = csv.writer(buffer, lineterminator='\n')
  paths = list(results.space)
  writer.writerow(
    ['trial', 'end', results.measure, *paths, 'seconds_train', 'host', 'error']
  )
  for trial in results.trials:
    writer.writerow(
      [
        trial.number,
        trial.end,
        trial.value,
        *(trial.values.get(path) for path in paths),
        trial.seconds,
        trial.host,
        trial.error,
      ]
    )
  return buffer.getvalue()


def as_json(results: Results) -> dict[str, Any]:
  """Returns the content of sweep.json."""

  def record(trial: Result) -> dict[str, Any]:
    return {
      'trial': trial.number,
      'end': trial.end,
      results.measure: trial.value,
      'values': dict(trial.values),
      'seconds_train': trial.seconds,
      'error': trial.error or None,
    }

  best = results.best()
  return {
    'sweep': results.name,
    'config_name': results.config_name,
    'measure': results.measure,
    'mode': results.mode,
    'sampler': results.sampler,
    'size': results.size,
    'synthetic': results.synthetic,
    'held_out': results.held_out,
    'space': {path: repr(one) for path, one in results.space.items()},
    'best': record(best) if best else None,
    'importances': dict(results.importances),
    'machine': dict(results.machine),
    'trials': [record(trial) for trial in results.trials],
  }


def _charts(results: Results) -> dict[str, style.Plot]:
  fields = ', '.join(map(plots.short, results.space))
  best = results.best()
  reached = f'; the best is {results.text(best.value)}' if best else ''
  charts = {}
  if not any(trial.value is not None for trial in results.trials):
    return charts
  charts['history'] = style.draw(
    'history.png',
    f'{results.measure} of {len(results.trials)} trials by their number{reached}.',
    lambda theme: plots.history(results, theme),
  )
  if results.importances:
    most = next(iter(results.importances))
    charts['importance'] = style.draw(
      'importance.png',
      f'Share of the variance of {results.measure} that each field explains; '
      f'{plots.short(most)} the most, {results.importances[most]:.0%}.',
      lambda theme: plots.importance(results, theme),
    )
  charts['parallel'] = style.draw(
    'parallel_coordinates.png',
    f'A line for each trial through its values of {fields} and its {results.measure}.',
    lambda theme: plots.parallel_coordinates(results, theme),
  )
  charts['slices'] = style.draw(
    'slices.png',
    f'{results.measure} against each of {fields}.',
    lambda theme: plots.slices(results, theme),
  )
  if any(len(trial.reports) > 1 for trial in results.trials):
    charts['curves'] = style.draw(
      'curves.png',
      f'{results.measure} of each trial over its steps, the best three highlighted.',
      lambda theme: plots.curves(results, theme),
    )
  return charts
