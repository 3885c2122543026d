"""A loss of one's own:

    jaxvision --config=configs/digits_cnn.py --config.loss.name=examples/own_loss.py:focal \
      --config.loss.gamma=1.5

It takes logits [B, K] and labels [B] and returns the loss of each example; further
arguments are `--config.loss.*`.
"""

import jax
import jax.numpy as jnp
import optax


def focal(logits: jax.Array, labels: jax.Array, gamma: float = 2.0) -> jax.Array:
  """Weighs each example by how far it is from being right (Lin et al. 2017)."""
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  return (1 - jnp.exp(-losses)) ** gamma * losses
