"""The operations of the policies, each against Pillow over its whole range."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from jaxvision.data.augment import operations

# It compiles much: not in `make test-fast`.
pytestmark = pytest.mark.long


def photographs(size, count=6, channels=3, seed=0):
  """Smooth images and noise, dark, pale and flat ones: uint8 [n, H, W, C]."""
  rng = np.random.default_rng(seed)
  found = []
  for number in range(count):
    coarse = rng.integers(0, 256, (4, 5, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.BICUBIC))
    noise = rng.integers(0, 256, smooth.shape)
    found.append(
      [smooth, noise, smooth // 4 + 60, noise // 8, smooth | 128][number % 5]
    )
  found[-1] = np.full_like(found[0], 77)
  images = np.stack(found).astype(np.uint8)
  return images if channels == 3 else images[..., :1]


def as_pillow(image):
  return Image.fromarray(image if image.shape[-1] == 3 else image[..., 0])


def with_pillow(name, value, image):
  """Returns what Pillow makes of an image, uint8 [H, W, C]."""
  made = as_pillow(image)
  width, height = made.size
  affine = functools.partial(
    made.transform, made.size, Image.AFFINE, resample=Image.NEAREST
  )
  done = {
    'identity': lambda: made,
    'shear_x': lambda: affine((1, value, 0, 0, 1, 0)),
    'shear_y': lambda: affine((1, 0, 0, value, 1, 0)),
    'translate_x': lambda: affine((1, 0, -int(value), 0, 1, 0)),
    'translate_y': lambda: affine((1, 0, 0, 0, 1, -int(value))),
    'rotate': lambda: made.rotate(value, resample=Image.NEAREST),
    'brightness': lambda: ImageEnhance.Brightness(made).enhance(value),
    'color': lambda: ImageEnhance.Color(made).enhance(value),
    'contrast': lambda: ImageEnhance.Contrast(made).enhance(value),
    'sharpness': lambda: ImageEnhance.Sharpness(made).enhance(value),
    'posterize': lambda: ImageOps.posterize(made, int(value)),
    'solarize': lambda: ImageOps.solarize(made, value),
    'autocontrast': lambda: ImageOps.autocontrast(made),
    'equalize': lambda: ImageOps.equalize(made),
    'invert': lambda: ImageOps.invert(made),
  }[name]()
  return np.asarray(done).reshape(height, width, -1)


RANGES = {
  'shear_x': np.linspace(-0.99, 0.99, 23),
  'shear_y': np.linspace(-0.99, 0.99, 23),
  'translate_x': np.linspace(-33, 33, 27),
  'translate_y': np.linspace(-33, 33, 27),
  'rotate': np.array([0, 90, 180, -90, *np.linspace(-135, 135, 29)]),
  'brightness': np.linspace(0, 2, 31),
  'color': np.linspace(0, 2, 31),
  'contrast': np.linspace(0, 2, 31),
  'sharpness': np.linspace(0, 2, 31),
  'posterize': np.arange(1, 9),
  'solarize': np.linspace(0, 256, 41),
}
GEOMETRIC = ('shear_x', 'shear_y', 'translate_x', 'translate_y', 'rotate')


@functools.cache
def compiled(name=None):
  """`apply`, for all operations or for one."""
  names = operations.NAMES if name is None else (name,)
  return jax.jit(functools.partial(operations.apply, names=names))


@pytest.mark.parametrize(
  ('size', 'channels'), [((32, 32), 3), ((23, 40), 3), ((23, 40), 1)]
)
@pytest.mark.parametrize('name', operations.NAMES)
def test_an_operation_equals_pillow_over_its_range(name, size, channels):
  images = photographs(size, channels=channels)
  number = operations.NAMES.index(name)
  for value in RANGES.get(name, [0]):
    done = compiled()(
      jnp.asarray(images),
      jnp.full(len(images), number),
      jnp.full(len(images), value, jnp.float32),
    )
    assert done.dtype == jnp.uint8
    for image, own in zip(images, np.asarray(done)):
      theirs = with_pillow(name, float(np.float32(value)), image)
      if name in GEOMETRIC:
        # Pillow counts places in 65,536ths of a pixel: on the edge between two it may
        # take the other one, as along the diagonal at 135 degrees.
        assert np.mean((own != theirs).any(-1)) <= 0.05, value
      else:
        difference = np.abs(own.astype(int) - theirs.astype(int))
        assert difference.max() <= 1, value
        # Where the blend lies at a whole number, rounding decides which way it is cut.
        assert np.mean(difference > 0) <= 0.04, value


@pytest.mark.parametrize('name', operations.NAMES)
def test_each_image_gets_its_own_operation(name):
  images = jnp.asarray(photographs((16, 16)))
  rng = np.random.default_rng(1)
  others = jnp.asarray(rng.integers(0, len(operations.NAMES), len(images)))
  values = jnp.asarray(rng.uniform(1, 4, len(images)), jnp.float32)
  mixed = others.at[2].set(operations.NAMES.index(name))
  batch = compiled()(images, mixed, values)
  alone = compiled(name)(images[2:3], mixed[2:3], values[2:3])
  np.testing.assert_array_equal(batch[2], alone[0])


def test_histograms_count_each_channel():
  images = photographs((9, 7))
  counts = np.asarray(jax.jit(operations.histograms)(images))
  assert counts.shape == (len(images), 3, 256)
  for image, found in zip(images, counts):
    for channel in range(3):
      expected = np.bincount(image[..., channel].ravel(), minlength=256)
      np.testing.assert_array_equal(found[channel], expected)


def test_alone_the_operations_are_functions_of_the_images():
  images = jnp.asarray(photographs((12, 12)))
  for image, bits, at, stretched, even in zip(
    np.asarray(images),
    operations.posterize(images, jnp.full(6, 3)),
    operations.solarize(images, jnp.full(6, 100.0)),
    operations.autocontrast(images),
    operations.equalize(images),
  ):
    np.testing.assert_array_equal(bits, with_pillow('posterize', 3, image))
    np.testing.assert_array_equal(at, with_pillow('solarize', 100, image))
    np.testing.assert_allclose(stretched, with_pillow('autocontrast', 0, image), atol=1)
    np.testing.assert_array_equal(even, with_pillow('equalize', 0, image))


def test_images_too_small_to_have_neighbours_stay_as_they_are():
  images = jnp.asarray(photographs((2, 5)))
  np.testing.assert_array_equal(
    operations.adjust_sharpness(images, jnp.full(6, 1.9)), images
  )
