"""Metrics of regression against values worked out by hand."""

import numpy as np
import pytest

from jaxvision.metrics import regression


def test_errors_of_each_output():
  targets = np.array([[1, 10], [2, 10], [3, 40]], np.float32)
  predictions = np.array([[1, 20], [2, 10], [6, 30]], np.float32)
  errors = regression.output_errors(targets, predictions)
  assert errors.mae == pytest.approx([1, 20 / 3])
  assert errors.rmse == pytest.approx([3**0.5, (200 / 3) ** 0.5])
  # Squares about the mean: 2 and 600.
  assert errors.r2 == pytest.approx([1 - 9 / 2, 1 - 200 / 600])
  # Output 0: (-1 0 1) and (-2 -1 3); output 1: (-10 -10 20) and (0 -10 10).
  assert errors.pearson == pytest.approx([5 / 28**0.5, 300 / (600 * 200) ** 0.5])


def test_exact_predictions():
  targets = np.array([[0.1], [0.5], [0.3]])
  errors = regression.output_errors(targets, targets)
  assert [errors.mae[0], errors.rmse[0], errors.r2[0]] == [0, 0, 1]
  assert errors.pearson[0] == pytest.approx(1)
  assert errors.pearson[0] <= 1


@pytest.mark.parametrize('value', [0.0, 0.1, 1e9])
def test_constant_targets_have_no_r2(value):
  targets = np.full((3, 1), value)
  errors = regression.output_errors(targets, targets + np.array([[0], [1], [2]]))
  assert errors.mae[0] == pytest.approx(1)
  assert np.isnan(errors.r2[0])
  assert np.isnan(errors.pearson[0])


def test_constant_predictions_have_no_correlation():
  errors = regression.output_errors(np.array([[0.0], [2.0]]), np.full((2, 1), 0.1))
  assert np.isnan(errors.pearson[0])
  assert errors.r2[0] == pytest.approx(1 - (0.01 + 1.9**2) / 2)


def test_one_example():
  errors = regression.output_errors(np.array([[3.0]]), np.array([[1.0]]))
  assert errors.mae[0] == errors.rmse[0] == 2
  assert np.isnan(errors.r2[0])


def test_worst_examples_do_not_depend_on_units():
  targets = np.array([[0, 0], [2, 2000]], np.float64)
  predictions = np.array([[2, 0], [2, 3000]], np.float64)
  # Standard deviations 1 and 1000.
  expected = [[2, 0], [0, 1]]
  assert regression.scaled_errors(targets, predictions).tolist() == expected
  assert regression.worst_examples(targets, predictions, n=2) == [0, 1]
  assert regression.worst_examples(targets, predictions, n=1) == [0]
