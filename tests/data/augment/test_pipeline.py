import os
import subprocess
import sys
import textwrap

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from scipy import ndimage

from jaxvision import config as config_lib
from jaxvision.data import augment
from jaxvision.errors import UserError

# It compiles much: not in `make test-fast`.
pytestmark = pytest.mark.long

OFF = config_lib.base_config().augment.to_dict()
ALL = {
  'flip': True,
  'crop_padding': 2,
  'cutout': 3,
  'rotation': 20.0,
  'brightness': 0.3,
  'contrast': 0.3,
  'saturation': 0.3,
  'hue': 0.1,
}
SHAPES = [(8, 8, 3), (7, 5, 1), (6, 9, 3)]
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def config(**fields):
  return ConfigDict({**OFF, **fields})


def pixels(shape=(8, 8, 3), batch=6):
  return np.random.default_rng(0).integers(0, 256, (batch, *shape), np.uint8)


def places(height, width, batch):
  """Images whose two channels are each pixel's own row and column."""
  row, column = np.mgrid[:height, :width]
  image = np.stack([row, column], axis=-1).astype(np.uint8)
  return jnp.asarray(image)[None].repeat(batch, 0)


@pytest.mark.parametrize('shape', SHAPES)
def test_flip_matches_numpy(shape):
  images = pixels(shape)
  flips = np.array([True, False, True, True, False, False])
  got = jax.jit(augment.apply_flip)(images, flips)
  expected = [np.fliplr(i) if flip else i for i, flip in zip(images, flips)]
  chex.assert_type(got, jnp.uint8)
  np.testing.assert_array_equal(got, expected)


def test_half_of_the_images_are_flipped():
  images = places(1, 2, 4000)
  flipped = augment.random_flip(jax.random.key(0), images)[:, 0, 0, 1] == 1
  assert abs(flipped.mean() - 0.5) < 0.03


@pytest.mark.parametrize(
  ('shape', 'padding', 'dtype'),
  [((8, 8, 3), 1, np.uint8), ((7, 5, 1), 3, np.uint8), ((6, 9, 3), 2, np.float32)],
)
@pytest.mark.parametrize('mode', augment.CROP_MODES)
def test_crop_matches_numpy(mode, shape, padding, dtype):
  height, width, _ = shape
  grid = np.mgrid[: 2 * padding + 1, : 2 * padding + 1].reshape(2, -1).T  # every offset
  images = pixels(shape, len(grid)).astype(dtype)
  crop = jax.jit(augment.apply_crop, static_argnums=(2, 3))
  got = np.asarray(crop(images, grid, padding, mode))
  chex.assert_type(got, dtype)
  width_of_pad = ((padding, padding), (padding, padding), (0, 0))
  for image, (row, column), result in zip(images, grid, got):
    padded = np.pad(image, width_of_pad, mode=mode)
    expected = padded[row : row + height, column : column + width]
    np.testing.assert_array_equal(result, expected)


def test_crops_take_every_offset_equally_often():
  batch, padding = 9000, 1
  images = places(5, 5, batch)
  crop = jax.jit(augment.random_crop, static_argnums=2)
  cropped = crop(jax.random.key(0), images, padding)
  shifts = np.asarray(cropped)[:, 2, 2].astype(int) - 2 + padding
  counts = np.bincount(shifts[:, 0] * 3 + shifts[:, 1], minlength=9)
  assert len(counts) == 9
  assert (np.abs(counts / batch - 1 / 9) < 0.015).all()


@pytest.mark.parametrize(
  ('shape', 'size'), [((8, 8, 3), 1), ((7, 5, 1), 4), ((6, 9, 3), 5)]
)
def test_cutout_matches_numpy(shape, size):
  height, width, _ = shape
  grid = np.mgrid[:height, :width].reshape(2, -1).T  # every centre
  images = pixels(shape, len(grid)).astype(np.float32) + 1
  got = np.asarray(jax.jit(augment.apply_cutout, static_argnums=2)(images, grid, size))
  for image, (row, column), result in zip(images, grid, got):
    expected = image.copy()
    top, left = row - size // 2, column - size // 2
    expected[max(top, 0) : top + size, max(left, 0) : left + size] = 0
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize('size', [3, 4])
def test_cutout_inside_blanks_whole_squares_everywhere(size):
  images = jnp.ones((2000, 8, 9, 1))
  got = np.asarray(augment.cutout(jax.random.key(0), images, size, 'inside'))
  assert ((1 - got).sum((1, 2, 3)) == size * size).all()
  places, counts = np.unique(1 - got, axis=0, return_counts=True)
  assert len(places) == (9 - size) * (10 - size)
  assert counts.min() > 2000 / len(places) / 2


def test_alternating_flips_turn_every_example_over_from_epoch_to_epoch():
  index = jnp.arange(1000)

  def flips(seed, epoch):
    words = jax.random.key_data(jax.random.key(seed))
    epochs = jnp.full(1000, epoch)
    return np.asarray(jax.jit(augment.alternating_flips)(words, index, epochs))

  assert abs(flips(0, 0).mean() - 0.5) < 0.05
  assert (flips(0, 0) == ~flips(0, 1)).all()
  assert (flips(0, 0) == flips(0, 2)).all()
  assert abs((flips(0, 0) == flips(1, 0)).mean() - 0.5) < 0.05
  # By the example and not by its place in the batch.
  words = jax.random.key_data(jax.random.key(0))
  turned = augment.alternating_flips(words, index[::-1], 0 * index)
  assert (np.asarray(turned)[::-1] == flips(0, 0)).all()


def test_given_flips_are_the_flips():
  images, flips = pixels(), jnp.array([True, False] * 3)
  make = augment.make_augment(config(flip=True, flip_mode='alternating'), MEAN, STD)
  got = make(jax.random.key(0), images, flips)
  expected = np.where(
    np.asarray(flips)[:, None, None, None], images[:, :, ::-1], images
  )
  np.testing.assert_array_equal(got, augment.normalize(expected, MEAN, STD))


def test_cutout_centres_are_anywhere_equally_often():
  batch, (height, width) = 12000, (3, 4)
  images = jnp.ones((batch, height, width, 1), jnp.bfloat16)
  got = augment.cutout(jax.random.key(0), images, 1)
  chex.assert_type(got, jnp.bfloat16)
  holes = np.asarray(got[..., 0] == 0)
  assert (holes.sum((1, 2)) == 1).all()
  assert (np.abs(holes.mean(0) - 1 / (height * width)) < 0.012).all()


@pytest.mark.parametrize('shape', [(16, 16, 3), (11, 14, 1)])
def test_rotation_matches_scipy(shape):
  degrees = np.array([-180.0, -37.5, -3.0, 0.0, 15.0, 90.0])
  images = pixels(shape)
  got = jax.jit(augment.apply_rotation)(images, degrees)
  chex.assert_shape(got, images.shape)
  chex.assert_type(got, jnp.float32)
  for image, angle, result in zip(images, degrees, np.asarray(got)):
    image = image.astype(np.float64)
    fields = {'order': 1, 'reshape': False}
    # SciPy's 'grid-constant' also interpolates towards the zeros outside.
    expected = ndimage.rotate(image, angle, mode='grid-constant', **fields)
    np.testing.assert_allclose(result, expected, atol=5e-3)
    # Away from the edges how the outside counts makes no difference.
    inside = ndimage.rotate(np.ones_like(image), angle, mode='grid-constant', **fields)
    interior = inside > 1 - 1e-6
    assert interior.mean() > 0.3
    expected = ndimage.rotate(image, angle, mode='nearest', **fields)
    np.testing.assert_allclose(result[interior], expected[interior], atol=5e-3)
  np.testing.assert_array_equal(got[3], images[3])  # 0 degrees


def test_rotations_are_uniform_up_to_the_maximum():
  batch, size, most = 2000, 21, 30.0
  # A bright spot right of the centre moves around it: its angle is the rotation's.
  image = np.zeros((size, size, 1), np.uint8)
  image[size // 2, size // 2 + 8] = 255
  images = jnp.asarray(image)[None].repeat(batch, 0)
  weights = np.asarray(augment.random_rotation(jax.random.key(0), images, most))
  row, column = np.mgrid[:size, :size] - size // 2
  y, x = (weights[..., 0] * row).sum((1, 2)), (weights[..., 0] * column).sum((1, 2))
  angles = np.rad2deg(np.arctan2(-y, x))
  assert np.abs(angles).max() < most + 1.5  # the spot is a pixel wide
  counts = np.histogram(angles, bins=4, range=(-most, most))[0]
  assert (np.abs(counts / batch - 0.25) < 0.05).all()


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_normalize_matches_numpy(dtype):
  images = pixels()
  got = augment.normalize(jnp.asarray(images), MEAN, STD, dtype)
  chex.assert_type(got, jnp.dtype(dtype))
  expected = (images / 255 - np.array(MEAN)) / np.array(STD)
  tolerance = 2e-6 if dtype == 'float32' else 2**-7
  np.testing.assert_allclose(
    got.astype(jnp.float32), expected, rtol=tolerance, atol=tolerance
  )


RANDOM = {
  'flip': augment.random_flip,
  'crop': lambda key, images: augment.random_crop(key, images, 2),
  'cutout': lambda key, images: augment.cutout(key, images, 3),
  'rotation': lambda key, images: augment.random_rotation(key, images, 30.0),
  'all': augment.make_augment(config(**ALL), MEAN, STD),
}


@pytest.mark.parametrize('name', RANDOM)
def test_same_key_same_images_and_each_image_alone(name):
  function = jax.jit(RANDOM[name])
  images, key = jnp.asarray(pixels(batch=16)), jax.random.key(1)
  got = function(key, images)
  np.testing.assert_array_equal(got, function(key, images))
  assert (got != function(jax.random.key(2), images)).any()
  # Another first image leaves the rest as they were.
  changed = function(key, images.at[0].set(255 - images[0]))
  np.testing.assert_array_equal(changed[1:], got[1:])
  # Equal images are not all treated alike.
  alike = np.asarray(function(key, images[:1].repeat(16, 0)))
  assert len(np.unique(alike.reshape(16, -1), axis=0)) > 1


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_with_nothing_enabled_it_is_normalize(dtype):
  images, key = jnp.asarray(pixels()), jax.random.key(0)
  got = augment.make_augment(config(), MEAN, STD, dtype)(key, images)
  chex.assert_type(got, jnp.dtype(dtype))
  np.testing.assert_array_equal(got, augment.normalize(images, MEAN, STD, dtype))


@pytest.mark.parametrize(
  ('shape', 'dtype'), [((7, 5, 1), 'bfloat16'), ((6, 9, 3), 'float32')]
)
def test_everything_enabled_keeps_shape_and_gives_the_dtype(shape, dtype):
  images, channels = jnp.asarray(pixels(shape)), shape[-1]
  mean, std = MEAN[:channels], STD[:channels]
  got = jax.jit(augment.make_augment(config(**ALL), mean, std, dtype))(
    jax.random.key(0), images
  )
  chex.assert_shape(got, images.shape)
  chex.assert_type(got, jnp.dtype(dtype))
  chex.assert_tree_all_finite(got)
  low, high = (np.array([0, 1])[:, None] - np.array(mean)) / np.array(std)
  assert (np.asarray(got, np.float32) >= np.minimum(low, 0) - 0.02).all()
  assert (np.asarray(got, np.float32) <= np.maximum(high, 0) + 0.02).all()


def test_enabling_one_leaves_the_draws_of_the_others():
  images, key = places(9, 9, 64), jax.random.key(5)
  identity = ((0.0, 0.0), (1 / 255, 1 / 255))  # normalises pixel values to themselves

  def run(**fields):
    # Moved off zero, so that a 0 can only be a hole.
    return np.asarray(
      augment.make_augment(config(**fields), *identity)(key, images + 1)
    )

  flip, crop, hole = {'flip': True}, {'crop_padding': 2}, {'cutout': 3}
  holes = run(**hole) == 0
  np.testing.assert_array_equal(run(**flip, **crop, **hole) == 0, holes)
  whole = run(**flip, **crop)
  np.testing.assert_array_equal(
    run(**flip, **crop, **hole), np.where(holes, np.float32(0), whole)
  )
  # The flip comes first, then the crop, each as it would be alone.
  flips = run(**flip)[:, 0, 0, 1] != 1
  offsets = (run(**crop)[:, 4, 4] - 1).astype(int) - 4 + 2
  assert 0 < flips.sum() < 64
  expected = augment.apply_flip(images + 1, jnp.asarray(flips))
  expected = augment.apply_crop(expected, jnp.asarray(offsets), 2)
  np.testing.assert_allclose(whole, expected, rtol=1e-6)


def test_fills_are_black_before_and_the_mean_after_normalising():
  white, key = jnp.full((32, 6, 6, 3), 255, jnp.uint8), jax.random.key(0)

  def run(fields):
    return jax.jit(augment.make_augment(fields, MEAN, STD))(key, white)

  fields = {'crop_padding': 2, 'crop_mode': 'constant'}
  got = np.asarray(run(config(**fields)))
  black, bright = (
    np.asarray(augment.normalize(jnp.full((1, 1, 1, 3), v), MEAN, STD))
    for v in (0, 255)
  )
  is_black = np.isclose(got, black).all(-1)
  assert is_black.any()
  assert (is_black ^ np.isclose(got, bright).all(-1)).all()
  got = np.asarray(run(config(cutout=4)))
  hole = (got == 0).all(-1)
  assert hole.any((1, 2)).all()
  assert np.isclose(got[~hole], bright[0, 0, 0]).all()


def test_a_batch_split_over_devices_is_augmented_where_it_lies():
  program = f"""
    import jax, jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec as P
    from ml_collections import ConfigDict
    from jaxvision.data.augment import apply_resized_crop, make_augment
    config = ConfigDict({ {**OFF, **ALL}!r})
    mesh = jax.make_mesh((4,), ('data',))
    split, whole = NamedSharding(mesh, P('data')), NamedSharding(mesh, P())
    key = jax.random.key(0)
    images = jnp.zeros((8, 8, 8, 3), jnp.uint8)
    function = make_augment(config, {MEAN}, {STD})
    step = jax.jit(function, in_shardings=(whole, split), out_shardings=split)
    text = step.lower(key, images).compile().as_text()
    step = jax.jit(apply_resized_crop, in_shardings=(split, whole), out_shardings=split)
    text += step.lower(images, jnp.ones((8, 4), jnp.int32)).compile().as_text()
    for collective in ('all-gather', 'all-reduce', 'all-to-all', 'collective-permute'):
      assert collective not in text, collective
  """
  environment = {**os.environ, 'JAX_NUM_CPU_DEVICES': '4', 'JAX_PLATFORMS': 'cpu'}
  run = subprocess.run(
    [sys.executable, '-c', textwrap.dedent(program)],
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
  ('fields', 'words'),
  [
    ({'crop_padding': 8}, ['augment.crop_padding', '8', '7']),
    ({'crop_padding': -1}, ['augment.crop_padding', '-1']),
    ({'crop_mode': 'refect'}, ['augment.crop_mode', 'did you mean "reflect"?']),
    ({'cutout': 9}, ['augment.cutout', '9', '8x10']),
    ({'cutout': -2}, ['augment.cutout', '-2']),
    ({'rotation': -5.0}, ['augment.rotation', '-5.0']),
    ({'rotation': 181.0}, ['augment.rotation', '180']),
    ({'brightness': -0.1}, ['augment.brightness', '-0.1']),
    ({'contrast': float('nan')}, ['augment.contrast', 'nan']),
    ({'saturation': float('inf')}, ['augment.saturation', 'inf']),
    ({'hue': 0.6}, ['augment.hue', '0.5', '0.6']),
    (
      {'crop_padding': 4, 'resized_crop': (0.5, 1)},
      ['augment.resized_crop', 'augment.crop_padding 4', 'set one of them'],
    ),
    ({'resized_crop': (0.001, 1)}, ['augment.resized_crop', '0.001', '8x10']),
  ],
)
def test_check_names_the_field_and_its_limits_in_one_line(fields, words):
  with pytest.raises(UserError) as raised:
    augment.check(config(**fields), (8, 10, 3))
  message = str(raised.value)
  assert '\n' not in message
  for word in words:
    assert word in message


def test_check_wants_grey_or_rgb_for_colours():
  with pytest.raises(UserError, match='not 2'):
    augment.check(config(hue=0.1), (8, 8, 2))


@pytest.mark.parametrize(
  'fields', [{}, ALL, {'crop_padding': 7, 'cutout': 8, 'rotation': 180.0, 'hue': 0.5}]
)
def test_check_passes_what_is_possible(fields):
  assert augment.check(config(**fields), (8, 10, 3)) is None


@pytest.mark.parametrize('shape', [(9, 14, 3), (16, 16, 1)])
def test_resized_crops_are_those_of_pillow(shape):
  height, width, channels = shape
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (40, *shape), np.uint8)
  sides = np.stack([rng.integers(1, n + 1, 40) for n in (height, width)], axis=1)
  corners = np.array([rng.integers(0, room + 1) for room in (height, width) - sides])
  boxes = np.concatenate([corners, sides], axis=1).astype(np.int32)
  boxes[0] = 0, 0, height, width
  got = np.asarray(jax.jit(augment.apply_resized_crop)(images, boxes))
  assert got.dtype == np.uint8
  np.testing.assert_array_equal(got[0], images[0])
  for image, (top, left, high, wide), crop in zip(images, boxes.tolist(), got):
    pillow = Image.fromarray(image[..., 0] if channels == 1 else image).resize(
      (width, height),
      Image.Resampling.BILINEAR,
      (left, top, left + wide, top + high),
    )
    expected = np.asarray(pillow).reshape(shape).astype(int)
    assert np.abs(crop - expected).max() <= 1  # Pillow rounds between its two passes
