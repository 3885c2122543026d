"""The trials of a sweep in a database: which come next, what came of them."""

import functools
import itertools
import json
import platform
import uuid
from collections.abc import Callable, Mapping
from typing import IO, Any

from ml_collections import ConfigDict

from jaxvision import config as config_lib
from jaxvision.commands import sweep_storage  # says what to install
from jaxvision.commands.sweep_directory import SweepDirectory
from jaxvision.commands.sweep_storage import Storage
from jaxvision.commands.sweep_trial import StudyTrial, kernel, take
from jaxvision.config.search_space import Choice, Range, Sweep
from jaxvision.errors import UserError

# isort: split
import optuna
from optuna.distributions import (
  BaseDistribution,
  CategoricalDistribution,
  FloatDistribution,
  IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

_OVER = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
ENDED = {  # how a trial ended, in the words of the report
  TrialState.COMPLETE: 'done',
  TrialState.PRUNED: 'pruned',
  TrialState.FAIL: 'failed',
}


def _in_database(method: Callable[..., Any]) -> Callable[..., Any]:
  """Has a method of `Study` raise `DatabaseError` where the database cannot be used."""

  @functools.wraps(method)
  def call(self: 'Study', *arguments: Any) -> Any:
    with self.storage.usable():
      return method(self, *arguments)

  return call


class Study:
  """A sweep in its database.

  Several processes, on several machines, may work on one study at once. What a trial is
  given depends on the sweep's seed and the trial's number, so that a sweep that was
  stopped goes on as it would have.

  Each trial under way has an owner: the process that works on it, and that tells the
  database so every few seconds. Once the owner has left the trial, or was silent for
  `sweep_storage.GRACE_SECONDS`, another process takes it over under its number, with its
  values and its place in the directory. (Optuna's `fail_stale_trials` would begin a trial
  of another number in its place.)

  Args:
    sweep: checked.
    config: that it varies.
    storage: the database.
    measure: that trials are ranked by.
    mode: 'max' or 'min'.

  Raises:
    UserError: the database cannot be used, or holds another study of this name.
  """

  def __init__(
    self, sweep: Sweep, config: ConfigDict, storage: Storage, measure: str, mode: str
  ):
    self.sweep, self.measure, self.mode = sweep, measure, mode
    self.storage, self._owner = storage, uuid.uuid4().hex
    self.distributions = {path: _distribution(one) for path, one in sweep.space.items()}
    database = storage.open()
    with storage.usable():
      self._study = optuna.create_study(
        study_name=sweep.name,
        storage=database,
        sampler=_PerTrial(sweep),
        pruner=_pruner(sweep, mode),
        direction={'max': 'maximize', 'min': 'minimize'}[mode],
        load_if_exists=True,
      )
      # In this order: a process that begins a trial has claimed the study before.
      trials, before = self.trials(), self._study.user_attrs.get('sweep')
    if trials and before is None:
      raise UserError(
        f'sweep: the study "{sweep.name}" in the database has trials of another '
        'program: give the sweep another name'
      )
    self._claim(config, before)

  def _claim(self, config: ConfigDict, before: str | None) -> None:
    """Writes what the study is of, or checks that it is the same as before."""
    told = {
      'measure': f'{self.measure} ({self.mode})',
      'sampler': f'{self.sweep.sampler}, seed {self.sweep.seed}',
      'space': {path: repr(one) for path, one in self.sweep.space.items()},
      'config': {
        path: repr(value)
        for path, value in config_lib.decisive(config).items()
        if path not in self.sweep.space
      },
    }
    if before is None:
      self._study.set_user_attr('sweep', json.dumps(told))
      return
    old, new = _flat(json.loads(before)), _flat(told)
    different = [
      f'{key}: {old.get(key, "none")} -> {new.get(key, "none")}'
      for key in sorted(old.keys() | new.keys())
      if old.get(key) != new.get(key)
    ]
    if different:
      raise UserError(
        f'sweep: the study "{self.sweep.name}" in the database is another one ('
        + '; '.join(different[:4])
        + '): choose another directory with --workdir=DIR, and with --storage give the '
        'sweep another name, too'
      )

  @_in_database
  def note_workdir(self, identity: str) -> None:
    """Notes a directory in which trials of the study are trained."""
    self._study.set_user_attr(f'{sweep_storage.WORKDIR}{identity}', platform.node())

  @_in_database
  def workdirs(self) -> set[str]:
    """Returns the identities of the directories that were noted."""
    return sweep_storage.workdirs(self._study.user_attrs)

  @_in_database
  def enqueue_grid(self) -> None:
    """Lines up every combination of a grid that is not there yet.

    Call it within `storage.exclusive`, or two processes would line up the same.
    """
    axes = [map(_stored, one.values()) for one in self.sweep.space.values()]
    for point in itertools.islice(itertools.product(*axes), self.sweep.size):
      self._study.enqueue_trial(dict(zip(self.sweep.space, point)), skip_if_exists=True)

  @_in_database
  def begin(self, directory: SweepDirectory) -> StudyTrial | None:
    """Takes a trial that nobody works on: one that was left, or else a new one.

    Args:
      directory: that this process works in, and has claimed.

    Returns:
      The trial; None where there are as many as the sweep wants, each of them over or in
      the hands of another process.
    """
    with self.storage.exclusive():
      silent = set(self.storage.open()._get_stale_trial_ids(self._study._study_id))
      for one in self.under_way():
        lock = self._lock_of_free(one, directory, one._trial_id in silent)
        if lock is not None:
          handle = optuna.trial.Trial(self._study, one._trial_id)
          return self._take(handle, directory, lock)
      begun = [t for t in self.trials() if t.state != TrialState.WAITING]
      if len(begun) >= self.sweep.size:
        return None
      handle = self._study.ask()
      lock = directory.lock(handle.number)
      if lock is None:
        raise UserError(
          f'sweep: another process works in {directory.trial(handle.number)}: choose '
          'another directory with --workdir=DIR'
        )
      return self._take(handle, directory, lock)

  def _lock_of_free(
    self, trial: FrozenTrial, directory: SweepDirectory, silent: bool
  ) -> IO[str] | None:
    """Returns the lock of the directory of a trial that nobody works on any more.

    Within one machine, the lock tells at once whether a process has ended; for others it
    is only the heartbeat. Where a process was suspended for longer than that, the lock
    keeps the trial for it, if the machines share the directory.
    """
    owned = trial.user_attrs
    beside = owned.get('workdir') == directory.identity()
    if not owned.get('owner') or silent or (beside and owned.get('kernel') == kernel()):
      return directory.lock(trial.number)
    return None

  def _take(
    self, handle: optuna.trial.Trial, directory: SweepDirectory, lock: IO[str]
  ) -> StudyTrial:
    before = handle.user_attrs.get('host')
    take(handle, self.storage, self._owner, directory.identity())
    for path, distribution in self.distributions.items():
      _suggest(handle, path, distribution)
    values = _values(handle.params, self.sweep)
    return StudyTrial(handle, values, self.storage, self._owner, lock, before)

  @_in_database
  def under_way(self) -> list[FrozenTrial]:
    """Returns the trials that are neither over nor waiting for their turn."""
    return self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

  @_in_database
  def trials(self) -> list[FrozenTrial]:
    """Returns all trials as they are now."""
    return self._study.get_trials(deepcopy=False)

  @_in_database
  def over(self) -> list[FrozenTrial]:
    """Returns the trials that have ended, in the order of their numbers."""
    return self._study.get_trials(deepcopy=False, states=_OVER)

  def best(self) -> FrozenTrial | None:
    """Returns the best finished trial, None before there is one."""
    sign = {'max': -1, 'min': 1}[self.mode]
    done = [t for t in self.over() if t.state == TrialState.COMPLETE]
    return min(done, key=lambda t: (sign * t.value, t.number), default=None)

  def values(self, trial: FrozenTrial) -> dict[str, Any]:
    """Returns what a trial was given: path -> value."""
    return _values(trial.params, self.sweep)

  def importances(self) -> dict[str, float]:
    """Returns the share of the variance between trials that each field explains.

    By fANOVA (Hutter et al. 2014) over finished trials. {} where these are fewer than
    four or all alike.
    """
    done = [t for t in self.over() if t.state == TrialState.COMPLETE]
    if len(done) < 4 or len({t.value for t in done}) < 2 or len(self.sweep.space) < 2:
      return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=self.sweep.seed)
    try:
      return optuna.importance.get_param_importances(self._study, evaluator=evaluator)
    except (ValueError, RuntimeError):  # no field has two values among them
      return {}


class _PerTrial(optuna.samplers.BaseSampler):
  """A sampler that is seeded anew for each trial, by its number."""

  def __init__(self, sweep: Sweep):
    self._sweep = sweep
    self._current: tuple[int, optuna.samplers.BaseSampler] | None = None

  def _of(self, trial: FrozenTrial) -> optuna.samplers.BaseSampler:
    if self._current is None or self._current[0] != trial.number:
      self._current = trial.number, self._make((self._sweep.seed, trial.number))
    return self._current[1]

  def _make(self, seeds: tuple[int, int]) -> optuna.samplers.BaseSampler:
    seed = (seeds[0] * 1_000_003 + seeds[1]) % 2**32
    if self._sweep.sampler != 'tpe':
      return optuna.samplers.RandomSampler(seed)
    return optuna.samplers.TPESampler(
      seed=seed,
      n_startup_trials=max(1, self._sweep.startup),
      multivariate=True,
      constant_liar=True,  # or trials that are under way at once would be alike
    )

  def infer_relative_search_space(self, study, trial):
    return self._of(trial).infer_relative_search_space(study, trial)

  def sample_relative(self, study, trial, search_space):
    return self._of(trial).sample_relative(study, trial, search_space)

  def sample_independent(self, study, trial, param_name, param_distribution):
    return self._of(trial).sample_independent(
      study, trial, param_name, param_distribution
    )


def _pruner(sweep: Sweep, mode: str) -> optuna.pruners.BasePruner:
  if sweep.pruner == 'none':
    return optuna.pruners.NopPruner()
  if sweep.pruner == 'halving':
    inner: optuna.pruners.BasePruner = optuna.pruners.SuccessiveHalvingPruner()
  elif sweep.pruner == 'hyperband':
    return optuna.pruners.HyperbandPruner()  # it starts over in brackets of its own
  else:
    inner = optuna.pruners.MedianPruner(n_startup_trials=sweep.startup)
  return _Patient(inner, sweep.patience, sweep.startup)


class _Patient(optuna.pruners.BasePruner):
  """Lets every trial be evaluated a few times, and the first trials finish."""

  def __init__(self, inner: optuna.pruners.BasePruner, patience: int, startup: int):
    self._inner, self._patience, self._startup = inner, patience, startup

  def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
    if len(trial.intermediate_values) <= self._patience:
      return False
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return len(done) >= self._startup and self._inner.prune(study, trial)


def _distribution(dimension: Range | Choice) -> BaseDistribution:
  if isinstance(dimension, Choice):
    return CategoricalDistribution([_stored(option) for option in dimension.options])
  if dimension.whole:
    return IntDistribution(
      int(dimension.low), int(dimension.high), dimension.log, int(dimension.step or 1)
    )
  return FloatDistribution(
    float(dimension.low), float(dimension.high), dimension.log, dimension.step
  )


def _suggest(
  handle: optuna.trial.Trial, path: str, distribution: BaseDistribution
) -> None:
  """Gives a trial a value of a field, unless it has one."""
  if isinstance(distribution, CategoricalDistribution):
    handle.suggest_categorical(path, distribution.choices)
    return
  assert isinstance(distribution, FloatDistribution | IntDistribution)
  how = {'step': distribution.step, 'log': distribution.log}
  if isinstance(distribution, IntDistribution):
    handle.suggest_int(path, distribution.low, distribution.high, **how)
  else:
    handle.suggest_float(path, distribution.low, distribution.high, **how)


def _stored(value: Any) -> Any:
  """Returns what the database keeps: it has no tuples."""
  return repr(value) if isinstance(value, tuple) else value


def _values(params: Mapping[str, Any], sweep: Sweep) -> dict[str, Any]:
  found = {}
  for path, dimension in sweep.space.items():
    if path not in params:
      continue
    value = params[path]
    if isinstance(dimension, Choice):
      value = next(o for o in dimension.options if _stored(o) == value)
    found[path] = value
  return found


def _flat(told: Mapping[str, Any]) -> dict[str, str]:
  return {path: str(value) for path, value in config_lib.walk(told)}
