"""Losses and penalties of GANs against their papers."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.tasks import gan_losses

SHAPE = (8, 8, 1)


def test_gan_losses_match_their_papers():
  outputs = jnp.array([-2.0, 0.5, 3.0])
  probability = jax.nn.sigmoid(outputs)
  bce = gan_losses.make_losses('bce', smoothing=0.1, two_sided=True)
  chex.assert_trees_all_close(
    bce.real(outputs),
    -0.9 * jnp.log(probability) - 0.1 * jnp.log(1 - probability),
    rtol=1e-5,
  )
  chex.assert_trees_all_close(
    bce.fake(outputs),
    -0.1 * jnp.log(probability) - 0.9 * jnp.log(1 - probability),
    rtol=1e-5,
  )
  chex.assert_trees_all_close(bce.generator(outputs), -jnp.log(probability), rtol=1e-5)
  one_sided = gan_losses.make_losses('bce', smoothing=0.1)
  chex.assert_trees_all_close(
    one_sided.fake(outputs), -jnp.log(1 - probability), rtol=1e-5
  )
  hinge = gan_losses.make_losses('hinge')
  assert hinge.real(outputs).tolist() == [3.0, 0.5, 0.0]
  assert hinge.fake(outputs).tolist() == [0.0, 1.5, 4.0]
  assert hinge.generator(outputs).tolist() == [2.0, -0.5, -3.0]
  squares = gan_losses.make_losses('least_squares')
  assert squares.real(outputs).tolist() == [4.5, 0.125, 2.0]
  assert squares.fake(outputs).tolist() == [2.0, 0.125, 4.5]
  critic = gan_losses.make_losses('wasserstein')
  assert critic.real(outputs).tolist() == critic.generator(outputs).tolist()
  assert critic.fake(outputs).tolist() == critic.shown(outputs).tolist()


def test_penalties_of_a_linear_critic_match_its_slope():
  weights = jnp.arange(64.0).reshape(SHAPE) / 100
  length = float(jnp.linalg.norm(weights))

  def critic(images):
    return jnp.sum(images * weights, (1, 2, 3))

  real, fake = jnp.zeros((3, *SHAPE)), jnp.ones((3, *SHAPE))
  squared = gan_losses.squared_gradient(critic, real)
  chex.assert_trees_all_close(squared, jnp.full(3, length**2), rtol=1e-5)
  penalty = gan_losses.gradient_penalty(critic, real, fake, jax.random.key(0))
  chex.assert_trees_all_close(penalty, jnp.full(3, (length - 1) ** 2), rtol=1e-5)


def test_penalty_is_taken_between_real_and_generated_images():
  places = []

  def critic(images):
    places.append(images)
    return jnp.sum(images, (1, 2, 3))

  with jax.disable_jit():
    gan_losses.gradient_penalty(
      critic, jnp.zeros((50, *SHAPE)), jnp.ones((50, *SHAPE)), jax.random.key(0)
    )
  (between,) = (
    np.asarray(jax.device_get(p.primal if hasattr(p, 'primal') else p)) for p in places
  )
  shares = between[:, 0, 0, 0]
  assert np.ptp(between.reshape(50, -1), axis=1).max() == 0
  assert 0 <= shares.min() < 0.2
  assert 0.8 < shares.max() <= 1
