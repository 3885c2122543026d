"""Samples of a generator."""

import jax.numpy as jnp

from jaxvision.training.sampler import to_pixels


def test_to_pixels_covers_the_whole_range():
  images = jnp.array([[-1.2, -1.0, -1 / 255, 1 / 255, 1.0, 1.2]])
  assert to_pixels(images).tolist() == [[0, 0, 127, 128, 255, 255]]
