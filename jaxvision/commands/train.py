"""`jaxvision train`: from a config to a trained run, its summary and its report."""

import argparse
import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
from ml_collections import ConfigDict

from jaxvision import config as config_lib
from jaxvision import data as data_lib
from jaxvision.config.parts import source_of
from jaxvision.data.dataset import Dataset
from jaxvision.data.info import DatasetInfo
from jaxvision.errors import UserError
from jaxvision.models import own
from jaxvision.signals import STOPPED, stop_on_signal
from jaxvision.tasks.base import Parts, PyTree
from jaxvision.training import parts as parts_lib
from jaxvision.training import pretrained, processes, runtime, segments
from jaxvision.training.callbacks import Callback, CallbackList, TrainContext
from jaxvision.training.checkpoints import Checkpoints
from jaxvision.training.clock import RunClock
from jaxvision.training.compiler import Compiler
from jaxvision.training.evaluation import (
  RunEvaluator,
  ended_early,
  what_was_evaluated,
)
from jaxvision.training.features import precompute
from jaxvision.training.logging import (
  JsonLinesLogger,
  Terminal,
  duration,
  speaker,
  warn,
)
from jaxvision.training.loop import TrainLoop
from jaxvision.training.profiling import traced
from jaxvision.training.run import Run
from jaxvision.training.run_directory import RunDirectory
from jaxvision.training.summary import (
  describe_data,
  describe_parameters,
  summarize,
)

_DECODING_SECONDS = 86_400.0  # that processes wait for the data of the slowest machine


def train(
  config: ConfigDict,
  workdir: str | Path | None = None,
  *,
  overwrite: bool = False,
  extend: bool = False,
  quiet: bool = False,
  callbacks: Sequence[Callback] = (),
  data: Any = None,
  compiler: Compiler | None = None,
  **parts: Any,
) -> dict[str, Any] | None:
  """Trains what the config describes, or goes on where an earlier call was stopped.

  Args:
    config: from `load_config` or `base_config`.
    workdir: the run directory; None: runs/<config name>.
    overwrite: replace a run of another config, or start this one anew.
    extend: go on with a run of another length, learning rate or schedule, as the config
      is now; see `jaxvision.training.segments`.
    quiet: print nothing.
    callbacks: called while the run trains, beside those that the config names.
    data: a `Dataset`, as from `jaxvision.data.from_arrays`, (images, labels), or a
      function that returns either, in the place of what `config.data` names.
    compiler: keeps the programs that runs in this process share; None: a new one.
    **parts: parts of your own as objects: `model` (a linen module class, a function
      that returns a module, or a module), `loss`, `optimizer`, `schedule`, `augment` (a
      list of functions), `metrics` (name -> clu Metric class), `task`.

  Returns:
    The contents of summary.json, or None if a signal stopped the run: the same call
    resumes it.

  Raises:
    UserError: the config, the data or the workdir is not usable.
    TrainingDiverged: the loss became NaN or infinite.
  """
  begun = time.perf_counter()
  say = speaker(quiet)
  config, parts = with_parts(config, parts, data)
  runtime.start(config, say)
  directory = RunDirectory(workdir or Path('runs') / (config.name or 'run'))
  with processes.together(
    'reading the config, the data and the workdir', _DECODING_SECONDS
  ):
    resolved = parts_lib.resolve_parts(config, {**parts, 'data': data})
    changed: segments.Changes = {}
    if extend and overwrite:
      raise UserError('train: --extend goes on with a run, and --overwrite replaces it')
    if extend:
      changed = segments.changes_of(directory, config)
    else:
      directory.check(config, overwrite)
    if not overwrite:
      parts_lib.check_unchanged(directory, config, resolved)
    adopted, start = pretrained.begin(config, None if overwrite else directory)
    known = None if overwrite else directory.data_info()
    dataset = data_lib.load(
      adopted.data,
      source=resolved.data,
      split_rule=known.split_rule if known else None,
    )
    if not overwrite:
      check_same_data(directory, dataset)
    info = DatasetInfo.of(dataset)
    run = Run.build(
      adopted,
      info,
      parts=resolved,
      compiler=compiler or Compiler(),
      directory=directory,
    )
    run.task.prepare_evaluation()
    to_train = overwrite or bool(changed) or directory.summary() is None
    if to_train:
      run.task.prepare_training(None if overwrite else directory)
    named = parts_lib.make_callbacks(config, run.task.best)
    say(describe_data(dataset, info))
    loaded = None
    if start and start.weights:
      loaded = pretrained.match(start.weights, run)
      say(pretrained.describe(start, loaded, run))
  terminal = Terminal(run.plan.images_per_step, quiet)
  listeners = CallbackList([JsonLinesLogger(), terminal, *named, *callbacks])
  with contextlib.ExitStack() as held:
    with processes.together('opening the workdir'):
      held.enter_context(directory.locked())
      if not changed:  # else when its state is there
        directory.open(config, overwrite)
      parts_lib.record(directory, config, resolved)
      if start:
        directory.write(directory.pretrained_file, dataclasses.asdict(start.origin))
      directory.record_data(dataset)
      if to_train and (found := run.task.sources()):
        directory.write(directory.sources_file, found)
    with _checkpoints(run) as checkpoints:
      clock = RunClock(begun)
      session = _Session(
        run, dataset, checkpoints, listeners, clock, start, changed, say
      )
      return session.run(loaded)


def command(options: argparse.Namespace, config: ConfigDict | None) -> int:
  """Trains a config, several seeds of it, or goes on with the run in a workdir."""
  if options.help_config:
    print(config_lib.documentation())
    return 0
  if config is None:
    if not options.workdir:
      raise UserError(
        'name what to train with --config=FILE, such as configs/digits_cnn.py'
      )
    config = config_lib.override(
      RunDirectory(options.workdir).config(), options.overrides
    )
  how = {'overwrite': options.overwrite, 'extend': options.extend}
  if options.seeds:
    return train_seeds(config, options.seeds, options.workdir, **how)
  summary = train(config, options.workdir, **how)
  return STOPPED if summary is None else 0


def train_seeds(
  config: ConfigDict,
  seeds: int,
  workdir: str | Path | None = None,
  overwrite: bool = False,
  extend: bool = False,
) -> int:
  """Trains several seeds of a config, one after the other, and prints the mean.

  Returns the exit code: `STOPPED` where a signal has left seeds untrained.
  """
  from jaxvision.commands.runner import Trial, run_trials, spread

  if seeds < 1:
    raise UserError(f'train: --seeds must be at least 1, not {seeds}')
  stem = Path(workdir or Path('runs') / config.name)
  trials = []
  for seed in range(config.seed, config.seed + seeds):
    own = config_lib.thaw(config)
    own.seed = seed
    trials.append(Trial(f'seed {seed}', own, stem.with_name(f'{stem.name}-seed{seed}')))
  if not run_trials(trials, overwrite=overwrite, extend=extend):
    return STOPPED
  summaries = [trial.directory.summary() for trial in trials]
  # Another process may train some of them.
  if None not in summaries and processes.is_writer():
    print(spread(summaries))
  return 0


def with_parts(
  config: ConfigDict, parts: Mapping[str, Any], data: Any
) -> tuple[ConfigDict, dict[str, Any]]:
  """Returns the config, frozen, with the names of parts passed as objects; and the parts.

  A module becomes its class and fields of the config, from which eval and predict build
  it again.
  """
  known = [
    f.name for f in dataclasses.fields(Parts) if f.name not in ('data', 'callbacks')
  ]
  for name in parts:
    if name not in known:
      raise TypeError(
        f'train() takes no argument "{name}" (parts of your own: {", ".join(known)})'
      )
  parts, values = dict(parts), {}
  if isinstance(parts.get('model'), nn.Module):
    values = {f'model.{k}': v for k, v in own.fields_of(parts['model']).items()}
    parts['model'] = type(parts['model'])
  values |= parts_lib.names_of(parts)
  if callable(data):
    values['data.name'] = source_of(data).name
  elif data is not None:
    values['data.name'] = data.name if isinstance(data, Dataset) else 'arrays'
  if not values:
    return config_lib.freeze(config), parts
  config = config_lib.thaw(config_lib.validate(config))
  for path, value in values.items():
    config_lib.put(config, path, value)
  return config_lib.freeze(config), parts


def check_same_data(directory: RunDirectory, dataset: Dataset) -> None:
  """Raises UserError where the data are not those that the run began with."""
  if different := directory.data_difference(dataset):
    raise UserError(
      f'workdir {directory.path} holds a run on other data than {dataset.name} is now '
      f'({different}): restore the data, choose another directory with --workdir=DIR, or '
      'replace that run with --overwrite'
    )


@contextlib.contextmanager
def _checkpoints(run: Run) -> Iterator[Checkpoints]:
  assert run.directory
  keep = run.config.checkpoint.keep
  checkpoints = Checkpoints(run.directory.checkpoints, keep, run.task.best)
  try:
    yield checkpoints
  except BaseException:
    with contextlib.suppress(Exception):  # the writer fails where the workdir is gone
      checkpoints.close()
    raise
  checkpoints.close()


@dataclasses.dataclass
class _Session:
  """One process's part of a run."""

  context: Run
  dataset: Dataset
  checkpoints: Checkpoints
  callbacks: CallbackList
  clock: RunClock
  start: pretrained.PretrainedStart | None
  changed: segments.Changes
  say: Callable[[str], None]

  def __post_init__(self):
    self._provenance = runtime.facts()  # of the machine, as it is when the run begins
    compiler = self.context.compiler
    self._compiled = compiler.programs, compiler.seconds

  def run(self, loaded: Any) -> dict[str, Any] | None:
    """Trains to the end, or to a signal, and finishes the run.

    Args:
      loaded: pretrained weights for the model; None where there are none.
    """
    with contextlib.ExitStack() as opened:
      return self._run(loaded, opened)

  def _run(self, loaded: Any, opened: contextlib.ExitStack) -> dict[str, Any] | None:
    run, plan = self.context, self.context.plan
    state, metrics, record = self._begin(loaded)
    step = record.get('step', 0)
    params = run.task.count_parameters(state.params)
    known = run.directory.summary()
    begun = [segment.first_step for segment in segments.at(run.directory, step)]
    if step in begun and record.get('stopped_by'):
      # It was the segment before that callbacks have ended: they begin anew.
      record = {**record, 'stopped_by': None, 'callbacks': None}
    over = step == plan.total_steps or bool(record.get('stopped_by'))
    self._announce(
      step, params, finished=over and known is not None, resumed=bool(record)
    )
    inputs = self._inputs(state)
    # A run that was killed between its last step and its summary has only that to do.
    trainer = None
    if not over:
      state = run.for_training(state)
      trainer = run.start_trainer(inputs, state, record.get('position'), step)
      opened.callback(trainer.close)
    evaluator = run.task.evaluator(run, self.dataset, inputs, state)
    if not over or known is None:
      evaluator.compile()
      if trainer is None:
        run.compiler.wait_for_all()
      else:
        trainer.wait()  # and not for the evaluation
      self._count_compilation()
    if trainer is None:
      return self._finish(evaluator, state, step, known, record.get('stopped_by'))
    context = TrainContext(
      directory=run.directory.path,
      config=run.config,
      info=run.info,
      start_step=step,
      total_steps=plan.total_steps,
      steps_per_epoch=plan.steps_per_epoch,
      params=params,
    )
    metrics = trainer.empty_metrics() if metrics is None else metrics
    summary = None
    try:
      self.callbacks.restore(record.get('callbacks') or {})
      self.callbacks.on_train_begin(context)
      loop = TrainLoop(
        run, trainer, evaluator, self.checkpoints, self.callbacks, self.clock
      )
      self.clock.started(run.compiler.seconds - self._compiled[1])
      with traced(trainer, run, self.say), stop_on_signal() as stop:
        state, step = loop.run(state, metrics, step, stop)
      where = f'at step {step} of {plan.total_steps}'
      if loop.stopped:
        self.say(
          f'stopped by a signal {where}; saved: the same command goes on from here'
        )
        return None
      if context.stop_reason:
        self.say(f'stopped {where}: {context.stop_reason}')
      summary = self._finish(evaluator, state, step, None, context.stop_reason)
      return summary
    finally:
      self.callbacks.on_train_end(step, summary)

  def _begin(self, loaded: Any) -> tuple[PyTree, Any, dict[str, Any]]:
    """Returns (state, metrics under way, record of the checkpoint or {})."""
    run = self.context
    restored = self.checkpoints.restore(run.checkpoint_tree())
    for warning in self.checkpoints.warnings:
      warn(warning)
    if restored:
      tree, record = restored
      self.clock.resume(record['clock'], record['step'], run.directory.clock())
      self._extend(record['step'])
      return run.from_checkpoint(tree), tree['metrics'], record
    self.clock.resume({}, 0, run.directory.clock())
    self._extend(0)
    state = run.init(self.dataset.splits['train'])
    if self.start:
      loaded = loaded or pretrained.match_again(self.start, run)
      state = pretrained.insert(state, loaded)
    return state, None, {}

  def _extend(self, step: int) -> None:
    """Begins a segment of the run with what `--extend` changes, and tells of it."""
    run, total = self.context, self.context.plan.total_steps
    if not self.changed:
      return
    if step > total:
      raise UserError(
        f'train: {run.directory.path} stands at step {step}, and would end at step {total}: '
        'give it more epochs or steps'
      )
    segments.begin(run.directory, run.config, self.changed, step)
    if step:
      self.say(segments.continuation(run, self.changed, step))

  def _announce(
    self, step: int, params: dict[str, int], *, finished: bool, resumed: bool
  ) -> None:
    run, plan = self.context, self.context.plan
    if finished:
      self.say(
        f'{run.directory.path} is finished ({step} steps): evaluating it (--overwrite '
        'trains it anew)'
      )
      return
    self.say(
      f'model: {run.config.model.name}, {describe_parameters(params)}; '
      f'{plan.total_steps} steps of {plan.images_per_step} images '
      f'({plan.total_steps / plan.steps_per_epoch:.1f} epochs)'
      + (f'; resumed at step {step}' if resumed else '')
    )

  def _count_compilation(self) -> None:
    programs, seconds = self._compiled
    compiler = self.context.compiler
    self.clock.add('compile', compiler.seconds - seconds)
    left = compiler.under_way
    self.say(
      f'compiled {compiler.programs - programs - left} programs in '
      f'{duration(compiler.seconds - seconds)}'
      + (f'; {left} more while training begins' if left else '')
    )

  def _inputs(self, state: PyTree) -> Dataset:
    """Returns the data set, with features in the place of images where these stay."""
    if self.context.task.features is None:
      return self.dataset
    begun = time.perf_counter()
    inputs = precompute(self.context, self.dataset, state)
    count = sum(map(len, inputs.splits.values()))
    self.say(
      f'features of the frozen layers: {count:,} images once, in '
      f'{duration(time.perf_counter() - begun)}'
    )
    return inputs

  def _finish(
    self,
    evaluator: RunEvaluator,
    state: PyTree,
    step: int,
    known: dict[str, Any] | None,
    stopped_by: str | None,
  ) -> dict[str, Any]:
    """Evaluates the run and writes its summary and its report.

    Args:
      evaluator: of the run.
      state: the last.
      step: of the state.
      known: summary.json, where the run had ended before.
      stopped_by: why a callback ended it early, or None.
    """
    run = self.context
    with self.clock.spent_for('evaluation'):
      final = evaluator.final(state)
    if known is None:
      summary = summarize(
        run,
        step=step,
        params=run.task.count_parameters(state.params),
        clock=self.clock,
        values=final.values,
        training_values=evaluator.training_values,
        best_step=self.checkpoints.best_step(),
        provenance=self._provenance,
        pretrained=self.start.origin.short() if self.start else None,
        stopped_by=stopped_by,
      )
      run.directory.write(run.directory.summary_file, summary)
    else:
      summary = evaluator.updated_summary(known, final)
    self.say(final.line)
    page = None
    if run.config.report and processes.is_writer():
      early = summary.get('stopped_by')
      notes = [ended_early(step, run.plan.total_steps, early)] if early else []
      notes += segments.notes(run.directory)
      evaluated = what_was_evaluated(
        run, self.dataset, split=evaluator.final_split, step=step, notes=notes
      )
      page = final.write_report(summary | {'evaluated': evaluated})
    if page:
      self.say(f'report: {page}')
    return summary
