"""What summary.json says of a run."""

import os
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxvision.data.dataset import Dataset
from jaxvision.data.info import DatasetInfo
from jaxvision.training import runtime, segments
from jaxvision.training.clock import RunClock
from jaxvision.training.run import Run

# Names that every summary has; null where the task measures nothing of the kind.
_ALWAYS = (
  'train_loss',
  'train_accuracy',
  'test_loss',
  'test_accuracy',
  'test_accuracy_top5',
)


def summarize(
  run: Run,
  *,
  step: int,
  params: dict[str, int],
  clock: RunClock,
  values: dict[str, Any],
  training_values: Callable[[dict[str, float | None]], dict[str, Any]],
  best_step: int | None,
  provenance: dict[str, Any],
  pretrained: dict[str, Any] | None = None,
  stopped_by: str | None = None,
) -> dict[str, Any]:
  """Returns the contents of summary.json.

  Args:
    run: that has ended.
    step: its last.
    params: from `Task.count_parameters`.
    clock: the seconds that it took.
    values: of the final evaluation.
    training_values: means of the last epoch -> what the summary holds of them.
    best_step: of the best checkpoint, None where there is none.
    provenance: `runtime.facts` as they were when the run began.
    pretrained: where its first weights came from, or None.
    stopped_by: why a callback ended it early, or None.
  """
  plan, config, info = run.plan, run.config, run.info
  history = run.directory.history() if run.directory else []
  evaluations = {p['step']: p for p in history if p['split'] != 'train'}
  measure, _ = run.task.best
  names = jax.eval_shape(lambda: run.task.metrics.empty().compute())
  trained = last_epoch(history, names, step, plan.steps_per_epoch)
  images = step * plan.images_per_step
  return {
    'config_name': config.name,
    'task': config.task,
    'dataset': info.name,
    'synthetic': info.synthetic,
    'skipped_images': info.skipped,
    'model': config.model.name,
    **params,
    'pretrained': pretrained,
    'teacher': run.directory.sources().get('teacher') if run.directory else None,
    'steps': step,
    'epochs': step / plan.steps_per_epoch,
    'seed': config.seed,
    **dict.fromkeys(_ALWAYS),
    **training_values(trained),
    **values,
    'stopped_by': stopped_by,
    'segments': segments.record(run.directory, step) if run.directory else [],
    'best_step': best_step,
    f'best_{measure}': evaluations.get(best_step, {}).get(measure),
    'measure': run.task.measure,
    **clock.summary(),
    'images_per_second': images / seconds
    if (seconds := clock.seconds['train'])
    else None,
    'peak_memory_bytes': runtime.peak_memory_bytes(),
    'dtype': config.dtype,
    **provenance,
    'command': shlex.join([Path(sys.executable).name, *_command()]),
  }


def last_epoch(
  history: Sequence[dict[str, Any]],
  names: Iterable[str],
  total_steps: int,
  steps_per_epoch: float,
) -> dict[str, float | None]:
  """Returns measures of training over about the last epoch of a run.

  The mean over the log points that end in it, weighted by their steps: images as
  trained on, with augmentation and dropout, like the history of Keras. None without any.
  """
  points = [p for p in history if p['split'] == 'train']
  begins = [0, *(p['step'] for p in points[:-1])]
  late = [
    (p, p['step'] - begin)
    for p, begin in zip(points, begins)
    if begin >= total_steps - steps_per_epoch - 1e-6
  ] or [(p, p['step'] - b) for p, b in list(zip(points, begins))[-1:]]
  return {name: _mean([(p.get(name), steps) for p, steps in late]) for name in names}


def _mean(weighted: Sequence[tuple[float | None, int]]) -> float | None:
  """Returns the weighted mean of the values that are there, None without any."""
  known = [(value, weight) for value, weight in weighted if value is not None]
  total = sum(weight for _, weight in known)
  return sum(value * weight for value, weight in known) / total if total else None


def describe_data(dataset: Dataset, info: DatasetInfo) -> str:
  """Returns a line about a data set."""
  shape = 'x'.join(map(str, info.image_shape))
  sizes = ', '.join(f'{n:,} {split}' for split, n in info.examples.items())
  made_up = ' (SYNTHETIC: made-up images)' if info.synthetic else ''
  skipped = f', {info.skipped} unreadable files skipped' if info.skipped else ''
  kind = {'class': 'classes', 'multilabel': 'labels'}.get(info.label_kind, 'outputs')
  return (
    f'data: {info.name}{made_up}, {sizes}; {len(info.class_names)} {kind}, {shape}, '
    f'{dataset.pipeline}{skipped}'
  )


def describe_parameters(params: dict[str, int]) -> str:
  """Returns the numbers of parameters in words."""
  if 'params' in params:
    return f'{params["params"]:,} parameters'
  return ' and '.join(
    f'{count:,} parameters of the {name.removesuffix("_params")}'
    for name, count in params.items()
  )


def _command() -> list[str]:
  """Returns the command line in the form that a user types."""
  program, *arguments = sys.argv
  if os.path.basename(program) == 'main.py':
    return ['-m', 'jaxvision.main', *arguments]
  return [program, *arguments]
