"""A task of one's own with a network of one's own: remove noise from images.

    jaxvision --config=configs/digits_cnn.py \
      --config.task=examples/denoising_task.py:Denoising --config.model.name=unused

It has no use for labels, and its model returns images instead of logits.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvision.tasks.supervised import SupervisedTask


class Denoiser(nn.Module):
  """Three convolutions that predict the noise."""

  channels: int

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    x = nn.relu(nn.Conv(32, (3, 3))(images))
    x = nn.relu(nn.Conv(32, (3, 3))(x))
    return images - nn.Conv(self.channels, (3, 3))(x)


class Denoising(SupervisedTask):
  """Trains a denoiser by mean squared error; `psnr` is in dB of normalised images."""

  best = ('psnr', 'max')
  losses = ('mean_squared_error',)
  measures = ('psnr',)
  noise = 0.5
  checks_outputs = False

  def make_model(self) -> nn.Module:
    return Denoiser(self.info.image_shape[-1])

  def inputs_and_targets(self, batch, key, train):
    clean, _ = super().inputs_and_targets(batch, key, train)
    # Evaluation adds the same noise every time.
    key = jax.random.fold_in(key if train else jax.random.key(0), 1)
    return clean + self.noise * jax.random.normal(key, clean.shape), clean

  def example_measures(self, outputs, targets):
    error = jnp.square(outputs - targets).mean((1, 2, 3))
    return {'psnr': -10 * jnp.log10(error + 1e-12)}
