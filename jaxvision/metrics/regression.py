"""Metrics of regression, as pure functions of NumPy arrays.

Every function takes the whole split at once: targets and predictions float [n, D].
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class OutputErrors:
  """Errors of every output.

  Attributes:
    mae: float64 [D], mean absolute error.
    rmse: float64 [D], root mean squared error.
    r2: float64 [D], coefficient of determination; NaN where the target is constant.
    pearson: float64 [D], correlation; NaN where target or prediction is constant.
  """

  mae: np.ndarray
  rmse: np.ndarray
  r2: np.ndarray
  pearson: np.ndarray


def output_errors(targets: np.ndarray, predictions: np.ndarray) -> OutputErrors:
  """Computes the errors of every output, in float64.

      R2 = 1 - sum (target - prediction)^2 / sum (target - mean target)^2

  Args:
    targets: float [n, D], n at least 1.
    predictions: float [n, D].

  >>> errors = output_errors(np.array([[0.0], [2.0]]), np.array([[0.0], [1.0]]))
  >>> errors.mae, errors.r2
  (array([0.5]), array([0.5]))
  """
  targets = np.asarray(targets, np.float64)
  predictions = np.asarray(predictions, np.float64)
  residuals = predictions - targets
  target, prediction = _centered(targets), _centered(predictions)
  squares = (target**2).sum(axis=0)
  products = np.sqrt(squares * (prediction**2).sum(axis=0))
  with np.errstate(divide='ignore', invalid='ignore'):
    r2 = np.where(squares > 0, 1 - (residuals**2).sum(axis=0) / squares, np.nan)
    pearson = (target * prediction).sum(axis=0) / products
  return OutputErrors(
    mae=np.abs(residuals).mean(axis=0),
    rmse=np.sqrt((residuals**2).mean(axis=0)),
    r2=r2,
    pearson=np.clip(np.where(products > 0, pearson, np.nan), -1, 1),
  )


def _centered(values: np.ndarray) -> np.ndarray:
  """Subtracts the means; a constant column is 0 exactly, whatever its mean rounds to."""
  constant = (values == values[:1]).all(axis=0)
  return np.where(constant, 0.0, values - values.mean(axis=0))


def scaled_errors(targets: np.ndarray, predictions: np.ndarray) -> np.ndarray:
  """Computes absolute errors in standard deviations of each target.

  So that no output outweighs the others by its unit. The errors of a constant target
  stay as they are.

  Args:
    targets: float [n, D].
    predictions: float [n, D].

  Returns:
    float64 [n, D].
  """
  targets = np.asarray(targets, np.float64)
  deviation = np.sqrt((_centered(targets) ** 2).mean(axis=0))
  errors = np.abs(np.asarray(predictions, np.float64) - targets)
  return errors / np.where(deviation > 0, deviation, 1.0)


def worst_examples(targets: np.ndarray, predictions: np.ndarray, n: int) -> list[int]:
  """Lists the examples with the largest mean error over the outputs.

  Args:
    targets: float [n, D].
    predictions: float [n, D].
    n: most examples to list.

  Returns:
    Indices by falling mean of `scaled_errors`, ties in the order of the split.
  """
  error = scaled_errors(targets, predictions).mean(axis=1)
  return np.argsort(-error, kind='stable')[:n].tolist()
