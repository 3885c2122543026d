"""Samples of a generator, compiled once, a batch at a time."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxvision.models.generative import GenerativeModel
from jaxvision.placement import fetch, place
from jaxvision.training.compiler import Compiler
from jaxvision.training.mesh import over_batch, replicated

PyTree = Any


class Generator(NamedTuple):
  """What draws images.

  Attributes:
    draw: (variables, noise float32 [B, latent], labels int32 [B]) -> images uint8
      [B, H, W, C]; an unconditional generator ignores the labels.
    latent: length of the noise, which is standard normal.
    classes: number of classes to choose from; 0: it is unconditional.
  """

  draw: Callable[[PyTree, jax.Array, jax.Array], jax.Array]
  latent: int
  classes: int


def make_generator(model: GenerativeModel) -> Generator:
  """Returns what draws images, as pixels, with a generative model in inference mode."""

  def draw(variables: PyTree, noise: jax.Array, labels: jax.Array) -> jax.Array:
    return to_pixels(model.draw(variables, noise, labels))

  return Generator(draw, model.latent, model.classes)


def to_pixels(images: jax.Array) -> jax.Array:
  """Returns uint8 pixels of images in [-1, 1], rounded to the nearest.

  >>> to_pixels(jnp.array([-1.0, 0.0, 1.0])).tolist()
  [0, 128, 255]
  """
  return jnp.round(jnp.clip((images + 1) * 127.5, 0, 255)).astype(jnp.uint8)


def noise_of(
  key: jax.Array, first: jax.Array | int, count: int, latent: int
) -> jax.Array:
  """Returns the noise of samples `first` to `first + count` of a key.

  Returns:
    float32 [count, latent], standard normal.
  """
  indices = first + jnp.arange(count, dtype=jnp.uint32)
  keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(indices)
  return jax.vmap(lambda k: jax.random.normal(k, (latent,)))(keys)


class Drawing(NamedTuple):
  """What a generator needs to draw where there is no run."""

  generator: Generator
  mesh: Mesh
  compiler: Compiler


class Sampler:
  """Draws images with one generator.

  Sample i of a seed comes of the same noise in a batch of any size, and, of a
  conditional generator, is of class i modulo the number of classes.

  Args:
    run: with a mesh and a compiler, and a task with the generator; or a `Drawing`.
    variables: of the generator, or others like them, abstract or not.
    batch_size: images at a time.
  """

  def __init__(self, run: Any, variables: PyTree, batch_size: int):
    self.generator = generator = getattr(run, 'task', run).generator
    mesh, compiler = run.mesh, run.compiler
    self._size = size = -(-batch_size // mesh.size) * mesh.size
    self._to_batch, self._everywhere = over_batch(mesh), replicated(mesh)
    jit = {'out_shardings': self._to_batch}

    def noise(key: jax.Array, first: jax.Array) -> jax.Array:
      return noise_of(key, first, size, generator.latent)

    key = place(jax.random.key(0), self._everywhere)
    self._noise = compiler(noise, key, np.uint32(0), **jit)
    shapes = [
      jax.ShapeDtypeStruct(shape, dtype, sharding=self._to_batch)
      for shape, dtype in (((size, generator.latent), np.float32), ((size,), np.int32))
    ]
    self._draw = compiler(generator.draw, variables, *shapes, **jit)

  def noise(self, count: int, seed: int, first: int = 0) -> np.ndarray:
    """Returns the noise of samples `first` to `first + count`: float32 [count, latent]."""
    key = place(jax.random.key(seed), self._everywhere)
    parts = [
      fetch(self._noise(key, np.uint32(start)))
      for start in range(first, first + count, self._size)
    ]
    return np.concatenate(parts)[:count]

  def labels(self, count: int, first: int = 0) -> np.ndarray:
    """Returns the classes of samples `first` to `first + count`: int32 [count]."""
    numbers = np.arange(first, first + count, dtype=np.int32)
    return numbers % max(1, self.generator.classes)

  def images(
    self, variables: PyTree, noise: np.ndarray, labels: np.ndarray
  ) -> np.ndarray:
    """Returns uint8 [n, H, W, C].

    Args:
      variables: of the generator.
      noise: float32 [n, latent].
      labels: int32 [n]; of no account where it is unconditional.
    """
    parts = []
    for start in range(0, len(noise), self._size):
      z, y = noise[start : start + self._size], labels[start : start + self._size]
      missing = self._size - len(z)
      z = place(np.pad(z, ((0, missing), (0, 0))), self._to_batch)
      y = place(np.pad(y, (0, missing)).astype(np.int32), self._to_batch)
      parts.append(fetch(self._draw(variables, z, y))[: self._size - missing])
    return np.concatenate(parts)

  def batches(self, variables: PyTree, count: int, seed: int) -> Iterator[np.ndarray]:
    """Yields samples 0 to `count` of a seed, uint8 [B, H, W, C] at a time."""
    for first in range(0, count, self._size):
      size = min(self._size, count - first)
      noise = self.noise(size, seed, first)
      yield self.images(variables, noise, self.labels(size, first))

  def interpolation(
    self, variables: PyTree, rows: int, columns: int, seed: int
  ) -> np.ndarray:
    """Returns rows of images on the way from one sample to another.

    Row i goes along the great circle from sample 2 i to sample 2 i + 1 (White 2016,
    "Sampling generative networks", section 2.1), in the class of the first.

    Returns:
      uint8 [rows, columns, H, W, C].
    """
    ends = self.noise(2 * rows, seed)
    labels = np.repeat(self.labels(2 * rows)[::2], columns)
    noise = np.stack([slerp(a, b, columns) for a, b in zip(ends[::2], ends[1::2])])
    images = self.images(variables, noise.reshape(rows * columns, -1), labels)
    return images.reshape(rows, columns, *images.shape[1:])


def slerp(start: np.ndarray, end: np.ndarray, count: int) -> np.ndarray:
  """Returns `count` points from one vector to another along the circle between them.

  Args:
    start, end: float [d], neither of them 0.
    count: points, both ends included; at least 2.

  Returns:
    float32 [count, d].

  >>> slerp(np.array([1.0, 0.0]), np.array([0.0, 1.0]), 3)[1].round(3).tolist()
  [0.7070000171661377, 0.7070000171661377]
  """
  share = np.linspace(0, 1, count)[:, None]
  cosine = start @ end / (np.linalg.norm(start) * np.linalg.norm(end))
  angle = np.arccos(np.clip(cosine, -1, 1))
  if np.sin(angle) < 1e-6:  # one direction, or opposite ones: no circle is singled out
    return ((1 - share) * start + share * end).astype(np.float32)
  weights = np.sin((1 - share) * angle), np.sin(share * angle)
  points = (weights[0] * start + weights[1] * end) / np.sin(angle)
  return points.astype(np.float32)
