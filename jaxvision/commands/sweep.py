"""Sweeps: many trials of one config, in search of the best values of some fields."""

import dataclasses
import json
import platform
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvision import config as config_lib
from jaxvision import data
from jaxvision.commands.optuna_study import Study, Trial
from jaxvision.commands.say import speaker
from jaxvision.commands.trials import Group, TrialRun, describe_failure, run_alone
from jaxvision.config import search_space as sweep_lib
from jaxvision.config.search_space import Sweep
from jaxvision.data.dataset import Dataset
from jaxvision.errors import UserError
from jaxvision.reports.sweep.results import (
  Result,
  Results,
  measured,
  overrides,
  setting,
)
from jaxvision.training import pretrained, runtime
from jaxvision.training.build import DataFacts, make_task
from jaxvision.training.logging import warn
from jaxvision.training.loop import stop_on_signal
from jaxvision.training.mesh import check_batch, make_mesh
from jaxvision.training.run_directory import RunDirectory
from jaxvision.training.slots import Slots, share_programs
from jaxvision.training.step import Compiler
from jaxvision.training.tuning import signature

_KEPT = 4  # compiled programs kept at hand for trials that come back to them
_SMALLER_IS_BETTER = ('loss', 'fd', 'kid')


@dataclasses.dataclass(frozen=True)
class Swept:
  """What a sweep came to.

  Attributes:
    study: its trials.
    page: path of sweep.html, None before a trial has ended.
    programs: train steps compiled by this call for the trials that share them.
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
  take_over: bool = False,
  quiet: bool = False,
) -> Swept:
  """Runs a sweep, or goes on with one.

  Each trial is a run in `workdir`/trials/NUMBER that the other commands read; the
  checkpoints of the best one stay. Trials that differ in numbers only share a compiled
  program. A trial that was under way when its process ended goes on from its checkpoint;
  one that fails is recorded, and the next one begins.

  Args:
    config: that the sweep varies.
    sweep: what it tries.
    workdir: directory of the sweep; None: runs/<name of the sweep>.
    storage: URL of the database; None: sweep.db in the workdir.
    take_over: go on with trials that other machines began, too.
    quiet: print nothing.

  Raises:
    UserError: the sweep cannot be run on the config, the database cannot be used, or the
      workdir holds another sweep.
  """
  say = speaker(quiet)
  config = config_lib.validate(config)
  if not sweep.name:
    sweep = dataclasses.replace(sweep, name=f'{config.name or "run"}-sweep')
  sweep = sweep_lib.validate(sweep, config)
  runtime.configure(config.deterministic)
  warning = runtime.missing_accelerator()
  if warning:
    warn(warning)
  path = _directory(workdir or Path('runs') / sweep.name)
  held_out = config.task == 'classification' and config.data.train_fraction == 1
  if held_out and sweep.validation and 'data.train_fraction' not in sweep.space:
    config.data.train_fraction = 1 - sweep.validation
    say(
      f'measured on {sweep.validation:.0%} of the training images, held out '
      '(data.train_fraction), not on the test split'
    )
  say(f'devices: {runtime.describe()}')
  runner = _Runner(config, sweep, path, storage, say)
  runner.check()
  with stop_on_signal() as stop:
    finished = runner.run(stop, take_over)
  page = runner.report()
  if not finished:
    say('stopped by a signal; saved: the same command goes on from here')
  elif not runner.waiting():
    say(runner.conclusion())
  if page:
    say(f'report: {page}')
  return Swept(runner.study, page, runner.programs, finished)


def _directory(workdir: str | Path) -> Path:
  path = Path(workdir)
  if path.exists() and not path.is_dir():
    raise UserError(f'workdir {path} is a file: choose another with --workdir=DIR')
  if (path / 'config.json').exists():
    raise UserError(
      f'workdir {path} holds a training run: choose another directory with --workdir=DIR'
    )
  return path


class _Runner:
  """One process's part of a sweep."""

  def __init__(
    self,
    config: ConfigDict,
    sweep: Sweep,
    path: Path,
    storage: str | None,
    say: Callable[[str], None],
  ):
    self.config, self.sweep, self.path, self._say = config, sweep, path, say
    self.programs = 0
    self._machine = runtime.facts()
    self._data: tuple[str, Dataset, DataFacts] | None = None
    self._benches: dict[str, Slots] = {}
    task, _ = make_task(*self._with_data(config)[:2])
    measure, mode = task.best
    if sweep.measure:
      measure = sweep.measure
      mode = 'min' if measure in _SMALLER_IS_BETTER else 'max'
    self.measure, self.mode = measure, mode
    self.storage = storage or f'sqlite:///{path.absolute() / "sweep.db"}'

  def check(self) -> None:
    """Tries every end of the space, so that mistakes show before the first trial."""
    for path, dimension in self.sweep.space.items():
      for value in dimension.ends():
        config = sweep_lib.apply(self.config, {path: value})
        try:
          make_task(*self._with_data(config)[:2])
        except UserError as error:
          raise UserError(f'sweep: {path} = {value!r}: {error}') from error
    if self.config.task == 'classification':
      known = ('accuracy', 'loss', 'accuracy_top5')
      if self.measure not in known:
        raise UserError(
          f'sweep: there is no measure "{self.measure}" (known: {", ".join(known)})'
        )
    self.path.mkdir(parents=True, exist_ok=True)
    self.study = Study(self.sweep, self.config, self.storage, self.measure, self.mode)
    if self.sweep.sampler == 'grid':
      self.study.enqueue_grid()

  def _with_data(self, config: ConfigDict) -> tuple[ConfigDict, DataFacts, Dataset]:
    """Returns the config as its first weights want it, and its data."""
    config, _ = pretrained.begin(config)
    key = json.dumps(config.data.to_dict(), sort_keys=True, default=str)
    if self._data is None or self._data[0] != key:
      dataset = data.load(config.data)
      self._data = key, dataset, DataFacts.of(dataset)
      self._benches.clear()
    return config, self._data[2], self._data[1]

  def run(self, stop: threading.Event, take_over: bool) -> bool:
    """Runs trials until there are enough; returns False if a signal stopped it."""
    queue = self._abandoned(take_over)
    over = len(self.study.over())
    if over or queue:
      on_the_way = f', {len(queue)} under way' if queue else ''
      self._say(f'{over} of {self.sweep.size} trials are there{on_the_way}: going on')
    while not stop.is_set():
      trial = queue.pop(0) if queue else self.study.next()
      if trial is None:
        return True
      trial.take()
      try:
        config = self._config(trial)
        config, facts, dataset = self._with_data(config)
        task, _ = make_task(config, facts)
        shared = share_programs(config, task, dataset)
      except Exception as error:
        self._fail(trial, error)
        continue
      if shared:
        self._run_group(trial, config, facts, dataset, queue, stop)
      elif not run_alone(
        trial, self._config(trial), self._path(trial), self.measure, self._ended
      ):
        return False
    return False

  def _run_group(
    self,
    trial: Trial,
    config: ConfigDict,
    facts: DataFacts,
    dataset: Dataset,
    queue: list[Trial],
    stop: threading.Event,
  ) -> None:
    """Runs a trial, and those after it that share its program, as slots become free.

    The first that does not is put at the head of the queue.
    """
    mine = signature(config)
    try:
      mesh = make_mesh(config.parallel.data, config.parallel.fsdp)
      check_batch(mesh, config)
      group = Group(
        self._slots(mine, config, facts, dataset, mesh),
        self.measure,
        self._ended,
        stop.is_set,
      )
    except Exception as error:
      self._fail(trial, error)
      return
    try:
      self._fill_and_train(group, trial, mine, facts, mesh, queue, stop)
    finally:
      group.close()

  def _fill_and_train(
    self,
    group: Group,
    trial: Trial,
    mine: str,
    facts: DataFacts,
    mesh: Any,
    queue: list[Trial],
    stop: threading.Event,
  ) -> None:
    following: Trial | None = trial
    while following is not None or group.busy:
      while following is not None and group.free:
        self._add(group, following, facts, mesh)
        following = self._following(mine, queue) if not stop.is_set() else None
      if not group.busy:
        break
      try:
        group.advance()
      except Exception as error:
        group.fail(error)
      if stop.is_set():
        return
      if following is None and group.free:
        following = self._following(mine, queue)

  def _following(self, mine: str, queue: list[Trial]) -> Trial | None:
    """Returns the next trial if it has this signature, else leaves it in the queue."""
    if not queue:
      asked = self.study.next()
      if asked is None:
        return None
      asked.take()
      queue.append(asked)
    try:
      same = signature(self._config(queue[0])) == mine
    except UserError:
      same = False  # told when its turn comes
    return queue.pop(0) if same else None

  def _add(self, group: Group, trial: Trial, facts: DataFacts, mesh: Any) -> None:
    try:
      config, path = self._config(trial), self._path(trial)
      group.add(TrialRun(trial, config, path, facts, mesh, self._machine))
    except Exception as error:
      self._fail(trial, error)

  def _slots(
    self,
    key: str,
    config: ConfigDict,
    facts: DataFacts,
    dataset: Dataset,
    mesh: Any,
  ) -> Slots:
    if key not in self._benches:
      while len(self._benches) >= _KEPT:
        del self._benches[next(iter(self._benches))]
      compiler = Compiler()
      _, plan = make_task(config, facts)
      self._benches[key] = Slots(
        config, facts, plan, dataset, mesh, self.sweep.side_by_side, compiler
      )
      self.programs += 1
      self._say(f'compiled the program of these trials in {compiler.seconds:.1f} s')
    return self._benches[key]

  def _config(self, trial: Trial) -> ConfigDict:
    return sweep_lib.apply(self.config, trial.values)

  def _path(self, trial: Trial) -> Path:
    return self.path / 'trials' / f'{trial.number:04d}'

  def _abandoned(self, take_over: bool) -> list[Trial]:
    """Returns the trials whose process is gone: theirs are the first turns."""
    found, elsewhere = [], []
    for trial in self.study.under_way():
      if trial.host in (None, platform.node()):
        if RunDirectory(self._path(trial)).is_free():
          found.append(trial)
      elif take_over:
        found.append(trial)
      else:
        elsewhere.append(trial)
    if elsewhere:
      numbers = ', '.join(str(trial.number) for trial in elsewhere)
      hosts = ', '.join(sorted({trial.host or '' for trial in elsewhere}))
      self._say(
        f'under way on {hosts}: trial {numbers} (if that process is gone, --take-over '
        'goes on with it here)'
      )
    return found

  def waiting(self) -> bool:
    """Whether other processes still have trials of the study under way."""
    return bool(self.study.under_way())

  def _fail(self, trial: Trial, error: BaseException) -> None:
    trial.fail(describe_failure(error))
    self._ended(trial, f'failed: {describe_failure(error)}')

  def _ended(self, trial: Trial, how: str) -> None:
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
    for path in (self.path / 'trials').glob('*/checkpoints'):
      number = int(path.parent.name)
      if number in over and number != best:
        shutil.rmtree(path, ignore_errors=True)

  def conclusion(self) -> str:
    """Returns what the sweep found, in a few words."""
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

    return write_sweep(self.path, self._results())

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
      synthetic=bool(self._data and self._data[2].synthetic),
      held_out=self.config.data.train_fraction < 1,
    )
