"""Metrics of multi-label classification, as pure functions of NumPy arrays.

Every function takes the whole split at once: labels 0 or 1 [n, K] and probabilities float
[n, K]. scikit-learn, which takes seconds to import, is imported where it is called.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class LabelScores:
  """Scores of every label.

  Attributes:
    average_precision: float64 [K], NaN for a label without positive examples.
    auroc: float64 [K], NaN for a label that all examples have, or none.
    precision, recall, f1: float64 [K] at the threshold; 0 where they are 0 / 0.
    support: int64 [K], examples that have the label.
    predicted: int64 [K], examples that are predicted to have it.
  """

  average_precision: np.ndarray
  auroc: np.ndarray
  precision: np.ndarray
  recall: np.ndarray
  f1: np.ndarray
  support: np.ndarray
  predicted: np.ndarray


def label_scores(
  labels: np.ndarray, probabilities: np.ndarray, threshold: float = 0.5
) -> LabelScores:
  """Computes the scores of every label.

  Args:
    labels: 0 or 1, [n, K].
    probabilities: float [n, K].
    threshold: a label is predicted where its probability is above it.

  >>> label_scores(np.array([[1], [0], [1]]), np.array([[0.9], [0.8], [0.7]])).recall
  array([1.])
  """
  from sklearn import metrics

  true, predicted = np.asarray(labels) > 0.5, np.asarray(probabilities) > threshold
  support = true.sum(axis=0)
  columns = list(zip(true.T, np.asarray(probabilities).T))
  # One label at a time: scikit-learn reads [n, 1] as another kind of problem.
  at_threshold = [
    metrics.precision_recall_fscore_support(t, p, average='binary', zero_division=0)[:3]
    for t, p in zip(true.T, predicted.T)
  ]
  precision, recall, f1 = np.array(at_threshold, np.float64).reshape(-1, 3).T
  return LabelScores(
    average_precision=np.array(
      [metrics.average_precision_score(t, p) if t.any() else np.nan for t, p in columns]
    ),
    auroc=np.array(
      [
        metrics.roc_auc_score(t, p) if t.any() and not t.all() else np.nan
        for t, p in columns
      ]
    ),
    precision=precision,
    recall=recall,
    f1=f1,
    support=support,
    predicted=predicted.sum(axis=0),
  )


def macro_average(values: np.ndarray) -> float:
  """Computes the mean over the labels that have a value; NaN where none has.

  >>> macro_average(np.array([0.5, np.nan, 1.0]))
  0.75
  """
  values = np.asarray(values, np.float64)
  known = values[~np.isnan(values)]
  return float(known.mean()) if known.size else float('nan')


def micro_average_precision(labels: np.ndarray, probabilities: np.ndarray) -> float:
  """Computes the average precision of all pairs of example and label in one ranking.

  Args:
    labels: 0 or 1, [n, K].
    probabilities: float [n, K].

  Returns:
    The average precision, NaN where no example has a label.
  """
  from sklearn import metrics

  true = np.ravel(labels) > 0.5
  if not true.any():
    return float('nan')
  return float(metrics.average_precision_score(true, np.ravel(probabilities)))


def exact_match(
  labels: np.ndarray, probabilities: np.ndarray, threshold: float = 0.5
) -> float:
  """Computes the share of examples that are right in every label (subset accuracy)."""
  return float(np.mean(wrong_labels(labels, probabilities, threshold) == 0))


def hamming_loss(
  labels: np.ndarray, probabilities: np.ndarray, threshold: float = 0.5
) -> float:
  """Computes the share of wrong labels among all labels of all examples."""
  wrong = wrong_labels(labels, probabilities, threshold)
  return float(np.mean(wrong) / np.shape(labels)[1])


def wrong_labels(
  labels: np.ndarray, probabilities: np.ndarray, threshold: float = 0.5
) -> np.ndarray:
  """Counts the wrong labels of each example.

  Args:
    labels: 0 or 1, [n, K].
    probabilities: float [n, K].
    threshold: a label is predicted where its probability is above it.

  Returns:
    int64 [n].
  """
  predicted = np.asarray(probabilities) > threshold
  return ((np.asarray(labels) > 0.5) != predicted).sum(axis=1)


def worst_examples(labels: np.ndarray, probabilities: np.ndarray, n: int) -> list[int]:
  """Lists the examples with the most wrong labels at a probability of 0.5.

  Args:
    labels: 0 or 1, [n, K].
    probabilities: float [n, K].
    n: most examples to list.

  Returns:
    Indices of examples with at least one wrong label, by falling number of wrong labels
    and then by falling mean distance of the probabilities from the labels.
  """
  wrong = wrong_labels(labels, probabilities)
  distance = np.abs(np.asarray(labels) - np.asarray(probabilities)).mean(axis=1)
  order = np.lexsort((-distance, -wrong))
  return [i for i in order.tolist() if wrong[i]][:n]
