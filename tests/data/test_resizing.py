"""The two resizers, beside Pillow's bicubic and torch-fidelity's copy of TensorFlow 1."""

import fidelity
import jax
import numpy as np
import pytest
from PIL import Image

from jaxvision.data import resizing
from jaxvision.errors import UserError

# Enlarged by a factor that is none, as CIFAR's; shrunk; one side each; left as it is.
SHAPES = [
  ((32, 32, 3), 299),
  ((28, 28, 1), 299),
  ((131, 67, 3), 40),
  ((61, 17, 3), 37),
  ((24, 24, 3), 24),
]


def images_of(shape):
  # Extremes beside each other, so that the cubic overshoots and is clipped.
  random = np.random.default_rng(0)
  return (random.integers(0, 2, (2, *shape)) * 255).astype(np.uint8)


def resized(images, name, size):
  """In grey levels again, [B, size, size, 3], from within a compiled function."""
  result = jax.jit(lambda images: resizing.resize(images, name, size))(images)
  assert result.dtype == np.float32
  return np.asarray(result, np.float64) * 128 + 128


@pytest.mark.parametrize(('shape', 'size'), SHAPES)
def test_clean_is_pillows_bicubic_unrounded(shape, size):
  images = images_of(shape)
  expected = np.zeros((2, size, size, 3))
  for i, c in np.ndindex(2, 3):
    plane = images[i, :, :, c % shape[-1]].astype(np.float32)
    picture = Image.fromarray(plane).resize((size, size), Image.Resampling.BICUBIC)
    expected[i, :, :, c] = np.asarray(picture)
  assert expected.min() < 0 or shape[0] == size
  found = resized(images, 'clean', size)
  np.testing.assert_allclose(found, expected.clip(0, 255), rtol=0, atol=1e-3)


@pytest.mark.parametrize(('shape', 'size'), SHAPES)
def test_tensorflow_is_that_of_torch_fidelity(shape, size):
  peer = fidelity.load('interpolate_compat_tensorflow')
  import torch

  images = images_of(shape)
  planes = torch.from_numpy(images).permute(0, 3, 1, 2).float()
  expected = peer.interpolate_bilinear_2d_like_tensorflow1x(
    planes, (size, size), align_corners=False
  )
  expected = np.broadcast_to(expected.permute(0, 2, 3, 1), (2, size, size, 3))
  found = resized(images, 'tensorflow', size)
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_what_cannot_be_resized():
  with pytest.raises(UserError, match='did you mean "clean"'):
    resizing.resize(images_of((4, 4, 3)), 'cleen')
  with pytest.raises(UserError, match='4 channels'):
    resizing.resize(images_of((4, 4, 4)), 'clean')
