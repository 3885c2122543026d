import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torchvision_parts import torchvision

from jaxvision.data.augment import erasing

# It compiles much: not in `make test-fast`.
pytestmark = pytest.mark.long

IMAGES = jnp.full((600, 32, 24, 3), 5.0)


def boxes(erased):
  """Returns (top, left, height, width) of each image's box, or None."""
  found = []
  for image in np.asarray(erased) != 5.0:
    hole = image.any(-1)
    if not hole.any():
      found.append(None)
      continue
    rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
    assert hole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    found.append((rows[0], columns[0], len(rows), len(columns)))
  return found


@pytest.mark.parametrize('mode', ['noise', 'mean'])
def test_boxes_are_drawn_as_defined(mode):
  erase = jax.jit(
    functools.partial(
      erasing.random_erasing,
      probability=0.4,
      area=(0.05, 0.3),
      ratio=(0.5, 2),
      mode=mode,
    )
  )
  erased = np.asarray(erase(jax.random.key(0), IMAGES))
  drawn = [box for box in boxes(erased) if box]
  assert abs(len(drawn) / len(IMAGES) - 0.4) < 5 * (0.4 * 0.6 / 600) ** 0.5
  shares = np.array([h * w / (32 * 24) for _, _, h, w in drawn])
  ratios = np.array([h / w for _, _, h, w in drawn])
  # Sides are whole pixels, of boxes of no fewer than six.
  assert 0.04 < shares.min() < 0.08
  assert 0.27 < shares.max() < 0.32
  assert abs(shares.mean() - 0.175) < 0.02
  assert 0.4 < ratios.min() < 0.6
  assert 1.7 < ratios.max() < 2.4
  assert abs(np.log(ratios).mean()) < 0.1
  assert {top for top, *_ in drawn} >= set(range(15))
  filled = erased[erased != 5.0]
  if mode == 'mean':
    assert (filled == 0).all()
  else:
    assert abs(filled.mean()) < 0.02
    assert abs(filled.std() - 1) < 0.02


def test_boxes_that_never_fit_are_left_out():
  erased = erasing.random_erasing(
    jax.random.key(0), IMAGES, 1.0, (0.99, 1.0), (1, 1.01)
  )
  assert all(box is None for box in boxes(erased))


def test_noise_has_its_deviation_and_stays_in_range():
  images = jnp.full((4, 64, 64, 3), 128, jnp.uint8)
  noisy = np.asarray(erasing.gaussian_noise(jax.random.key(0), images, 0.1))
  assert noisy.std() == pytest.approx(25.5, rel=0.02)
  assert noisy.mean() == pytest.approx(128, abs=0.5)
  loud = np.asarray(erasing.gaussian_noise(jax.random.key(0), images, 2.0))
  assert (loud.min(), loud.max()) == (0, 255)


@pytest.mark.parametrize('sigma', [0.3, 1.0, 2.5])
def test_blur_is_that_of_torchvision(sigma):
  torch = pytest.importorskip('torch')
  functional = torchvision('transforms.functional')
  rng = np.random.default_rng(0)
  images = rng.uniform(0, 255, (2, 20, 17, 3)).astype(np.float32)
  radius = erasing.blur_radius(sigma, images.shape)
  ours = erasing.gaussian_blur(jnp.asarray(images), jnp.full(2, sigma), radius)
  planes = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
  theirs = functional.gaussian_blur(planes, [2 * radius + 1] * 2, [sigma] * 2)
  np.testing.assert_allclose(ours, theirs.numpy().transpose(0, 2, 3, 1), atol=1e-3)


def test_each_image_is_blurred_by_its_own_deviation():
  rng = np.random.default_rng(0)
  image = rng.uniform(0, 255, (1, 16, 16, 3)).astype(np.float32)
  images = jnp.asarray(np.repeat(image, 3, axis=0))
  both = erasing.gaussian_blur(images, jnp.array([0.1, 1.0, 3.0]), 9)
  deviations = np.asarray(both).std((1, 2, 3))
  assert deviations[0] == pytest.approx(image.std(), rel=1e-3)
  assert deviations[0] > 1.5 * deviations[1] > 2 * deviations[2]
  np.testing.assert_allclose(np.asarray(both).mean((1, 2, 3)), image.mean(), rtol=0.05)


def test_some_images_are_blurred():
  rng = np.random.default_rng(0)
  images = jnp.asarray(rng.integers(0, 256, (400, 8, 8, 1), np.uint8))
  blurred = np.asarray(erasing.random_blur(jax.random.key(0), images, 1.0, 0.3))
  kept = (blurred == np.asarray(images)).all((1, 2, 3))
  assert abs(kept.mean() - 0.7) < 5 * (0.21 / 400) ** 0.5
