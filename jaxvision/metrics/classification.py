"""What a classifier got right and wrong, as pure functions of NumPy arrays.

Everything here takes the whole split at once (labels int [n], probabilities float
[n, K]) and follows scikit-learn's definitions, with `zero_division=0`: a class that
never occurs, or that was never predicted, scores 0 rather than NaN.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class ClassScores:
  """Scores of every class, or (as scalars) their average over the classes.

  Attributes:
    precision: float64 [K]; of the examples called this class, the share that is.
    recall: float64 [K]; of the examples of this class, the share that was found.
    f1: float64 [K]; the harmonic mean of precision and recall.
    support: int64 [K]; the number of examples of this class.
  """

  precision: np.ndarray
  recall: np.ndarray
  f1: np.ndarray
  support: np.ndarray


@dataclasses.dataclass(frozen=True)
class ConfusedPair:
  """Two classes taken for each other; `first` has the lower index.

  Attributes:
    first, second: names of the classes.
    count: mistakes in both directions.
    first_as_second: examples of `first` that were called `second`.
    second_as_first: the other way round.
    rate: `count` over the number of examples of the two classes.
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
    confidence: probability given to `predicted`.
    true_probability: probability given to `true`.
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
    edges: float64 [bins + 1]; bin i holds confidences in (edges[i], edges[i + 1]].
    count: int64 [bins]; examples in the bin.
    confidence: float64 [bins]; their mean confidence, NaN where there are none.
    accuracy: float64 [bins]; the share of them that is right, NaN likewise.
  """

  edges: np.ndarray
  count: np.ndarray
  confidence: np.ndarray
  accuracy: np.ndarray


def confusion_matrix(
  labels: np.ndarray, predictions: np.ndarray, num_classes: int
) -> np.ndarray:
  """Counts how often each true class (row) was called each class (column).

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
  # int64 first: the product would overflow a uint8 or int32 of many classes.
  cells = labels.astype(np.int64) * num_classes + predictions.astype(np.int64)
  counts = np.bincount(cells, minlength=num_classes * num_classes)
  return counts.reshape(num_classes, num_classes).astype(np.int64)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
  """Divides, with 0 where the denominator is 0."""
  result = np.zeros(np.shape(denominator), np.float64)
  return np.divide(numerator, denominator, out=result, where=denominator != 0)


def class_scores(confusion: np.ndarray) -> ClassScores:
  """Computes precision, recall, F1 and support of every class.

  Args:
    confusion: integer [K, K], rows are the true classes.

  Returns:
    ClassScores of arrays [K].

  >>> class_scores(np.array([[1, 1], [0, 1]])).precision
  array([1. , 0.5])
  """
  right = np.diagonal(confusion)
  support = confusion.sum(axis=1)
  predicted = confusion.sum(axis=0)
  return ClassScores(
    precision=_ratio(right, predicted),
    recall=_ratio(right, support),
    # 2 tp / (2 tp + fp + fn), which unlike 2pr / (p + r) needs no second guard.
    f1=_ratio(2 * right, support + predicted),
    support=support,
  )


def macro_average(scores: ClassScores) -> ClassScores:
  """Averages over the classes, each counting the same; support is the total."""
  return _average(scores, np.ones(len(scores.support)))


def weighted_average(scores: ClassScores) -> ClassScores:
  """Averages over the classes, each by its support; recall is then the accuracy."""
  return _average(scores, scores.support)


def _average(scores: ClassScores, weights: np.ndarray) -> ClassScores:
  total = weights.sum()
  return ClassScores(
    precision=_ratio(scores.precision @ weights, total),
    recall=_ratio(scores.recall @ weights, total),
    f1=_ratio(scores.f1 @ weights, total),
    support=scores.support.sum(),
  )


def top_k_accuracy(probabilities: np.ndarray, labels: np.ndarray, k: int) -> float:
  """Computes the share of examples whose true class is among the k most probable.

  Equal probabilities rank by class index, the lowest first, as `argmax` and
  `jax.lax.top_k` do; k = 1 is therefore exactly the accuracy of `argmax`.

  Args:
    probabilities: float [n, K]; any scores that rank the classes will do.
    labels: integer [n].
    k: at least 1; from K on, the result is 1.

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


def cross_entropy(probabilities: np.ndarray, labels: np.ndarray) -> float:
  """Computes the mean of -log p(true class), in nats.

  A probability that float32 rounded to 0 counts as the smallest normal float32,
  so one hopeless example costs 87 nats and not infinity.

  Args:
    probabilities: float [n, K].
    labels: integer [n].
  """
  labels = np.asarray(labels)
  own = np.take_along_axis(probabilities, labels[:, None], axis=1).astype(np.float64)
  return float(np.mean(-np.log(np.maximum(own, np.finfo(np.float32).tiny))))


def accuracy_interval(
  correct: int, total: int, z: float = 1.959964
) -> tuple[float, float]:
  """Computes the Wilson score interval of an accuracy measured on `total` examples.

  It tells how far the test set's size alone lets the accuracy move (95 % for the
  default z); the spread between seeds comes on top of it.

  References:
    Wilson, "Probable inference, the law of succession, and statistical inference",
    JASA 1927.

  >>> [round(bound, 3) for bound in accuracy_interval(350, 360)]
  [0.95, 0.985]
  """
  if not 0 <= correct <= total or not total:
    raise ValueError(f'{correct} right of {total} examples is no accuracy')
  share = correct / total
  scale = 1 + z**2 / total
  centre = (share + z**2 / (2 * total)) / scale
  spread = z * np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2)) / scale
  return max(0.0, float(centre - spread)), min(1.0, float(centre + spread))


def most_confused_pairs(
  confusion: np.ndarray, class_names: Sequence[str], n: int
) -> list[ConfusedPair]:
  """Lists the pairs of classes most often taken for each other.

  Args:
    confusion: integer [K, K], rows are the true classes.
    class_names: K names.
    n: at most so many pairs.

  Returns:
    Pairs with at least one mistake, the most mistakes first; equal counts in the
    order of the classes.

  >>> pairs = most_confused_pairs(np.array([[3, 1], [2, 4]]), ['cat', 'dog'], n=5)
  >>> pairs[0].count, pairs[0].first_as_second, pairs[0].rate
  (3, 1, 0.3)
  """
  rows, columns = np.triu_indices(len(confusion), k=1)
  counts = confusion[rows, columns] + confusion[columns, rows]
  support = confusion.sum(axis=1)
  order = np.argsort(-counts, kind='stable')[:n]
  return [
    ConfusedPair(
      first=class_names[i],
      second=class_names[j],
      count=int(confusion[i, j] + confusion[j, i]),
      first_as_second=int(confusion[i, j]),
      second_as_first=int(confusion[j, i]),
      rate=float((confusion[i, j] + confusion[j, i]) / (support[i] + support[j])),
    )
    for i, j in zip(rows[order].tolist(), columns[order].tolist())
    if confusion[i, j] + confusion[j, i]
  ]


def worst_mistakes(
  probabilities: np.ndarray, labels: np.ndarray, n: int
) -> list[Mistake]:
  """Lists the wrong predictions made with the most confidence.

  Args:
    probabilities: float [n, K].
    labels: integer [n].
    n: at most so many.

  Returns:
    Mistakes, the most confident first; equal confidence in the order of the split.
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


def telling_mistakes(
  probabilities: np.ndarray, labels: np.ndarray, n: int, surest: int
) -> list[Mistake]:
  """Lists mistakes that show every kind of them: what a reader can look for is there.

  First the most confident of all, then the most confident of each true class, then
  the two most confident of each pair (true, predicted), the most frequent pairs first.

  Args:
    probabilities: float [n, K].
    labels: integer [n].
    n: at most so many, all mistakes where there are no more.
    surest: how many come by their confidence alone.

  Returns:
    Mistakes, the most confident first.
  """
  ranked = worst_mistakes(probabilities, labels, len(labels))
  classes: dict[int, list[int]] = {}
  pairs: dict[tuple[int, int], list[int]] = {}
  for place, mistake in enumerate(ranked):
    classes.setdefault(mistake.true, []).append(place)
    pairs.setdefault((mistake.true, mistake.predicted), []).append(place)
  frequent = sorted(pairs.values(), key=len, reverse=True)
  wanted = [
    *range(min(surest, len(ranked))),
    *(places[0] for places in classes.values()),
    *(place for places in frequent for place in places[:2]),
    *range(len(ranked)),
  ]
  chosen = list(dict.fromkeys(wanted))[:n]
  return [ranked[place] for place in sorted(chosen)]


def confusion_order(confusion: np.ndarray) -> np.ndarray:
  """Orders classes so that those taken for each other stand side by side.

  Average linkage over 1 - (share of i called j + share of j called i) / 2, with the
  leaves in the order of least distance between neighbours; above 300 classes, where
  that takes minutes, as the clustering left them.

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
  from scipy.cluster import hierarchy  # here: a report is all that needs it

  share = _ratio(
    confusion, np.broadcast_to(confusion.sum(axis=1)[:, None], confusion.shape)
  )
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
  """Computes the mean gap between accuracy and confidence, over bins of confidence.

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
