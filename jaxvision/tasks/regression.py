"""Regression: one or several numbers for each image."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.tasks.supervised import SupervisedTask
from jaxvision.training.evaluation import Evaluation


class Regression(SupervisedTask):
  """Trains a model to predict D numbers, by mean squared error or the Huber loss.

  Labels are float [B] or [B, D], and the model returns [B, D]. The measures are the loss
  and the mean absolute error, in the units of the labels.
  """

  best = ('mean_absolute_error', 'min')
  losses = ('mean_squared_error', 'huber')
  label_kinds = ('regression',)
  measures = ('mean_absolute_error',)

  def example_measures(
    self, outputs: jax.Array, targets: jax.Array
  ) -> dict[str, jax.Array]:
    """Returns the mean absolute error of each example."""
    error = jnp.abs(outputs.astype(jnp.float32) - targets.reshape(outputs.shape))
    return {'mean_absolute_error': error.reshape(error.shape[0], -1).mean(-1)}

  def write_report(
    self, directory: Path, evaluation: Evaluation, summary: dict[str, Any]
  ) -> Path:
    """Writes the report of an evaluated split; returns the path of its page."""
    from jaxvision.reports.run import regression  # matplotlib: once there is a result

    return regression.write_report(
      directory,
      targets=np.reshape(evaluation.labels, evaluation.outputs.shape),
      predictions=evaluation.outputs,
      names=self.output_names,
      image_at=evaluation.image_at,
      files=evaluation.files,
      **self.report_context(evaluation, summary),
    )
