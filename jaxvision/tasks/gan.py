"""Generative adversarial networks: a generator and a discriminator that train in turn."""

from collections.abc import Iterator
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from clu import metrics
from ml_collections import ConfigDict

from jaxvision.data.augment import make_augment
from jaxvision.data.augment.diffaugment import diff_augment
from jaxvision.models.generative import GAN
from jaxvision.tasks.base import Batch, Generator, PyTree, Task, update_ema
from jaxvision.tasks.gan_losses import gradient_penalty, make_losses, squared_gradient


@flax.struct.dataclass
class Network:
  """One of the two players: float32 parameters, running statistics, optimiser."""

  params: PyTree
  batch_stats: PyTree
  opt_state: optax.OptState

  @property
  def variables(self) -> PyTree:
    """What linen applies."""
    return {'params': self.params, 'batch_stats': self.batch_stats}


@flax.struct.dataclass
class GANState:
  """Everything that changes while a GAN trains, and so every checkpoint.

  Attributes:
    step: int32 scalar, steps of the generator done.
    key: uint32 key data; step n draws from `fold_in(key, n)` and from nothing else.
    generator, discriminator: the players.
    ema: {'params', 'batch_stats'} of the generator averaged over the steps, or {}.
  """

  step: jax.Array
  key: jax.Array
  generator: Network
  discriminator: Network
  ema: PyTree

  @property
  def params(self) -> PyTree:
    """The parameters of both."""
    return {
      'generator': self.generator.params,
      'discriminator': self.discriminator.params,
    }

  @property
  def eval_variables(self) -> PyTree:
    """The generator's variables that samples are drawn with: the average where kept."""
    return self.ema or self.generator.variables


@flax.struct.dataclass
class GANMetrics(metrics.Collection):
  """Means over steps and images.

  D(x) and D(G(z)), `d_real` and `d_fake`, are what the discriminator says before it
  learns from the batch. Gradients are measured before they are clipped; the losses are
  without penalties.
  """

  generator_loss: metrics.Average.from_output('generator_loss')
  discriminator_loss: metrics.Average.from_output('discriminator_loss')
  d_real: metrics.Average.from_output('d_real')
  d_fake: metrics.Average.from_output('d_fake')
  penalty: metrics.Average.from_output('penalty')
  generator_grad_norm: metrics.Average.from_output('generator_grad_norm')
  discriminator_grad_norm: metrics.Average.from_output('discriminator_grad_norm')


# The same, and the cross-entropy of the classes of real images. Made so because what
# a clu collection inherits is lost on it.
ClassifyingMetrics = metrics.Collection.create(
  **GANMetrics.__annotations__, class_loss=metrics.Average.from_output('class_loss')
)


def to_pixels(images: jax.Array) -> jax.Array:
  """Returns uint8 pixels of images in [-1, 1], rounded to the nearest.

  >>> to_pixels(jnp.array([-1.0, 0.0, 1.0])).tolist()
  [0, 128, 255]
  """
  return jnp.round(jnp.clip((images + 1) * 127.5, 0, 255)).astype(jnp.uint8)


def make_generator(gan: GAN, num_classes: int) -> Generator:
  """Returns what draws images with the generator of `gan`, in inference mode."""

  def draw(variables: PyTree, noise: jax.Array, labels: jax.Array) -> jax.Array:
    given = labels if gan.conditional else None
    return to_pixels(gan.generator.apply(variables, noise, given, train=False))

  return Generator(draw, gan.latent, num_classes if gan.conditional else 0)


def make_gan(
  config: ConfigDict,
  gan: GAN,
  optimizers: tuple[optax.GradientTransformation, optax.GradientTransformation],
  schedule: optax.Schedule,
  image_shape: tuple[int, int, int],
  num_classes: int,
) -> Task:
  """Returns the task that trains the two networks of `gan` in turn.

  A step trains the discriminator `gan.d_steps` times, each on real images of its own and
  on as many generated ones, then the generator once, on the last generated ones
  as the discriminator now sees them. Real and generated images go through the
  discriminator one after the other, so that batch norm takes the statistics of each.

  Batches hold `image` uint8 [d_steps B, H, W, C] and `label` int32 [d_steps B].

  Args:
    config: the run's; reads `gan`, `augment` (of real images), `label_smoothing`,
      `ema_decay`, `dtype`.
    gan: the networks.
    optimizers: the generator's and the discriminator's.
    schedule: the generator's learning rate, for the log.
    image_shape: (H, W, C).
    num_classes: of the data; conditional networks draw labels evenly.
  """
  rules, parts = config.gan, config.gan.d_steps
  losses = make_losses(rules.loss, config.label_smoothing, rules.two_sided_smoothing)
  half = (0.5,) * image_shape[-1]  # mean and deviation that map [0, 1] to [-1, 1]
  augment = make_augment(config.augment, half, half, jnp.float32)
  policy = tuple(rules.diffaugment)
  collection = ClassifyingMetrics if gan.classifies else GANMetrics

  def init(key: jax.Array) -> GANState:
    keys = jax.random.split(key, 3)
    labels = jnp.zeros(1, jnp.int32) if gan.conditional else None

    def make(model, optimizer, key, inputs) -> Network:
      variables = model.init(key, inputs, labels)
      params = variables['params']
      return Network(params, variables.get('batch_stats', {}), optimizer.init(params))

    generator = make(gan.generator, optimizers[0], keys[0], jnp.zeros((1, gan.latent)))
    discriminator = make(
      gan.discriminator, optimizers[1], keys[1], jnp.zeros((1, *image_shape))
    )
    # A copy: a state whose leaves share buffers could not be donated.
    ema = jax.tree.map(jnp.copy, generator.variables) if config.ema_decay else {}
    return GANState(
      step=jnp.zeros((), jnp.int32),
      key=jax.random.key_data(keys[2]),
      generator=generator,
      discriminator=discriminator,
      ema=ema,
    )

  def apply(model, params, stats, inputs, labels) -> tuple[Any, PyTree]:
    outputs, updated = model.apply(
      {'params': params, 'batch_stats': stats},
      inputs,
      labels,
      train=True,
      mutable=['batch_stats'],
    )
    return outputs, updated.get('batch_stats', {})

  def judge(params, stats, images, labels) -> tuple[jax.Array, jax.Array, PyTree]:
    """Returns (outputs [B], mean cross-entropy of the classes or 0, statistics)."""
    outputs, stats = apply(gan.discriminator, params, stats, images, labels)
    if not gan.classifies:
      return outputs, jnp.zeros(()), stats
    outputs, of_classes = outputs
    losses = optax.softmax_cross_entropy_with_integer_labels(of_classes, labels)
    return outputs, losses.mean(), stats

  def discriminate(
    params, stats, images, labels, key
  ) -> tuple[jax.Array, jax.Array, PyTree]:
    if policy:
      images = diff_augment(key, images, policy)
    return judge(params, stats, images, labels)

  def update(network, optimizer, grads, stats) -> tuple[Network, jax.Array]:
    updates, opt_state = optimizer.update(grads, network.opt_state, network.params)
    params = optax.apply_updates(network.params, updates)
    return Network(params, stats, opt_state), optax.global_norm(grads)

  def generate(
    generator, keys, size
  ) -> tuple[jax.Array, jax.Array | None, Any, PyTree]:
    """Returns (images, labels, pullback to the parameters, new statistics)."""
    noise = jax.random.normal(next(keys), (size, gan.latent))
    labels = None
    if gan.conditional:
      labels = jax.random.randint(next(keys), (size,), 0, num_classes)
    fake, pull, stats = jax.vjp(
      lambda params: apply(gan.generator, params, generator.batch_stats, noise, labels),
      generator.params,
      has_aux=True,
    )
    return fake, labels, pull, stats

  def train_discriminator(network, real, real_labels, fake, fake_labels, keys):
    on_real, on_fake, between = next(keys), next(keys), next(keys)

    def loss_fn(params):
      def penalized(images):
        # Without augmentation, and in statistics of its own, which are not kept.
        return judge(params, network.batch_stats, images, real_labels)[0]

      stats = network.batch_stats
      of_real, class_loss, stats = discriminate(
        params, stats, real, real_labels, on_real
      )
      # Taught by real images only: what the generator draws yet is of no class.
      of_fake, _, stats = discriminate(params, stats, fake, fake_labels, on_fake)
      loss = losses.real(of_real).mean() + losses.fake(of_fake).mean()
      penalty = jnp.zeros(())
      if rules.r1:
        penalty += rules.r1 / 2 * squared_gradient(penalized, real).mean()
      if rules.gradient_penalty:
        lengths = gradient_penalty(penalized, real, fake, between)
        penalty += rules.gradient_penalty * lengths.mean()
      measured = {
        'discriminator_loss': loss,
        'd_real': losses.shown(of_real).mean(),
        'd_fake': losses.shown(of_fake).mean(),
        'penalty': penalty,
      }
      if gan.classifies:
        measured['class_loss'] = class_loss
      return loss + penalty + class_loss, (stats, measured)

    grads, (stats, measured) = jax.grad(loss_fn, has_aux=True)(network.params)
    network, norm = update(network, optimizers[1], grads, stats)
    return network, {**measured, 'discriminator_grad_norm': norm}

  def train_generator(network, discriminator, fake, labels, pull, stats, keys):
    on_fake = next(keys)

    def loss_fn(images):
      outputs, class_loss, seen = discriminate(
        discriminator.params, discriminator.batch_stats, images, labels, on_fake
      )
      loss = losses.generator(outputs).mean()
      return loss + rules.class_weight * class_loss, (loss, seen)

    by_images, (loss, seen) = jax.grad(loss_fn, has_aux=True)(fake)
    network, norm = update(network, optimizers[0], *pull(by_images), stats)
    measured = {'generator_loss': loss, 'generator_grad_norm': norm}
    return network, discriminator.replace(batch_stats=seen), measured

  def train_step(
    state: GANState, batch: Batch, key: jax.Array
  ) -> tuple[GANState, GANMetrics]:
    keys = _keys(key)
    generator, discriminator = state.generator, state.discriminator
    size = batch['image'].shape[0] // parts
    measured = []
    for part in range(parts):  # written out: XLA:CPU is slow at gradients in loops
      # Strided: each part takes the same share of every device's images.
      image, label = batch['image'][part::parts], batch['label'][part::parts]
      real = augment(next(keys), image)
      fake, labels, pull, stats = generate(generator, keys, size)
      generator = generator.replace(batch_stats=stats)
      discriminator, new = train_discriminator(
        discriminator, real, label if gan.conditional else None, fake, labels, keys
      )
      measured.append(new)
    generator, discriminator, of_generator = train_generator(
      generator, discriminator, fake, labels, pull, stats, keys
    )
    ema = state.ema
    if config.ema_decay:
      ema = update_ema(ema, generator.variables, config.ema_decay, state.step)
    state = state.replace(
      step=state.step + 1, generator=generator, discriminator=discriminator, ema=ema
    )
    means = jax.tree.map(lambda *values: sum(values) / parts, *measured)
    return state, collection.single_from_model_output(**means, **of_generator)

  return Task(
    init=init,
    train_step=train_step,
    metrics=collection,
    schedule=schedule,
    health=lambda m: m.generator_loss.compute() + m.discriminator_loss.compute(),
    generator=make_generator(gan, num_classes),
    best=('fd', 'min'),
  )


def _keys(key: jax.Array) -> Iterator[jax.Array]:
  """Yields keys, the n-th of which depends on n alone."""
  count = 0
  while True:
    yield jax.random.fold_in(key, count)
    count += 1
