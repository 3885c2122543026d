"""Where in an image a classifier sees what it says: Grad-CAM (Selvaraju et al. 2017)."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvision.errors import UserError


def grad_cam(
  model: nn.Module, variables: Any, images: jax.Array, labels: jax.Array
) -> jax.Array:
  """Returns how much each place of an image speaks for a class.

  It is the map of the last layer that keeps height and width, its channels weighted by
  the mean gradients of the logit, where it is positive. Of a transformer it is the
  tokens of the last layer whose every token counts.

  Args:
    model: out of `models.create`, or one of your own. A method `token_map`, (H, W, C)
      -> (path of a layer, rows, columns), says that the last rows * columns tokens in
      the output [B, N, D] of that layer are its map.
    variables: the variables of the model.
    images: normalised, float [B, H, W, C].
    labels: the class of each, int [B].

  Returns:
    float32 [B, H, W], each from 0 to 1, or 0 throughout where nothing speaks for it.

  Raises:
    UserError: no layer returns maps [B, h, w, C].

  >>> from jaxvision import models
  >>> model = models.create('resnet20', num_classes=10)
  >>> images = jnp.zeros((2, 32, 32, 3))
  >>> variables = jax.eval_shape(model.init, jax.random.key(0), images)
  >>> jax.eval_shape(
  ...   lambda v: grad_cam(model, v, images, jnp.zeros(2, int)), variables
  ... ).shape
  (2, 32, 32)
  """
  shapes: list[tuple[tuple[str, ...], jax.ShapeDtypeStruct]] = []
  wanted, *grid = (
    model.token_map(images.shape[1:]) if hasattr(model, 'token_map') else (None,)
  )

  def is_map(path: tuple[str, ...], output: Any) -> bool:
    if wanted is not None:
      return path == wanted and min(grid) > 1
    return bool(path) and getattr(output, 'ndim', 0) == 4 and min(output.shape[1:3]) > 1

  def as_map(output: jax.Array) -> jax.Array:
    """Returns float32 [B, h, w, C]."""
    if wanted is not None:
      rows, columns = grid
      output = output[:, -rows * columns :].reshape(-1, rows, columns, output.shape[-1])
    return output.astype(jnp.float32)

  def note(path: tuple[str, ...], output: Any) -> Any:
    if is_map(path, output):
      shapes.append((path, jax.ShapeDtypeStruct(output.shape, output.dtype)))
    return output

  jax.eval_shape(lambda v: _apply(model, v, images, note), variables)
  if not shapes:
    raise UserError(
      f'grad_cam: no layer of {type(model).__name__} returns maps of more than a pixel'
    )
  # The last call of a layer that is called several times.
  last, shape = shapes[-1]
  call = sum(path == last for path, _ in shapes)

  def logits_of(change: jax.Array) -> tuple[jax.Array, jax.Array]:
    maps, calls = [], 0

    def add(path: tuple[str, ...], output: Any) -> Any:
      nonlocal calls
      calls += path == last
      if path != last or calls != call:
        return output
      maps.append(output)
      return output + change

    logits = _apply(model, variables, images, add)
    chosen = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    return chosen.sum().astype(jnp.float32), maps[0]

  gradients, maps = jax.grad(logits_of, has_aux=True)(
    jnp.zeros(shape.shape, shape.dtype)
  )
  weights = as_map(gradients).mean((1, 2), keepdims=True)
  seen = jax.nn.relu((weights * as_map(maps)).sum(-1))
  seen = jax.image.resize(seen, images.shape[:3], 'bilinear')
  most = seen.max((1, 2), keepdims=True)
  return jnp.where(most > 0, seen / jnp.where(most > 0, most, 1), 0)


def _apply(
  model: nn.Module,
  variables: Any,
  images: jax.Array,
  change: Callable[[tuple[str, ...], Any], Any],
) -> jax.Array:
  """Returns the outputs in inference mode, `change` applied to those of each layer."""

  def intercept(call, args, kwargs, context):
    output = call(*args, **kwargs)
    if context.method_name != '__call__':
      return output
    return change(context.module.path, output)

  with nn.intercept_methods(intercept):
    return model.apply(variables, images, train=False)
