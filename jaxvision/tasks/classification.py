"""Image classification: one of K classes for each image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.errors import UserError
from jaxvision.reports import image_grid
from jaxvision.tasks.base import TaskContext
from jaxvision.tasks.losses import distillation
from jaxvision.tasks.supervised import SupervisedTask
from jaxvision.training.evaluation import Evaluation


def in_top_k(logits: jax.Array, labels: jax.Array, k: int) -> jax.Array:
  """Returns float32 [B]: 1 where the label is among the k best classes.

  Of classes that score the same, the lower index is the better one, as in argmax.

  >>> in_top_k(jnp.array([[3., 2., 1.], [0., 0., 0.]]), jnp.array([1, 2]), 2).tolist()
  [1.0, 0.0]
  """
  own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
  earlier = jnp.arange(logits.shape[-1]) < labels[:, None]
  better = jnp.sum((logits > own) | ((logits == own) & earlier), axis=-1)
  return (better < k).astype(jnp.float32)


class Classification(SupervisedTask):
  """Trains a classifier by softmax cross-entropy, the focal loss, or binary cross-entropy.

  The model returns logits [B, K]; the measures are loss, accuracy and top-5 accuracy.
  """

  best = ('accuracy', 'max')
  losses = ('cross_entropy', 'focal', 'binary_cross_entropy')
  label_kinds = ('class',)
  measures = ('accuracy', 'accuracy_top5')

  def __init__(self, context: TaskContext):
    names = context.info.class_names
    if len(names) < 2:
      raise UserError(
        f'config: task classification needs two or more classes, and {context.info.name} '
        f'has one class only ("{names[0]}"): put the images of each class into a folder '
        'of its own, or set task to gan or flow_matching'
      )
    super().__init__(context)

  def example_measures(
    self, outputs: jax.Array, targets: jax.Array
  ) -> dict[str, jax.Array]:
    """Returns whether each example is right, and among the best five."""
    return {
      'accuracy': (jnp.argmax(outputs, -1) == targets).astype(jnp.float32),
      'accuracy_top5': in_top_k(outputs, targets, 5),
    }

  def distillation_losses(
    self, outputs: jax.Array, taught: jax.Array, temperature: Any
  ) -> jax.Array:
    """Returns the divergence of the probabilities from the teacher's, float32 [B]."""
    return distillation(outputs, taught, temperature)

  def probabilities(self, outputs: jax.Array) -> jax.Array:
    """Returns the softmax of the logits."""
    return jax.nn.softmax(outputs)

  def picture(
    self, images: Sequence[np.ndarray], labels: np.ndarray, outputs: np.ndarray
  ) -> np.ndarray | None:
    """Draws images with the predicted class, and the true one where it differs."""
    shares = np.asarray(self.probabilities(outputs))
    return image_grid.prediction_grid(images, labels, shares, self.output_names)

  def write_report(
    self, directory: Path, evaluation: Evaluation, summary: dict[str, Any]
  ) -> Path:
    """Writes the report of an evaluated split; returns the path of its page."""
    from jaxvision.reports.run import report  # matplotlib: once there is a result

    return report.write_report(
      directory,
      labels=evaluation.labels,
      probabilities=np.asarray(self.probabilities(evaluation.outputs)),
      class_names=self.output_names,
      image_at=evaluation.image_at,
      files=evaluation.files,
      **self.report_context(evaluation, summary),
    )
