"""Image classification: softmax cross-entropy over the classes."""

import contextlib
import functools
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from clu import metrics
from flax import linen as nn
from ml_collections import ConfigDict

from jaxvision.config.limits import switched_on
from jaxvision.data.augment import alternating_flips, augments, make_augment, normalize
from jaxvision.tasks import freezing, tta
from jaxvision.tasks.base import (
  Batch,
  PyTree,
  Task,
  TrainState,
  update_ema,
  update_lookahead,
)


@flax.struct.dataclass
class ClassificationMetrics(metrics.Collection):
  """Sums over examples: right over uneven, masked batches and over devices."""

  loss: metrics.Average.from_output('loss')
  accuracy: metrics.Average.from_output('correct')
  accuracy_top5: metrics.Average.from_output('correct_top5')


def cross_entropy(
  logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0
) -> jax.Array:
  """Returns the cross-entropy of each example, in nats.

  The target is (1 - a) one_hot(label) + a / K over K classes (Szegedy et al. 2016,
  section 7).

  Args:
    logits: float [B, K].
    labels: int [B].
    label_smoothing: a.

  Returns:
    float32 [B].

  >>> float(cross_entropy(jnp.zeros((1, 4)), jnp.array([2]))[0])  # ln 4
  1.3862943649291992
  """
  logits = logits.astype(jnp.float32)
  if not switched_on(label_smoothing):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  targets = optax.smooth_labels(
    jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing
  )
  return optax.softmax_cross_entropy(logits, targets)


def in_top_k(logits: jax.Array, labels: jax.Array, k: int) -> jax.Array:
  """Returns float32 [B]: 1 where the label is among the k best classes.

  Of classes that score the same, the lower index is the better one, as in argmax.

  >>> in_top_k(jnp.array([[3., 2., 1.], [0., 0., 0.]]), jnp.array([1, 2]), 2).tolist()
  [1.0, 0.0]
  """
  own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
  earlier = jnp.arange(logits.shape[-1]) < labels[:, None]
  better = jnp.sum((logits > own) | ((logits == own) & earlier), axis=-1)
  return (better < k).astype(jnp.float32)


def _measure(
  losses: jax.Array, logits: jax.Array, labels: jax.Array, mask: jax.Array | None = None
) -> ClassificationMetrics:
  return ClassificationMetrics.single_from_model_output(
    loss=losses,
    correct=(jnp.argmax(logits, -1) == labels).astype(jnp.float32),
    correct_top5=in_top_k(logits, labels, 5),
    mask=mask,
  )


def make_classification(
  config: ConfigDict,
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  schedule: optax.Schedule,
  image_shape: tuple[int, int, int],
  mean: tuple[float, ...],
  std: tuple[float, ...],
  total_steps: int = 0,
  first_steps: PyTree = None,
) -> Task:
  """Returns the task that trains `model` as a classifier.

  Batches hold `image` uint8 [B, H, W, C] and `label` int32 [B]; those of training also
  `index` and `epoch` int32 [B], which alternating flips need; those of evaluation also
  `mask` bool [B], False for padding. Where the task has `features`, `image` may be
  these.

  Args:
    config: the run's; reads `augment`, `dtype`, `label_smoothing`, `ema_decay`,
      `lookahead`, `evaluation` and `grad_accumulation`.
    model: `__call__(images, train) -> logits`; one whose initial weights depend on the
      data has `init_from_data(params, images float32) -> params`; one that can be cut
      before its classifier has `features(images, train)` and `classify(features)`.
    optimizer: applied to the mean gradient over the batch.
    schedule: for the log.
    image_shape: (H, W, C).
    mean, std: per channel, in units of [0, 1].
    total_steps: of the run; Lookahead goes by it.
    first_steps: tree of ints like the parameters, the step from which each trains
      (`total_steps`: never); None: all from the start.
  """
  dtype = jnp.dtype(config.dtype)
  augment = make_augment(config.augment, mean, std, dtype)
  parts = config.grad_accumulation
  lookahead = config.lookahead
  alternating = config.augment.flip and config.augment.flip_mode == 'alternating'
  averaged = switched_on(config.ema_decay) or bool(lookahead.every)

  def init(key: jax.Array) -> TrainState:
    key_params, key_run = jax.random.split(key)
    images = jnp.zeros((1, *image_shape), dtype)
    variables = model.init({'params': key_params}, images, train=False)
    params = variables['params']
    batch_stats = variables.get('batch_stats', {})
    # A copy: a state whose leaves share buffers could not be donated.
    ema = {'params': params, 'batch_stats': batch_stats} if averaged else {}
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      key=jax.random.key_data(key_run),
      params=params,
      batch_stats=batch_stats,
      opt_state=optimizer.init(params),
      ema=jax.tree.map(jnp.copy, ema),
    )

  def forward(
    params: PyTree,
    batch_stats: PyTree,
    batch: Batch,
    key: jax.Array,
    still: PyTree,
  ) -> tuple[jax.Array, PyTree]:
    key_augment, key_dropout = jax.random.split(key)
    norms: contextlib.AbstractContextManager = contextlib.nullcontext()
    if still is not None:
      params = freezing.without_gradient(params, still)
      norms = freezing.frozen_norms(still)
    variables = {'params': params, 'batch_stats': batch_stats}
    if batch['image'].ndim == 2:
      return model.apply(variables, batch['image'], method='classify'), batch_stats
    images = augment(key_augment, batch['image'], batch.get('flip'))
    with norms:
      logits, updated = model.apply(
        variables,
        images,
        train=True,
        rngs={'dropout': key_dropout},
        mutable=['batch_stats'],
      )
    return logits, updated.get('batch_stats', {})

  def loss_fn(
    params: PyTree,
    batch_stats: PyTree,
    batch: Batch,
    key: jax.Array,
    still: PyTree,
  ) -> tuple[jax.Array, tuple[PyTree, ClassificationMetrics]]:
    logits, batch_stats = forward(params, batch_stats, batch, key, still)
    losses = cross_entropy(logits, batch['label'], config.label_smoothing)
    measured = _measure(losses, logits, batch['label'])
    return losses.mean(), (batch_stats, measured)

  def gradients(state: TrainState, batch: Batch, key: jax.Array, still: PyTree) -> Any:
    grad_fn = jax.grad(functools.partial(loss_fn, still=still), has_aux=True)
    if parts == 1:
      return grad_fn(state.params, state.batch_stats, batch, key)
    # Strided parts: each takes the same share of every device's images.
    split = jax.tree.map(
      lambda x: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1),
      batch,
    )

    def accumulate(carry, inputs):
      grads, batch_stats, measured = carry
      index, part = inputs
      new_grads, (batch_stats, new) = grad_fn(
        state.params, batch_stats, part, jax.random.fold_in(key, index)
      )
      grads = jax.tree.map(jnp.add, grads, new_grads)
      return (grads, batch_stats, measured.merge(new)), None

    start = (
      jax.tree.map(jnp.zeros_like, state.params),
      state.batch_stats,
      ClassificationMetrics.empty(),
    )
    (grads, batch_stats, measured), _ = jax.lax.scan(
      accumulate, start, (jnp.arange(parts), split)
    )
    return jax.tree.map(lambda g: g / parts, grads), (batch_stats, measured)

  def train_step(
    state: TrainState, batch: Batch, key: jax.Array, still: PyTree = None
  ) -> tuple[TrainState, ClassificationMetrics]:
    if alternating:
      flips = alternating_flips(state.key, batch['index'], batch['epoch'])
      batch = {**batch, 'flip': flips}
    grads, (batch_stats, measured) = gradients(state, batch, key, still)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if switched_on(config.ema_decay):
      new = {'params': params, 'batch_stats': batch_stats}
      ema = update_ema(ema, new, config.ema_decay, state.step)
    if lookahead.every:
      new = {'params': params, 'batch_stats': batch_stats}
      ema, new = update_lookahead(
        ema, new, state.step + 1, lookahead.every, lookahead.decay, total_steps
      )
      params, batch_stats = new['params'], new['batch_stats']
    state = state.replace(
      step=state.step + 1,
      params=params,
      batch_stats=batch_stats,
      opt_state=opt_state,
      ema=ema,
    )
    return state, measured

  def eval_step(
    state: TrainState, batch: Batch
  ) -> tuple[ClassificationMetrics, jax.Array]:
    if batch['image'].ndim == 2:
      logits = model.apply(state.eval_variables, batch['image'], method='classify')
    else:
      logits = tta.mean_logits(
        lambda shown: model.apply(state.eval_variables, shown, train=False),
        normalize(batch['image'], mean, std, dtype),
        config.evaluation.tta,
      )
    losses = cross_entropy(logits, batch['label'])
    return _measure(losses, logits, batch['label'], batch['mask']), logits

  def init_from_data(state: TrainState, images: jax.Array) -> TrainState:
    params = model.init_from_data(state.params, normalize(images, mean, std))
    ema = {**state.ema, 'params': jax.tree.map(jnp.copy, params)} if averaged else {}
    return state.replace(params=params, ema=ema)

  def features(state: TrainState, images: jax.Array) -> jax.Array:
    shown = normalize(images, mean, std, dtype)
    return model.apply(state.eval_variables, shown, method='features')

  later = ()
  if first_steps is not None:
    steps = [
      (
        first,
        functools.partial(train_step, still=freezing.frozen_at(first_steps, first)),
      )
      for first in freezing.phases(first_steps, total_steps)
    ]
    train_step, later = steps[0][1], tuple(steps[1:])
  features_stay = (
    not later
    and hasattr(model, 'classify')
    and first_steps is not None
    and _all_but_the_head_never_train(first_steps, total_steps)
    and not augments(config.augment)
    and not switched_on(getattr(model, 'dropout', 0))
    and config.evaluation.tta == 'none'
  )
  return Task(
    init=init,
    train_step=train_step,
    metrics=ClassificationMetrics,
    schedule=schedule,
    health=lambda measured: measured.loss.compute(),
    best=('accuracy', 'max'),
    eval_step=eval_step,
    init_from_data=init_from_data if hasattr(model, 'init_from_data') else None,
    later_steps=later,
    features=features if features_stay else None,
  )


def _all_but_the_head_never_train(first_steps: PyTree, total_steps: int) -> bool:
  body = {name: steps for name, steps in first_steps.items() if name != 'head'}
  return all(step >= total_steps for step in jax.tree.leaves(body))
