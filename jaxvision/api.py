"""The commands as functions: train, evaluate, benchmark, load_run."""

import dataclasses
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxvision import config as config_lib
from jaxvision import data
from jaxvision.config import load as load_config
from jaxvision.data.dataset import Dataset
from jaxvision.deploy.predictor import load_run
from jaxvision.engine import programs, runtime
from jaxvision.engine.checkpoints import Checkpoints
from jaxvision.engine.log import (
  MetricLog,
  Terminal,
  duration,
  last_epoch,
  read_history,
  warn,
)
from jaxvision.engine.loop import Clock, Loop, Plan, stop_on_signal
from jaxvision.engine.mesh import check_batch, make_mesh
from jaxvision.engine.profiling import Traced
from jaxvision.engine.rundir import RunDirectory, write_json
from jaxvision.engine.setup import (
  DataFacts,
  checkpoint_tree,
  fresh_state,
  make_task,
  make_trainer,
)
from jaxvision.errors import UserError

__all__ = ['benchmark', 'evaluate', 'load_config', 'load_run', 'train']


def train(
  config: ConfigDict,
  workdir: str | Path | None = None,
  overwrite: bool = False,
  quiet: bool = False,
) -> dict[str, Any] | None:
  """Trains what the config describes, or goes on where an earlier call was stopped.

  Args:
    config: from `load_config` or `base_config`.
    workdir: the run directory; None: runs/<config name>.
    overwrite: replace a run of another config, or start this one anew.
    quiet: print nothing.

  Returns:
    The contents of summary.json, or None if a signal stopped the run: the same call
    resumes it.

  Raises:
    UserError: the config, the data or the workdir is not usable.
    TrainingDiverged: the loss became NaN or infinite.
  """
  begun = time.perf_counter()
  say = _speaker(quiet)
  config = config_lib.validate(config)
  runtime.configure(config.deterministic)
  directory = RunDirectory(workdir or Path('runs') / (config.name or 'run'))
  directory.check(config, overwrite)
  warning = runtime.missing_accelerator()
  if warning:
    warn(warning)
  say(f'devices: {runtime.describe()}')

  dataset = data.load(config.data)
  facts = DataFacts.of(dataset)
  task, plan = make_task(config, facts)
  mesh = make_mesh(config.parallel.data, config.parallel.fsdp)
  check_batch(mesh, config)
  say(_describe_data(dataset, facts))

  with directory.locked(), stop_on_signal() as stop:
    directory.open(config, overwrite)
    checkpoints = Checkpoints(directory.checkpoints, config.checkpoint.keep)
    try:
      session = _Session(
        config, directory, dataset, facts, task, plan, mesh, checkpoints
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
      metrics, step, position = None, 0, None
    params = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    finished = step == plan.total and self.directory.summary() is not None
    if finished:
      say(
        f'{self.directory.path} is finished ({plan.total} steps): evaluating it '
        '(--overwrite trains it anew)'
      )
    else:
      say(
        f'model: {config.model.name}, {params:,} parameters; '
        f'{plan.total} steps of {config.batch_size} images '
        f'({plan.total / plan.steps_per_epoch:.1f} epochs)'
        + (f'; resumed at step {step}' if restored else '')
      )

    split = 'validation' if 'validation' in self.dataset.splits else 'test'
    # A run that was killed between its last step and its summary has only that to do.
    trainer = None
    if step < plan.total:
      trainer = make_trainer(
        config, plan, self.task, self.mesh, self.dataset, state, position, compiler
      )
      if config.profile:
        trainer = Traced(trainer, self.directory.path / 'profile', config.profile, say)
      metrics = trainer.empty_metrics() if metrics is None else metrics
    evaluators = {
      name: self._evaluator(name, state, compiler)
      for name in dict.fromkeys([split, 'test'])
    }
    clock.compile += compiler.seconds
    if not finished:
      say(f'compiled {compiler.programs} programs in {duration(compiler.seconds)}')

    if trainer is not None:
      log = MetricLog(self.directory.path, step)
      terminal = Terminal(plan.total, step, config.batch_size, quiet)
      loop = Loop(
        self.task,
        plan,
        config.batch_size,
        trainer,
        evaluators[split],
        split,
        self.checkpoints,
        log,
        terminal,
        clock,
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

    measured, logits, labels = evaluators['test'].outputs(state)
    if finished:
      summary = self.directory.summary()
    else:
      summary = self._summary(params, clock, measured, provenance)
      write_json(self.directory.summary_file, summary)
    _report(self.directory, config, self.dataset, 'test', summary, logits, labels)
    say(
      f'test: loss {measured["loss"]:.4f}  accuracy {measured["accuracy"]:.2%}  '
      f'top-5 {measured["accuracy_top5"]:.2%}  ({len(labels):,} images'
      + (', made up' if self.facts.synthetic else '')
      + ')'
    )
    say(f'report: {self.directory.report / "report.html"}')
    return summary

  def _evaluator(
    self, split: str, state: Any, compiler: programs.Compiler
  ) -> programs.Evaluator:
    return programs.Evaluator(
      self.task,
      self.mesh,
      self.dataset.splits[split],
      self.dataset.pipeline,
      state,
      self.config.eval_batch_size,
      self.config.data.workers,
      compiler,
    )

  def _summary(
    self,
    params: int,
    clock: Clock,
    measured: dict[str, float],
    provenance: dict[str, Any],
  ) -> dict[str, Any]:
    config, plan = self.config, self.plan
    history = read_history(self.directory.metrics_file)
    trained = last_epoch(history, plan.total, plan.steps_per_epoch)
    best = self.checkpoints.best_step()
    evaluations = {p['step']: p for p in history if p['split'] != 'train'}
    validation = [p for p in history if p['split'] == 'validation']
    images = plan.total * config.batch_size
    return {
      'config_name': config.name,
      'task': config.task,
      'dataset': self.facts.name,
      'synthetic': self.facts.synthetic,
      'skipped_images': self.facts.skipped,
      'model': config.model.name,
      'params': params,
      'steps': plan.total,
      'epochs': plan.total / plan.steps_per_epoch,
      'seed': config.seed,
      'train_loss': trained['loss'],
      'train_accuracy': trained['accuracy'],
      'validation_loss': validation[-1]['loss'] if validation else None,
      'validation_accuracy': validation[-1]['accuracy'] if validation else None,
      'test_loss': measured['loss'],
      'test_accuracy': measured['accuracy'],
      'test_accuracy_top5': measured['accuracy_top5'],
      'best_step': best,
      'best_accuracy': evaluations[best]['accuracy'] if best in evaluations else None,
      'seconds_train': clock.train,
      'seconds_compile': clock.compile,
      'seconds_total': clock.total(),
      'images_per_second': images / clock.train if clock.train else None,
      'peak_memory_bytes': runtime.peak_memory_bytes(),
      'dtype': config.dtype,
      **provenance,
      'command': shlex.join([Path(sys.executable).name, *_command()]),
    }


def evaluate(
  workdir: str | Path,
  split: str = 'test',
  checkpoint: str = 'last',
  overrides: tuple[str, ...] = (),
  quiet: bool = False,
) -> dict[str, Any]:
  """Evaluates a run on a split of its data and writes the report anew.

  Args:
    workdir: of a training run.
    split: 'test', 'validation' or 'train'; the report is of that split.
    checkpoint: 'last', 'best', or a step.
    overrides: 'data.dir=DIR' and the like: where the data are now.
    quiet: print nothing.

  Returns:
    {'split', 'step', 'examples', 'loss', 'accuracy', 'accuracy_top5'}.

  Raises:
    UserError: no run, no checkpoint, no such split, or the data are not there.
  """
  say = _speaker(quiet)
  directory = RunDirectory(workdir)
  config = directory.config()
  changed = config_lib.override(config, overrides)
  refused = [
    line
    for line in config_lib.differences(config, changed)
    if not line.startswith(('data.', 'eval_batch_size'))
  ]
  if refused:
    raise UserError(
      f'eval: the run in {workdir} is what it is: only data.* and eval_batch_size may '
      f'be set ({refused[0]})'
    )
  mesh = make_mesh()
  run = load_run(workdir, checkpoint, mesh)
  dataset = data.load(changed.data)
  facts = DataFacts.of(dataset)
  if facts.class_names != run.facts.class_names:
    raise UserError(
      f'eval: {facts.name} has other classes than the run in {workdir} was trained on'
    )
  if facts.image_shape != run.facts.image_shape:
    raise UserError(
      f'eval: {facts.name} has images of {facts.image_shape}, the run in {workdir} '
      f'takes {run.facts.image_shape}: set data.image_size and data.channels'
    )
  if split not in dataset.splits:
    raise UserError(
      f'eval: {facts.name} has no split "{split}" here (it has '
      f'{", ".join(dataset.splits)})'
    )
  # The normalisation is the run's own, also on other data.
  task, _ = make_task(config, run.facts)
  evaluator = programs.Evaluator(
    task,
    mesh,
    dataset.splits[split],
    dataset.pipeline,
    run.state,
    changed.eval_batch_size,
    changed.data.workers,
    programs.Compiler(),
  )
  measured, logits, labels = evaluator.outputs(run.state)
  summary = directory.summary() or {'config_name': config.name}
  report = _report(directory, config, dataset, split, summary, logits, labels)
  say(
    f'{split}: loss {measured["loss"]:.4f}  accuracy {measured["accuracy"]:.2%}  '
    f'top-5 {measured["accuracy_top5"]:.2%}  ({len(labels):,} images'
    + (', made up' if facts.synthetic else '')
    + f'; checkpoint of step {run.step})'
  )
  say(f'report: {report}')
  return {'split': split, 'step': run.step, 'examples': len(labels), **measured}


def benchmark(config: ConfigDict, steps: int = 100) -> dict[str, Any]:
  """Measures how fast a config trains here; writes nothing but the caches.

  Args:
    config: from `load_config` or `base_config`.
    steps: to time, after some that are not.

  Returns:
    What `jaxvision benchmark --json` prints: images_per_second, step_seconds,
    compile_seconds, model_flops_per_step, peak_share, input_share,
    program_memory_bytes, peak_memory_bytes and what they belong to.

  Raises:
    UserError: the config or the data are not usable.
  """
  config = config_lib.validate(config)
  runtime.configure(config.deterministic)
  warning = runtime.missing_accelerator()
  if warning:
    warn(warning)
  from jaxvision.engine.benchmark import measure  # no other command measures

  return measure(config, data.load(config.data), steps)


def _report(
  directory: RunDirectory,
  config: ConfigDict,
  dataset: Dataset,
  split: str,
  summary: dict[str, Any],
  logits: np.ndarray,
  labels: np.ndarray,
) -> Path:
  from jaxvision.evaluation import report  # matplotlib: only once there is a result

  notes = []
  if dataset.synthetic:
    notes.append('The images are synthetic: no number here says anything of real data.')
  if dataset.skipped:
    notes.append(f'{dataset.skipped} unreadable image files were passed over.')
  shifted = np.exp(logits - logits.max(-1, keepdims=True))
  return report.write_report(
    directory.path,
    summary=summary,
    config=config.to_dict(),
    history=read_history(directory.metrics_file),
    labels=labels,
    probabilities=shifted / shifted.sum(-1, keepdims=True),
    class_names=dataset.class_names,
    image_at=lambda i: dataset.splits[split][i][0],
    split=split,
    notes=notes,
  )


def _describe_data(dataset: Dataset, facts: DataFacts) -> str:
  height, width, channels = facts.image_shape
  sizes = ', '.join(f'{n:,} {split}' for split, n in facts.examples.items())
  made_up = ' (SYNTHETIC: made-up images)' if facts.synthetic else ''
  skipped = f', {facts.skipped} unreadable files passed over' if facts.skipped else ''
  return (
    f'data: {facts.name}{made_up}, {sizes}; {len(facts.class_names)} classes, '
    f'{height}x{width}x{channels}, {dataset.pipeline}{skipped}'
  )


def _speaker(quiet: bool) -> Callable[[str], None]:
  return (lambda text: None) if quiet else (lambda text: print(text, flush=True))


def _command() -> list[str]:
  """Returns the command line in the form that a user types."""
  program, *arguments = sys.argv
  if os.path.basename(program) == 'main.py':
    return ['-m', 'jaxvision.main', *arguments]
  return [program, *arguments]
