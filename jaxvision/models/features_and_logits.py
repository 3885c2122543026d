"""The features that a classifier decides by: what goes into its last layer."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def features_and_logits(
  model: nn.Module, variables: Any, images: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns what the layer `head` of a classifier takes, and the logits.

  Args:
    model: out of `models.create`; the linear classifier at its end is named head.
    variables: the variables of the model.
    images: normalised, float [B, H, W, C].

  Returns:
    float32 [B, D] and float32 [B, K], in inference mode.

  >>> from jaxvision import models
  >>> model = models.create('resnet20', num_classes=10)
  >>> images = jnp.zeros((2, 32, 32, 3))
  >>> variables = jax.eval_shape(model.init, jax.random.key(0), images)
  >>> both = jax.eval_shape(lambda v: features_and_logits(model, v, images), variables)
  >>> [array.shape for array in both]
  [(2, 64), (2, 10)]
  """
  seen = []

  def record(call, args, kwargs, context):
    if context.module.name == 'head' and context.method_name == '__call__':
      seen.append(args[0])
    return call(*args, **kwargs)

  with nn.intercept_methods(record):
    logits = model.apply(variables, images, train=False)
  (features,) = seen
  return features.astype(jnp.float32), logits.astype(jnp.float32)
