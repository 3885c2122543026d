"""The layers of a model in the order in which an image passes through them."""

import flax.linen as nn
import jax
import jax.numpy as jnp


def layer_order(model: nn.Module, image_shape: tuple[int, ...]) -> tuple[str, ...]:
  """Returns the top-level names of the parameters by their first call.

  Each is a key of `variables['params']`: a layer or a block. A parameter that the
  model itself holds, and no layer, is not called; such ones come first. Nothing is
  computed and no array is allocated.

  Args:
    model: maps images [B, H, W, C] and a keyword `train` to an array.
    image_shape: (H, W, C).

  Returns:
    Every top-level key of the parameters once, the input's side first.

  Raises:
    UserError: if the model refuses images of that shape.

  Example:
    >>> from jaxvision import models
    >>> layer_order(models.create('small_filters_cnn', 100), (32, 32, 3))
    ('conv1', 'conv2', 'conv3', 'head')
  """
  called: dict[str, None] = {}

  def record(call, args, kwargs, context):
    # `setup` runs when a module is made ready, and not when data come to it.
    if context.method_name != 'setup' and context.module.path:
      called.setdefault(context.module.path[0])
    return call(*args, **kwargs)

  images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  with nn.intercept_methods(record):
    variables = jax.eval_shape(
      lambda images: model.init(jax.random.key(0), images, train=False), images
    )
  names = variables['params']
  own = (name for name in names if name not in called)
  return (*own, *(name for name in called if name in names))
