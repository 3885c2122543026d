"""`jaxvision sweep`: many trials of one config, in search of the best values of fields."""

import argparse
import dataclasses
import math
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from jaxvision import config as config_lib
from jaxvision import data, tasks
from jaxvision.commands.optuna_study import Study
from jaxvision.commands.runner import Programs
from jaxvision.commands.sweep_directory import SweepDirectory
from jaxvision.commands.sweep_storage import DatabaseError, Storage, sqlite_url
from jaxvision.commands.sweep_trial import StudyTrial, TrialLost
from jaxvision.commands.train import train
from jaxvision.config import search_space
from jaxvision.config.search_space import Sweep
from jaxvision.data.info import DatasetInfo
from jaxvision.errors import (
  TrainingDiverged,
  UserError,
  disk_problem,
  without_passwords,
)
from jaxvision.io import writing
from jaxvision.reports.sweep.results import (
  Result,
  Results,
  measured,
  overrides,
  setting,
)
from jaxvision.signals import STOPPED, stop_on_signal
from jaxvision.training import pretrained, runtime
from jaxvision.training.callbacks import Callback
from jaxvision.training.logging import speaker
from jaxvision.training.parts import resolve_parts
from jaxvision.training.run import Run
from jaxvision.training.run_directory import RunDirectory

_SMALLER_IS_BETTER = ('loss', 'fd', 'kid')
_POLL_SECONDS = 5.0  # between two looks at trials in the hands of other processes


def command(options: argparse.Namespace, config: ConfigDict | None) -> int:
  """Runs a sweep, or goes on with one."""
  assert config is not None
  if not options.sweep:
    raise UserError(
      'sweep: name the search space with --sweep=FILE, such as '
      'experiments/sweeps/digits.py'
    )
  # The command line is written into the summary of each trial, and some loggers send it on.
  sys.argv[:] = map(without_passwords, sys.argv)
  wanted = search_space.load(options.sweep, config)
  result = sweep(config, wanted, options.workdir, options.storage)
  if not result.finished:
    return STOPPED
  _check_outcome(result.study)
  return 0


def _check_outcome(study: Study) -> None:
  """Raises where all trials are over and none of them came to a result."""
  over = study.over()
  if study.best() is not None or len(over) < study.sweep.size:
    return
  failed = [trial for trial in over if 'error' in trial.user_attrs]
  if len(failed) == len(over) and all(t.user_attrs.get('diverged') for t in failed):
    raise TrainingDiverged(
      f'sweep: all {len(over)} trials diverged: try smaller learning rates'
    )
  reason = ''
  if failed:
    reason = f'; trial {failed[0].number}: {failed[0].user_attrs["error"]}'
  raise UserError(
    f'sweep: no trial came to a result: {len(failed)} failed, '
    f'{len(over) - len(failed)} were pruned{reason}'
  )


@dataclasses.dataclass(frozen=True)
class SweepResult:
  """The state of a sweep after a call.

  Attributes:
    study: its trials.
    page: path of sweep.html, None before a trial has ended.
    programs: programs compiled by this call.
    finished: whether all trials have ended.
  """

  study: Study
  page: Path | None
  programs: int
  finished: bool


def sweep(
  config: ConfigDict,
  sweep: Sweep,
  workdir: str | Path | None = None,
  storage: str | None = None,
  quiet: bool = False,
) -> SweepResult:
  """Runs a sweep, or goes on with one, beside other processes that run the same one.

  Each trial is a run in `workdir`/trials/NUMBER that the other commands read; the
  checkpoints of the best one stay. Trials that differ in numbers only share their
  compiled programs. A trial that fails is recorded, and the next one begins.

  Processes share a sweep that name the same storage, or the same workdir on one machine.
  Each takes trials that no other has; the last ones wait for each other, and all return
  when every trial is over. A trial whose process was stopped or killed is taken over by
  another one, at once on the same machine and otherwise a minute later. It goes on from
  its checkpoint if the two share the workdir, and begins anew in another.

  Args:
    config: that the sweep varies.
    sweep: the search space, and how it is searched.
    workdir: directory of the sweep; None: runs/<name of the sweep>.
    storage: URL of the database, postgresql://USER@HOST/NAME or sqlite:///FILE; None:
      sweep.db in the workdir.
    quiet: print nothing.

  Raises:
    UserError: the sweep cannot be run on the config, the database cannot be used, or the
      workdir holds another sweep.
  """
  say = speaker(quiet)
  config = config_lib.thaw(config_lib.validate(config))
  if not sweep.name:
    sweep = dataclasses.replace(sweep, name=f'{config.name or "run"}-sweep')
  sweep = search_space.validate(sweep, config)
  directory = SweepDirectory(workdir or Path('runs') / sweep.name)
  database = Storage(storage or sqlite_url(directory.database))
  database.probe()  # before the data are read
  runtime.start(config, say)
  runner = _SweepRunner(config, sweep, directory, database, say)
  runner.check(own_database=not storage)
  with stop_on_signal() as stop:
    finished = runner.run(stop)
  page = runner.report()
  if not finished:
    say('stopped by a signal; saved: the same command goes on from here')
  else:
    say(runner.conclusion())
  if page:
    say(f'report: {page}')
  return SweepResult(runner.study, page, runner.compiled(), finished)


class _Pruned(Exception):
  """The study gives a trial up."""


class _Reporter(Callback):
  """Reports the evaluations of a trial to its study, which may give it up."""

  def __init__(self, trial: StudyTrial, measure: str):
    self._trial, self._measure = trial, measure
    self.last: float | None = None

  def on_step(self, step: int) -> None:
    """Ends the training of a trial that another process has taken over."""
    if self._trial.lost:
      raise TrialLost

  def on_evaluation(self, step: int, split: str, measures: dict[str, float]) -> None:
    """Reports the measure of the sweep."""
    if self._measure not in measures:
      return
    self.last = measures[self._measure]
    pruned = self._trial.report(self.last, step)
    if pruned and step < self.context.total_steps:
      raise _Pruned(f'pruned at step {step} of {self.context.total_steps}')


class _SweepRunner:
  """One process's part of a sweep."""

  def __init__(
    self,
    config: ConfigDict,
    sweep: Sweep,
    directory: SweepDirectory,
    storage: Storage,
    say: Callable[[str], None],
  ):
    self.config, self.sweep, self._say = config, sweep, say
    self._directory, self._storage = directory, storage
    self._programs = Programs()
    self._machine = runtime.facts()
    self._hold_out()
    run = self._built(config)
    self._synthetic = run.info.synthetic
    self.measure, self.mode = run.task.best
    if sweep.measure:
      self.measure = sweep.measure
      self.mode = 'min' if sweep.measure in _SMALLER_IS_BETTER else 'max'
    known = [*run.task.metrics.empty().compute()]
    if 'accuracy' in known and self.measure not in known:
      raise UserError(
        f'sweep: there is no measure "{self.measure}" (known: {", ".join(known)})'
      )

  def _hold_out(self) -> None:
    """Holds out training images to measure trials on, where the config holds out none."""
    config, share = self.config, self.sweep.validation
    if config.data.train_fraction < 1 or 'data.train_fraction' in self.sweep.space:
      return
    task = tasks.find(config.task, resolve_parts(config).task)
    if share and task.holds_out:
      config.data.train_fraction = 1 - share
      self._say(
        f'measured on {share:.0%} of the training images, held out '
        '(data.train_fraction), not on the test split'
      )

  def _built(self, config: ConfigDict) -> Run:
    """Returns the run of a config: every mistake in it shows here."""
    adopted, _ = pretrained.begin(config_lib.freeze(config))
    parts = resolve_parts(adopted)
    dataset = data.load(adopted.data, source=parts.data)
    return Run.build(adopted, DatasetInfo.of(dataset), parts=parts)

  def check(self, own_database: bool) -> None:
    """Tries every end of the space, so that mistakes show before the first trial.

    Args:
      own_database: whether the database is the one in the workdir.
    """
    for path, dimension in self.sweep.space.items():
      for value in dimension.ends():
        config = search_space.apply(self.config, {path: value})
        try:
          self._built(config)
        except UserError as error:
          raise UserError(f'sweep: {path} = {value!r}: {error}') from error
    self._open(own_database)

  def _open(self, own_database: bool) -> None:
    """Opens the study, unless its database or the directory is that of another."""
    directory, storage = self._directory, self._storage
    there = {}
    if not own_database or directory.database.exists():
      there = storage.studies()
    directory.check(self.sweep.name, there, own_database)
    with writing(directory.path, 'sweep: workdir'):
      directory.path.mkdir(parents=True, exist_ok=True)
      storage.open()
      with storage.exclusive():
        self.study = Study(self.sweep, self.config, storage, self.measure, self.mode)
        directory.claim(self.study.note_workdir, self.study.workdirs)
        if self.sweep.sampler == 'grid':
          self.study.enqueue_grid()

  def run(self, stop: threading.Event) -> bool:
    """Runs trials until all are over; returns False if a signal stopped it."""
    over, left = len(self.study.over()), len(self.study.under_way())
    if over or left:
      on_the_way = f', {left} under way' if left else ''
      self._say(f'{over} of {self.sweep.size} trials are there{on_the_way}: going on')
    told = ''
    while not stop.is_set():
      trial = self.study.begin(self._directory)
      if trial is not None:
        if trial.before:
          self._say(
            f'trial {trial.number}: left by a process on {trial.before}, taken over'
          )
        if not self._run_trial(trial):
          return False
        continue
      others = self.study.under_way()
      if not others:
        return True
      # If their process is killed, somebody has to go on with them.
      waiting = ', '.join(
        f'trial {t.number} on {t.user_attrs.get("host") or "?"}' for t in others
      )
      if waiting != told:
        self._say(f'waiting for {waiting}')
        told = waiting
      stop.wait(_POLL_SECONDS)
    return False

  def _run_trial(self, trial: StudyTrial) -> bool:
    """Trains a trial; returns False if a signal stopped it: it is to be gone on with."""
    with trial.held():
      try:
        return self._train(trial)
      except TrialLost:
        self._say(f'trial {trial.number}: another process has taken it over')
        return True

  def _train(self, trial: StudyTrial) -> bool:
    """Does the same, but raises `TrialLost` where another process has the trial now."""
    try:
      return self._train_to_end(trial)
    except _Pruned as pruned:
      trial.prune()
      self._ended(trial, str(pruned))
    except (TrialLost, DatabaseError):
      raise
    except Exception as error:  # whatever a combination of values can bring about
      if disk_problem(error):  # all others would fail, too: it goes on with this one
        raise
      self._fail(trial, describe_failure(error), isinstance(error, TrainingDiverged))
    return True

  def _train_to_end(self, trial: StudyTrial) -> bool:
    reporter = _Reporter(trial, self.measure)
    config = search_space.apply(self.config, trial.values)
    config.report = False
    summary = train(
      config,
      self._directory.trial(trial.number),
      quiet=True,
      callbacks=[reporter],
      compiler=self._programs.compiler(config),
    )
    if summary is None:
      return False
    value = reporter.last
    if value is None:  # it had ended before this process took it over
      value = self._last_value(trial)
    if value is None:
      self._fail(trial, f'no evaluation of it has the measure {self.measure}')
    elif not math.isfinite(value):
      self._fail(trial, f'its {self.measure} is {value}')
    else:
      trial.finish(
        value, steps=summary['steps'], seconds_train=summary['seconds_train']
      )
      self._ended(trial, 'done')
    return True

  def _last_value(self, trial: StudyTrial) -> float | None:
    history = RunDirectory(self._directory.trial(trial.number)).history()
    values = [p.get(self.measure) for p in history if p['split'] != 'train']
    return next((value for value in reversed(values) if value is not None), None)

  def _fail(self, trial: StudyTrial, reason: str, diverged: bool = False) -> None:
    trial.fail(reason, diverged)
    self._ended(trial, f'failed: {reason}')

  def _ended(self, trial: StudyTrial, how: str) -> None:
    over = self.study.over()
    reached = next(t.value for t in over if t.number == trial.number)
    best = self.study.best()
    given = ' '.join(
      f'{path.rsplit(".", 1)[-1]}={setting(value)}'
      for path, value in trial.values.items()
    )
    if reached is not None:
      how = f'{self.measure} {measured(self.measure, reached)}, {how}'
    so_far = ''
    if best:
      so_far = f'; best {measured(self.measure, best.value)} (trial {best.number})'
    self._say(
      f'[{len(over)}/{self.sweep.size}] trial {trial.number}: {how}: {given}{so_far}'
    )
    self._drop_checkpoints({t.number for t in over}, best.number if best else None)

  def _drop_checkpoints(self, over: set[int], best: int | None) -> None:
    """Keeps the checkpoints of the best trial that is over, and of those that are not."""
    for number in over - {best}:
      checkpoints = self._directory.trial(number) / 'checkpoints'
      shutil.rmtree(checkpoints, ignore_errors=True)

  def compiled(self) -> int:
    """Returns the number of programs that this process compiled."""
    return self._programs.compiled()

  def conclusion(self) -> str:
    """Returns the best trial in a few words."""
    best = self.study.best()
    if best is None:
      return 'no trial came to a result'
    return (
      f'best: trial {best.number}, {self.measure} {measured(self.measure, best.value)}; to '
      f'train with its values: {overrides(self.study.values(best))}'
    )

  def report(self) -> Path | None:
    """Writes the pages; None before any trial has ended."""
    if not self.study.over():
      return None
    from jaxvision.reports.sweep.report import write_sweep

    with writing(self._directory.path, 'sweep: workdir'):
      return write_sweep(self._directory.path, self._results())

  def _results(self) -> Results:
    over = self.study.over()
    return Results(
      name=self.sweep.name,
      config_name=self.config.name,
      measure=self.measure,
      mode=self.mode,
      sampler=self.sweep.sampler,
      size=self.sweep.size,
      space=dict(self.sweep.space),
      trials=[Result.of(t, self.study.values(t)) for t in over],
      importances=self.study.importances(),
      machine=self._machine,
      synthetic=self._synthetic,
      held_out=self.config.data.train_fraction < 1,
    )


def describe_failure(error: BaseException) -> str:
  """Returns why a trial failed, in one line."""
  text = ' '.join(str(error).split())
  if isinstance(error, UserError | TrainingDiverged):
    return text
  return f'{type(error).__name__}: {text}'
