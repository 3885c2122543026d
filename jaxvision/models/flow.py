"""A flow: a network of velocities, and how images are drawn with it.

The velocity says where an image under noise is going, as time passes from 0, where there is
only noise, to 1, where there is only the image. To draw is to start from noise and follow it:
an ordinary differential equation, solved in equal steps.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvision.config.schema import FIELDS
from jaxvision.errors import UserError, shown

PyTree = Any

# Evaluations of the velocity in a step of each solver.
EVALUATIONS = {'euler': 1, 'heun': 2, 'midpoint': 2}


def integrate(
  velocity: Callable[[jax.Array, jax.Array], jax.Array],
  start: jax.Array,
  steps: int,
  solver: str,
) -> jax.Array:
  """Solves dx/dt = velocity(x, t) from t = 0 to t = 1 in equal steps.

  The error falls with the number of steps, of Euler's method as 1 / steps, of the two others
  as 1 / steps**2.

  Args:
    velocity: (x, t float32 scalar) -> like x.
    start: x at t = 0.
    steps: at least 1.
    solver: 'euler'; 'heun', the mean of the velocities at both ends of a step; 'midpoint',
      the velocity in its middle.

  Returns:
    x at t = 1.

  >>> round(float(integrate(lambda x, t: x, jnp.ones(()), 100, 'heun')), 3)
  2.718
  """
  size = 1 / steps

  def step(number: jax.Array, x: jax.Array) -> jax.Array:
    t = number * size
    first = velocity(x, t)
    if solver == 'euler':
      return x + size * first
    if solver == 'midpoint':
      return x + size * velocity(x + size / 2 * first, t + size / 2)
    second = velocity(x + size * first, t + size)
    return x + size / 2 * (first + second)

  return jax.lax.fori_loop(0, steps, step, start)


@dataclasses.dataclass(frozen=True)
class Flow:
  """A network of velocities, and the numbers that images are drawn by.

  Attributes:
    network: (images float [B, H, W, C], times float [B] in [0, 1], labels int32 [B] or
      None, train) -> velocities, float32 [B, H, W, C].
    image_shape: (H, W, C).
    classes: number of classes to choose from; 0: it is unconditional. The label `classes`
      stands for an image of any class.
    settings: the config's section `flow`, see there: `sampler`, `steps`, `guidance` and
      `label_dropout` count.

  Raises:
    UserError: guidance other than 1, and no classes or none that are left out in training.
  """

  network: nn.Module
  image_shape: tuple[int, int, int]
  classes: int
  settings: Mapping[str, Any]

  def __post_init__(self):
    if self.settings['guidance'] == 1:
      return
    if not self.classes:
      raise UserError(
        'config: flow.guidance is between velocities with and without a class, and this '
        'network has no classes: set it to 1, or train with model.conditional'
      )
    if not self.settings['label_dropout']:
      raise UserError(
        'config: flow.guidance wants velocities without a class, and they are learned '
        'where flow.label_dropout is above 0 only: set flow.guidance to 1'
      )

  @property
  def latent(self) -> int:
    """The length of the noise: one number for each channel of each pixel."""
    height, width, channels = self.image_shape
    return height * width * channels

  @property
  def evaluations(self) -> int:
    """How often the network is evaluated to draw an image."""
    both = 1 if self.settings['guidance'] in (0, 1) else 2
    return both * self.settings['steps'] * EVALUATIONS[self.settings['sampler']]

  def init(self, key: jax.Array) -> PyTree:
    """Returns the variables of the network at random."""
    labels = jnp.zeros(1, jnp.int32) if self.classes else None
    images = jnp.zeros((1, *self.image_shape))
    return self.network.init(key, images, jnp.zeros(1), labels, train=False)

  def velocity(
    self, variables: PyTree, images: jax.Array, time: jax.Array, labels: jax.Array
  ) -> jax.Array:
    """Returns the velocities that images are drawn with, float32 [B, H, W, C].

    With guidance g it is (1 - g) u + g v, where v is the velocity of the class and u the one
    of any class (Ho and Salimans 2022, "Classifier-free diffusion guidance",
    https://arxiv.org/abs/2207.12598).

    Args:
      variables: of the network.
      images: float [B, H, W, C].
      time: float scalar.
      labels: int32 [B]; of no account without classes.
    """
    guidance = self.settings['guidance']

    def of(images: jax.Array, labels: jax.Array | None) -> jax.Array:
      times = jnp.broadcast_to(time, images.shape[0])
      return self.network.apply(variables, images, times, labels, train=False)

    if not self.classes:
      return of(images, None)
    any_class = jnp.full_like(labels, self.classes)
    if guidance in (0, 1):
      return of(images, labels if guidance else any_class)
    free, own = of(images, any_class), of(images, labels)
    return free + guidance * (own - free)

  def draw(self, variables: PyTree, noise: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns images, about in [-1, 1], float32 [B, H, W, C].

    Args:
      variables: of the network.
      noise: standard normal, float32 [B, latent].
      labels: int32 [B]; of no account without classes.
    """
    return integrate(
      lambda images, time: self.velocity(variables, images, time, labels),
      noise.reshape(-1, *self.image_shape),
      self.settings['steps'],
      self.settings['sampler'],
    )

  def with_settings(self, settings: Mapping[str, Any]) -> 'Flow':
    """Returns the same network with other numbers to draw by.

    Raises:
      UserError: the network cannot draw so.
    """
    return dataclasses.replace(self, settings={**self.settings, **settings})


def checked_settings(found: Any, origin: str) -> dict[str, Any]:
  """Returns the section `flow` out of a file, whose defaults hold for what is missing.

  Args:
    found: what the file has in its place.
    origin: the file, for messages.

  Raises:
    UserError: a value is impossible.
  """
  found = found if isinstance(found, Mapping) else {}
  settings = {}
  for name, field in FIELDS['flow'].items():
    value = found.get(name, field.default)
    if isinstance(field.default, float) and isinstance(value, int):
      value = float(value)
    if type(value) is not type(field.default) or not field.valid(value):
      raise UserError(
        f'{origin}: flow.{name} must be {field.limits}, not {shown(value)}'
      )
    settings[name] = value
  return settings
