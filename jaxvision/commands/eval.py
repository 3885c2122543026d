"""`jaxvision eval`: evaluation of a run, or of weights that came from elsewhere."""

import argparse
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvision import config as config_lib
from jaxvision import data as data_lib
from jaxvision.commands.run_data import load_other_data, load_own_data
from jaxvision.commands.workdir import workdir_of
from jaxvision.data.dataset import Dataset
from jaxvision.data.identity import table_of
from jaxvision.data.info import DatasetInfo
from jaxvision.errors import UserError
from jaxvision.inference.loading import mean_of
from jaxvision.training import pretrained, processes, runtime, segments
from jaxvision.training.evaluation import (
  SplitEvaluator,
  check_split,
  ended_early,
  what_was_evaluated,
)
from jaxvision.training.logging import describe, speaker, warn
from jaxvision.training.mesh import make_mesh
from jaxvision.training.parts import resolve_parts, resolve_recorded
from jaxvision.training.run import Run
from jaxvision.training.run_directory import RunDirectory
from jaxvision.training.summary import describe_data

# What may be overridden: where the data are, how a trained run is measured, and how it
# draws.
_OVERRIDABLE = (
  'data.',
  'eval_batch_size',
  'evaluation.',
  'flow.sampler',
  'flow.steps',
  'flow.guidance',
)
_PLACE = ('name', 'root', 'dir')  # fields of `data` that say where data are
# What cannot change a measure, or is told as other data.
_NEUTRAL = {
  *(f'data.{field}' for field in _PLACE),
  'data.pipeline',
  'data.resident_limit_mb',
  'eval_batch_size',
}


def command(options: argparse.Namespace, config: ConfigDict | None) -> int:
  """Evaluates the run in a workdir, or the weights of `init.pretrained`."""
  overrides = tuple(options.overrides)
  foreign = any(o.startswith('init.pretrained=') for o in overrides)
  if config is not None and foreign and not options.workdir:
    evaluate_weights(config, options.split or 'test')
    return 0
  workdir = workdir_of(options, config)
  if config is not None:
    # With a config file the overrides named the run; they hold for its data as well.
    overrides = tuple(o for o in overrides if o.startswith(_OVERRIDABLE))
  evaluate(
    workdir, options.split, options.checkpoint, overrides, average=options.average
  )
  return 0


def evaluate(
  workdir: str | Path,
  split: str | None = None,
  checkpoint: str | int = 'last',
  overrides: tuple[str, ...] = (),
  quiet: bool = False,
  data: Any = None,
  average: int | None = None,
) -> dict[str, Any]:
  """Evaluates a run on a split of its data, or on other data, and writes a report.

  The evaluation that a run is judged by, that of its last checkpoint on its test split,
  writes `report/` anew; any other writes a report of its own, `evaluations/NAME/report/`,
  which says what it measured. Of other data (named by `data.root`, `data.name` or `data`)
  without a test split all images count; their classes are known by their names.

  Args:
    workdir: of a training run.
    split: 'test', 'validation' or 'train'. None: 'test'; of a run that draws images
      `evaluation.reference`.
    checkpoint: 'last', 'best', or a step.
    overrides: 'data.dir=DIR' and the like: where the data are now; of a run that draws
      images also 'evaluation.features=WORKDIR' and the like: what measures it, and
      'flow.steps=50' and the like: how it draws.
    quiet: print nothing.
    data: a `Dataset` or arrays, of a run that was trained on some, or to measure on.
    average: evaluate the mean of the weights of this many last checkpoints, see
      `load_run`.

  Returns:
    {'split', 'step', 'examples', 'loss', 'accuracy', 'accuracy_top5'} or the measures of
    another task; with `average` {'averaged'}, the steps; of one that draws {'step'} and
    what summary.json says of the samples, which is brought up to date there for the last
    checkpoint of a finished run.

  Raises:
    UserError: no run, no checkpoint, no such split; the data are not there, are no longer
      those that the run trained on, or have a class that it does not know.
  """
  say = speaker(quiet)
  directory = RunDirectory(workdir)
  config = directory.config()
  changed = _overridden(directory, config, overrides)
  settings = _settings(config, changed)
  runtime.start(config)
  trained_on = directory.trained_on()
  if origin := directory.pretrained():
    facts = pretrained.WeightsSource.from_dict(origin).facts
    changed = pretrained.adopt(changed, facts)
  parts = resolve_recorded(directory, config)
  dataset, own = _find_data(directory, changed, recorded=parts.data, given=data)
  # The normalisation is the run's own, also on other data.
  run = Run.build(
    changed, trained_on, parts=parts, mesh=make_mesh(), directory=directory
  )
  run.task.prepare_evaluation()
  averaged: tuple[int, ...] = ()
  if average is None:
    state, step = run.restore(checkpoint)
  else:
    state, averaged = run.restore_average(average, checkpoint)
    step = averaged[-1]
  evaluator = run.task.evaluator(run, dataset, dataset, state)
  final = evaluator.final(state, split)
  summary = directory.summary()
  last = checkpoint == 'last' or step == (summary or {}).get('steps')
  unlike = Unlike(
    split='' if split in (None, evaluator.final_split) else split,
    step=None if last else step,
    data=None if own else dataset,
    settings=settings,
    averaged=averaged,
  )
  if summary and not unlike.name:
    summary = evaluator.updated_summary(summary, final)
  say(
    f'{final.line}; {mean_of(averaged) if averaged else f"checkpoint of step {step}"}'
  )
  evaluated = what_was_evaluated(
    run,
    dataset,
    split=split or evaluator.final_split,
    step=step,
    of_run=not unlike.name,
    notes=unlike.notes(run, summary, step),
  )
  elsewhere = (directory.evaluations / unlike.name,) if unlike.name else ()
  shown = _summary_at(run, summary, step) | {'evaluated': evaluated}
  for note in evaluated['notes']:
    say(note)
  if processes.is_writer():
    say(f'report: {final.write_report(shown, *elsewhere)}')
  result = {**final.result, 'step': step}
  return {**result, 'averaged': list(averaged)} if averaged else result


def _find_data(
  directory: RunDirectory, config: ConfigDict, *, recorded: Any, given: Any
) -> tuple[Dataset, bool]:
  """Returns the data to measure on, and whether they are the run's own.

  Args:
    directory: of the run.
    config: says where the data are.
    recorded: the function of the run's config that makes them, or None.
    given: data passed from Python, or None.
  """
  before = directory.config().data
  moved = [field for field in _PLACE if config.data[field] != before[field]]
  source = given
  if given is None and 'name' not in moved:
    source = recorded
    if not directory.trained_on().named and source is None:
      raise UserError(
        f'eval: {directory.path} was trained on arrays that were passed from Python: '
        'pass them again, as in jaxvision.evaluate(workdir, data=...)'
      )
  may_be_other = given is not None or bool(moved)
  dataset = load_own_data(directory, config, source, may_be_other=may_be_other)
  if dataset is not None:
    return dataset, True
  return load_other_data(directory, config, source), False


@dataclasses.dataclass(frozen=True)
class Unlike:
  """What is unlike the evaluation that a run is judged by.

  Attributes:
    split: the other split, or ''.
    step: of another checkpoint than the last, or None.
    data: other data, or None.
    settings: other fields of the config that bear on the result: path -> value.
    averaged: steps of the checkpoints whose mean it is, or ().
  """

  split: str
  step: int | None
  data: Dataset | None
  settings: Mapping[str, Any]
  averaged: tuple[int, ...] = ()

  @property
  def name(self) -> str:
    """The folder of the report: other for other measurements, '' for the run's own."""
    words = []
    if self.data:
      place = self.data.origin.partition(',')[0].removesuffix('/CLASS')
      words += [Path(place or self.data.name).name, self.data.fingerprint[:8]]
    words += [self.split] if self.split else []
    words += [f'step-{self.step}'] if self.step is not None else []
    words += [f'average-{len(self.averaged)}'] if self.averaged else []
    for path, value in self.settings.items():
      words += [f'{path.rpartition(".")[2]}-{value}']
    return re.sub(r'[^\w.=-]+', '-', '-'.join(words))[:120]

  def notes(self, run: Run, summary: dict[str, Any] | None, step: int) -> list[str]:
    """Returns the same in sentences, and first whether the run took all its steps.

    Args:
      run: the run.
      summary: None where it has not ended.
      step: of the checkpoint.
    """
    notes, total_steps = [], run.plan.total_steps
    if self.step is None and (summary is None or summary.get('stopped_by')):
      reason = summary['stopped_by'] if summary else None
      notes += [ended_early(step, total_steps, reason)]
    notes += segments.notes(run.directory)
    if self.data:
      count = len(self.data.splits.get(self.split or 'test', ()))
      notes += [
        "Measured on other data than the run's: "
        f'{self.data.origin or self.data.name}, {count:,} images.'
      ]
      then, now = run.directory.images(), table_of(self.data)
      if then and now and (seen := then.trained_on(now)):
        notes += [
          f'{seen:,} of these images have the names and sizes of images that the run '
          'trained on.'
        ]
    if self.split:
      notes += [f'Measured on the {self.split} split.']
    if self.step is not None:
      notes += [
        f'Measured at the checkpoint of step {self.step:,} of {total_steps:,}, not the '
        'last of the run.'
      ]
    if self.averaged:
      notes += [
        f'Measured with the {mean_of(self.averaged)}, parameters and running statistics.'
      ]
    if self.settings:
      fields = ', '.join(f'{path}={value}' for path, value in self.settings.items())
      notes += [f"Measured with settings that are not the run's: {fields}."]
    return notes


def _settings(config: ConfigDict, changed: ConfigDict) -> dict[str, Any]:
  """Returns the fields that bear on what is measured and differ from the run's."""
  before, after = config_lib.decisive(config), config_lib.decisive(changed)
  return {
    path: value
    for path, value in after.items()
    if path not in _NEUTRAL and value != before.get(path)
  }


def _summary_at(run: Run, summary: dict[str, Any] | None, step: int) -> dict[str, Any]:
  """Returns what a report says of the run at a checkpoint."""
  at = {'steps': step, 'epochs': step / run.plan.steps_per_epoch}
  if summary is None:
    config = run.config
    return {
      'config_name': config.name,
      'task': config.task,
      'model': config.model.name,
      'seed': config.seed,
      'measure': run.task.measure,
      **at,
    }
  if step == summary.get('steps'):
    return summary
  # What training measured last is not of this checkpoint.
  return summary | dict.fromkeys(k for k in summary if k.startswith('train_')) | at


def _overridden(
  directory: RunDirectory, config: ConfigDict, overrides: tuple[str, ...]
) -> ConfigDict:
  """Returns the config with overrides that evaluation may have, or raises UserError."""
  changed = config_lib.override(config, overrides)
  refused = [
    line
    for line in config_lib.differences(config, changed)
    if not line.startswith(_OVERRIDABLE)
  ]
  if refused:
    raise UserError(
      f'eval cannot change training settings of {directory.path}: only data.*, '
      'eval_batch_size, evaluation.* and flow.sampler, steps and guidance may be '
      f'overridden ({refused[0]})'
    )
  return changed


def evaluate_weights(
  config: ConfigDict, split: str = 'test', quiet: bool = False
) -> dict[str, Any]:
  """Evaluates the weights of `init.pretrained` as they are; writes nothing.

  Their normalisation, image size and crop hold where the config sets none.

  Args:
    config: with the model and the data; `init.skip` does not count.
    split: 'test', 'validation' or 'train'.
    quiet: print nothing.

  Returns:
    {'split', 'examples', 'sha256', 'loss', 'accuracy', 'accuracy_top5'}.

  Raises:
    UserError: no such weights, they do not fit the model, or the data are not there.
  """
  say = speaker(quiet)
  # These say how to train; the whole weights are evaluated.
  config = config_lib.thaw(config_lib.validate(config))
  config.init.skip, config.freeze = (), ()
  runtime.start(config)
  adopted, start = pretrained.begin(config_lib.freeze(config))
  if start is None:
    raise UserError('eval: name the weights with --config.init.pretrained=SOURCE')
  parts = resolve_parts(adopted)
  dataset = data_lib.load(adopted.data, source=parts.data)
  info = DatasetInfo.of(dataset)
  check_split(dataset, split)
  run = Run.build(adopted, info, parts=parts, mesh=make_mesh())
  loaded = pretrained.match(start.weights, run)
  _check_classes(start.origin.facts.class_names, info)
  say(describe_data(dataset, info))
  say(pretrained.describe(start, loaded, run))
  state = pretrained.insert(run.init(), loaded)
  source = dataset.splits[split]
  measured, _ = SplitEvaluator(run, source, dataset.pipeline, state).measure(state)
  made_up = ', made up' if dataset.synthetic else ''
  say(f'{split}: {describe(measured)}  ({len(source):,} images{made_up})')
  return {
    'split': split,
    'examples': len(source),
    'sha256': start.origin.sha256,
    **measured,
  }


def _check_classes(known: tuple[str, ...] | None, info: DatasetInfo) -> None:
  """Raises UserError, or warns, where the weights name their classes otherwise."""
  names = info.class_names
  if known is None or known == names or len(known) != len(names):
    return
  k = next(k for k, name in enumerate(known) if name != names[k])
  what = f'class {k} is "{known[k]}" for the weights and "{names[k]}" in {info.name}'
  if sorted(known) == sorted(names):
    raise UserError(f'eval: {what}: the order of the classes differs')
  warn(f'{what}: the numbers mean nothing unless these are two names of one class')
