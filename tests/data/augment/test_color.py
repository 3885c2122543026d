import colorsys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from jaxvision.data.augment import color

LUMA = np.array([0.299, 0.587, 0.114])
FACTORS = jnp.array([0.0, 0.3, 1.0, 1.7])


def pixels(channels=3, size=(5, 6), batch=4):
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (batch, *size, channels), np.uint8)


def blend(image, base, factor):
  return np.clip(factor * image + (1 - factor) * base, 0, 255)


def grey(image):
  image = image.astype(np.float64)
  return image if image.shape[-1] == 1 else (image @ LUMA)[..., None]


JITTER = jax.jit(
  color.color_jitter, static_argnames=('brightness', 'contrast', 'saturation', 'hue')
)
ADJUST = {
  'brightness': color.adjust_brightness,
  'contrast': color.adjust_contrast,
  'saturation': color.adjust_saturation,
}
REFERENCES = {
  'brightness': lambda image: 0.0,
  'contrast': lambda image: grey(image).mean(),
  'saturation': grey,
}


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('name', REFERENCES)
def test_blends_match_the_formulas(name, channels):
  images = pixels(channels)
  got = jax.jit(ADJUST[name])(images, FACTORS)
  chex.assert_shape(got, images.shape)
  chex.assert_type(got, jnp.float32)
  for image, factor, result in zip(images, np.asarray(FACTORS), np.asarray(got)):
    expected = blend(image.astype(np.float64), REFERENCES[name](image), factor)
    np.testing.assert_allclose(result, expected, atol=1e-3)
  np.testing.assert_allclose(got[2], images[2], atol=1e-3)  # factor 1


@pytest.mark.parametrize(
  ('name', 'enhance'),
  [
    ('brightness', ImageEnhance.Brightness),
    ('contrast', ImageEnhance.Contrast),
    ('saturation', ImageEnhance.Color),
  ],
)
def test_blends_match_pil_up_to_its_rounding(name, enhance):
  images = pixels(size=(16, 12))
  got = jax.jit(ADJUST[name])(images, FACTORS)
  for image, factor, result in zip(images, np.asarray(FACTORS), np.asarray(got)):
    expected = enhance(Image.fromarray(image)).enhance(float(factor))
    # PIL rounds the base (half a level, times 1 - factor) and cuts the result.
    np.testing.assert_allclose(result, np.asarray(expected), atol=1.55)


def test_hue_matches_colorsys():
  turns = np.array([-0.5, -0.13, 0.0, 0.07, 0.31, 0.5])
  images = pixels(batch=6)
  corners = np.array(np.meshgrid([0, 255], [0, 255], [0, 255, 128])).T.reshape(
    1, 2, 6, 3
  )
  images[1, :2, :6] = corners  # pure colours, black, white, ties between channels
  got = jax.jit(color.adjust_hue)(images, turns)
  chex.assert_type(got, jnp.float32)
  for image, turn, result in zip(images, turns, np.asarray(got)):
    for before, after in zip(image.reshape(-1, 3), result.reshape(-1, 3)):
      hue, saturation, value = colorsys.rgb_to_hsv(*(before / 255))
      expected = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
      np.testing.assert_allclose(after, 255 * np.array(expected), atol=2e-3)


def test_grey_images_have_no_saturation_or_hue():
  images = pixels(channels=1)
  for adjust in (color.adjust_saturation, color.adjust_hue):
    got = adjust(jnp.asarray(images), FACTORS)
    chex.assert_type(got, jnp.float32)
    np.testing.assert_array_equal(got, images)


@pytest.mark.parametrize('strength', [0.25, 1.5])
@pytest.mark.parametrize('name', ['brightness', 'contrast'])
def test_factors_are_uniform_around_one(name, strength):
  # Two pixels a little apart show the factor, in their sum or their difference, without
  # being clipped for factors up to 2.5.
  images = jnp.array([40, 60], jnp.uint8).reshape(1, 1, 2, 1).repeat(4000, 0)
  jittered = JITTER(jax.random.key(0), images, **{name: strength})
  low, high = np.asarray(jittered)[:, 0, :, 0].T
  factors = (high + low) / 100 if name == 'brightness' else (high - low) / 20
  least = max(0.0, 1 - strength)
  assert factors.min() >= least - 1e-4
  assert factors.max() <= 1 + strength + 1e-4
  quarters = np.histogram(factors, bins=4, range=(least - 1e-4, 1 + strength + 1e-4))
  assert (np.abs(quarters[0] / 4000 - 0.25) < 0.03).all()


def test_turns_of_the_hue_are_uniform():
  red = jnp.array([255, 0, 0], jnp.uint8).reshape(1, 1, 1, 3).repeat(2000, 0)
  jittered = np.asarray(JITTER(jax.random.key(0), red, hue=0.1))
  hues = [colorsys.rgb_to_hsv(*(pixel / 255))[0] for pixel in jittered[:, 0, 0]]
  turns = (np.array(hues) + 0.5) % 1 - 0.5
  assert np.abs(turns).max() <= 0.1 + 1e-6
  counts = np.histogram(turns, bins=4, range=(-0.1, 0.1))[0]
  assert (np.abs(counts / 2000 - 0.25) < 0.04).all()


def test_jitter_applies_the_steps_in_order_and_draws_them_apart():
  images, key = jnp.asarray(pixels(size=(8, 8))), jax.random.key(3)
  strengths = {'brightness': 0.6, 'contrast': 0.5, 'saturation': 0.4, 'hue': 0.2}
  one_by_one = images
  for name, strength in strengths.items():
    one_by_one = JITTER(key, one_by_one, **{name: strength})
  together = JITTER(key, images, **strengths)
  chex.assert_trees_all_close(together, one_by_one, atol=1e-3)
  reversed_order = images
  for name, strength in reversed(strengths.items()):
    reversed_order = JITTER(key, reversed_order, **{name: strength})
  assert jnp.abs(together - reversed_order).max() > 1


def test_jitter_stays_in_range_is_per_image_and_repeats():
  images = jnp.asarray(pixels()[:1]).repeat(16, 0)
  jitter = jax.jit(lambda key: color.color_jitter(key, images, 2.0, 2.0, 2.0, 0.5))
  got = jitter(jax.random.key(0))
  assert got.min() >= 0
  assert got.max() <= 255
  assert len(np.unique(np.asarray(got).reshape(16, -1), axis=0)) == 16
  np.testing.assert_array_equal(got, jitter(jax.random.key(0)))
  assert (got != jitter(jax.random.key(1))).any()
