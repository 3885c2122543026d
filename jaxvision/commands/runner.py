"""Many trainings in one process: seeds, trials of a sweep, variants of a study.

Each is an ordinary run in a directory of its own, which the other commands read. Runs
that differ in their seed or in other numbers alone share their compiled programs.
"""

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxvision.commands.train import train
from jaxvision.config.hparams import program_signature
from jaxvision.errors import TrainingDiverged
from jaxvision.training.compiler import Compiler
from jaxvision.training.logging import speaker
from jaxvision.training.run_directory import RunDirectory
from jaxvision.training.segments import changes_of

_KEPT = 4  # configs that differ in more than numbers, whose programs stay in memory


@dataclasses.dataclass(frozen=True)
class Trial:
  """One training among several.

  Attributes:
    name: for people.
    config: of the run.
    path: its run directory.
  """

  name: str
  config: ConfigDict
  path: Path

  @property
  def directory(self) -> RunDirectory:
    """The run directory."""
    return RunDirectory(self.path)

  @property
  def finished(self) -> bool:
    """Whether there is nothing left to train."""
    return self.directory.summary() is not None


class Programs:
  """The compiled programs of the last few kinds of runs in this process."""

  def __init__(self):
    self._compilers: dict[str, Compiler] = {}
    self._dropped = 0

  def compiler(self, config: ConfigDict) -> Compiler:
    """Returns the compiler that runs of configs like this one share."""
    key = program_signature(config)
    if key not in self._compilers:
      while len(self._compilers) >= _KEPT:
        oldest = self._compilers.pop(next(iter(self._compilers)))
        self._dropped += oldest.programs
        jax.clear_caches()  # the operations outside of the programs fill memory, too
      self._compilers[key] = Compiler()
    return self._compilers[key]

  def compiled(self) -> int:
    """Returns the number of programs compiled so far."""
    return self._dropped + sum(c.programs for c in self._compilers.values())


def run_trials(
  trials: Sequence[Trial],
  *,
  quiet: bool = False,
  overwrite: bool = False,
  extend: bool = False,
  programs: Programs | None = None,
  on_diverged: Callable[[Trial, TrainingDiverged], None] | None = None,
  on_end: Callable[[Trial, dict[str, Any]], None] | None = None,
) -> bool:
  """Trains what is not finished, one after another.

  A trial that another process trains at this moment is left to it.

  Args:
    trials: in their order.
    quiet: print nothing.
    overwrite: train all of them anew.
    extend: go on with those whose config is longer now, see `train`.
    programs: kept between calls; None: only in this one.
    on_diverged: called instead of raising where a loss becomes infinite.
    on_end: called with each trial that ended and its summary.

  Returns:
    False if a signal stopped it: the same call goes on.
  """
  say, programs = speaker(quiet), programs or Programs()
  longer = set()
  for trial in trials:  # before any work, so that a mistake in the last one shows now
    if not extend:
      trial.directory.check(trial.config, overwrite)
    elif changes_of(trial.directory, trial.config):
      longer.add(trial.path)
  for number, trial in enumerate(trials, start=1):
    if trial.finished and not overwrite and trial.path not in longer:
      continue
    if not trial.directory.is_free():
      say(f'{trial.name}: another process trains it')
      continue
    say(f'[{number}/{len(trials)}] {trial.name}')
    try:
      summary = train(
        trial.config,
        trial.path,
        overwrite=overwrite,
        extend=extend,
        quiet=quiet,
        compiler=programs.compiler(trial.config),
      )
    except TrainingDiverged as error:
      if on_diverged is None:
        raise
      on_diverged(trial, error)
      continue
    if summary is None:
      return False
    if on_end:
      on_end(trial, summary)
  return True


def spread(summaries: Sequence[dict[str, Any]]) -> str:
  """Returns the mean and the standard deviation of what runs are ranked by.

  >>> measure = {'key': 'test_accuracy', 'label': 'test accuracy', 'percent': True}
  >>> spread([{'test_accuracy': a, 'measure': measure} for a in (0.5, 0.7)])
  'test accuracy: 60.00% ± 14.14 (2 seeds: 50.00%, 70.00%)'
  """
  measure = summaries[0]['measure']
  values = [s[measure['key']] for s in summaries if s.get(measure['key']) is not None]
  if not values:
    return f'{measure["label"]}: not measured'
  form = '.2%' if measure['percent'] else '.4g'
  scale = 100 if measure['percent'] else 1
  text = f'{measure["label"]}: {statistics.mean(values):{form}}'
  if len(values) > 1:
    text += f' ± {scale * statistics.stdev(values):.2f}'
  each = ', '.join(f'{value:{form}}' for value in values)
  return f'{text} ({len(values)} seeds: {each})'
