"""Multi-label classification: any number of K labels for each image."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.tasks.losses import binary_distillation
from jaxvision.tasks.supervised import SupervisedTask
from jaxvision.training.evaluation import Evaluation


class MultiLabel(SupervisedTask):
  """Trains one binary classifier per label, by binary cross-entropy.

  Labels are 0 or 1, [B, K], and the model returns logits [B, K]. The measures are the
  loss, the share of labels that are right at a probability of 0.5 (`label_accuracy`), and
  the share of images that are right in all of them (`accuracy`).
  """

  best = ('accuracy', 'max')
  losses = ('binary_cross_entropy',)
  label_kinds = ('multilabel',)
  measures = ('accuracy', 'label_accuracy')

  def example_measures(
    self, outputs: jax.Array, targets: jax.Array
  ) -> dict[str, jax.Array]:
    """Returns the shares of each example's labels that are right."""
    right = ((outputs > 0) == (targets > 0.5)).astype(jnp.float32)
    return {'accuracy': right.min(-1), 'label_accuracy': right.mean(-1)}

  def distillation_losses(
    self, outputs: jax.Array, taught: jax.Array, temperature: Any
  ) -> jax.Array:
    """Returns the divergence of the probabilities from the teacher's, float32 [B]."""
    return binary_distillation(outputs, taught, temperature)

  def probabilities(self, outputs: jax.Array) -> jax.Array:
    """Returns the sigmoid of the logits."""
    return jax.nn.sigmoid(outputs)

  def write_report(
    self, directory: Path, evaluation: Evaluation, summary: dict[str, Any]
  ) -> Path:
    """Writes the report of an evaluated split; returns the path of its page."""
    from jaxvision.reports.run import multilabel  # matplotlib: once there is a result

    return multilabel.write_report(
      directory,
      labels=evaluation.labels,
      probabilities=np.asarray(self.probabilities(evaluation.outputs)),
      class_names=self.output_names,
      image_at=evaluation.image_at,
      files=evaluation.files,
      **self.report_context(evaluation, summary),
    )
