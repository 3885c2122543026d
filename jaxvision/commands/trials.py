"""The trials of a sweep as runs: in slots that share a program, or one by one."""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxvision.commands.optuna_study import Trial
from jaxvision.commands.train import train
from jaxvision.errors import TrainingDiverged, UserError
from jaxvision.tasks import Task
from jaxvision.training.build import DataFacts, checkpoint_tree, make_task
from jaxvision.training.checkpoints import Checkpoints
from jaxvision.training.logging import MetricLog, read_history
from jaxvision.training.loop import Clock, Plan, training_point
from jaxvision.training.run_directory import RunDirectory, write_json
from jaxvision.training.slots import Slots
from jaxvision.training.summary import count_parameters, last_epoch, summarize

Ended = Callable[[Trial, str], None]  # told of each trial that ended, and how


class GivenUp(Exception):
  """A trial is pruned."""


def describe_failure(error: BaseException) -> str:
  """Returns why a trial failed, in one line."""
  text = ' '.join(str(error).split())
  if isinstance(error, UserError | TrainingDiverged):
    return text
  return f'{type(error).__name__}: {text}'


class TrialRun:
  """A trial that trains in a slot: its directory, log, checkpoints and clock.

  Args:
    trial, config: what it is.
    path: of its run directory; a run that is there goes on.
    facts: of its data.
    mesh: that it trains on.
    machine: from `runtime.facts`.
  """

  def __init__(
    self,
    trial: Trial,
    config: ConfigDict,
    path: Path,
    facts: DataFacts,
    mesh: jax.sharding.Mesh,
    machine: dict[str, Any],
  ):
    self.trial, self.config, self.facts = trial, config, facts
    self.task: Task
    self.task, self.plan = make_task(config, facts)
    self.directory = RunDirectory(path)
    self.directory.check(config)
    self.clock = Clock(time.perf_counter())
    self.machine = machine
    self._open = contextlib.ExitStack()
    self._open.enter_context(self.directory.locked())
    try:
      self.directory.open(config)
      write_json(self.directory.dataset_file, dataclasses.asdict(facts))
      self.checkpoints = Checkpoints(
        self.directory.checkpoints, keep=1, best=self.task.best
      )
      self._open.callback(self.checkpoints.close)
      self.step, self.state, self.metrics = 0, None, None
      self.params: dict[str, int] = {}
      restored = self.checkpoints.restore(checkpoint_tree(self.task, mesh))
      if restored:
        tree, record = restored
        self.state, self.metrics = tree['state'], tree['metrics']
        self.step = record['step']
        self.clock.resume(record['clock'])
      self.log = MetricLog(path, self.step)
      self._open.callback(self.log.close)
    except BaseException:
      self._open.close()
      raise
    self.split = 'validation' if 'validation' in facts.examples else 'test'
    self._since = (self.step, self.clock.train)

  def logged(self, split: str) -> bool:
    """Whether the log has this step already: the process ended right behind it."""
    points = ((p['step'], p['split']) for p in reversed(self.log.history))
    return (self.step, split) in points

  def log_training(self, measured: dict[str, float]) -> None:
    """Writes a log point of training."""
    step, seconds = self._since
    spent = self.clock.train - seconds
    speed = (self.step - step) * self.plan.images / spent if spent else 0.0
    self._since = (self.step, self.clock.train)
    point = training_point(self.task, self.plan, self.step, measured, speed)
    self.log.write(self.step, 'train', point)

  def save(
    self, state: Any, metrics: Any, measured: dict[str, float] | None = None
  ) -> bool:
    """Writes a checkpoint, from which the trial goes on if this process ends.

    Returns:
      False, writing none, where a parameter is not finite.
    """
    return self.checkpoints.save(
      self.step,
      {'state': state, 'metrics': metrics},
      {'position': {}, 'clock': self.clock.record()},
      measured,
    )

  def summarize(self, measured: dict[str, dict[str, float]]) -> None:
    """Writes summary.json, given each split's measures at the end."""
    trained = last_epoch(self.log.history, self.plan, self.task)
    test, validation = measured['test'], measured.get('validation', {})
    values = {
      **{f'train_{name}': trained.get(name) for name in ('loss', 'accuracy')},
      'validation_loss': validation.get('loss'),
      'validation_accuracy': validation.get('accuracy'),
      **{f'test_{name}': value for name, value in test.items()},
    }
    self.checkpoints.wait()
    summary = summarize(
      self.config,
      self.facts,
      self.plan,
      self.task,
      self.params,
      self.clock,
      self.log.history,
      values,
      self.checkpoints.best_step(),
      None,
      self.machine,
    )
    write_json(self.directory.summary_file, summary)

  def close(self) -> None:
    """Closes its files; another process may go on with it."""
    self._open.close()


class Group:
  """Trials of one signature in the slots of one program.

  Args:
    slots: the program.
    measure: of an evaluation, that trials are ranked by.
    ended: told of each trial that ended.
    stopped: whether to stop.
  """

  def __init__(
    self, slots: Slots, measure: str, ended: Ended, stopped: Callable[[], bool]
  ):
    self._slots, self._measure = slots, measure
    self._ended, self._stopped = ended, stopped
    self._runs: dict[int, TrialRun] = {}

  @property
  def free(self) -> bool:
    """Whether there is a slot for another trial."""
    return len(self._runs) < self._slots.count

  @property
  def busy(self) -> bool:
    """Whether a trial is under way."""
    return bool(self._runs)

  def add(self, run: TrialRun) -> None:
    """Puts a trial into a free slot."""
    slot = next(s for s in range(self._slots.count) if s not in self._runs)
    state = self._slots.fresh(run.config) if run.state is None else run.state
    run.params = count_parameters(state.params, run.config.task)
    self._slots.put(slot, run.config, state, run.metrics)
    run.state = run.metrics = None  # the slot has them
    self._runs[slot] = run

  def advance(self) -> None:
    """Trains all trials up to the next step at which one has something to do."""
    plan: Plan = next(iter(self._runs.values())).plan
    steps = min(plan.next_stop(run.step) - run.step for run in self._runs.values())
    began = time.perf_counter()
    taken, finite = self._slots.advance(max(steps, 0), self._stopped)
    seconds = time.perf_counter() - began
    for slot, run in list(self._runs.items()):
      run.step += taken
      run.clock.train += seconds
      if not finite[slot]:
        self._diverged(slot, 'the loss')
    if self._stopped():
      for slot, run in self._runs.items():
        run.save(*self._slots.read(slot))
      self.close()
      return
    self._at_stops(plan)

  def _at_stops(self, plan: Plan) -> None:
    runs = list(self._runs.items())
    at_end = {slot for slot, run in runs if run.step == plan.total}
    for slot, run in runs:
      at_log = run.step % plan.log_every == 0 or slot in at_end
      if at_log and not run.logged('train'):
        run.log_training(self._slots.take_metrics(slot))
    due = [s for s, run in runs if run.step % plan.eval_every == 0 or s in at_end]
    measured = {}
    if due:
      split = runs[0][1].split  # of one signature, and so of all
      measured[split] = self._slots.evaluate(split)
    if at_end and 'test' not in measured:
      measured['test'] = self._slots.evaluate('test')
    for slot, run in runs:
      found = measured[run.split][slot] if slot in due else None
      if found is not None and not run.logged(run.split):
        run.log.write(run.step, run.split, found)
      at_save = run.step % plan.save_every == 0 or slot in at_end
      if at_save and not run.save(*self._slots.read(slot), found):
        self._diverged(slot, 'a parameter')
        continue
      if found is not None:
        self._judge(slot, run, found, measured, slot in at_end)

  def _diverged(self, slot: int, what: str) -> None:
    run = self._runs[slot]
    reason = f'training diverged by step {run.step}: {what} is not finite'
    run.trial.fail(reason)
    self._end(slot, f'failed: {reason}')

  def _judge(
    self,
    slot: int,
    run: TrialRun,
    found: dict[str, float],
    measured: dict[str, list[dict[str, float]]],
    at_end: bool,
  ) -> None:
    value = found[self._measure]
    pruned = run.trial.report(value, run.step)
    if at_end:
      finals = {split: values[slot] for split, values in measured.items()}
      run.summarize(finals)
      run.trial.note(steps=run.step, seconds_train=run.clock.train)
      run.trial.finish(value)
      self._end(slot, 'done')
    elif pruned:
      run.trial.note(steps=run.step, seconds_train=run.clock.train)
      run.trial.prune()
      self._end(slot, f'pruned at step {run.step} of {run.plan.total}')

  def _end(self, slot: int, how: str) -> None:
    run = self._runs.pop(slot)
    run.close()
    self._ended(run.trial, how)

  def fail(self, error: BaseException) -> None:
    """Ends all trials under way, because of a fault of the program they share."""
    for slot, run in list(self._runs.items()):
      run.trial.fail(describe_failure(error))
      self._end(slot, f'failed: {describe_failure(error)}')

  def close(self) -> None:
    """Leaves the trials under way to be gone on with."""
    for run in self._runs.values():
      run.close()
    self._runs.clear()


def run_alone(
  trial: Trial, config: ConfigDict, path: Path, measure: str, ended: Ended
) -> bool:
  """Trains a trial by itself, as the train command does.

  Returns:
    False if a signal stopped it: it is to be gone on with.
  """

  def watch(step: int, measured: dict[str, float]) -> None:
    if measure in measured and trial.report(measured[measure], step):
      raise GivenUp(f'pruned at step {step}')

  try:
    summary = train(config, path, quiet=True, watch=watch)
  except GivenUp as given_up:
    trial.prune()
    ended(trial, str(given_up))
    return True
  except Exception as error:  # whatever a combination of values can bring about
    trial.fail(describe_failure(error))
    ended(trial, f'failed: {describe_failure(error)}')
    return True
  if summary is None:
    return False
  history = read_history(RunDirectory(path).metrics_file)
  values = [p[measure] for p in history if p['split'] != 'train' and measure in p]
  if not values or values[-1] is None:
    trial.fail(f'no evaluation of it has the measure {measure}')
    ended(trial, f'failed: no evaluation of it has the measure {measure}')
    return True
  trial.note(steps=summary['steps'], seconds_train=summary['seconds_train'])
  trial.finish(values[-1])
  ended(trial, 'done')
  return True
