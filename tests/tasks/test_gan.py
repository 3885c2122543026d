"""The train step of a GAN against gradients worked out by hand."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvision.config import base_config, override
from jaxvision.data.info import DatasetInfo
from jaxvision.training.mesh import make_mesh
from jaxvision.training.run import Run

SHAPE = (8, 8, 1)
INFO = DatasetInfo(
  name='test',
  class_names=tuple('abcdefghij'),
  image_shape=SHAPE,
  mean=(0.5,),
  std=(0.5,),
  examples={'train': 64, 'test': 16},
)


def make(**fields):
  """Returns the task of a small DCGAN that trains by Adam at a constant rate."""
  config = override(
    base_config(),
    [
      'task=gan',
      'batch_size=8',
      'steps=4',
      'model.name=dcgan',
      'model.width=4',
      'model.latent=6',
      'optimizer.name=adam',
      'optimizer.learning_rate=2e-4',
      'optimizer.options.b1=0.5',
      'schedule.name=constant',
      'ema_decay=0',
      'label_smoothing=0',
    ],
  )
  for path, value in fields.items():
    config = override(config, [f'{path.replace("__", ".")}={value}'])
  return Run.build(config, INFO, mesh=make_mesh(data=1)).task


def batch_of(size, seed=0):
  draw = np.random.default_rng(seed)
  images = draw.integers(0, 256, (size, *SHAPE), np.uint8)
  return {'image': images, 'label': draw.integers(0, 10, size).astype(np.int32)}


def assert_stepped(loss, before, after):
  """Checks that a network took the first step of the optimiser of `make`."""
  grads = jax.grad(loss)(before.params)
  optimizer = optax.adam(2e-4, b1=0.5)
  updates, _ = optimizer.update(grads, optimizer.init(before.params), before.params)
  expected = optax.apply_updates(before.params, updates)
  chex.assert_trees_all_close(after.params, expected, atol=2e-5)


def test_step_trains_each_network_by_its_own_loss(quick_compile):
  task = make()
  state = task.init(jax.random.key(0))
  stepped, measured = jax.jit(task.train_step)(state, batch_of(8), jax.random.key(1))
  assert int(stepped.step) == 1
  # Against the textbook: both gradients worked out from the losses alone.
  gan = task.gan
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


def test_auxiliary_classifier_trains_on_real_images_and_teaches_the_generator(
  quick_compile,
):
  task = make(
    model__conditional=True, model__class_head='classifier', gan__class_weight=0.5
  )
  generator, discriminator = task.gan.generator, task.gan.discriminator
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


def test_each_discriminator_step_takes_its_own_images(quick_compile):
  task = make(gan__d_steps=2)
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
  counts = optax.tree_utils.tree_get_all_with_path(one.discriminator.opt_state, 'count')
  assert {int(count) for _, count in counts} == {2}


@pytest.mark.parametrize(
  ('fields', 'changes'),
  [
    ({'gan__r1': 10.0}, True),
    ({'gan__gradient_penalty': 10.0, 'gan__loss': 'wasserstein'}, True),
    ({'gan__loss': 'hinge'}, False),
    ({'gan__diffaugment': ('color', 'translation', 'cutout')}, False),
  ],
)
def test_gan_options_train_and_penalties_are_measured(fields, changes, quick_compile):
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


def test_ema_follows_the_generator_and_draws_the_samples(quick_compile):
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
