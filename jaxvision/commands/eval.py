"""`jaxvision eval`: evaluation of a run, or of weights that came from elsewhere."""

import argparse
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvision import config as config_lib
from jaxvision import data as data_lib
from jaxvision.commands.workdir import workdir_of
from jaxvision.data.info import DatasetInfo
from jaxvision.errors import UserError
from jaxvision.training import pretrained, runtime
from jaxvision.training.evaluation import SplitEvaluator, check_split
from jaxvision.training.logging import describe, speaker, warn
from jaxvision.training.mesh import make_mesh
from jaxvision.training.parts import resolve_parts, resolve_recorded
from jaxvision.training.run import Run
from jaxvision.training.run_directory import RunDirectory
from jaxvision.training.summary import describe_data

# What may be overridden: where the data are, and how a trained run is measured.
_OVERRIDABLE = ('data.', 'eval_batch_size', 'evaluation.')


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
  evaluate(workdir, options.split, options.checkpoint, overrides)
  return 0


def evaluate(
  workdir: str | Path,
  split: str | None = None,
  checkpoint: str = 'last',
  overrides: tuple[str, ...] = (),
  quiet: bool = False,
  data: Any = None,
) -> dict[str, Any]:
  """Evaluates a run on a split of its data and writes the report anew.

  Args:
    workdir: of a training run.
    split: 'test', 'validation' or 'train'; the report is of that split. None: 'test';
      of a GAN `evaluation.reference`.
    checkpoint: 'last', 'best', or a step.
    overrides: 'data.dir=DIR' and the like: where the data are now; of a GAN also
      'evaluation.features=WORKDIR' and the like: what measures it.
    quiet: print nothing.
    data: a `Dataset`, of a run that was trained on one.

  Returns:
    {'split', 'step', 'examples', 'loss', 'accuracy', 'accuracy_top5'} or the measures of
    another task; of a GAN {'step'} and what summary.json says of the samples, which is
    brought up to date there for the last checkpoint of a finished run.

  Raises:
    UserError: no run, no checkpoint, no such split, or the data are not there.
  """
  say = speaker(quiet)
  directory = RunDirectory(workdir)
  config = directory.config()
  changed = _overridden(directory, config, overrides)
  runtime.start(config)
  trained_on = directory.trained_on()
  if origin := directory.pretrained():
    facts = pretrained.WeightsSource.from_dict(origin).facts
    changed = pretrained.adopt(changed, facts)
  parts = resolve_recorded(directory, config)
  if trained_on.fingerprint and data is None and parts.data is None:
    raise UserError(
      f'eval: {workdir} was trained on arrays that were passed from Python: pass them '
      'again, as in jaxvision.evaluate(workdir, data=...)'
    )
  dataset = data_lib.load(changed.data, source=parts.data if data is None else data)
  info = DatasetInfo.of(dataset)
  _check_same_kind(workdir, info, trained_on)
  # The normalisation is the run's own, also on other data.
  run = Run.build(
    changed, trained_on, parts=parts, mesh=make_mesh(), directory=directory
  )
  run.task.prepare_evaluation()
  state, step = run.restore(checkpoint)
  evaluator = run.task.evaluator(run, dataset, dataset, state)
  final = evaluator.final(state, split)
  summary = directory.summary()
  if summary and checkpoint == 'last':
    summary = evaluator.updated_summary(summary, final)
  say(f'{final.line}; checkpoint of step {step}')
  page = final.write_report(summary or {'config_name': config.name})
  say(f'report: {page}')
  return {**final.result, 'step': step}


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
      f'eval_batch_size and evaluation.* may be overridden ({refused[0]})'
    )
  return changed


def _check_same_kind(
  workdir: str | Path, info: DatasetInfo, trained_on: DatasetInfo
) -> None:
  if info.class_names != trained_on.class_names:
    raise UserError(
      f'eval: {info.name} has other classes than the run in {workdir} was trained on'
    )
  if info.image_shape != trained_on.image_shape:
    raise UserError(
      f'eval: {info.name} has images of {info.image_shape}, the run in {workdir} takes '
      f'{trained_on.image_shape}: set data.image_size and data.channels'
    )


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
  say(pretrained.describe(start.origin, loaded))
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
