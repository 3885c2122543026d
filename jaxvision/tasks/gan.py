"""Generative adversarial networks: a generator and a discriminator that train in turn."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxvision import models, optim
from jaxvision.data.augment import diffaugment
from jaxvision.data.augment.diffaugment import diff_augment
from jaxvision.errors import UserError
from jaxvision.metrics.gan_diagnosis import diagnose
from jaxvision.models.summary import summarize_gan
from jaxvision.optim.averaging import update_ema
from jaxvision.tasks.base import Batch, PyTree, TaskContext, copied
from jaxvision.tasks.gan_losses import gradient_penalty, make_losses, squared_gradient
from jaxvision.tasks.gan_state import ClassifyingMetrics, GANMetrics, GANState, Network
from jaxvision.tasks.generative import GenerativeTask
from jaxvision.training.sampler import to_pixels


class GanTask(GenerativeTask):
  """Trains the two networks of a GAN.

  Batches hold `image` uint8 [d_steps B, H, W, C] and `label` int32 [d_steps B]: a step
  is `gan.d_steps` steps of the discriminator and one of the generator. Conditional
  networks draw labels evenly.

  Attributes:
    model: the networks.
  """

  without_meaning = (
    ('grad_accumulation', 'a GAN takes its batch in one part'),
    ('lookahead.every', 'the generator is averaged by ema_decay'),
    ('freeze', 'both networks train as a whole'),
    ('init.pretrained', 'a GAN starts from random weights'),
    ('init.teacher', 'a GAN learns from images'),
    ('resize', 'a GAN draws images of the size of its data'),
    ('data.mean', 'a GAN takes images in [-1, 1]'),
    ('augment.flip_mode', 'images are mirrored at random'),
    ('optimizer.groups', 'each of the two networks has one optimiser'),
    ('optimizer.layer_decay', 'each of the two networks has one learning rate'),
    ('optimizer.schedule_free', 'the generator is averaged by ema_decay'),
    ('optimizer.sam', 'neither network goes down a loss of its own alone'),
    ('quantization_aware', 'only classifiers are quantized'),
    ('loss', 'gan.loss says which game is played'),
    ('metrics', 'a GAN is measured by its samples'),
    ('flow', 'a GAN draws by its noise and the class alone'),
  )

  def __init__(self, context: TaskContext):
    super().__init__(context)
    config = self.config
    if config.label_smoothing and config.gan.loss not in ('bce', 'least_squares'):
      raise UserError(
        'config: label_smoothing moves the targets of bce and least_squares, and '
        f'gan.loss {config.gan.loss} has none: set it to 0'
      )
    diffaugment.check(config.gan.diffaugment)
    self.metrics = ClassifyingMetrics if self.gan.classifies else GANMetrics
    self._diffaugment = tuple(config.gan.diffaugment)
    self.make_optimizers({})

  @property
  def gan(self) -> models.GAN:
    """The networks."""
    return self.model

  def make_model(self) -> models.GAN:
    """Returns the networks that the config names."""
    config, info = self.config, self.info
    fields = dict(config.model)
    return models.create_gan(
      fields.pop('name'),
      info.image_shape,
      len(info.class_names),
      config.dtype,
      **fields,
    )

  @classmethod
  def batches_per_step(cls, config: ConfigDict) -> int:
    """Returns the steps of the discriminator in a step: each takes a batch."""
    return config.gan.d_steps

  def make_optimizers(
    self, hparams: dict[str, Any]
  ) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """Returns the optimisers of generator and discriminator.

    Args:
      hparams: numbers that hold instead of the config's.
    """
    config = self.config
    section = config.optimizer
    peak = hparams.get('optimizer.learning_rate', section.learning_rate)
    return tuple(
      optim.make_optimizer(
        section,
        self._rate(peak),
        weight_decay=hparams.get('optimizer.weight_decay'),
        momentum=hparams.get('optimizer.momentum'),
        grad_clip=hparams.get('grad_clip', config.grad_clip),
        constructor=self.parts.optimizer,
      )
      for peak in (peak, config.gan.d_learning_rate or peak)
    )

  def init(self, key: jax.Array) -> GANState:
    """Returns the train state at step 0."""
    keys = jax.random.split(key, 3)
    gan = self.gan
    labels = jnp.zeros(1, jnp.int32) if gan.conditional else None

    def make(model, optimizer, key, inputs) -> Network:
      variables = model.init(key, inputs, labels)
      params = variables['params']
      return Network(params, variables.get('batch_stats', {}), optimizer.init(params))

    optimizers = self.make_optimizers({})
    noise = jnp.zeros((1, gan.latent))
    images = jnp.zeros((1, *self.info.image_shape))
    generator = make(gan.generator, optimizers[0], keys[0], noise)
    discriminator = make(gan.discriminator, optimizers[1], keys[1], images)
    return GANState(
      step=jnp.zeros((), jnp.int32),
      key=jax.random.key_data(keys[2]),
      generator=generator,
      discriminator=discriminator,
      ema=copied(generator.variables) if self.config.ema_decay else {},
    )

  def train_step(
    self, state: GANState, batch: Batch, key: jax.Array
  ) -> tuple[GANState, Any]:
    """Takes `gan.d_steps` steps of the discriminator and one of the generator."""
    keys = _keys(key)
    parts = self.config.gan.d_steps
    optimizers = self.make_optimizers(state.hparams)
    losses = self._losses(state)
    generator, discriminator = state.generator, state.discriminator
    size = batch['image'].shape[0] // parts
    measured = []
    for part in range(parts):  # written out: XLA:CPU is slow at gradients in loops
      # Strided: each part takes the same share of every device's images.
      image, label = batch['image'][part::parts], batch['label'][part::parts]
      real = self.augment(next(keys), image)
      fake, labels, pullback, stats = self._generate(generator, keys, size)
      generator = generator.replace(batch_stats=stats)
      grads, (stats, new) = jax.grad(self.discriminator_loss, has_aux=True)(
        discriminator.params,
        discriminator.batch_stats,
        (real, label if self.gan.conditional else None),
        (fake, labels),
        losses,
        (next(keys), next(keys), next(keys)),
      )
      discriminator, norm = _update(discriminator, optimizers[1], grads, stats)
      measured.append({**new, 'discriminator_grad_norm': norm})
    by_images, (loss, stats) = jax.grad(self.generator_loss, has_aux=True)(
      fake, discriminator, labels, losses, next(keys)
    )
    generator, norm = _update(
      generator, optimizers[0], *pullback(by_images), generator.batch_stats
    )
    discriminator = discriminator.replace(batch_stats=stats)
    ema = state.ema
    if self.config.ema_decay:
      decay = self.number(state, 'ema_decay')
      ema = update_ema(ema, generator.variables, decay, state.step)
    state = state.replace(
      step=state.step + 1, generator=generator, discriminator=discriminator, ema=ema
    )
    means = jax.tree.map(lambda *values: sum(values) / parts, *measured)
    return state, self.metrics.single_from_model_output(
      **means, generator_loss=loss, generator_grad_norm=norm
    )

  def discriminator_loss(
    self,
    params: PyTree,
    batch_stats: PyTree,
    real: tuple[jax.Array, jax.Array | None],
    fake: tuple[jax.Array, jax.Array | None],
    losses: Any,
    keys: tuple[jax.Array, jax.Array, jax.Array],
  ) -> tuple[jax.Array, tuple[PyTree, dict[str, jax.Array]]]:
    """Computes the discriminator's loss with penalties and, where it classifies, classes.

    Args:
      params: of the discriminator, to differentiate by.
      batch_stats: its running statistics.
      real, fake: images in [-1, 1] and their labels, None where it is unconditional.
      losses: of the game, see `gan_losses`.
      keys: for the augmentation of real and of generated images, and for the penalty.

    Returns:
      (float32 scalar, (new running statistics, measures)).
    """
    rules = self.config.gan
    images, labels = real

    def penalized(images):
      # Without augmentation, and in statistics of its own, which are not kept.
      return self._discriminate(params, batch_stats, images, labels)[0]

    of_real, class_loss, stats = self._discriminate(
      params, batch_stats, *real, augment=keys[0]
    )
    # Classes are learned from real images only: a young generator draws none.
    of_fake, _, stats = self._discriminate(params, stats, *fake, augment=keys[1])
    loss = losses.real(of_real).mean() + losses.fake(of_fake).mean()
    penalty = jnp.zeros(())
    if rules.r1:
      penalty += rules.r1 / 2 * squared_gradient(penalized, images).mean()
    if rules.gradient_penalty:
      lengths = gradient_penalty(penalized, images, fake[0], keys[2])
      penalty += rules.gradient_penalty * lengths.mean()
    measured = {
      'discriminator_loss': loss,
      'd_real': losses.shown(of_real).mean(),
      'd_fake': losses.shown(of_fake).mean(),
      'penalty': penalty,
    }
    if self.gan.classifies:
      measured['class_loss'] = class_loss
    return loss + penalty + class_loss, (stats, measured)

  def generator_loss(
    self,
    images: jax.Array,
    discriminator: Network,
    labels: jax.Array | None,
    losses: Any,
    key: jax.Array,
  ) -> tuple[jax.Array, tuple[jax.Array, PyTree]]:
    """Computes the generator's loss as a function of the images that it drew.

    Returns:
      (float32 scalar, (the loss without the classes, new statistics of the
      discriminator)).
    """
    outputs, class_loss, stats = self._discriminate(
      discriminator.params, discriminator.batch_stats, images, labels, augment=key
    )
    loss = losses.generator(outputs).mean()
    return loss + self.config.gan.class_weight * class_loss, (loss, stats)

  def _losses(self, state: GANState) -> Any:
    rules = self.config.gan
    smoothing = self.number(state, 'label_smoothing')
    return make_losses(rules.loss, smoothing, rules.two_sided_smoothing)

  def _discriminate(
    self,
    params: PyTree,
    batch_stats: PyTree,
    images: jax.Array,
    labels: jax.Array | None,
    augment: jax.Array | None = None,
  ) -> tuple[jax.Array, jax.Array, PyTree]:
    """Returns (outputs [B], mean cross-entropy of the classes or 0, statistics)."""
    if augment is not None and self._diffaugment:
      images = diff_augment(augment, images, self._diffaugment)
    outputs, stats = _apply(self.gan.discriminator, params, batch_stats, images, labels)
    if not self.gan.classifies:
      return outputs, jnp.zeros(()), stats
    outputs, of_classes = outputs
    losses = optax.softmax_cross_entropy_with_integer_labels(of_classes, labels)
    return outputs, losses.mean(), stats

  def _generate(
    self, generator: Network, keys: Iterator[jax.Array], size: int
  ) -> tuple[jax.Array, jax.Array | None, Any, PyTree]:
    """Returns (images, labels, pullback to the parameters, new statistics)."""
    gan = self.gan
    noise = jax.random.normal(next(keys), (size, gan.latent))
    labels = None
    if gan.conditional:
      classes = len(self.info.class_names)
      labels = jax.random.randint(next(keys), (size,), 0, classes)
    fake, pullback, stats = jax.vjp(
      lambda params: _apply(
        gan.generator, params, generator.batch_stats, noise, labels
      ),
      generator.params,
      has_aux=True,
    )
    return fake, labels, pullback, stats

  def health(self, metrics: Any) -> jax.Array:
    """Returns the sum of both losses."""
    return metrics.generator_loss.compute() + metrics.discriminator_loss.compute()

  def count_parameters(self, params: PyTree) -> dict[str, int]:
    """Returns the numbers of parameters of both networks."""
    return {
      f'{name}_params': sum(leaf.size for leaf in jax.tree.leaves(tree))
      for name, tree in params.items()
    }

  def diagnose(self, history: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Returns what says that the discriminator has won, or that samples grow alike."""
    return diagnose(history, self.config.gan.loss)

  def training_report(
    self, summary: dict[str, Any], history: list[dict[str, Any]]
  ) -> Any:
    """See `GenerativeTask.training_report`."""
    from jaxvision.reports.samples import training  # matplotlib

    return training.of_gan(summary, self.config.gan.loss, history)

  def summaries(self) -> Sequence[Any]:
    """Returns the layers, parameters and FLOPs of generator and discriminator."""
    return summarize_gan(self.gan, self.info.image_shape)

  def augmented(
    self, key: jax.Array, images: jax.Array, flips: jax.Array | None = None
  ) -> jax.Array:
    """Returns training images as the discriminator sees them, as pixels."""
    del flips
    images = self.augment(key, images)
    if self._diffaugment:
      images = diff_augment(jax.random.fold_in(key, 1), images, self._diffaugment)
    return to_pixels(images)

  def enabled_augmentations(self) -> tuple[str, ...]:
    """Lists what the discriminator sees changed."""
    return (f'gan.diffaugment = {self._diffaugment}',) if self._diffaugment else ()


def _apply(model, params, stats, inputs, labels) -> tuple[Any, PyTree]:
  outputs, updated = model.apply(
    {'params': params, 'batch_stats': stats},
    inputs,
    labels,
    train=True,
    mutable=['batch_stats'],
  )
  return outputs, updated.get('batch_stats', {})


def _update(network, optimizer, grads, stats) -> tuple[Network, jax.Array]:
  updates, opt_state = optimizer.update(grads, network.opt_state, network.params)
  params = optax.apply_updates(network.params, updates)
  return Network(params, stats, opt_state), optax.global_norm(grads)


def _keys(key: jax.Array) -> Iterator[jax.Array]:
  """Yields keys, the n-th of which depends on n alone."""
  count = 0
  while True:
    yield jax.random.fold_in(key, count)
    count += 1
