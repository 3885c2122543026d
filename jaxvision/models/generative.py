"""Generative adversarial networks by name, and the fields that a config may set.

>>> import jax, jax.numpy as jnp
>>> gan = create_gan('dcgan', (28, 28, 1), num_classes=10, width=16)
>>> noise = jnp.zeros([2, gan.latent])
>>> variables = jax.eval_shape(gan.generator.init, jax.random.key(0), noise)
>>> jax.eval_shape(gan.generator.apply, variables, noise).shape
(2, 28, 28, 1)
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn

from jaxvision.errors import UserError
from jaxvision.models.checking import (
  check_dtype,
  check_fields,
  check_num_classes,
  look_up,
)
from jaxvision.models.dcgan import DCGANDiscriminator, DCGANGenerator, sides


class GAN(NamedTuple):
  """Two networks that train against each other.

  Attributes:
    generator: (noise float [B, latent], labels int32 [B] or None, train) -> images in
      (-1, 1), float32 [B, H, W, C].
    discriminator: (images [B, H, W, C] in [-1, 1], labels, train) -> logits of being
      real, float32 [B]; where it classifies, with the classes' logits [B, classes].
    latent: length of the noise.
    conditional: whether both want labels; without, they take no notice of them.
    classifies: whether the discriminator returns logits of the classes, too.
  """

  generator: nn.Module
  discriminator: nn.Module
  latent: int
  conditional: bool
  classifies: bool = False


def _dcgan(
  image_shape: tuple[int, int, int],
  num_classes: int,
  dtype: Any,
  *,
  latent: int = 100,
  width: int = 32,
  discriminator_width: int = 0,
  upsample: str = 'transposed',
  discriminator_norm: str = 'batch',
  minibatch: str = 'none',
  conditional: bool = False,
  class_head: str = 'projection',
) -> GAN:
  size, _, channels = image_shape
  sides(size)  # refuses here what would fail in the first trace
  if class_head != 'projection' and not conditional:
    raise UserError(
      f'config: model.class_head {class_head} of "dcgan" is of a GAN of classes: set '
      'model.conditional'
    )
  classes = num_classes if conditional else 0
  generator = DCGANGenerator(
    image_size=size,
    channels=channels,
    width=width,
    latent=latent,
    upsample=upsample,
    num_classes=classes,
    dtype=dtype,
  )
  discriminator = DCGANDiscriminator(
    width=discriminator_width or width,
    norm=discriminator_norm,
    minibatch=minibatch,
    num_classes=classes,
    class_head=class_head,
    dtype=dtype,
  )
  return GAN(generator, discriminator, latent, conditional, class_head == 'classifier')


# Each takes (image shape, number of classes, dtype) and, by keyword, its fields.
GANS: dict[str, Callable[..., GAN]] = {'dcgan': _dcgan}


def create_gan(
  name: str,
  image_shape: tuple[int, int, int],
  /,  # no names that a field may have
  num_classes: int,
  dtype: str = 'float32',
  **fields: Any,
) -> GAN:
  """Makes the networks of a GAN from the table.

  Args:
    name: a key of `GANS`.
    image_shape: (H, W, C) of the data, H and W equal.
    num_classes: classes of the data, at least 1; used where `conditional` is set.
    dtype: type of the computation, 'float32' or 'bfloat16'.
    **fields: those of `gan_fields(name)`.

  Raises:
    UserError: for an unknown name or field, a value that the field cannot have, or
      images that the networks cannot make.

  Examples:
    >>> create_gan('dcgan', (32, 32, 3), 10, width=64).discriminator.width
    64
    >>> create_gan('dcgan', (32, 32, 3), 10, minibatch='stdev')
    Traceback (most recent call last):
    ...
    jaxvision.errors.UserError: config: model.minibatch of "dcgan" must be one of \
"none", "discrimination", "stddev", got 'stdev', did you mean "stddev"?
  """
  defaults = gan_fields(name)
  fields = check_fields(name, fields, defaults)
  height, width, channels = image_shape
  if height != width:
    raise UserError(
      f'"{name}" makes square images, and the data are {height}x{width}: set '
      'data.image_size'
    )
  return GANS[name](
    (int(height), int(width), int(channels)),
    check_num_classes(num_classes),
    check_dtype(dtype),
    **fields,
  )


def gan_fields(name: str) -> dict[str, Any]:
  """Returns the fields that `create_gan(name, ...)` accepts, with their defaults.

  Raises:
    UserError: if no GAN has that name.

  Example:
    >>> gan_fields('dcgan')['upsample']
    'transposed'
  """
  parameters = inspect.signature(
    look_up('model.name of task gan', name, GANS)
  ).parameters.values()
  return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
