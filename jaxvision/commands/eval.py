"""Evaluation of a run, or of weights that came from elsewhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxvision import config as config_lib
from jaxvision import data
from jaxvision.commands.say import describe_data, result_line, speaker, write_report
from jaxvision.data.dataset import Dataset
from jaxvision.errors import UserError
from jaxvision.inference.generator import GeneratorRun
from jaxvision.inference.loading import load_run
from jaxvision.tasks.gan_evaluator import Generating, Panel, bring_up_to_date
from jaxvision.training import pretrained, runtime
from jaxvision.training import step as programs
from jaxvision.training.build import DataFacts, make_task
from jaxvision.training.logging import warn
from jaxvision.training.mesh import make_mesh
from jaxvision.training.run_directory import RunDirectory


def evaluate(
  workdir: str | Path,
  split: str | None = None,
  checkpoint: str = 'last',
  overrides: tuple[str, ...] = (),
  quiet: bool = False,
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

  Returns:
    {'split', 'step', 'examples', 'loss', 'accuracy', 'accuracy_top5'}; of a GAN {'step'}
    and what summary.json says of the samples, which is brought up to date there for the
    last checkpoint of a finished run.

  Raises:
    UserError: no run, no checkpoint, no such split, or the data are not there.
  """
  say = speaker(quiet)
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
      f'eval: the run in {workdir} is what it is: only data.*, '
      f'eval_batch_size and what measures a GAN may be set ({refused[0]})'
    )
  mesh = make_mesh()
  run = load_run(workdir, checkpoint, mesh)
  if known := directory.pretrained():
    changed = pretrained.adopt(changed, pretrained.Origin.from_dict(known).facts)
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
  if isinstance(run, GeneratorRun):
    if split:
      changed.evaluation.reference = split
    return _evaluate_gan(directory, changed, dataset, run, checkpoint, mesh, say)
  split = split or 'test'
  _check_split(dataset, split)
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
  report = write_report(directory, config, dataset, split, summary, logits, labels)
  step = f'; checkpoint of step {run.step}'
  say(result_line(split, measured, len(labels), facts.synthetic, step))
  say(f'report: {report}')
  return {'split': split, 'step': run.step, 'examples': len(labels), **measured}


def _evaluate_gan(
  directory: RunDirectory,
  config: ConfigDict,
  dataset: Dataset,
  run: GeneratorRun,
  checkpoint: str,
  mesh: jax.sharding.Mesh,
  say: Callable[[str], None],
) -> dict[str, Any]:
  panel = Panel.of(config, dataset)
  task, _ = make_task(config, run.facts)
  examiner = Generating(
    config, directory, dataset, task, mesh, panel, run.state, programs.Compiler()
  )
  outcome = examiner.finish(run.state)
  summary = directory.summary()
  if summary and checkpoint == 'last':
    summary = bring_up_to_date(directory, panel, outcome.values)
  page = outcome.write_report(summary or {'config_name': config.name})
  say(f'{outcome.line}; checkpoint of step {run.step}')
  say(f'report: {page}')
  return {'step': run.step, **outcome.values}


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
  config = config_lib.validate(config)
  runtime.configure(config.deterministic)
  config, start = pretrained.begin(config)
  if start is None:
    raise UserError('eval: say which weights with --config.init.pretrained=SOURCE')
  dataset = data.load(config.data)
  facts = DataFacts.of(dataset)
  _check_split(dataset, split)
  # These say how to train; evaluated are the whole weights.
  config.init.skip, config.freeze = (), ()
  task, _ = make_task(config, facts)
  mesh = make_mesh()
  fitted = pretrained.fit(start.weights, config, facts)
  _check_classes(start.origin.facts.class_names, facts)
  say(describe_data(dataset, facts))
  say(pretrained.describe(start.origin, fitted))
  compiler = programs.Compiler()
  state = programs.init_state(task, mesh, config.seed, compiler)
  state = pretrained.insert(state, fitted)
  measured = programs.Evaluator(
    task,
    mesh,
    dataset.splits[split],
    dataset.pipeline,
    state,
    config.eval_batch_size,
    config.data.workers,
    compiler,
  ).measure(state)
  examples = len(dataset.splits[split])
  say(result_line(split, measured, examples, facts.synthetic))
  return {
    'split': split,
    'examples': examples,
    'sha256': start.origin.sha256,
    **measured,
  }


def _check_split(dataset: Dataset, split: str) -> None:
  if split not in dataset.splits:
    raise UserError(
      f'eval: {dataset.name} has no split "{split}" here (it has '
      f'{", ".join(dataset.splits)})'
    )


def _check_classes(known: tuple[str, ...] | None, facts: DataFacts) -> None:
  """Raises UserError, or warns, where the weights know their classes by other names."""
  if (
    known is None or known == facts.class_names or len(known) != len(facts.class_names)
  ):
    return
  k = next(k for k, name in enumerate(known) if name != facts.class_names[k])
  what = (
    f'class {k} is "{known[k]}" for the weights and "{facts.class_names[k]}" in '
    f'{facts.name}'
  )
  if sorted(known) == sorted(facts.class_names):
    raise UserError(f'eval: {what}: the order of the classes differs')
  warn(f'{what}: the numbers mean nothing unless these are two names of one class')
