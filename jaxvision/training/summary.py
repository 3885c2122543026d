"""What summary.json says of a run."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxvision.tasks import Task
from jaxvision.training import logging, runtime
from jaxvision.training.build import DataFacts
from jaxvision.training.loop import Clock, Plan


def summarize(
  config: ConfigDict,
  facts: DataFacts,
  plan: Plan,
  task: Task,
  params: dict[str, int],
  clock: Clock,
  history: Sequence[dict[str, Any]],
  values: dict[str, Any],
  best_step: int | None,
  pretrained: dict[str, Any] | None,
  machine: dict[str, Any],
) -> dict[str, Any]:
  """Returns the contents of summary.json.

  Args:
    config, facts, plan, task: of the run.
    params: from `count_parameters`.
    clock: the seconds that the run took.
    history: its log points.
    values: what the last evaluation says, of training and of the other splits.
    best_step: of the best checkpoint, None where there is none.
    pretrained: where its first weights came from, or None.
    machine: `runtime.facts` as they were when it began.
  """
  evaluations = {p['step']: p for p in history if p['split'] != 'train'}
  measure, _ = task.best
  images = plan.total * plan.images
  return {
    'config_name': config.name,
    'task': config.task,
    'dataset': facts.name,
    'synthetic': facts.synthetic,
    'skipped_images': facts.skipped,
    'model': config.model.name,
    **params,
    'pretrained': pretrained,
    'steps': plan.total,
    'epochs': plan.total / plan.steps_per_epoch,
    'seed': config.seed,
    **values,
    'best_step': best_step,
    f'best_{measure}': (
      evaluations[best_step][measure] if best_step in evaluations else None
    ),
    'seconds_train': clock.train,
    'seconds_compile': clock.compile,
    'seconds_total': clock.total(),
    'images_per_second': images / clock.train if clock.train else None,
    'peak_memory_bytes': runtime.peak_memory_bytes(),
    'dtype': config.dtype,
    **machine,
    'command': shlex.join([Path(sys.executable).name, *_command()]),
  }


def last_epoch(
  history: Sequence[dict[str, Any]], plan: Plan, task: Task
) -> dict[str, float | None]:
  """Returns the measures of training over about the last epoch of a run."""
  names = jax.eval_shape(lambda: task.metrics.empty().compute())
  return logging.last_epoch(history, names, plan.total, plan.steps_per_epoch)


def count_parameters(params: Any, task: str) -> dict[str, int]:
  """Returns the numbers of parameters under their names in summary.json."""

  def count(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))

  if task == 'gan':
    return {f'{network}_params': count(tree) for network, tree in params.items()}
  return {'params': count(params)}


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
