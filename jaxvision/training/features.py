"""Features of a frozen network, computed once: only its classifier trains then."""

import dataclasses

import numpy as np
from jax.sharding import Mesh

from jaxvision.data.dataset import ArraySource, Dataset
from jaxvision.tasks.base import PyTree, Task
from jaxvision.training.step import Compiler, Evaluator


def precompute(
  task: Task,
  mesh: Mesh,
  dataset: Dataset,
  state: PyTree,
  batch_size: int,
  workers: int,
  compiler: Compiler,
) -> Dataset:
  """Returns the data set with features in the place of images, in memory.

  Args:
    task: one with `features`.
    mesh: where they are computed.
    dataset: of images, resident or streaming.
    state: with the weights of the run.
    batch_size: images at a time.
    workers: processes that decode a streamed set.
    compiler: keeps account of what is compiled.

  Returns:
    `dataset` with splits whose images are features, float32 [n, D].
  """

  def eval_step(state, batch):
    return task.metrics.empty(), task.features(state, batch['image'])

  instead = task._replace(eval_step=eval_step)
  splits = {}
  for name, source in dataset.splits.items():
    evaluator = Evaluator(
      instead, mesh, source, dataset.pipeline, state, batch_size, workers, compiler
    )
    _, features, labels = evaluator.outputs(state)
    splits[name] = ArraySource(features, np.asarray(labels, np.int32))
  return dataclasses.replace(dataset, splits=splits, pipeline='resident')
