"""Features of a frozen network, computed once: only its classifier trains then."""

import dataclasses

import numpy as np

from jaxvision.data.dataset import ArraySource, Dataset
from jaxvision.tasks.base import PyTree
from jaxvision.training.evaluation import SplitEvaluator
from jaxvision.training.run import Run


def precompute(run: Run, dataset: Dataset, state: PyTree) -> Dataset:
  """Returns the data set with features in the place of images, in memory.

  Args:
    run: whose task has `features`.
    dataset: of images, resident or streaming.
    state: with the weights of the run.

  Returns:
    `dataset` with splits whose images are features, float32 [n, D].
  """
  features, metrics = run.task.features, run.task.metrics

  def eval_step(state, batch):
    return metrics.empty(), features(state, batch['image'])

  splits = {}
  for name, source in dataset.splits.items():
    evaluator = SplitEvaluator(run, source, dataset.pipeline, state, eval_step)
    _, found, labels = evaluator.outputs(state)
    splits[name] = ArraySource(found, np.asarray(labels))
  return dataclasses.replace(dataset, splits=splits, pipeline='resident')
