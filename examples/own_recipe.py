"""An augmentation and an optimiser of one's own:

    jaxvision --config=configs/digits_cnn.py \
      --config.augment.custom=examples/own_recipe.py:salt \
      --config.optimizer.name=examples/own_recipe.py:signed \
      --config.optimizer.options.momentum=0.8 --config.optimizer.learning_rate=0.001
"""

import jax
import jax.numpy as jnp
import optax


def salt(key: jax.Array, images: jax.Array) -> jax.Array:
  """Sets one pixel in fifty of each image, in [0, 255], to white."""
  white = jax.random.bernoulli(key, 0.02, (*images.shape[:3], 1))
  return jnp.where(white, jnp.asarray(255, images.dtype), images)


def signed(learning_rate: optax.Schedule, momentum: float = 0.9):
  """Steps of equal size in the direction of the averaged gradient."""
  return optax.chain(
    optax.trace(momentum),
    optax.stateless(lambda updates, params: jax.tree.map(jnp.sign, updates)),
    optax.scale_by_learning_rate(learning_rate),
  )
