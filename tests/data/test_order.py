import runpy
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxvision.data import order
from jaxvision.data.order import (
  balanced_index,
  class_members,
  example_index,
  seed_words,
)

LAST = 2**32 - 1


@pytest.fixture(autouse=True)
def _warnings_are_errors():
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    yield


@pytest.mark.parametrize('n', [1, 2, 7, 1797, 50000, LAST])
def test_numpy_and_jax_agree_bit_for_bit(n):
  anywhere = np.random.default_rng(0).integers(0, 2**32, 50, np.uint32)
  ends = np.array([0, n - 1, n % 2**32, LAST], np.uint32)
  position = np.concatenate([anywhere, ends]).reshape(9, 6)
  traced = jax.jit(lambda words, p: example_index(words, p, n, jnp))
  for seed in (0, 1, LAST, 2**32 + 5, 2**63 - 1):
    expected = example_index(seed, position, n)
    got = traced(jnp.asarray(seed_words(seed)), jnp.asarray(position))
    assert got.shape == expected.shape == position.shape
    assert got.dtype == expected.dtype == np.uint32
    np.testing.assert_array_equal(got, expected)
    assert expected.max() < n


@pytest.mark.parametrize('n', [1, 2, 3, 7, 100, 1797])
def test_each_epoch_is_a_permutation(n):
  for epoch in (0, 1, 2, 1000, LAST // n - 1):
    position = epoch * n + np.arange(n)
    got = example_index(3, position, n)
    np.testing.assert_array_equal(np.sort(got), np.arange(n))


def test_epochs_and_seeds_have_orders_of_their_own():
  n = 1000
  orders = [example_index(0, epoch * n + np.arange(n), n) for epoch in range(4)]
  orders += [
    example_index(s, np.arange(n), n) for s in (1, 2, LAST, 2**32, 2**33, 2**62)
  ]
  for i, first in enumerate(orders):
    assert (first == np.arange(n)).sum() < 10  # one is expected, by chance
    for second in orders[:i]:
      assert (first == second).sum() < 10


def test_batches_that_straddle_epochs_follow_the_positions():
  n, batch_size = 100, 64
  whole = example_index(9, np.arange(8 * batch_size), n)
  for step in range(8):
    batch = example_index(9, step * batch_size + np.arange(batch_size), n)
    np.testing.assert_array_equal(batch, whole[step * batch_size :][:batch_size])
  several_epochs = example_index(9, np.arange(350), n)
  np.testing.assert_array_equal(several_epochs, whole[:350])
  assert (np.bincount(several_epochs[:300]) == 3).all()


@pytest.mark.parametrize('shape', [(), (0,), (2, 3)])
def test_any_shape_of_position(shape):
  position = np.full(shape, LAST, np.int64)
  got = example_index(2**63 - 1, position, 7)
  assert isinstance(got, np.ndarray)
  assert got.shape == shape
  np.testing.assert_array_equal(got, example_index(2**63 - 1, np.array([LAST]), 7)[0])


# The draws are fixed, so the p-values are too: these fail only if the shuffle changes.
@pytest.mark.parametrize('over', ['epochs', 'seeds'])
@pytest.mark.parametrize('n', [7, 100, 1797, 50000])
def test_landing_places_and_neighbours_are_uniform(n, over):
  if over == 'epochs':
    position = np.arange(min(20000, LAST // n))[:, None] * n + [0, 1]
    first, second = example_index(1, position, n).astype(np.int64).T
  else:
    pairs = [example_index(seed, np.arange(2), n) for seed in range(1000)]
    first, second = np.array(pairs, np.int64).T
  apart = (second - first) % n - 1  # uniform on [0, n - 1)
  for values, size in ((first, n), (second, n), (apart, n - 1)):
    bins = min(size, 50)
    expected = np.bincount(np.arange(size) * bins // size) / size * len(values)
    counts = np.bincount(values * bins // size, minlength=bins)
    assert stats.chisquare(counts, expected).pvalue > 1e-3
  kept = int(((apart == 0) | (apart == n - 2)).sum())
  assert stats.binomtest(kept, len(apart), 2 / (n - 1)).pvalue > 1e-3


def test_permutations_of_four_are_equally_likely():
  orders = example_index(5, np.arange(4 * 24000), 4).reshape(-1, 4)
  _, counts = np.unique(orders, axis=0, return_counts=True)
  assert len(counts) == 24
  assert stats.chisquare(counts).pvalue > 1e-3


def test_whole_epochs_keep_no_trace_of_the_stored_order():
  n, epochs = 1797, 200
  orders = example_index(5, np.arange(n * epochs), n).reshape(epochs, n).astype(int)
  neighbours = int((np.diff(orders, axis=1) == 1).sum())
  fixed = int((orders == np.arange(n)).sum())
  again = int((orders[1:] == orders[:-1]).sum())
  for count, trials in (
    (neighbours, epochs * (n - 1)),
    (fixed, epochs * n),
    (again, (epochs - 1) * n),
  ):
    assert stats.binomtest(count, trials, 1 / n).pvalue > 1e-3
  # A half of the epoch holds a random half of the examples: neither fewer nor more of
  # the first ones than a fair draw would, nor always the same number of them.
  half = n // 2
  fair = stats.hypergeom(n, half, half)
  spread = (((orders[:, :half] < half).sum(1) - fair.mean()) ** 2).sum() / fair.var()
  assert 1e-3 < stats.chi2.sf(spread, epochs) < 1 - 1e-3


@pytest.mark.parametrize(
  ('seed', 'position', 'n', 'named'),
  [
    (-1, [0], 5, 'seed'),
    (2**63, [0], 5, 'seed'),
    (0, [-1], 5, 'position'),
    (0, [2**32], 5, 'position'),
    (0, [0], 0, 'n must'),
    (0, [0], 2**32, 'n must'),
  ],
)
def test_values_out_of_range_are_refused(seed, position, n, named):
  with pytest.raises(ValueError, match=named):
    example_index(seed, np.array(position), n)


def test_workers_need_no_jax(monkeypatch):
  for name in [m for m in sys.modules if m.split('.')[0] in ('jax', 'jaxlib')]:
    monkeypatch.setitem(sys.modules, name, None)  # importing it now fails
  fresh = runpy.run_path(order.__file__)
  got = fresh['example_index'](0, np.arange(9), 9)
  np.testing.assert_array_equal(got, example_index(0, np.arange(9), 9))


LABELS = np.repeat([0, 2, 1], [3, 40, 7])  # of classes of very different sizes


def balanced(seed, position, xp=np):
  members, starts = class_members(LABELS, 3)
  return balanced_index(seed, position, members, starts, 40, xp)


def test_a_balanced_order_visits_every_class_equally_often():
  for first in (0, 120, 240):
    visits = np.bincount(balanced(5, first + np.arange(120)), minlength=len(LABELS))
    for label, size in ((0, 3), (2, 40), (1, 7)):
      of_class = visits[label == LABELS]
      assert of_class.sum() == 40
      assert set(of_class) <= {40 // size, -(-40 // size)}


def test_a_balanced_order_is_a_function_of_seed_and_position():
  position = np.random.default_rng(0).integers(0, 2**32, (6, 5), np.uint32)
  members, starts = map(jnp.asarray, class_members(LABELS, 3))
  traced = jax.jit(lambda w, p, m, s: balanced_index(w, p, m, s, 40, jnp))
  for seed in (0, 2**63 - 1):
    expected = balanced(seed, position)
    got = traced(jnp.asarray(seed_words(seed)), jnp.asarray(position), members, starts)
    assert got.dtype == expected.dtype == np.int32
    np.testing.assert_array_equal(got, expected)
  assert not np.array_equal(balanced(0, position), balanced(1, position))
