"""The games, the penalties and the step of a GAN."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvision.config import base_config
from jaxvision.models.dcgan import DCGANDiscriminator, DCGANGenerator
from jaxvision.models.generative import GAN
from jaxvision.tasks import gan_losses
from jaxvision.tasks.gan import make_gan, to_pixels

SHAPE = (8, 8, 1)


def small_gan():
  generator = DCGANGenerator(image_size=8, channels=1, width=4, latent=6)
  return GAN(generator, DCGANDiscriminator(width=4), 6, False)


def make(gan=None, **fields):
  config = base_config()
  config.task = 'gan'
  config.ema_decay = fields.pop('ema_decay', 0.0)
  config.label_smoothing = fields.pop('label_smoothing', 0.0)
  for name, value in fields.items():
    config.gan[name] = value
  optimizers = (optax.adam(2e-4, b1=0.5), optax.adam(2e-4, b1=0.5))
  return make_gan(config, gan or small_gan(), optimizers, lambda _: 2e-4, SHAPE, 10)


def batch_of(size, seed=0):
  draw = np.random.default_rng(seed)
  images = draw.integers(0, 256, (size, *SHAPE), np.uint8)
  return {'image': images, 'label': draw.integers(0, 10, size).astype(np.int32)}


def assert_stepped(loss, before, after):
  """Checks that a network took one step of the optimiser of `make` down `loss`."""
  grads = jax.grad(loss)(before.params)
  optimizer = optax.adam(2e-4, b1=0.5)
  updates, _ = optimizer.update(grads, before.opt_state, before.params)
  expected = optax.apply_updates(before.params, updates)
  chex.assert_trees_all_close(after.params, expected, atol=2e-5)


def test_losses_are_those_of_their_papers():
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


def test_penalties_of_a_linear_critic_are_its_slope():
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


def test_step_trains_each_network_by_its_own_loss(quick_compile):
  task = make()
  state = task.init(jax.random.key(0))
  stepped, measured = jax.jit(task.train_step)(state, batch_of(8), jax.random.key(1))
  assert int(stepped.step) == 1
  # Against the textbook: both gradients worked out from the losses alone.
  gan = small_gan()
  keys = [jax.random.fold_in(jax.random.key(1), i) for i in range(2)]
  noise = jax.random.normal(keys[1], (8, 6))  # the first key is for augmentation
  real = batch_of(8)['image'] / 127.5 - 1

  def apply(model, variables, inputs):
    outputs, _ = model.apply(variables, inputs, train=True, mutable=['batch_stats'])
    return outputs

  fake = apply(gan.generator, state.generator.variables, noise)

  def d_loss(params):
    variables = {**state.discriminator.variables, 'params': params}
    of_real = apply(gan.discriminator, variables, real)
    of_fake = apply(gan.discriminator, variables, fake)
    return -jnp.mean(jax.nn.log_sigmoid(of_real) + jax.nn.log_sigmoid(-of_fake))

  def g_loss(params):
    fake = apply(gan.generator, {**state.generator.variables, 'params': params}, noise)
    of_fake = apply(gan.discriminator, stepped.discriminator.variables, fake)
    return -jnp.mean(jax.nn.log_sigmoid(of_fake))

  assert_stepped(d_loss, state.discriminator, stepped.discriminator)
  assert_stepped(g_loss, state.generator, stepped.generator)
  values = measured.compute()
  assert (
    abs(float(values['discriminator_loss']) - d_loss(state.discriminator.params)) < 1e-4
  )
  assert abs(float(values['generator_loss']) - g_loss(state.generator.params)) < 1e-4


def test_a_classifier_learns_from_real_images_and_teaches_the_generator(quick_compile):
  generator = DCGANGenerator(8, 1, 4, 6, num_classes=10)
  discriminator = DCGANDiscriminator(4, num_classes=10, class_head='classifier')
  gan = GAN(generator, discriminator, 6, True, classifies=True)
  task = make(gan, class_weight=0.5)
  state = task.init(jax.random.key(0))
  batch = batch_of(8)
  stepped, measured = jax.jit(task.train_step)(state, batch, jax.random.key(1))
  keys = [jax.random.fold_in(jax.random.key(1), i) for i in range(3)]
  noise = jax.random.normal(keys[1], (8, 6))
  labels = jax.random.randint(keys[2], (8,), 0, 10)
  real = batch['image'] / 127.5 - 1

  def apply(model, variables, inputs, labels):
    return model.apply(variables, inputs, labels, train=True, mutable=['batch_stats'])[
      0
    ]

  def cross_entropy(logits, labels):
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)
    return -chosen.mean()

  fake = apply(generator, state.generator.variables, noise, labels)

  def d_loss(params):
    variables = {**state.discriminator.variables, 'params': params}
    of_real, classes = apply(discriminator, variables, real, batch['label'])
    of_fake, _ = apply(discriminator, variables, fake, labels)
    game = -jnp.mean(jax.nn.log_sigmoid(of_real) + jax.nn.log_sigmoid(-of_fake))
    return game + cross_entropy(classes, batch['label'])

  def g_loss(params):
    variables = {**state.generator.variables, 'params': params}
    fake = apply(generator, variables, noise, labels)
    of_fake, classes = apply(
      discriminator, stepped.discriminator.variables, fake, labels
    )
    game = -jnp.mean(jax.nn.log_sigmoid(of_fake))
    return game + 0.5 * cross_entropy(classes, labels)

  assert_stepped(d_loss, state.discriminator, stepped.discriminator)
  assert_stepped(g_loss, state.generator, stepped.generator)
  values = {k: float(v) for k, v in measured.compute().items()}
  of_real = values['discriminator_loss'] + values['class_loss']
  assert abs(of_real - float(d_loss(state.discriminator.params))) < 1e-4
  # The logged loss of the generator is the game's alone.
  assert values['generator_loss'] < float(g_loss(state.generator.params))


def test_each_discriminator_step_takes_images_of_its_own(quick_compile):
  task = make(d_steps=2)
  state = task.init(jax.random.key(0))
  batch = batch_of(8)
  one, _ = jax.jit(task.train_step)(state, batch, jax.random.key(1))
  other = {**batch, 'image': batch['image'].copy()}
  other['image'][1::2] = other['image'][::2]  # the second step's
  two, _ = jax.jit(task.train_step)(state, other, jax.random.key(1))
  difference = jax.tree.map(
    lambda a, b: float(jnp.abs(a - b).max()),
    one.discriminator.params,
    two.discriminator.params,
  )
  assert max(jax.tree.leaves(difference)) > 0
  count = next(
    leaf.count for leaf in one.discriminator.opt_state if hasattr(leaf, 'count')
  )
  assert int(count) == 2


@pytest.mark.parametrize(
  ('fields', 'changes'),
  [
    ({'r1': 10.0}, True),
    ({'gradient_penalty': 10.0, 'loss': 'wasserstein'}, True),
    ({'loss': 'hinge'}, False),
    ({'diffaugment': ('color', 'translation', 'cutout')}, False),
  ],
)
def test_switches_train_and_penalties_are_measured(fields, changes, quick_compile):
  task = make(**fields)
  state = task.init(jax.random.key(0))
  step = jax.jit(task.train_step)
  for number in range(2):
    state, measured = step(state, batch_of(8, number), jax.random.key(number))
  values = {k: float(v) for k, v in measured.compute().items()}
  assert np.isfinite(list(values.values())).all()
  assert (values['penalty'] > 0) == changes
  assert values['generator_grad_norm'] > 0
  assert values['discriminator_grad_norm'] > 0


def test_average_follows_the_generator_and_is_what_draws(quick_compile):
  task = make(ema_decay=0.5)
  state = task.init(jax.random.key(0))
  stepped, _ = jax.jit(task.train_step)(state, batch_of(8), jax.random.key(1))
  # (1 + 0) / (10 + 0) of the old at the first step, less than the decay.
  expected = jax.tree.map(
    lambda old, new: 0.1 * old + 0.9 * new,
    state.generator.variables,
    stepped.generator.variables,
  )
  chex.assert_trees_all_close(stepped.ema, expected, atol=1e-6)
  assert stepped.eval_variables is stepped.ema
  assert state.replace(ema={}).eval_variables == state.generator.variables


def test_pixels_cover_the_whole_range():
  images = jnp.array([[-1.2, -1.0, -1 / 255, 1 / 255, 1.0, 1.2]])
  assert to_pixels(images).tolist() == [[0, 0, 127, 128, 255, 255]]
