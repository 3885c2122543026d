"""`jaxvision compare`: finished runs side by side."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxvision import config as config_lib
from jaxvision.errors import UserError
from jaxvision.io import local_path, output_directory, writing
from jaxvision.reports.comparison import groups
from jaxvision.reports.comparison.groups import Comparison, FinishedRun
from jaxvision.training import segments
from jaxvision.training.opening import open_run
from jaxvision.training.run_directory import RunDirectory


def command(options: argparse.Namespace, config: None) -> int:
  """Compares the runs in some workdirs and prints the ranking."""
  from jaxvision.reports.comparison.report import lines

  del config
  if len(options.inputs) < 2:
    raise UserError('compare: name two or more workdirs of finished runs')
  compared, page = compare(options.inputs, options.output)
  print(*lines(compared), f'report: {page}', sep='\n')
  return 0


def compare(
  workdirs: Sequence[str | Path], output: str | Path = 'comparison'
) -> tuple[Comparison, Path]:
  """Compares finished runs and writes the pages of the comparison.

  Runs that differ in their seeds alone count as one entry, with a spread.

  Args:
    workdirs: two or more, runs of one task.
    output: directory for comparison.html, .csv, .json and the charts.

  Returns:
    (the comparison, path of comparison.html).

  Raises:
    UserError: a directory that holds no finished run, or the same run twice; `output`
      cannot be written.
  """
  from jaxvision.reports.comparison.report import write_comparison

  target = output_directory(output, 'compare: --output')
  paths = [local_path(workdir, 'compare') for workdir in workdirs]
  seen: set[Path] = set()
  for path in paths:
    if path.resolve() in seen:
      raise UserError(f'compare: {path} is named twice')
    seen.add(path.resolve())
  compared = groups.compare([_read(path) for path in paths])
  with writing(target, 'compare: --output'):
    return compared, write_comparison(target, compared)


def _read(path: Path) -> FinishedRun:
  directory = RunDirectory(path)
  config = directory.config()
  summary = directory.summary()
  if summary is None:
    raise UserError(
      f'compare: the run in {path} has not finished (it has no summary.json): the train '
      'command goes on with it'
    )
  return FinishedRun(
    name=path.resolve().name,
    fields=config_lib.decisive(config) | _extended(directory),
    summary=summary,
    history=directory.history(),
    flops=_flops(directory),
  )


def _extended(directory: RunDirectory) -> dict[str, Any]:
  """Returns what tells an extended run from one that was trained in one go."""
  found = [
    f'{s.first_step}: {segments.in_words(s.changes)}' for s in segments.read(directory)
  ]
  return {'extended': '; '.join(found)} if found else {}


def _flops(directory: RunDirectory) -> int | None:
  """Returns the FLOPs of a run's model, None where its parts are gone."""
  try:
    return open_run(directory).task.flops_per_image
  except UserError:
    return None
