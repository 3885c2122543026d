"""Losses by name: each maps (outputs, targets) to a loss per example, float32 [B].

Outputs are the logits or values that the model returns, float [B, K]; means over the batch
are the caller's.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxvision.config.limits import switched_on


def cross_entropy(
  logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0
) -> jax.Array:
  """Computes the softmax cross-entropy, in nats.

  The target is (1 - a) one_hot(label) + a / K over K classes.

  Args:
    logits: float [B, K].
    labels: int [B], or target distributions float [B, K].
    label_smoothing: a.

  Returns:
    float32 [B].

  References:
    Szegedy et al., "Rethinking the Inception architecture", 2016, section 7.

  >>> float(cross_entropy(jnp.zeros((1, 4)), jnp.array([2]))[0])  # ln 4
  1.3862943649291992
  """
  logits = logits.astype(jnp.float32)
  if labels.ndim == logits.ndim:
    targets = labels.astype(jnp.float32)
  elif not switched_on(label_smoothing):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  else:
    targets = jax.nn.one_hot(labels, logits.shape[-1])
  if switched_on(label_smoothing):
    targets = optax.smooth_labels(targets, label_smoothing)
  return optax.softmax_cross_entropy(logits, targets)


def focal(
  logits: jax.Array,
  labels: jax.Array,
  label_smoothing: float = 0.0,
  gamma: float = 2.0,
) -> jax.Array:
  """Computes the focal loss over a softmax: (1 - p)**gamma times the cross-entropy.

  Args:
    logits: float [B, K].
    labels: int [B].
    label_smoothing: as in `cross_entropy`.
    gamma: at least 0; 0 gives the cross-entropy.

  Returns:
    float32 [B].

  References:
    Lin et al., "Focal loss for dense object detection", 2017, equation 4, for softmax.

  >>> float(focal(jnp.zeros((1, 2)), jnp.array([0]))[0])  # ln(2) / 4
  0.1732867956161499
  """
  log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
  own = jnp.take_along_axis(log_p, labels[:, None], axis=-1)[:, 0]
  weight = (1 - jnp.exp(own)) ** gamma if gamma else 1.0
  return weight * cross_entropy(logits, labels, label_smoothing)


def binary_cross_entropy(
  logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0
) -> jax.Array:
  """Computes the sigmoid cross-entropy, in nats, as the mean over the K labels.

  Args:
    logits: float [B, K].
    labels: 0 or 1, [B, K]; or class numbers int [B], which become one-hot (Wightman et
      al., "ResNet strikes back", 2021, section 2).
    label_smoothing: a: the targets are a / 2 and 1 - a / 2.

  Returns:
    float32 [B].

  >>> float(binary_cross_entropy(jnp.zeros((1, 3)), jnp.array([[1, 0, 1]]))[0])  # ln 2
  0.6931471824645996
  """
  logits = logits.astype(jnp.float32)
  if labels.ndim < logits.ndim:
    labels = jax.nn.one_hot(labels, logits.shape[-1])
  targets = labels.astype(jnp.float32)
  if switched_on(label_smoothing):
    targets = targets * (1 - label_smoothing) + label_smoothing / 2
  return optax.sigmoid_binary_cross_entropy(logits, targets).mean(-1)


def mean_squared_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
  """Computes the mean squared difference over all but the first axis.

  Args:
    outputs: float [B, ...].
    targets: float of the same shape, or [B] for outputs [B, 1].

  Returns:
    float32 [B].

  >>> mean_squared_error(jnp.array([[1.0], [2.0]]), jnp.array([1.0, 4.0])).tolist()
  [0.0, 4.0]
  """
  return _mean_over_outputs(jnp.square(_difference(outputs, targets)))


def huber(outputs: jax.Array, targets: jax.Array, delta: float = 1.0) -> jax.Array:
  """Computes the Huber loss: squared up to `delta`, linear beyond.

  Args:
    outputs: float [B, ...].
    targets: as in `mean_squared_error`.
    delta: above 0.

  Returns:
    float32 [B].

  References:
    Huber, "Robust estimation of a location parameter", 1964.

  >>> huber(jnp.array([[0.5], [3.0]]), jnp.zeros((2, 1))).tolist()
  [0.125, 2.5]
  """
  difference = _difference(outputs, targets)
  return _mean_over_outputs(optax.huber_loss(difference, delta=delta))


def distillation(
  logits: jax.Array, taught: jax.Array, temperature: float = 1.0
) -> jax.Array:
  """Computes T**2 KL(softmax(taught / T) || softmax(logits / T)), in nats.

  The factor keeps the size of the gradient whatever the temperature.

  Args:
    logits: float [B, K].
    taught: the logits of the teacher, of the same shape.
    temperature: T, above 0.

  Returns:
    float32 [B].

  References:
    Hinton et al., "Distilling the knowledge in a neural network", 2015, section 2.

  >>> distillation(jnp.zeros((1, 3)), jnp.ones((1, 3)), 4.0).round(6).tolist()
  [0.0]
  """
  own, theirs = (
    jax.nn.log_softmax(values.astype(jnp.float32) / temperature)
    for values in (logits, taught)
  )
  return temperature**2 * optax.losses.kl_divergence_with_log_targets(own, theirs)


def binary_distillation(
  logits: jax.Array, taught: jax.Array, temperature: float = 1.0
) -> jax.Array:
  """Computes `distillation` of K labels, each for itself, as the mean over them.

  Args:
    logits, taught, temperature: as in `distillation`.

  Returns:
    float32 [B].

  >>> binary_distillation(jnp.zeros((1, 3)), jnp.zeros((1, 3)), 4.0).tolist()
  [0.0]
  """
  own, theirs = (
    values.astype(jnp.float32) / temperature for values in (logits, taught)
  )
  targets = jax.nn.sigmoid(theirs)
  crossed, least = (
    optax.sigmoid_binary_cross_entropy(values, targets) for values in (own, theirs)
  )
  return temperature**2 * (crossed - least).mean(-1)


def _difference(outputs: jax.Array, targets: jax.Array) -> jax.Array:
  return outputs.astype(jnp.float32) - targets.reshape(outputs.shape)


def _mean_over_outputs(values: jax.Array) -> jax.Array:
  return values.reshape(values.shape[0], -1).mean(-1)


LOSSES: dict[str, Callable[..., jax.Array]] = {
  'cross_entropy': cross_entropy,
  'focal': focal,
  'binary_cross_entropy': binary_cross_entropy,
  'mean_squared_error': mean_squared_error,
  'huber': huber,
}
