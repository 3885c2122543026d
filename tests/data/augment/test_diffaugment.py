"""What each policy of DiffAugment does to images, and to the gradients through it."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxvision.data.augment.diffaugment import (
  POLICIES,
  apply_color,
  apply_translation,
  check,
  diff_augment,
)
from jaxvision.errors import UserError

pytestmark = [pytest.mark.usefixtures('quick_compile'), pytest.mark.long]

augment = jax.jit(diff_augment, static_argnums=2)


def images(batch=64, side=32, channels=3):
  random = np.random.default_rng(0)
  return random.uniform(-1, 1, (batch, side, side, channels)).astype(np.float32)


def moved(image, down, right):
  """Moves one image pixel by pixel, [H, W, C]."""
  result = np.zeros_like(image)
  height, width = image.shape[:2]
  for row in range(height):
    for column in range(width):
      if 0 <= row - down < height and 0 <= column - right < width:
        result[row, column] = image[row - down, column - right]
  return result


def test_apply_translation_moves_by_whole_pixels_and_fills_with_zeros():
  given = images(batch=5, side=6, channels=2)
  offsets = np.array([[0, 0], [1, -2], [-5, 3], [2, 5], [0, -1]])
  expected = [moved(image, *offset) for image, offset in zip(given, offsets)]
  np.testing.assert_array_equal(apply_translation(given, offsets), expected)


@pytest.mark.parametrize(('side', 'most'), [(32, 4), (28, 4), (8, 1)])
def test_translations_reach_an_eighth_of_the_side_and_no_further(side, most):
  ones = np.ones((256, side, side, 1), np.float32)
  results = np.asarray(augment(jax.random.key(0), ones, ('translation',)))
  assert set(np.unique(results)) == {0, 1}
  seen = set()
  for result in results[..., 0]:
    rows, columns = np.flatnonzero(result.any(1)), np.flatnonzero(result.any(0))
    assert result.sum() == len(rows) * len(columns)
    down = rows[0] if rows[0] else rows[-1] + 1 - side
    right = columns[0] if columns[0] else columns[-1] + 1 - side
    seen.add((int(down), int(right)))
  everywhere = range(-most, most + 1)
  assert {down for down, _ in seen} == {right for _, right in seen} == set(everywhere)
  assert len(seen) > 2 * most + 1  # the axes are drawn apart


@pytest.mark.parametrize('side', [32, 28])
def test_cutout_blanks_a_square_of_half_the_side(side):
  given = images(batch=256, side=side)
  results = np.asarray(augment(jax.random.key(0), given, ('cutout',)))
  blank = (results == 0).all(-1)
  np.testing.assert_array_equal(results, np.where(blank[..., None], 0, given))
  heights, widths = blank.any(2).sum(1), blank.any(1).sum(1)
  np.testing.assert_array_equal(blank.sum((1, 2)), heights * widths)
  for sides in (heights, widths):
    assert sides.max() == side // 2
    assert sides.min() >= side // 4  # a centre on the border leaves half of it
    assert (sides < side // 2).any()
  # As often at one border as at the other.
  first, last = blank[:, 0].any(1).mean(), blank[:, -1].any(1).mean()
  assert first == pytest.approx(last, abs=0.1)


def test_apply_color_is_brightness_then_saturation_then_contrast():
  given = images(batch=4, side=5).astype(np.float64)
  random = np.random.default_rng(1)
  brightness, saturation, contrast = random.uniform(0.2, 1.8, (3, 4))

  def each(factors):
    return factors[:, None, None, None]

  expected = given + each(brightness)
  mean = expected.mean(-1, keepdims=True)
  expected = (expected - mean) * each(saturation) + mean
  mean = expected.mean((1, 2, 3), keepdims=True)
  expected = (expected - mean) * each(contrast) + mean
  arguments = [jnp.asarray(x, jnp.float32) for x in (brightness, saturation, contrast)]
  result = apply_color(jnp.asarray(given, jnp.float32), *arguments)
  np.testing.assert_allclose(result, expected, atol=1e-5)


def test_colors_are_drawn_for_each_image_within_their_ranges():
  given = np.broadcast_to(images(batch=1), (512, 32, 32, 3))
  results = np.asarray(augment(jax.random.key(0), given, ('color',)), np.float64)
  assert results.shape == given.shape
  brightness = (results - given).mean((1, 2, 3))
  grey, was_grey = results.mean(-1), given.mean(-1)
  contrast = grey.std((1, 2)) / was_grey.std((1, 2))
  both = (results - grey[..., None]).std((1, 2, 3))
  both /= (given - was_grey[..., None]).std((1, 2, 3))
  ranges = ((brightness, -0.5, 0.5), (contrast, 0.5, 1.5), (both / contrast, 0, 2))
  for values, low, high in ranges:
    assert low - 1e-3 < values.min() < low + 0.05 * (high - low)
    assert high + 1e-3 > values.max() > high - 0.05 * (high - low)
  drawn = np.corrcoef([brightness, contrast, both / contrast])
  assert np.abs(drawn - np.eye(3)).max() < 0.2


def test_grey_images_have_no_saturation_to_change():
  given = images(batch=8, channels=1)
  results = np.asarray(augment(jax.random.key(0), given, ('color',)))
  mean = given.mean((1, 2, 3), keepdims=True)
  new = results.mean((1, 2, 3), keepdims=True)
  factor = results.std((1, 2, 3), keepdims=True) / given.std((1, 2, 3), keepdims=True)
  np.testing.assert_allclose(results, (given - mean) * factor + new, atol=1e-5)
  assert factor.min() >= 0.5


@pytest.mark.parametrize('policy', [*((name,) for name in POLICIES), POLICIES])
def test_the_gradient_is_the_transpose_of_what_a_change_does(policy):
  key, given = jax.random.key(3), images(batch=16, side=16)
  change, weight = np.random.default_rng(2).standard_normal((2, *given.shape))
  change, weight = change.astype(np.float32), weight.astype(np.float32)

  @jax.jit
  def pull(given):
    result, transpose = jax.vjp(lambda x: diff_augment(key, x, policy), given)
    return result, transpose(weight)[0]

  result, gradient = pull(given)
  # Every policy is affine in the images, so that a difference is no approximation.
  difference = np.asarray(augment(key, given + change, policy)) - result
  by_image = (1, 2, 3)
  expected = (difference * weight).sum(by_image)
  np.testing.assert_allclose(
    (gradient * change).sum(by_image), expected, rtol=1e-4, atol=2e-3
  )
  assert np.abs(expected).min() > 0.01


def test_draws_hang_on_the_key_alone():
  given = images(batch=16)
  key, other = jax.random.key(0), jax.random.key(1)
  chex.assert_trees_all_equal(
    augment(key, given, POLICIES), augment(key, given, POLICIES)
  )
  for name in POLICIES:
    same, different = augment(key, given, (name,)), augment(other, given, (name,))
    assert (np.asarray(same) != different).any((1, 2, 3)).mean() > 0.8
  # One more policy leaves the draws of the others; the order of the names is nothing.
  alone = np.asarray(augment(key, np.ones_like(given), ('cutout',))) == 0
  translated = augment(key, given, ('translation',))
  expected = np.where(alone, 0, translated)
  both = augment(key, given, ('cutout', 'translation'))
  np.testing.assert_array_equal(both, expected)
  np.testing.assert_array_equal(augment(key, given, ()), given)


def test_a_batch_split_over_devices_is_augmented_as_a_whole_one():
  given = images(batch=16, side=16)
  key = jax.random.key(0)
  mesh = Mesh(np.array(jax.devices()[:8]), ('data',))
  split = NamedSharding(mesh, PartitionSpec('data'))
  run = jax.jit(diff_augment, static_argnums=2, out_shardings=split)
  result = run(key, jax.device_put(given, split), POLICIES)
  assert len(result.sharding.device_set) == 8
  np.testing.assert_allclose(result, augment(key, given, POLICIES), atol=1e-6)


def test_unknown_policies_are_refused_in_one_line():
  check(())
  check(POLICIES)
  with pytest.raises(UserError, match=r'"colour", did you mean "color"\?') as info:
    check(('translation', 'colour'))
  assert '\n' not in str(info.value)
