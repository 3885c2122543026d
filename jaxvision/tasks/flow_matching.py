"""Flow matching: a network learns the way from noise to images, on straight lines.

An image x and noise z make the line (1 - t) z + t x, along which the velocity is x - z. The
network sees a point of the line and its t, and is to say the velocity; as many lines cross
there, what it learns is their mean, by which noise flows to images of the same distribution.
Generated images are measured as those of a GAN, of which there is no second network here
and no game: one loss, which falls.

References:
  Lipman, Chen, Ben-Hamu, Nickel and Le 2023, "Flow matching for generative modeling",
  https://arxiv.org/abs/2210.02747.
  Liu, Gong and Liu 2023, "Flow straight and fast: learning to generate and transfer data
  with rectified flow", https://arxiv.org/abs/2209.03003.
  Esser et al. 2024, "Scaling rectified flow transformers for high-resolution image
  synthesis", https://arxiv.org/abs/2403.03206; the distribution of times.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from clu import metrics as clu_metrics

from jaxvision import models
from jaxvision.data.augment import normalize
from jaxvision.data.dataset import Dataset
from jaxvision.models.summary import summarize_flow
from jaxvision.tasks.base import Batch, PyTree, TaskContext, TrainState
from jaxvision.tasks.generative import GenerativeTask
from jaxvision.tasks.one_network import OneNetworkTask
from jaxvision.tasks.phases import WHOLE_RUN, Phase
from jaxvision.tasks.sample_evaluator import SampleEvaluator

_METRICS = clu_metrics.Collection.create(loss=clu_metrics.Average.from_output('loss'))
_ODD = 2654435761  # the odd number next to 2**32 over the golden ratio (Knuth)


def draw_times(key: jax.Array, distribution: str, count: int) -> jax.Array:
  """Returns times in [0, 1], float32 [count]; see `flow.time` for the distributions."""
  if distribution == 'uniform':
    return jax.random.uniform(key, (count,))
  return jax.nn.sigmoid(jax.random.normal(key, (count,)))


def matching_losses(
  velocity: Callable[[jax.Array, jax.Array], jax.Array],
  images: jax.Array,
  noise: jax.Array,
  times: jax.Array,
) -> jax.Array:
  """Returns the mean squared error of the velocity on each line, float32 [B].

  Args:
    velocity: (images under noise [B, ...], times [B]) -> [B, ...].
    images: float [B, ...].
    noise: standard normal, of the same shape.
    times: float [B], where on the line from noise to image.
  """
  t = times.reshape(-1, *(1,) * (images.ndim - 1))
  error = velocity((1 - t) * noise + t * images, times) - (images - noise)
  return jnp.square(error).reshape(len(images), -1).mean(-1)


def keys_of(images: jax.Array) -> jax.Array:
  """Returns a key for each image, which depends on its pixels alone: [B].

  Args:
    images: uint8 [B, H, W, C].
  """
  pixels = images.reshape(len(images), -1).astype(jnp.uint32)
  odd = jnp.arange(1, 2 * pixels.shape[1], 2, dtype=jnp.uint32) * jnp.uint32(_ODD)
  sums = (pixels * odd).sum(-1, dtype=jnp.uint32)  # modulo 2**32
  return jax.vmap(lambda number: jax.random.fold_in(jax.random.key(0), number))(sums)


class FlowMatching(GenerativeTask, OneNetworkTask):
  """Trains a network of velocities by flow matching.

  A conditional network sees the class of a training image, or with the chance
  `flow.label_dropout` that it may be any, see `Flow`.

  Attributes:
    model: the flow, a network and how it draws.
    metrics: the loss.
  """

  metrics = _METRICS
  holds_out = True
  without_meaning = (
    ('quantization_aware', 'only classifiers are quantized'),
    ('freeze', 'the network trains as a whole'),
    ('init.pretrained', 'the network starts from random weights'),
    ('init.teacher', 'the network learns from images'),
    ('resize', 'a flow draws images of the size of its data'),
    ('data.mean', 'a flow takes images in [-1, 1]'),
    ('optimizer.groups', 'the network has one optimiser'),
    ('optimizer.layer_decay', 'the network has one learning rate'),
    ('label_smoothing', 'the network predicts no classes'),
    ('loss', 'it is the mean squared error of the velocity'),
    ('metrics', 'a flow is measured by its samples'),
    ('gan', 'there is no discriminator'),
  )

  def __init__(self, context: TaskContext):
    super().__init__(context)
    self.make_optimizer({})  # finds what is wrong with its options

  def make_model(self) -> models.Flow:
    """Returns the flow that the config names."""
    config, info = self.config, self.info
    fields = dict(config.model)
    return models.create_flow(
      fields.pop('name'),
      info.image_shape,
      config.flow,
      len(info.class_names),
      config.dtype,
      **fields,
    )

  @property
  def best(self) -> tuple[str, str]:
    """The distance of samples where it is measured, else the loss of held-out images."""
    wanted = self.config.evaluation
    measured = wanted.features and wanted.samples_while_training
    return ('fd' if measured else 'loss', 'min')

  @property
  def measure(self) -> dict[str, Any]:
    """What runs are ranked by: the distance where it is measured, else the test loss."""
    if self.config.evaluation.features:
      return super().measure
    loss = {'key': 'test_loss', 'label': 'test loss', 'logged': 'loss'}
    return super().measure | loss

  def init_model(self, key: jax.Array) -> PyTree:
    """Returns the variables of the network at step 0."""
    return self.model.init(key)

  def loss(
    self,
    params: PyTree,
    state: TrainState,
    batch: Batch,
    key: jax.Array,
    phase: Phase = WHOLE_RUN,
  ) -> tuple[jax.Array, tuple[PyTree, Any]]:
    """See `OneNetworkTask.loss`; the statistics are {}."""
    del phase
    keys = jax.random.split(key, 5)
    images = self.augment(keys[0], batch['image'], batch.get('flip'))
    noise = jax.random.normal(keys[1], images.shape)
    times = draw_times(keys[2], self.config.flow.time, len(images))
    labels = self._labels_to_learn(keys[3], batch['label'])
    network = self.with_rates(self.model.network, state)

    def velocity(images: jax.Array, times: jax.Array) -> jax.Array:
      return network.apply(
        {'params': params}, images, times, labels, train=True, rngs={'dropout': keys[4]}
      )

    losses = matching_losses(velocity, images, noise, times)
    return losses.mean(), ({}, self.metrics.single_from_model_output(loss=losses))

  def _labels_to_learn(self, key: jax.Array, labels: jax.Array) -> jax.Array | None:
    """Returns the labels that a batch is shown with, int32 [B]; None without classes."""
    classes, chance = self.model.classes, self.config.flow.label_dropout
    if not classes:
      return None
    if not chance:
      return labels
    return jnp.where(jax.random.bernoulli(key, chance, labels.shape), classes, labels)

  def eval_step(self, state: TrainState, batch: Batch) -> tuple[Any, jax.Array]:
    """Evaluates a batch with the averaged weights; returns (metrics, losses [B]).

    The noise and the time of an image depend on its pixels alone, so that every evaluation
    of it, in a batch of any size, is of the same line.
    """
    images = normalize(batch['image'], *self.normalization)
    keys = jax.vmap(jax.random.split)(keys_of(batch['image']))
    noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(keys[:, 0])
    draw = jax.vmap(lambda key: draw_times(key, self.config.flow.time, 1)[0])
    labels = batch['label'] if self.model.classes else None

    def velocity(images: jax.Array, times: jax.Array) -> jax.Array:
      return self.model.network.apply(
        state.eval_variables, images, times, labels, train=False
      )

    losses = matching_losses(velocity, images, noise, draw(keys[:, 1]))
    measured = self.metrics.single_from_model_output(loss=losses, mask=batch['mask'])
    return measured, losses

  def evaluator(
    self, run: Any, dataset: Dataset, inputs: Dataset, state: PyTree
  ) -> SampleEvaluator:
    """See `Task.evaluator`."""
    del inputs
    return SampleEvaluator(run, dataset, state, held_out=True)

  def training_values(self, measured: dict[str, float | None]) -> dict[str, Any]:
    """Returns the loss of training."""
    return {'train_loss': measured['loss']}

  def training_report(
    self, summary: dict[str, Any], history: list[dict[str, Any]]
  ) -> Any:
    """See `GenerativeTask.training_report`."""
    from jaxvision.reports.samples import training  # matplotlib

    return training.of_flow(summary, self.config.flow, history)

  def summaries(self) -> Sequence[Any]:
    """Returns the layers, parameters and FLOPs of one evaluation of the network."""
    return (summarize_flow(self.model),)

  @property
  def flops_per_image(self) -> int:
    """FLOPs of drawing an image: those of all evaluations of the network."""
    (table,) = self.summaries()
    return table.flops * self.model.evaluations
