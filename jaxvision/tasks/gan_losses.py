"""The losses that a discriminator and a generator play for, and gradient penalties.

Each takes the discriminator's outputs, float [B], and returns a loss per image, float32
[B]; means are the caller's. In the game of Goodfellow et al. 2014 the outputs are logits.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

# Outputs that are logits of being real; the others are targets or scores themselves.
_LOGITS = ('bce', 'hinge')


class Losses(NamedTuple):
  """A game.

  Attributes:
    real: outputs for real images -> the discriminator's loss.
    fake: outputs for generated images -> the discriminator's loss.
    generator: outputs for generated images -> the generator's loss.
    shown: outputs -> what D(x) and D(G(z)) mean in curves: a probability of being real
      where outputs are logits, else the outputs.
  """

  real: Callable[[jax.Array], jax.Array]
  fake: Callable[[jax.Array], jax.Array]
  generator: Callable[[jax.Array], jax.Array]
  shown: Callable[[jax.Array], jax.Array]


def make_losses(name: str, smoothing: float = 0.0, two_sided: bool = False) -> Losses:
  """Returns a game by its name.

  Args:
    name: 'bce': binary cross-entropy, the generator's non-saturating (Goodfellow et al.
      2014, section 3; Radford et al. 2015). 'least_squares': half the squared distance
      to 1 and 0 (Mao et al. 2017, equation 9). 'hinge' (Lim and Ye 2017; Miyato et al.
      2018, equations 16 and 17). 'wasserstein' (Arjovsky et al. 2017).
    smoothing: how far below 1 the discriminator's target of real images lies (Salimans
      et al. 2016, section 3.4); of bce and least_squares.
    two_sided: whether the target of generated images lies as far above 0.

  >>> losses = make_losses('bce')
  >>> float(losses.real(jnp.zeros(1))[0])  # ln 2
  0.6931471824645996
  """
  high, low = 1 - smoothing, smoothing if two_sided else 0.0

  def cross_entropy(logits, target):
    return target * jax.nn.softplus(-logits) + (1 - target) * jax.nn.softplus(logits)

  def squares(outputs, target):
    return 0.5 * jnp.square(outputs - target)

  games = {
    'bce': (
      lambda x: cross_entropy(x, high),
      lambda x: cross_entropy(x, low),
      lambda x: jax.nn.softplus(-x),
    ),
    'least_squares': (
      lambda x: squares(x, high),
      lambda x: squares(x, low),
      lambda x: squares(x, 1.0),
    ),
    'hinge': (lambda x: jax.nn.relu(1 - x), lambda x: jax.nn.relu(1 + x), jnp.negative),
    'wasserstein': (jnp.negative, lambda x: x, jnp.negative),
  }
  return Losses(*games[name], jax.nn.sigmoid if name in _LOGITS else lambda x: x)


def is_probability(name: str) -> bool:
  """Returns whether D(x) of a game has 0.5 for "cannot tell"."""
  return name != 'wasserstein'


def squared_gradient(
  discriminate: Callable[[jax.Array], jax.Array], images: jax.Array
) -> jax.Array:
  """Returns the squared length of the gradient at each image: R1 at real ones.

  Mescheder et al. 2018, "Which training methods for GANs do actually converge?",
  equation 9, without gamma / 2.

  Args:
    discriminate: images -> outputs [B].
    images: float [B, H, W, C].

  Returns:
    float32 [B].
  """
  gradient = jax.grad(lambda x: discriminate(x).sum())(images)
  return jnp.sum(jnp.square(gradient.astype(jnp.float32)), axis=(1, 2, 3))


def gradient_penalty(
  discriminate: Callable[[jax.Array], jax.Array],
  real: jax.Array,
  fake: jax.Array,
  key: jax.Array,
) -> jax.Array:
  """Returns (length of the gradient - 1)**2 between each real and generated image.

  Gulrajani et al. 2017, "Improved training of Wasserstein GANs", equation 3, without
  lambda; the place on the line between the two is drawn evenly.

  Args:
    discriminate: images -> outputs [B].
    real, fake: float [B, H, W, C].
    key: for the places.

  Returns:
    float32 [B].
  """
  share = jax.random.uniform(key, (real.shape[0], 1, 1, 1))
  between = fake + share * (real - fake)
  squared = squared_gradient(discriminate, between)
  # The slope of the root at 0 is infinite: a dead discriminator would give NaN.
  return jnp.square(jnp.sqrt(squared + 1e-12) - 1)
