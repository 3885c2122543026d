"""The trials of a sweep in a database: which come next, what came of them."""

import contextlib
import itertools
import json
import os
import platform
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvision import config as config_lib
from jaxvision.config.search_space import Choice, Range, Sweep
from jaxvision.errors import UserError

try:
  import optuna
  import sqlalchemy
  from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
  )
  from optuna.trial import FrozenTrial, TrialState
except ModuleNotFoundError as error:
  raise UserError(
    "sweep needs the package optuna: pip install 'jaxvision[sweep]'"
  ) from error

_WORKDIR = 'workdir '  # before the identity of a directory, among a study's attributes
_OVER = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
ENDED = {  # how a trial ended, in the words of the report
  TrialState.COMPLETE: 'done',
  TrialState.PRUNED: 'pruned',
  TrialState.FAIL: 'failed',
}


class Study:
  """A sweep in its database.

  Several processes, on several machines, may work on one study at once. What a trial is
  given depends on the sweep's seed and the trial's number, so that a sweep that was
  stopped goes on as it would have.

  Args:
    sweep: checked.
    config: that it varies.
    url: of the database, as SQLAlchemy takes it.
    measure: that trials are ranked by.
    mode: 'max' or 'min'.

  Raises:
    UserError: the database cannot be reached, or holds another study of this name.
  """

  def __init__(
    self, sweep: Sweep, config: ConfigDict, url: str, measure: str, mode: str
  ):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings('ignore', category=optuna.exceptions.ExperimentalWarning)
    # Of a trial that goes on from a checkpoint behind its last report.
    warnings.filterwarnings('ignore', message='The reported value is ignored')
    self.sweep, self.measure, self.mode = sweep, measure, mode
    self.distributions = {path: _distribution(one) for path, one in sweep.space.items()}
    with _usable(url):
      self._study = optuna.create_study(
        study_name=sweep.name,
        storage=_storage(url),
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

  def note_workdir(self, identity: str) -> None:
    """Notes a directory in which trials of the study are trained."""
    self._study.set_user_attr(f'{_WORKDIR}{identity}', platform.node())

  def workdirs(self) -> set[str]:
    """Returns the identities of the directories that were noted."""
    return _workdirs(self._study.user_attrs)

  def enqueue_grid(self) -> None:
    """Lines up every combination of a grid that is not there yet."""
    axes = [map(_stored, one.values()) for one in self.sweep.space.values()]
    for point in itertools.islice(itertools.product(*axes), self.sweep.size):
      self._study.enqueue_trial(dict(zip(self.sweep.space, point)), skip_if_exists=True)

  def next(self) -> 'StudyTrial | None':
    """Begins a trial; None if there are as many as the sweep wants."""
    begun = [t for t in self.trials() if t.state != TrialState.WAITING]
    if len(begun) >= self.sweep.size:
      return None
    return StudyTrial(self._study.ask(self.distributions), self.sweep)

  def under_way(self) -> list['StudyTrial']:
    """Returns the trials that a process of this or another machine began."""
    found = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return [
      StudyTrial(optuna.trial.Trial(self._study, one._trial_id), self.sweep)
      for one in found
    ]

  def trials(self) -> list[FrozenTrial]:
    """Returns all trials as they are now."""
    return self._study.get_trials(deepcopy=False)

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


class StudyTrial:
  """One trial, begun.

  Attributes:
    number: from 0, in the study.
    values: path of the field -> value.
  """

  def __init__(self, handle: optuna.trial.Trial, sweep: Sweep):
    self._handle = handle
    self.number: int = handle.number
    self.values = _values(handle.params, sweep)

  @property
  def host(self) -> str | None:
    """The machine that works on it."""
    return self._handle.user_attrs.get('host')

  def is_of(self, workdir: str) -> bool:
    """Whether it was begun in a directory, or before anybody had noted where."""
    attributes = self._handle.user_attrs
    if 'workdir' in attributes:
      return attributes['workdir'] == workdir
    return self.host in (None, platform.node())

  def take(self, workdir: str) -> None:
    """Notes that this machine works on it, in the directory of that identity."""
    for key, value in (('host', platform.node()), ('workdir', workdir)):
      if self._handle.user_attrs.get(key) != value:
        self._handle.set_user_attr(key, value)

  def report(self, value: float, step: int) -> bool:
    """Notes the measure at a step; returns whether to give the trial up there."""
    self._handle.report(value, step)
    return self._handle.should_prune()

  def note(self, **facts: Any) -> None:
    """Keeps facts beside the result."""
    for key, value in facts.items():
      self._handle.set_user_attr(key, value)

  def finish(self, value: float) -> None:
    """Ends it with a result."""
    self._handle.study.tell(self._handle, value)

  def prune(self) -> None:
    """Ends it as given up; its last report is its result."""
    self._handle.study.tell(self._handle, state=TrialState.PRUNED)

  def fail(self, reason: str, diverged: bool = False) -> None:
    """Ends it without a result."""
    self.note(error=' '.join(reason.split())[:500], diverged=diverged)
    self._handle.study.tell(self._handle, state=TrialState.FAIL)


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


def studies(url: str) -> dict[str, set[str]]:
  """Returns the studies in a database: name -> identities of their directories.

  Raises:
    UserError: the database cannot be reached.
  """
  with _usable(url):
    found = optuna.get_all_study_summaries(_storage(url), include_best_trial=False)
  return {one.study_name: _workdirs(one.user_attrs) for one in found}


def sqlite_url(path: Path) -> str:
  """Returns the URL of a database in a file, whatever characters its path has.

  >>> sqlite_url(Path('/runs/a?b/sweep.db'))
  'sqlite:////runs/a%3Fb/sweep.db'
  """
  url = sqlalchemy.URL.create('sqlite', database=str(path.absolute()))
  return url.render_as_string()


def _workdirs(attributes: Mapping[str, Any]) -> set[str]:
  return {key.removeprefix(_WORKDIR) for key in attributes if key.startswith(_WORKDIR)}


@contextlib.contextmanager
def _usable(url: str) -> Iterator[None]:
  """Says in one line what keeps a database from being used."""
  try:
    yield
  except Exception as error:  # SQLAlchemy's, the driver's, Optuna's
    text = ' '.join(str(error).split()).split(' (Background on')[0]
    raise UserError(
      f'sweep: the database {_without_password(url)} cannot be used '
      f'({type(error).__name__}: {text[:200]}): check the URL, that the server runs '
      'and that its driver is installed'
    ) from error


def _storage(url: str) -> optuna.storages.BaseStorage:
  prefix, _, path = url.partition('sqlite:///')
  if path and not prefix:
    url = f'sqlite:///{os.path.expanduser(path)}'
  options = {'connect_args': {'timeout': 60}} if url.startswith('sqlite') else {}
  return optuna.storages.RDBStorage(url, engine_kwargs=options)


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


def _without_password(url: str) -> str:
  scheme, at, rest = url.rpartition('@')
  if not at or url.startswith('sqlite'):
    return url
  return f'{scheme.split(":", 2)[0]}://...@{rest}'
