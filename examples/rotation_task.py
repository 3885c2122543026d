"""A task of one's own: by which multiple of 90 degrees was an image turned?

    jaxvision --config=configs/digits_cnn.py --config.task=examples/rotation_task.py:Rotation

It needs no labels: Gidaris et al., "Unsupervised representation learning by predicting
image rotations", 2018. Resuming, `eval`, reports and `compare` work as for any task.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.data.augment import normalize
from jaxvision.reports import image_grid
from jaxvision.tasks.supervised import SupervisedTask

TURNS = ('0', '90', '180', '270')


class Rotation(SupervisedTask):
  """Classifies rotations: the targets are drawn anew in training, fixed in evaluation."""

  best = ('accuracy', 'max')
  losses = ('cross_entropy',)
  measures = ('accuracy',)
  output_names = TURNS

  def inputs_and_targets(self, batch, key, train):
    images = batch['image']
    if train:
      key_turn, key_augment = jax.random.split(key)
      turns = jax.random.randint(key_turn, images.shape[:1], 0, 4)
      inputs = self.augment(key_augment, turned(images, turns), batch.get('flip'))
      return inputs, turns
    turns = jnp.arange(len(images)) % 4
    mean, std = self.normalization
    return normalize(turned(images, turns), mean, std, self.dtype), turns

  def example_measures(self, outputs, targets):
    return {'accuracy': (outputs.argmax(-1) == targets).astype(jnp.float32)}

  def probabilities(self, outputs):
    return jax.nn.softmax(outputs)

  def picture(self, images, labels, outputs):
    del labels
    shares = np.asarray(jax.nn.softmax(outputs))
    return image_grid.prediction_grid(images, shares.argmax(-1), shares, TURNS)


def turned(images: jax.Array, turns: jax.Array) -> jax.Array:
  """Turns square images [B, H, H, C] by `turns` [B] times 90 degrees."""
  every = jnp.stack([jnp.rot90(images, k, axes=(1, 2)) for k in range(4)])
  return every[turns, jnp.arange(len(images))]
