"""Whether the means of two groups of runs differ by more than chance."""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class WelchTest:
  """Result of Welch's t-test.

  Attributes:
    difference: mean of the first sample minus mean of the second.
    interval: confidence interval of the difference.
    p: two-sided p-value.
  """

  difference: float
  interval: tuple[float, float]
  p: float


def welch_test(
  a: Sequence[float], b: Sequence[float], confidence: float = 0.95
) -> WelchTest | None:
  """Tests whether two samples have the same mean; their variances may differ.

  Args:
    a, b: measurements, such as the accuracies of several seeds.
    confidence: level of the interval.

  Returns:
    None where a sample has fewer than two values, or where neither has any spread.

  References:
    Welch, "The generalization of 'Student's' problem when several different population
    variances are involved", Biometrika 1947.

  >>> round(welch_test([0.90, 0.92, 0.91], [0.6, 0.7, 0.65]).p, 4)
  0.0099
  """
  if min(len(a), len(b)) < 2 or max(np.ptp(a), np.ptp(b)) == 0:
    return None
  from scipy import stats  # here: takes more than a second to import

  result = stats.ttest_ind(a, b, equal_var=False)
  interval = result.confidence_interval(confidence)
  return WelchTest(
    float(np.mean(a) - np.mean(b)),
    (float(interval.low), float(interval.high)),
    float(result.pvalue),
  )


def holm(p_values: Sequence[float]) -> list[float]:
  """Corrects p-values for the number of tests, by Holm's step-down procedure.

  References:
    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian
    Journal of Statistics 1979.

  >>> holm([0.01, 0.04, 0.03])
  [0.03, 0.06, 0.06]
  """
  p = np.asarray(p_values, np.float64)
  order = np.argsort(p, kind='stable')
  scaled = p[order] * np.arange(len(p), 0, -1)
  corrected = np.empty_like(p)
  corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1)
  return corrected.tolist()
