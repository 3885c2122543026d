"""What a GAN trains: the state of its two networks, and the metrics of a step."""

import flax
import jax
import optax
from clu import metrics

from jaxvision.tasks.base import PyTree


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
    order_seed, hparams: see `TrainState`.
  """

  step: jax.Array
  key: jax.Array
  generator: Network
  discriminator: Network
  ema: PyTree
  order_seed: jax.Array | None = None
  hparams: dict[str, jax.Array] = flax.struct.field(default_factory=dict)

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
