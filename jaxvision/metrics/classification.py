"""Metrics of single-label classification, as pure functions of NumPy arrays.

Every function takes the whole split at once: labels int [n] and probabilities float
[n, K]. scikit-learn and scipy, which take seconds to import, are imported where they are
called.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np


@dataclasses.dataclass(frozen=True)
class ClassScores:
  """Scores of every class, or (as scalars) their average over the classes.

  Attributes:
    precision: float64 [K], true positives / predicted positives.
    recall: float64 [K], true positives / examples of the class.
    f1: float64 [K], harmonic mean of precision and recall.
    support: int64 [K], examples of the class.
  """

  precision: Any
  recall: Any
  f1: Any
  support: Any


@dataclasses.dataclass(frozen=True)
class ConfusedPair:
  """Two classes that are confused with each other; `first` has the lower index.

  Attributes:
    first, second: names of the classes.
    count: mistakes in both directions.
    first_as_second: examples of `first` predicted as `second`.
    second_as_first: examples of `second` predicted as `first`.
    rate: `count` / examples of the two classes.
  """

  first: str
  second: str
  count: int
  first_as_second: int
  second_as_first: int
  rate: float


@dataclasses.dataclass(frozen=True)
class Mistake:
  """One wrongly classified example.

  Attributes:
    index: position of the example in the split.
    true, predicted: class indices.
    confidence: predicted probability of `predicted`.
    true_probability: predicted probability of `true`.
  """

  index: int
  true: int
  predicted: int
  confidence: float
  true_probability: float


@dataclasses.dataclass(frozen=True)
class Reliability:
  """Accuracy against confidence, in equal-width bins of confidence.

  Attributes:
    edges: float64 [bins + 1], bin i holds confidences in (edges[i], edges[i + 1]].
    count: int64 [bins], examples in the bin.
    confidence: float64 [bins], their mean confidence; NaN in an empty bin.
    accuracy: float64 [bins], their accuracy; NaN in an empty bin.
  """

  edges: np.ndarray
  count: np.ndarray
  confidence: np.ndarray
  accuracy: np.ndarray


@dataclasses.dataclass(frozen=True)
class Confusion:
  """A confusion matrix by its cells that are not 0, of which there are at most n.

  The matrix as a whole grows with the square of the classes: 80 GB for 100,000.

  Attributes:
    num_classes: K.
    rows: int64 [m], true classes of the cells, rising.
    columns: int64 [m], predicted classes, rising within a row.
    counts: int64 [m], examples of a cell, at least 1.
  """

  num_classes: int
  rows: np.ndarray
  columns: np.ndarray
  counts: np.ndarray

  @classmethod
  def of(
    cls, labels: np.ndarray, predictions: np.ndarray, num_classes: int
  ) -> 'Confusion':
    """Counts the examples of each true and predicted class; see `confusion_matrix`."""
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.ndim != 1 or labels.shape != predictions.shape:
      raise ValueError(
        f'labels {labels.shape} and predictions {predictions.shape} must be two vectors'
        ' of one length'
      )
    for name, values in (('labels', labels), ('predictions', predictions)):
      if values.size and not 0 <= values.min() <= values.max() < num_classes:
        raise ValueError(
          f'{name} span {values.min()} to {values.max()}, outside [0, {num_classes})'
        )
    places = labels.astype(np.int64) * num_classes + predictions.astype(np.int64)
    cells, counts = np.unique(places, return_counts=True)
    rows, columns = np.divmod(cells, num_classes)
    return cls(num_classes, rows, columns, counts.astype(np.int64))

  @property
  def correct(self) -> int:
    """Examples on the diagonal."""
    return int(self.counts[self.rows == self.columns].sum())

  @property
  def support(self) -> np.ndarray:
    """Examples of each true class, int64 [K]."""
    return self._sums(self.rows)

  @property
  def predicted(self) -> np.ndarray:
    """Examples that were predicted as each class, int64 [K]."""
    return self._sums(self.columns)

  def _sums(self, classes: np.ndarray) -> np.ndarray:
    sums = np.zeros(self.num_classes, np.int64)
    np.add.at(sums, classes, self.counts)
    return sums

  def matrix(self) -> np.ndarray:
    """Returns the whole matrix, int64 [K, K]."""
    matrix = np.zeros((self.num_classes, self.num_classes), np.int64)
    matrix[self.rows, self.columns] = self.counts
    return matrix


def confusion_matrix(
  labels: np.ndarray, predictions: np.ndarray, num_classes: int
) -> np.ndarray:
  """Counts the examples of each true class (row) by predicted class (column).

  Args:
    labels: integer [n], true classes in [0, num_classes).
    predictions: integer [n], predicted classes in the same range.
    num_classes: K.

  Returns:
    int64 [K, K].

  Raises:
    ValueError: the lengths differ or a class is out of range.

  >>> confusion_matrix([0, 0, 1], [0, 1, 1], num_classes=2)
  array([[1, 1],
         [0, 1]])
  """
  return Confusion.of(labels, predictions, num_classes).matrix()


def class_scores(
  labels: np.ndarray,
  predictions: np.ndarray,
  num_classes: int,
  average: Literal['macro', 'weighted'] | None = None,
) -> ClassScores:
  """Computes precision, recall, F1 and support of every class, or their average.

  A class that never occurs, or that is never predicted, scores 0.

  Args:
    labels: integer [n], true classes in [0, num_classes).
    predictions: integer [n], predicted classes in the same range.
    num_classes: K.
    average: None for arrays [K]; 'macro' for the mean over classes; 'weighted' for the
      mean weighted by support, whose recall is the accuracy.

  >>> class_scores([0, 0, 1], [0, 1, 1], num_classes=2).precision
  array([1. , 0.5])
  """
  from sklearn import metrics

  precision, recall, f1, support = metrics.precision_recall_fscore_support(
    labels,
    predictions,
    labels=np.arange(num_classes),
    average=average,
    zero_division=0,
  )
  return ClassScores(precision, recall, f1, len(labels) if average else support)


def top_k_accuracy(probabilities: np.ndarray, labels: np.ndarray, k: int) -> float:
  """Computes the share of examples whose true class is among the k most probable.

  Ties go to the lower class index, as in `argmax` and `jax.lax.top_k`, so that k = 1 is
  the accuracy of `argmax`. (scikit-learn gives them to the higher index.)

  Args:
    probabilities: float [n, K], or any scores that rank the classes.
    labels: integer [n].
    k: at least 1; the result is 1 from k = K on.

  >>> top_k_accuracy(np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]), [0, 2], k=2)
  0.5
  """
  if k < 1:
    raise ValueError(f'k must be at least 1, not {k}')
  labels = np.asarray(labels)
  own = np.take_along_axis(probabilities, labels[:, None], axis=1)
  ahead = (probabilities > own).sum(axis=1)
  earlier = np.arange(probabilities.shape[1]) < labels[:, None]
  ties_ahead = ((probabilities == own) & earlier).sum(axis=1)
  return float(np.mean(ahead + ties_ahead < k))


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
  """Computes the mean of -log p(true class), in nats.

  Probabilities are clipped at the smallest normal float32, so that an example costs at
  most 87 nats. (`sklearn.metrics.log_loss` clips at 1.2e-7: 16 nats.)

  Args:
    probabilities: float [n, K].
    labels: integer [n].
  """
  labels = np.asarray(labels)
  own = np.take_along_axis(probabilities, labels[:, None], axis=1).astype(np.float64)
  return float(np.mean(-np.log(np.maximum(own, np.finfo(np.float32).tiny))))


def accuracy_interval(
  correct: int, total: int, confidence: float = 0.95
) -> tuple[float, float]:
  """Computes the Wilson score interval of an accuracy measured on `total` examples.

  The interval covers the sampling error of the test set. The variation between seeds
  is not part of it.

  References:
    Wilson, "Probable inference, the law of succession, and statistical inference",
    JASA 1927.

  Raises:
    ValueError: there are no examples.

  >>> [round(bound, 3) for bound in accuracy_interval(350, 360)]
  [0.95, 0.985]
  """
  from scipy import stats

  if total < 1:  # newer versions of SciPy do not raise
    raise ValueError('an accuracy of no examples has no interval')
  test = stats.binomtest(correct, total)
  interval = test.proportion_ci(confidence, method='wilson')
  return float(interval.low), float(interval.high)


def most_confused_pairs(
  confusion: Confusion, class_names: Sequence[str], n: int
) -> list[ConfusedPair]:
  """Lists the pairs of classes that are most often confused.

  Args:
    confusion: of K classes.
    class_names: K names.
    n: most pairs to list.

  Returns:
    Pairs with at least one mistake, by falling `count`, ties in the order of classes.

  >>> confusion = Confusion.of([0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 0], num_classes=2)
  >>> pairs = most_confused_pairs(confusion, ['cat', 'dog'], n=5)
  >>> pairs[0].count, pairs[0].first_as_second, round(pairs[0].rate, 3)
  (2, 1, 0.333)
  """
  wrong = confusion.rows != confusion.columns
  true, predicted = confusion.rows[wrong], confusion.columns[wrong]
  counts, number = confusion.counts[wrong], confusion.num_classes
  place = np.minimum(true, predicted) * number + np.maximum(true, predicted)
  pairs, pair_of = np.unique(place, return_inverse=True)
  directions = np.zeros((len(pairs), 2), np.int64)
  directions[pair_of, (true > predicted).astype(int)] = counts
  support = confusion.support
  order = np.argsort(-directions.sum(axis=1), kind='stable')[:n]
  return [
    ConfusedPair(
      first=class_names[i],
      second=class_names[j],
      count=forth + back,
      first_as_second=forth,
      second_as_first=back,
      rate=float((forth + back) / (support[i] + support[j])),
    )
    for (i, j), (forth, back) in zip(
      np.stack(np.divmod(pairs[order], number), axis=1).tolist(),
      directions[order].tolist(),
    )
  ]


def worst_mistakes(
  probabilities: np.ndarray, labels: np.ndarray, n: int
) -> list[Mistake]:
  """Lists the wrong predictions made with the most confidence.

  Args:
    probabilities: float [n, K].
    labels: integer [n].
    n: most mistakes to list.

  Returns:
    Mistakes by falling confidence, ties in the order of the split.
  """
  labels = np.asarray(labels)
  predictions = probabilities.argmax(axis=1)
  wrong = np.flatnonzero(predictions != labels)
  confidence = probabilities[wrong, predictions[wrong]]
  order = wrong[np.argsort(-confidence, kind='stable')[:n]]
  return [
    Mistake(
      index=i,
      true=int(labels[i]),
      predicted=int(predictions[i]),
      confidence=float(probabilities[i, predictions[i]]),
      true_probability=float(probabilities[i, labels[i]]),
    )
    for i in order.tolist()
  ]


def representative_mistakes(
  probabilities: np.ndarray, labels: np.ndarray, n: int, most_confident: int
) -> list[Mistake]:
  """Lists mistakes of every true class and of every frequent pair of classes.

  They are chosen in this order: the most confident of all, the most confident of each
  true class, the two most confident of each pair (true, predicted) from the most
  frequent pair on, and the rest by confidence.

  Args:
    probabilities: float [n, K].
    labels: integer [n].
    n: most mistakes to list.
    most_confident: how many to choose by confidence alone.

  Returns:
    Mistakes by falling confidence.
  """
  ranked = worst_mistakes(probabilities, labels, len(labels))
  classes: dict[int, list[int]] = {}
  pairs: dict[tuple[int, int], list[int]] = {}
  for place, mistake in enumerate(ranked):
    classes.setdefault(mistake.true, []).append(place)
    pairs.setdefault((mistake.true, mistake.predicted), []).append(place)
  frequent = sorted(pairs.values(), key=len, reverse=True)
  wanted = [
    *range(min(most_confident, len(ranked))),
    *(places[0] for places in classes.values()),
    *(place for places in frequent for place in places[:2]),
    *range(len(ranked)),
  ]
  chosen = list(dict.fromkeys(wanted))[:n]
  return [ranked[place] for place in sorted(chosen)]


def confusion_order(confusion: np.ndarray) -> np.ndarray:
  """Orders classes such that confused classes are neighbours.

  Hierarchical clustering (average linkage) of the distance
  1 - (p(j | i) + p(i | j)) / 2, where p(j | i) is the share of class i predicted as j,
  with optimal leaf ordering up to 300 classes (above it takes minutes).

  Args:
    confusion: integer [K, K], rows are the true classes.

  Returns:
    int64 [K], a permutation.

  References:
    Bar-Joseph et al., "Fast optimal leaf ordering for hierarchical clustering",
    Bioinformatics 2001.

  >>> order = confusion_order(np.array([[5, 0, 3], [0, 9, 0], [4, 0, 5]])).tolist()
  >>> abs(order.index(0) - order.index(2))
  1
  """
  number = len(confusion)
  if number < 3:
    return np.arange(number)
  from scipy.cluster import hierarchy

  share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
  distance = 1 - (share + share.T) / 2
  condensed = distance[np.triu_indices(number, k=1)]
  tree = hierarchy.linkage(condensed, 'average', optimal_ordering=number <= 300)
  return hierarchy.leaves_list(tree).astype(np.int64)


def reliability(
  probabilities: np.ndarray, labels: np.ndarray, bins: int = 15
) -> Reliability:
  """Bins the predictions by confidence (the probability of the predicted class).

  Args:
    probabilities: float [n, K].
    labels: integer [n].
    bins: number of bins of equal width over (0, 1].

  References:
    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 2.
  """
  confidence = probabilities.max(axis=1).astype(np.float64)
  right = probabilities.argmax(axis=1) == np.asarray(labels)
  edges = np.linspace(0, 1, bins + 1)
  # On the inner edges only: float32 may round a confidence to a hair above 1.
  index = np.searchsorted(edges[1:-1], confidence, side='left')
  count = np.bincount(index, minlength=bins)
  some = np.where(count, count, np.nan)
  return Reliability(
    edges=edges,
    count=count,
    confidence=np.bincount(index, confidence, minlength=bins) / some,
    accuracy=np.bincount(index, right, minlength=bins) / some,
  )


def expected_calibration_error(
  probabilities: np.ndarray, labels: np.ndarray, bins: int = 15
) -> float:
  """Computes the expected calibration error (ECE), over bins of equal width.

      ECE = sum_b (count_b / n) |accuracy_b - confidence_b|

  Args:
    probabilities: float [n, K], n at least 1.
    labels: integer [n].
    bins: number of bins; published numbers use 15.

  References:
    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.

  >>> round(expected_calibration_error(np.array([[0.9, 0.1], [0.9, 0.1]]), [0, 1]), 6)
  0.4
  """
  binned = reliability(probabilities, labels, bins)
  gap = np.abs(binned.accuracy - binned.confidence)
  return float(np.nansum(gap * binned.count) / binned.count.sum())
