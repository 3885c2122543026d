"""Studies: variants of a config, each trained with several seeds, and their record.

A study file defines `STUDY` and ends in `main(STUDY)`:

    python experiments/NAME.py [--budget=cpu|full] [--seeds=N|FIRST-LAST] [--only=LABEL]
      [--workdir=DIR] [--output=DIR] [--set KEY=VALUE] [--redraw]

Every run has a directory of its own, WORKDIR/NAME-BUDGET/VARIANT-seedN. A finished run is
not trained again, so that a study which was stopped goes on; the same command in a second
process takes the runs that the first has not begun. When every variant has its seeds, the
numbers of all runs and the conditions of their measurement go to NAME-BUDGET.json in the
output directory, and the tables and plots beside it are made from that file alone.
"""

import argparse
import dataclasses
import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxvision import config as config_lib
from jaxvision.commands.runner import Trial, run_trials
from jaxvision.errors import TrainingDiverged, UserError, closest
from jaxvision.io import write_whole
from jaxvision.main import with_huge_pages
from jaxvision.reports import html
from jaxvision.training.opening import open_run
from jaxvision.training.run_directory import write_json

ROOT = Path(__file__).resolve().parent.parent
STUDIES = ROOT / 'experiments' / 'studies'

# What a record takes over from summary.json.
# fmt: off
KEPT = (
  'task', 'dataset', 'synthetic', 'model', 'params', 'steps', 'epochs',
  'train_accuracy', 'train_loss', 'test_accuracy', 'test_accuracy_top5', 'test_loss',
  'seconds_train', 'seconds_compile', 'seconds_total', 'images_per_second',
  'dtype', 'backend', 'device_kind', 'device_count', 'versions', 'git_commit',
)
# fmt: on
# Where a budget takes some of the training images, each seed draws its own.
_OF_THE_SEED = ('seed', 'data.split_seed')

Measured = dict[str, Any]  # a study's JSON


@dataclasses.dataclass(frozen=True)
class Variant:
  """One of the things that a study compares.

  Attributes:
    label: its name in tables and plots.
    config: name of a file in configs/.
    overrides: 'path=value' each, the fields that differ from the config.
    facts: further entries in the record of each of its runs.
  """

  label: str
  config: str
  overrides: tuple[str, ...] = ()
  facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def slug(self) -> str:
    """The label as part of a file name."""
    return re.sub(r'[^a-z0-9.]+', '-', self.label.lower()).strip('-')


@dataclasses.dataclass(frozen=True)
class Budget:
  """How long a study trains.

  Attributes:
    name: 'cpu', 'full', or '' in a study with one budget.
    seeds: number of seeds of each variant: 0, 1, ...
    overrides: 'path=value' each, for all variants, which may override them in turn.
  """

  name: str
  seeds: int
  overrides: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Axis:
  """A numeric field that a study draws its variants over.

  Attributes:
    field: path of the config's field.
    label: for people.
    lines: a field that sorts the variants into lines; '': there is one line.
    log: whether the axis is logarithmic.
  """

  field: str
  label: str
  lines: str = ''
  log: bool = False


@dataclasses.dataclass(frozen=True)
class Report:
  """How the record of a study is shown; each function takes (study, record).

  Attributes:
    section: returns Markdown for the README.
    page: returns the Markdown page beside the record.
    pictures: returns plots as PNG by name; '' names one after the record itself.
  """

  section: Callable[['Study', Measured], str]
  page: Callable[['Study', Measured], str]
  pictures: Callable[['Study', Measured], dict[str, bytes]]


@dataclasses.dataclass(frozen=True)
class Study:
  """A question, and the runs that answer it.

  Attributes:
    name: stem of the names of its files.
    question: one sentence.
    variants: what is compared, in the order in which they are trained.
    budgets: the small one for a CPU and the full one for a GPU.
    reference: label of the variant that the others are compared with; '': the best
      variant is compared with the others.
    axis: see `Axis`; None: the variants have no order.
    plots: of `study_report.PLOTS`; the README shows the first one.
    report: how it is shown; None: by `study_report`.
    command: the words after `python` that train it; (): its file alone.
  """

  name: str
  question: str
  variants: tuple[Variant, ...]
  budgets: tuple[Budget, ...]
  reference: str = ''
  axis: Axis | None = None
  plots: tuple[str, ...] = ('curves', 'ranking')
  report: Report | None = None
  command: tuple[str, ...] = ()

  def budget(self, name: str) -> Budget:
    """Returns the budget of a name."""
    return next(budget for budget in self.budgets if budget.name == name)

  def stem(self, budget: Budget) -> str:
    """Returns the stem of the files of a budget."""
    return f'{self.name}-{budget.name}' if budget.name else self.name


@dataclasses.dataclass(frozen=True)
class StudyTrial(Trial):
  """One variant with one seed."""

  variant: Variant
  seed: int

  @property
  def diverged_file(self) -> Path:
    """Exists where the loss of the run became infinite, which is a result, too."""
    return self.path / 'diverged.json'

  @property
  def finished(self) -> bool:
    """Whether there is nothing left to train."""
    return super().finished or self.diverged_file.exists()


def resolve(
  variant: Variant, budget: Budget, seed: int, extra: Sequence[str] = ()
) -> Any:
  """Returns the config of one run; `extra` overrides budget and variant."""
  seeds = [f'{path}={seed}' for path in _OF_THE_SEED]
  return config_lib.load(
    ROOT / 'configs' / f'{variant.config}.py',
    (*budget.overrides, *variant.overrides, *extra, *seeds),
  )


def trials(
  study: Study,
  budget: Budget,
  seeds: Sequence[int],
  workdir: Path,
  extra: Sequence[str] = (),
) -> list[StudyTrial]:
  """Returns the trials of a study in the order in which they are trained."""
  made = []
  for seed in seeds:
    for variant in study.variants:
      name = f'{variant.slug}-seed{seed}'
      config = resolve(variant, budget, seed, extra)
      path = workdir / study.stem(budget) / name
      made.append(StudyTrial(name, config, path, variant, seed))
  return made


def train(runs: Sequence[StudyTrial]) -> bool:
  """Trains what is not finished; returns False if a signal stopped it."""

  def drop_checkpoints(trial, summary=None):
    # A study keeps the numbers: the weights of dozens of runs fill a disk.
    shutil.rmtree(trial.directory.checkpoints, ignore_errors=True)

  def record_divergence(trial, error: TrainingDiverged):
    print(f'{trial.name}: {error}')
    steps = [point['step'] for point in trial.directory.history()]
    write_json(trial.diverged_file, {'last_logged_step': max(steps, default=0)})
    drop_checkpoints(trial)

  return run_trials(runs, on_diverged=record_divergence, on_end=drop_checkpoints)


def record(
  study: Study, budget: Budget, extra: Sequence[str], runs: Sequence[StudyTrial]
) -> Measured:
  """Returns the record of a study, from which its tables and plots are made.

  Of an absolute path it holds the file's name alone.
  """
  firsts = {run.variant.label: run for run in reversed(runs)}
  decisive = [config_lib.decisive(run.config) for run in firsts.values()]
  differing = [
    path
    for path in sorted(set().union(*decisive) - {'name', *_OF_THE_SEED})
    if any(fields.get(path) != decisive[0].get(path) for fields in decisive)
  ]
  command = ['python', *(study.command or (f'experiments/{study.name}.py',))]
  if budget.name:
    command.append(f'--budget={budget.name}')
  for change in extra:
    command += ['--set', _portable_override(change)]
  own = dataclasses.replace(
    budget, overrides=tuple(map(_portable_override, budget.overrides))
  )
  return {
    'study': study.name,
    'question': study.question,
    'budget': dataclasses.asdict(own),
    'command': shlex.join(command),
    'variants': [
      _variant(firsts[variant.label])
      for variant in study.variants
      if variant.label in firsts
    ],
    'runs': [
      {
        'label': run.variant.label,
        'seed': run.seed,
        'budget': budget.name,
        'fields': {
          path: _portable(value)
          for path, value in config_lib.decisive(run.config).items()
          if path in differing
        },
        **run.variant.facts,
        **_measured(run),
        'command': shlex.join(
          [*command, f'--only={run.variant.label}', f'--seeds={run.seed}-{run.seed}']
        ),
      }
      for run in runs
    ],
  }


def _variant(run: StudyTrial) -> dict[str, Any]:
  """Returns what the runs of a variant have in common."""
  return {
    'label': run.variant.label,
    'config_name': run.variant.config,
    'overrides': [_portable_override(text) for text in run.variant.overrides],
    'flops': open_run(run.directory).task.flops_per_image,
    'config': {
      path: _portable(value)
      for path, value in config_lib.walk(run.config)
      if path not in _OF_THE_SEED
    },
  }


def _measured(run: StudyTrial) -> dict[str, Any]:
  """Returns the results of a run; where it diverged, those up to there."""
  summary = run.directory.summary() or {}
  points = [point for point in run.directory.history() if point['split'] == 'test']
  measured = {
    'diverged': run.diverged_file.exists(),
    **{key: summary.get(key) for key in KEPT},
    'history': {
      key: [point.get(key) for point in points] for key in ('step', 'accuracy', 'loss')
    },
  }
  if weights := summary.get('pretrained'):
    source = _portable(str(weights['source']))
    measured['pretrained'] = {**weights, 'source': source}
  return measured


def _portable(value: Any) -> Any:
  """Returns the name alone of an absolute path, and other values as they are."""
  if isinstance(value, str) and Path(value).is_absolute():
    return Path(value).name
  return value


def _portable_override(text: str) -> str:
  path, equals, value = text.partition('=')
  return f'{path}{equals}{_portable(value)}'


def redraw(study: Study, path: Path) -> str:
  """Writes the tables and plots of a study from its JSON; returns the README's part."""
  import study_report

  report = study.report or study_report.REPORT
  measured = json.loads(path.read_text())
  write_whole(path.with_suffix('.md'), report.page(study, measured))
  for name, picture in report.pictures(study, measured).items():
    stem = f'{path.stem}-{name}' if name else path.stem
    write_whole(path.with_name(f'{stem}.png'), picture)
  return report.section(study, measured)


def parser(study: Study) -> argparse.ArgumentParser:
  """Returns the parser of a study's command line."""
  made = argparse.ArgumentParser(
    prog=f'python experiments/{study.name}.py',
    description=study.question,
    epilog='The docstring of the file says what it trains, and for how long.',
  )
  names = [budget.name for budget in study.budgets]
  made.set_defaults(budget=names[0])
  if any(names):
    made.add_argument('--budget', choices=names)
  made.add_argument(
    '--seeds',
    type=_seeds,
    help='N: 0 to N-1; FIRST-LAST: these; default: those of the budget',
  )
  made.add_argument(
    '--only', action='append', default=[], metavar='LABEL', help='train this variant'
  )
  made.add_argument('--workdir', default='runs/studies', help='of the runs')
  made.add_argument(
    '--output',
    help='of the JSON, tables and plots: experiments/studies, with --set the workdir',
  )
  made.add_argument(
    '--set',
    action='append',
    default=[],
    metavar='KEY=VALUE',
    help='any field of the config, for all runs',
  )
  made.add_argument(
    '--redraw', action='store_true', help='tables and plots from the JSON, no training'
  )
  return made


def _seeds(text: str) -> range:
  first, dash, last = text.partition('-')
  found = range(int(first), int(last) + 1) if dash else range(int(first))
  if not found:
    raise argparse.ArgumentTypeError(f'{text} names no seed')
  return found


def main(study: Study, arguments: Sequence[str] | None = None) -> int:
  """Runs a study's command line; returns 0, or 2 for a usage or config error."""
  return run(study, parser(study).parse_args(arguments), restart=arguments is None)


def run(study: Study, options: argparse.Namespace, *, restart: bool) -> int:
  """Trains or redraws a study.

  Args:
    study: what to train.
    options: of `parser`.
    restart: whether the process may start itself anew with huge pages.

  Returns:
    An exit code: 0, or 2 for a usage or config error.
  """
  try:
    if not options.redraw:
      if restart:
        with_huge_pages()
      return _train_and_record(study, options)
    stem = study.stem(study.budget(options.budget))
    path = Path(options.output or STUDIES) / f'{stem}.json'
    if not path.is_file():
      raise UserError(f'{path} is not there: the study writes it when it has run')
    print(redraw(study, path))
    return 0
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    return 2


def _train_and_record(study: Study, options: argparse.Namespace) -> int:
  labels = [variant.label for variant in study.variants]
  for label in options.only:
    if label not in labels:
      hint = closest(label, labels) or f' ({", ".join(labels)})'
      raise UserError(f'--only: there is no variant "{label}"{hint}')
  budget = study.budget(options.budget)
  chosen = options.seeds or range(budget.seeds)
  seeds = sorted({*chosen, *range(budget.seeds)})
  runs = trials(study, budget, seeds, Path(options.workdir), options.set)
  for trial in runs:  # before any work, so that a mistake in the last one shows now
    trial.directory.check(trial.config)
  asked = [trial for trial in runs if trial.seed in chosen]
  if not train(
    [t for t in asked if not options.only or t.variant.label in options.only]
  ):
    print('stopped; the same command goes on from here')
    return 0
  missing = [trial.name for trial in asked if not trial.finished]
  if missing:
    print(f'still to come, before tables are made: {", ".join(missing)}')
    return 0
  output = Path(options.output or (options.workdir if options.set else STUDIES))
  output.mkdir(parents=True, exist_ok=True)
  path = output / f'{study.stem(budget)}.json'
  done = [trial for trial in runs if trial.finished]
  measured = record(study, budget, options.set, done)
  write_whole(path, html.lined_json(measured))
  print(redraw(study, path), f'written: {path}', sep='\n\n')
  return 0
