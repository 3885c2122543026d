"""Generative models by name, and the fields that a config may set.

A generative model draws images of noise: `draw(variables, noise, labels)`, with noise of
`latent` standard normal numbers and, where it has `classes`, a label. There are two families,
the networks of a GAN and those of a flow.

>>> import jax, jax.numpy as jnp
>>> gan = create_gan('dcgan', (28, 28, 1), num_classes=10, width=16)
>>> noise = jnp.zeros([2, gan.latent])
>>> variables = jax.eval_shape(gan.generator.init, jax.random.key(0), noise)
>>> jax.eval_shape(gan.generator.apply, variables, noise).shape
(2, 28, 28, 1)
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvision.errors import UserError
from jaxvision.models.checking import (
  check_dtype,
  check_fields,
  check_num_classes,
  look_up,
)
from jaxvision.models.dcgan import DCGANDiscriminator, DCGANGenerator, sides
from jaxvision.models.flow import Flow, checked_settings
from jaxvision.models.unet import UNet, check_unet

PyTree = Any


class GenerativeModel(Protocol):
  """What draws images, whatever trains it: a `GAN` or a `Flow`."""

  @property
  def latent(self) -> int:
    """The length of the noise, which is standard normal."""
    ...

  @property
  def classes(self) -> int:
    """The number of classes to choose from; 0: it is unconditional."""
    ...

  def init(self, key: jax.Array) -> PyTree:
    """Returns the variables that `draw` takes, at random."""
    ...

  def draw(self, variables: PyTree, noise: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns images about in [-1, 1], float32 [B, H, W, C].

    Args:
      variables: of the network that draws.
      noise: float32 [B, latent].
      labels: int32 [B]; of no account where it is unconditional.
    """
    ...

  def with_settings(self, settings: Mapping[str, Any]) -> 'GenerativeModel':
    """Returns a model that draws by other numbers, those of the config's section `flow`.

    Raises:
      UserError: it cannot draw so.
    """
    ...


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

  @property
  def classes(self) -> int:
    """See `GenerativeModel`."""
    return self.generator.num_classes

  def init(self, key: jax.Array) -> PyTree:
    """Returns the variables of the generator at random."""
    labels = jnp.zeros(1, jnp.int32) if self.conditional else None
    return self.generator.init(key, jnp.zeros((1, self.latent)), labels)

  def draw(self, variables: PyTree, noise: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns images of the generator in inference mode; see `GenerativeModel`."""
    given = labels if self.conditional else None
    return self.generator.apply(variables, noise, given, train=False)

  def with_settings(self, settings: Mapping[str, Any]) -> 'GAN':
    """Returns the same, or raises UserError where there are settings."""
    if settings:
      raise UserError(
        f'config: flow.{min(settings)} is of task flow_matching, and a GAN draws by its '
        'noise and the class alone: leave it out'
      )
    return self


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


def _unet(
  image_shape: tuple[int, int, int],
  num_classes: int,
  dtype: Any,
  *,
  width: int = 32,
  multipliers: tuple[int, ...] = (1, 2),
  blocks: int = 1,
  attention: tuple[int, ...] = (),
  heads: int = 1,
  embedding: int = 0,
  patch: int = 1,
  dropout: float = 0.0,
  conditional: bool = False,
) -> UNet:
  model = UNet(
    width=width,
    multipliers=multipliers,
    blocks=blocks,
    attention=attention,
    heads=heads,
    embedding=embedding,
    patch=patch,
    dropout=dropout,
    num_classes=num_classes if conditional else 0,
    dtype=dtype,
  )
  check_unet(model, image_shape[0])
  return model


# Each takes (image shape, number of classes, dtype) and, by keyword, its fields.
GANS: dict[str, Callable[..., GAN]] = {'dcgan': _dcgan}
FLOWS: dict[str, Callable[..., nn.Module]] = {'unet': _unet}

# The task that trains a generative model, and what it is in words.
TASK_OF = {
  **dict.fromkeys(GANS, ('gan', 'a GAN')),
  **dict.fromkeys(FLOWS, ('flow_matching', 'a network of velocities')),
}


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
  return _make(GANS, 'gan', name, image_shape, num_classes, dtype, fields)


def create_flow(
  name: str,
  image_shape: tuple[int, int, int],
  settings: Mapping[str, Any],
  /,
  num_classes: int,
  dtype: str = 'float32',
  **fields: Any,
) -> Flow:
  """Makes a flow from the table of its networks.

  Args:
    name: a key of `FLOWS`.
    image_shape: (H, W, C) of the data, H and W equal.
    settings: the config's section `flow`.
    num_classes: classes of the data, at least 1; used where `conditional` is set.
    dtype: type of the computation, 'float32' or 'bfloat16'.
    **fields: those of `flow_fields(name)`.

  Raises:
    UserError: for an unknown name or field, a value that the field cannot have, images
      that the network cannot take, or guidance without classes.

  Example:
    >>> from jaxvision.config import base_config
    >>> flow = create_flow('unet', (32, 32, 3), base_config().flow, 10, patch=2)
    >>> flow.latent, flow.classes, flow.evaluations
    (3072, 0, 40)
  """
  network = _make(FLOWS, 'flow_matching', name, image_shape, num_classes, dtype, fields)
  classes = num_classes if fields.get('conditional') else 0
  height, width, channels = map(int, image_shape)
  return Flow(network, (height, width, channels), classes, dict(settings))


def create_generative(
  name: str,
  image_shape: tuple[int, int, int],
  settings: Any,
  origin: str,
  /,
  num_classes: int,
  **fields: Any,
) -> GAN | Flow:
  """Makes the generative model that a file of weights names.

  Args:
    name: a key of `GANS` or `FLOWS`.
    image_shape: (H, W, C).
    settings: what the file has of the section `flow`, unchecked.
    origin: the file, for messages.
    num_classes: at least 1.
    **fields: of the model.

  Raises:
    UserError: as `create_gan` and `create_flow`.
  """
  if name in GANS:
    return create_gan(name, image_shape, num_classes, **fields)
  settings = checked_settings(settings, origin)
  return create_flow(name, image_shape, settings, num_classes, **fields)


def _make(
  table: Mapping[str, Callable[..., Any]],
  task: str,
  name: str,
  image_shape: tuple[int, int, int],
  num_classes: int,
  dtype: str,
  fields: Mapping[str, Any],
) -> Any:
  """Returns what an entry of a table makes of checked arguments."""
  fields = check_fields(name, fields, _fields(table, task, name))
  height, width, channels = image_shape
  if height != width:
    raise UserError(
      f'"{name}" makes square images, and the data are {height}x{width}: set '
      'data.image_size'
    )
  return table[name](
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
  return _fields(GANS, 'gan', name)


def flow_fields(name: str) -> dict[str, Any]:
  """Returns the fields that `create_flow(name, ...)` accepts, with their defaults.

  Raises:
    UserError: if no network of velocities has that name.

  Example:
    >>> flow_fields('unet')['multipliers']
    (1, 2)
  """
  return _fields(FLOWS, 'flow_matching', name)


def _fields(
  table: Mapping[str, Callable[..., Any]], task: str, name: str
) -> dict[str, Any]:
  parameters = inspect.signature(
    look_up(f'model.name of task {task}', name, table)
  ).parameters.values()
  return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
