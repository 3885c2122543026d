"""Networks that see their images at another size than they come in."""

from typing import Any

import flax.linen as nn
import jax

from jaxvision.models.own import subclass_like

# By the names that `data.interpolation` and Pillow have for them.
_METHODS = {'bilinear': 'linear', 'bicubic': 'cubic'}


def resize(images: jax.Array, size: int, interpolation: str = 'bilinear') -> jax.Array:
  """Resizes images as Pillow does, which smooths where it makes them smaller.

  Args:
    images: float [B, H, W, C].
    size: new height and width, in pixels.
    interpolation: 'bilinear' or 'bicubic'.

  Returns:
    [B, size, size, C] of the same dtype.

  >>> import jax.numpy as jnp
  >>> resize(jnp.array([0.0, 4.0]).reshape(1, 1, 2, 1), 4)[0, 0, :, 0].tolist()
  [0.0, 1.0, 3.0, 4.0]
  """
  shape = (images.shape[0], size, size, images.shape[-1])
  if images.shape == shape:
    return images
  return jax.image.resize(images, shape, _METHODS[interpolation])


def resized(model: nn.Module, size: int, interpolation: str = 'bilinear') -> nn.Module:
  """Returns a network that resizes its images first.

  Its parameters are those of `model`, and whatever applies it, to classify, to explain or
  to extract features, gives it images as they are in the data.

  Args:
    model: called as `model(images, train)`; one that resizes already takes the new size.
    size: height and width that `model` sees, in pixels.
    interpolation: see `resize`.

  >>> import jax.numpy as jnp
  >>> from jaxvision import models
  >>> model = resized(models.create('vit_tiny', 10, depth=1), 64)
  >>> images = jnp.zeros((1, 32, 32, 3))
  >>> variables = jax.eval_shape(model.init, jax.random.key(0), images)
  >>> variables['params']['embed']['positions'].shape  # a class token, 4 x 4 patches
  (17, 192)
  """
  original = getattr(type(model), 'resizes', type(model))

  def call(self, images, train=False):
    return original.__call__(self, resize(images, size, interpolation), train=train)

  def features(self, images, *args: Any, **kwargs: Any):
    return original.features(self, resize(images, size, interpolation), *args, **kwargs)

  def init_from_data(self, params, images):
    return original.init_from_data(self, params, resize(images, size, interpolation))

  def token_map(self, image_shape):
    return original.token_map(self, (size, size, image_shape[-1]))

  methods = {'__call__': call, 'resizes': original}
  others = {
    'features': features,
    'init_from_data': nn.nowrap(init_from_data),
    'token_map': nn.nowrap(token_map),
  }
  methods |= {name: f for name, f in others.items() if hasattr(original, name)}
  return subclass_like(model, original, methods)
