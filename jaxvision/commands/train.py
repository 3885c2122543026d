"""Training, from a config to a summary and a report."""

import dataclasses
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxvision import config as config_lib
from jaxvision import data
from jaxvision.commands.say import describe_data, speaker
from jaxvision.data.dataset import Dataset
from jaxvision.errors import UserError
from jaxvision.tasks.classification_evaluator import Classifying
from jaxvision.tasks.gan_evaluator import Generating, Panel, bring_up_to_date
from jaxvision.training import pretrained, runtime
from jaxvision.training import step as programs
from jaxvision.training.build import (
  DataFacts,
  checkpoint_tree,
  fresh_state,
  make_task,
  make_trainer,
)
from jaxvision.training.checkpoints import Checkpoints
from jaxvision.training.features import precompute
from jaxvision.training.logging import MetricLog, Terminal, duration, read_history, warn
from jaxvision.training.loop import Clock, Loop, Plan, stop_on_signal
from jaxvision.training.mesh import check_batch, make_mesh
from jaxvision.training.outcome import Examiner
from jaxvision.training.profiling import Traced
from jaxvision.training.run_directory import RunDirectory, write_json
from jaxvision.training.summary import (
  count_parameters,
  describe_parameters,
  last_epoch,
  summarize,
)
from jaxvision.weights import LoadedWeights


def train(
  config: ConfigDict,
  workdir: str | Path | None = None,
  overwrite: bool = False,
  quiet: bool = False,
  watch: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, Any] | None:
  """Trains what the config describes, or goes on where an earlier call was stopped.

  Args:
    config: from `load_config` or `base_config`.
    workdir: the run directory; None: runs/<config name>.
    overwrite: replace a run of another config, or start this one anew.
    quiet: print nothing.
    watch: called with the step and the measures of each evaluation on the way; what it
      raises ends the run there.

  Returns:
    The contents of summary.json, or None if a signal stopped the run: the same call
    resumes it.

  Raises:
    UserError: the config, the data or the workdir is not usable.
    TrainingDiverged: the loss became NaN or infinite.
  """
  begun = time.perf_counter()
  say = speaker(quiet)
  config = config_lib.validate(config)
  runtime.configure(config.deterministic)
  directory = RunDirectory(workdir or Path('runs') / (config.name or 'run'))
  directory.check(config, overwrite)
  warning = runtime.missing_accelerator()
  if warning:
    warn(warning)
  say(f'devices: {runtime.describe()}')

  given = config  # what the run directory keeps: it is compared with the next command
  config, start = pretrained.begin(config, None if overwrite else directory)
  dataset = data.load(config.data)
  facts = DataFacts.of(dataset)
  task, plan = make_task(config, facts)
  mesh = make_mesh(config.parallel.data, config.parallel.fsdp)
  check_batch(mesh, config)
  say(describe_data(dataset, facts))
  panel = Panel.of(config, dataset) if config.task == 'gan' else None
  fitted = None
  if start and start.weights:
    fitted = pretrained.fit(start.weights, config, facts)
    say(pretrained.describe(start.origin, fitted))

  with directory.locked(), stop_on_signal() as stop:
    directory.open(given, overwrite)
    if start:
      write_json(directory.pretrained_file, dataclasses.asdict(start.origin))
    checkpoints = Checkpoints(directory.checkpoints, config.checkpoint.keep, task.best)
    try:
      session = _Session(
        config,
        directory,
        dataset,
        facts,
        task,
        plan,
        mesh,
        checkpoints,
        start,
        fitted,
        panel,
        watch,
      )
      return session.run(begun, stop, say, quiet)
    finally:
      checkpoints.close()


@dataclasses.dataclass
class _Session:
  """One process's part of a run."""

  config: ConfigDict
  directory: RunDirectory
  dataset: Dataset
  facts: DataFacts
  task: Any
  plan: Plan
  mesh: jax.sharding.Mesh
  checkpoints: Checkpoints
  start: pretrained.Start | None
  fitted: LoadedWeights | None
  panel: Panel | None
  watch: Callable[[int, dict[str, float]], None] | None

  def run(
    self,
    begun: float,
    stop: threading.Event,
    say: Callable[[str], None],
    quiet: bool,
  ) -> dict[str, Any] | None:
    config, plan = self.config, self.plan
    write_json(self.directory.dataset_file, dataclasses.asdict(self.facts))
    compiler = programs.Compiler()
    clock, provenance = Clock(begun), runtime.facts()
    restored = self.checkpoints.restore(checkpoint_tree(self.task, self.mesh))
    for warning in self.checkpoints.warnings:
      warn(warning)
    if restored:
      tree, record = restored
      state, metrics, step = tree['state'], tree['metrics'], record['step']
      position = record['position']
      clock.resume(record['clock'])
    else:
      train_split = self.dataset.splits['train']
      state = fresh_state(self.task, self.mesh, config.seed, train_split, compiler)
      if self.start:
        state = pretrained.insert(state, self.fitted or self._fit_again())
      metrics, step, position = None, 0, None
    params = count_parameters(state.params, config.task)
    finished = step == plan.total and self.directory.summary() is not None
    if finished:
      say(
        f'{self.directory.path} is finished ({plan.total} steps): evaluating it '
        '(--overwrite trains it anew)'
      )
    else:
      say(
        f'model: {config.model.name}, {describe_parameters(params)}; '
        f'{plan.total} steps of {plan.images} images '
        f'({plan.total / plan.steps_per_epoch:.1f} epochs)'
        + (f'; resumed at step {step}' if restored else '')
      )

    dataset = self.dataset
    if self.task.features:
      seen = time.perf_counter()
      dataset = precompute(
        self.task,
        self.mesh,
        dataset,
        state,
        config.eval_batch_size,
        config.data.workers,
        compiler,
      )
      say(
        f'features of the frozen layers: {sum(map(len, dataset.splits.values())):,} '
        f'images once, in {duration(time.perf_counter() - seen)}'
      )
    # A run that was killed between its last step and its summary has only that to do.
    trainer = None
    if step < plan.total:
      trainer = make_trainer(
        config, plan, self.task, self.mesh, dataset, state, position, compiler, step
      )
      if config.profile:
        trainer = Traced(trainer, self.directory.path / 'profile', config.profile, say)
      metrics = trainer.empty_metrics() if metrics is None else metrics
    examiner = self._examiner(dataset, state, compiler)
    clock.compile += compiler.seconds
    if not finished:
      say(f'compiled {compiler.programs} programs in {duration(compiler.seconds)}')

    if trainer is not None:
      log = MetricLog(self.directory.path, step)
      terminal = Terminal(plan.total, step, plan.images, quiet)
      loop = Loop(
        self.task,
        plan,
        trainer,
        examiner,
        examiner.split,
        self.checkpoints,
        log,
        terminal,
        clock,
        self.watch,
      )
      try:
        state, step = loop.run(state, metrics, step, stop)
      finally:
        trainer.close()
        log.close()
        terminal.close()
    if stop.is_set():
      say(
        f'stopped by a signal at step {step} of {plan.total}; saved: the same command '
        'goes on from here'
      )
      return None

    outcome = examiner.finish(state)
    if finished and self.panel:
      summary = bring_up_to_date(self.directory, self.panel, outcome.values)
    elif finished:
      summary = self.directory.summary()
    else:
      history = read_history(self.directory.metrics_file)
      summary = summarize(
        config,
        self.facts,
        plan,
        self.task,
        params,
        clock,
        history,
        {**examiner.training(last_epoch(history, plan, self.task)), **outcome.values},
        self.checkpoints.best_step(),
        self._provenance(),
        provenance,
      )
      write_json(self.directory.summary_file, summary)
    page = outcome.write_report(summary) if config.report else None
    say(outcome.line)
    if page:
      say(f'report: {page}')
    return summary

  def _examiner(
    self, inputs: Dataset, state: Any, compiler: programs.Compiler
  ) -> Examiner:
    if self.panel:
      return Generating(
        self.config,
        self.directory,
        self.dataset,
        self.task,
        self.mesh,
        self.panel,
        state,
        compiler,
      )
    return Classifying(
      self.config,
      self.directory,
      self.dataset,
      inputs,
      self.task,
      self.mesh,
      state,
      compiler,
    )

  def _fit_again(self) -> LoadedWeights:
    """Returns the weights that a run began with whose checkpoints are all damaged."""
    began = self.start.origin
    origin, found = pretrained.read(began.source)
    if origin.sha256 != began.sha256:
      raise UserError(
        f'init.pretrained: {began.source} is not what the run in {self.directory.path} '
        f'began with (sha256 {origin.sha256[:12]}, then {began.sha256[:12]}): start anew '
        'with --overwrite'
      )
    return pretrained.fit(found, self.config, self.facts)

  def _provenance(self) -> dict[str, Any] | None:
    if self.start is None:
      return None
    origin = dataclasses.asdict(self.start.origin)
    return {key: origin[key] for key in ('source', 'name', 'sha256', 'revision')}
