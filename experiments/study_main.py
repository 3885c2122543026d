"""The command line of all studies.

A study file defines `STUDY` and ends in `main(STUDY)`:

    python experiments/NAME.py [--budget=cpu|full] [--seeds=N|FIRST-LAST] [--only=LABEL]
      [--workdir=DIR] [--output=DIR] [--set KEY=VALUE] [--redraw]

Every run has a directory of its own, WORKDIR/NAME-BUDGET/VARIANT-seedN. Runs that are
finished are not trained again, so that a study which was stopped goes on; the same command
in a second process takes the runs that the first has not begun. When every variant has its
seeds, the numbers of all runs and what they were measured with go to NAME-BUDGET.json in
the output directory, and from that file alone come the tables and plots beside it.
"""

import argparse
import difflib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from study import Study

STUDIES = Path(__file__).resolve().parent / 'studies'


def main(study: Study, arguments: Sequence[str] | None = None) -> int:
  """Runs a study's command line; returns 0, or 2 where the user is mistaken."""
  from jaxvision.errors import UserError

  options = _options(study, arguments)
  try:
    if options.redraw:
      path = Path(options.output or STUDIES) / f'{study.name}-{options.budget}.json'
      if not path.is_file():
        raise UserError(f'{path} is not there: the study writes it when it has run')
      print(redraw(study, path))
      return 0
    if arguments is None:
      from jaxvision.main import with_huge_pages

      with_huge_pages()
    return _run(study, options)
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    return 2


def redraw(study: Study, path: Path) -> str:
  """Writes the tables and plots of a study from its JSON; returns the README's part."""
  import study_report

  from jaxvision.io import write_whole

  measured = json.loads(path.read_text())
  write_whole(path.with_suffix('.md'), study_report.page_of(study, measured))
  for name, picture in study_report.pictures(study, measured).items():
    write_whole(path.with_name(f'{path.stem}-{name}.png'), picture)
  return study_report.section(study, measured)


def _options(study: Study, arguments: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog=f'python experiments/{study.name}.py',
    description=study.question,
    epilog='What it trains, and for how long: the docstring of the file.',
  )
  parser.add_argument(
    '--budget', choices=[b.name for b in study.budgets], default='cpu'
  )
  parser.add_argument(
    '--seeds', type=_seeds, help="N: 0 to N-1; FIRST-LAST: these; else the budget's"
  )
  parser.add_argument(
    '--only', action='append', default=[], metavar='LABEL', help='train this variant'
  )
  parser.add_argument('--workdir', default='runs/studies', help='of the runs')
  parser.add_argument(
    '--output',
    help='of the JSON, tables and plots: experiments/studies, with --set the workdir',
  )
  parser.add_argument(
    '--set',
    action='append',
    default=[],
    metavar='KEY=VALUE',
    help='any field of the config, for all runs: a trial, not the study',
  )
  parser.add_argument(
    '--redraw', action='store_true', help='tables and plots from the JSON, no training'
  )
  options = parser.parse_args(arguments)
  labels = [variant.label for variant in study.variants]
  for label in options.only:
    if label not in labels:
      near = difflib.get_close_matches(label, labels, n=1)
      hint = f', did you mean "{near[0]}"?' if near else f' ({", ".join(labels)})'
      parser.error(f'there is no variant "{label}"{hint}')
  return options


def _seeds(text: str) -> range:
  first, dash, last = text.partition('-')
  found = range(int(first), int(last) + 1) if dash else range(int(first))
  if not found:
    raise argparse.ArgumentTypeError(f'{text} names no seed')
  return found


def _run(study: Study, options: argparse.Namespace) -> int:
  import study_runs

  from jaxvision.io import write_whole

  budget = study.budget(options.budget)
  chosen = options.seeds or range(budget.seeds)
  runs = [
    study_runs.Run(
      variant,
      seed,
      study_runs.resolve(variant, budget, seed, options.set),
      Path(options.workdir) / f'{study.name}-{budget.name}' / variant.slug,
    )
    for seed in sorted({*chosen, *range(budget.seeds)})
    for variant in study.variants
  ]
  for run in runs:
    run.check()  # before any work, that a mistake in the last one is told now
  asked = [run for run in runs if run.seed in chosen]
  if not study_runs.train(
    [r for r in asked if not options.only or r.variant.label in options.only]
  ):
    print('stopped; the same command goes on from here')
    return 0
  missing = [run.name for run in asked if not run.finished]
  if missing:
    print(f'still to come, before tables are made: {", ".join(missing)}')
    return 0
  output = Path(options.output or (options.workdir if options.set else STUDIES))
  output.mkdir(parents=True, exist_ok=True)
  path = output / f'{study.name}-{budget.name}.json'
  done = [run for run in runs if run.finished]
  write_whole(path, study_runs.as_json(study, budget, options.set, done))
  print(redraw(study, path), f'written: {path}', sep='\n\n')
  return 0
