"""The boxes of random resized crops: the same everywhere, inside, of the right shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.config import base_config
from jaxvision.data.augment.resized_crop import (
  Crop,
  Draws,
  draw_crops,
  fit_box,
  fit_boxes,
)
from jaxvision.data.order import example_index, seed_words


def boxes(crop, seed, positions, height, width):
  return fit_boxes(crop, draw_crops(crop, seed, positions), height, width)


@pytest.mark.parametrize('size', [(375, 500), (160, 160), (32, 32), (3, 200), (1, 1)])
@pytest.mark.parametrize(
  'crop', [Crop(), Crop((0.25, 1.0), (1, 1)), Crop((0.9, 1), (2, 3))]
)
def test_numpy_and_jax_draw_the_same_boxes_inside_the_picture(size, crop):
  positions = np.concatenate([np.arange(4000), 2**32 - 1 - np.arange(100)])
  seed = 2**40 + 5
  expected = boxes(crop, seed, positions, *size)

  @jax.jit
  def compiled(words, positions):
    return fit_boxes(crop, draw_crops(crop, words, positions, jnp), *size, jnp)

  got = compiled(seed_words(seed), jnp.asarray(positions.astype(np.uint32)))
  assert got.dtype == expected.dtype == np.int32
  np.testing.assert_array_equal(got, expected)
  alone = [boxes(crop, seed, p, *size) for p in positions[:50]]
  np.testing.assert_array_equal(alone, expected[:50])
  top, left, height, width = expected.T
  assert min(top.min(), left.min()) >= 0
  assert min(height.min(), width.min()) >= 1
  assert (top + height).max() <= size[0]
  assert (left + width).max() <= size[1]


def _assert_uniform(values, low, high):
  counts, _ = np.histogram(values, 10, (low, high))
  assert counts.sum() == len(values)
  expected = len(values) / 10
  assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_area_ratio_and_place_are_drawn_evenly():
  crop, side = Crop((0.1, 0.5), (0.8, 1.25)), 4000
  top, left, height, width = boxes(crop, 3, np.arange(20_000), side, side).T
  area, ratio = height * width / side**2, np.log(width / height)
  _assert_uniform(area.clip(0.1, 0.5), 0.1, 0.5)
  _assert_uniform(ratio.clip(*np.log(crop.ratio)), *np.log(crop.ratio))
  row, column = top / (side - height), left / (side - width)
  _assert_uniform(row, 0, 1)
  _assert_uniform(column, 0, 1)
  facts = np.corrcoef([area, ratio, row, column, np.arange(20_000) % 2])
  assert np.abs(facts - np.eye(5)).max() < 0.04


def test_seeds_and_positions_draw_on_their_own_and_apart_from_the_order():
  a, b = (boxes(Crop(), seed, np.arange(5000), 224, 224) for seed in (0, 1))
  for other in (b, np.roll(a, 1, axis=0)):
    assert (a == other).all(1).mean() < 0.001
    assert np.abs(np.corrcoef(a[:, 2], other[:, 2])[0, 1]) < 0.05
  order = example_index(0, np.arange(5000), 5000)
  assert np.abs(np.corrcoef(a[:, 0], order)[0, 1]) < 0.05


@pytest.mark.parametrize(
  ('size', 'ratio', 'expected'),
  [
    ((100, 100), (2, 3), (25, 0, 50, 100)),
    ((100, 100), (0.25, 0.5), (0, 25, 100, 50)),
    ((100, 120), (1.1, 1.3), (0, 0, 100, 120)),
  ],
)
def test_where_nothing_fits_the_largest_about_the_centre_is_taken(
  size, ratio, expected
):
  never = np.full(10, 9, np.float32)
  draws = Draws(never, never, np.zeros(2, np.uint32))
  assert fit_boxes(Crop((1, 1), ratio), draws, *size).tolist() == list(expected)


def test_the_config_turns_it_on():
  fields = base_config().augment
  assert Crop.of(fields) is None
  fields.resized_crop = (0.35, 1)
  assert Crop.of(fields) == Crop((0.35, 1), (0.75, 4 / 3))


@pytest.mark.parametrize('size', [(375, 500), (64, 64), (7, 300), (1, 1)])
def test_the_box_of_one_position_is_that_of_many(size):
  crop, positions = Crop((0.2, 1.0)), np.arange(200)
  draws = draw_crops(crop, 5, positions)
  expected = fit_boxes(crop, draws, *size).tolist()
  for i, box in enumerate(expected):
    assert fit_box(crop, Draws(*(v[i] for v in draws)), *size) == tuple(box)
