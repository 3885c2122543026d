"""Welch's test against its formula, Holm's correction against its definition."""

import math

import numpy as np
import pytest
from scipy import stats

from jaxvision.metrics.significance import holm, welch_test


def test_welch_test_is_its_formula():
  a, b = [0.90, 0.92, 0.91], [0.6, 0.7, 0.65, 0.7]
  result = welch_test(a, b)
  spread = [np.var(x, ddof=1) / len(x) for x in (a, b)]
  t = (np.mean(a) - np.mean(b)) / math.sqrt(sum(spread))
  freedom = sum(spread) ** 2 / (spread[0] ** 2 / 2 + spread[1] ** 2 / 3)
  assert result.p == pytest.approx(2 * stats.t.sf(t, freedom))
  half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(spread))
  assert result.difference == pytest.approx(np.mean(a) - np.mean(b))
  expected = result.difference - half, result.difference + half
  assert result.interval == pytest.approx(expected)
  narrower = welch_test(a, b, confidence=0.5).interval
  assert result.interval[0] < narrower[0] < narrower[1] < result.interval[1]


@pytest.mark.parametrize(('a', 'b'), [([1.0], [1.0, 2.0]), ([1.0, 1.0], [2.0, 2.0])])
def test_without_seeds_or_spread_there_is_no_test(a, b):
  assert welch_test(a, b) is None


@pytest.mark.parametrize(
  ('p_values', 'corrected'),
  [
    ([], []),
    ([0.04], [0.04]),
    ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
    ([0.5, 0.9, 0.01], [1.0, 1.0, 0.03]),
  ],
)
def test_holm_multiplies_by_the_tests_that_remain(p_values, corrected):
  assert holm(p_values) == pytest.approx(corrected)
