"""Metrics against scikit-learn, over ties, unseen classes, K = 2 and K = 100."""

import collections
import itertools

import numpy as np
import pytest
import sklearn.calibration
import sklearn.metrics

from jaxvision.metrics import classification


def _sample(num_classes, examples, seed=0, classes_seen=None):
  """Labels and softmax probabilities of a classifier better than chance."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, classes_seen or num_classes, examples).astype(np.int32)
  logits = rng.normal(size=(examples, num_classes))
  logits[np.arange(examples), labels] += 1.5
  weights = np.exp(logits)
  return labels, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


CASES = {
  'two classes': (2, 300, 2),
  'ten classes': (10, 500, 10),
  'hundred classes': (100, 2000, 100),
  'classes that never occur': (12, 200, 7),
  'fewer examples than classes': (100, 30, 100),
  'one example': (5, 1, 5),
}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request):
  num_classes, examples, seen = request.param
  return num_classes, *_sample(num_classes, examples, classes_seen=seen)


def test_confusion_matrix_equals_sklearn(case):
  num_classes, labels, probabilities = case
  predictions = probabilities.argmax(axis=1)
  ours = classification.confusion_matrix(labels, predictions, num_classes)
  theirs = sklearn.metrics.confusion_matrix(
    labels, predictions, labels=range(num_classes)
  )
  assert ours.dtype == np.int64
  np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize('dtype', [np.uint8, np.int32, np.int64])
def test_confusion_matrix_does_not_overflow_small_integers(dtype):
  labels = np.array([99, 99, 0], dtype)
  matrix = classification.confusion_matrix(labels, np.array([99, 0, 99], dtype), 100)
  assert (matrix[99, 99], matrix[99, 0], matrix[0, 99]) == (1, 1, 1)
  assert matrix.sum() == 3


@pytest.mark.parametrize(
  ('labels', 'predictions'),
  [([0, 3], [0, 0]), ([0, 0], [0, -1]), ([0, 0], [0]), ([[0]], [[0]])],
)
def test_confusion_matrix_refuses_what_does_not_fit(labels, predictions):
  with pytest.raises(ValueError):
    classification.confusion_matrix(np.array(labels), np.array(predictions), 3)


def test_scores_are_shares_of_the_confusion_matrix(case):
  num_classes, labels, probabilities = case
  predictions = probabilities.argmax(axis=1)
  confusion = classification.confusion_matrix(labels, predictions, num_classes)
  right, support = np.diagonal(confusion), confusion.sum(axis=1)
  predicted = confusion.sum(axis=0)
  scores = classification.class_scores(labels, predictions, num_classes)
  np.testing.assert_array_equal(scores.support, support)
  for ours, numerator, denominator in (
    (scores.precision, right, predicted),
    (scores.recall, right, support),
    (scores.f1, 2 * right, support + predicted),
  ):
    # A class that never occurs or is never predicted scores 0.
    expected = np.where(denominator, numerator / np.maximum(denominator, 1), 0)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)
  for average, weights in (('macro', None), ('weighted', support)):
    ours = classification.class_scores(labels, predictions, num_classes, average)
    for name in ('precision', 'recall', 'f1'):
      expected = np.average(getattr(scores, name), weights=weights)
      assert getattr(ours, name) == pytest.approx(expected, rel=1e-12)
    assert ours.support == len(labels)
  assert ours.recall == pytest.approx(np.mean(predictions == labels))


@pytest.mark.parametrize('k', [1, 2, 5])
def test_top_k_accuracy_equals_sklearn(case, k):
  num_classes, labels, probabilities = case
  ours = classification.top_k_accuracy(probabilities, labels, k)
  if k >= num_classes:
    assert ours == 1
    return
  # For two classes scikit-learn wants the score of the second alone.
  scores = probabilities[:, 1] - 0.5 if num_classes == 2 else probabilities
  theirs = sklearn.metrics.top_k_accuracy_score(
    labels, scores, k=k, labels=range(num_classes)
  )
  assert ours == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize('k', [1, 2, 3, 4])
def test_top_k_accuracy_gives_ties_to_the_lower_class(k):
  rng = np.random.default_rng(3)
  labels = rng.integers(0, 6, 400)
  tied = rng.integers(0, 3, (400, 6)) / 4
  ours = classification.top_k_accuracy(tied, labels, k)
  # scikit-learn gives them to the higher one: mirrored classes must agree.
  theirs = sklearn.metrics.top_k_accuracy_score(
    5 - labels, tied[:, ::-1], k=k, labels=range(6)
  )
  assert ours == pytest.approx(theirs, abs=1e-12)
  if k == 1:
    assert ours == pytest.approx(np.mean(tied.argmax(axis=1) == labels))


def test_top_k_accuracy_refuses_no_choice():
  with pytest.raises(ValueError, match='at least 1'):
    classification.top_k_accuracy(np.eye(2), np.array([0, 1]), k=0)


def test_log_loss_equals_sklearn(case):
  num_classes, labels, probabilities = case
  exact = probabilities.astype(np.float64)
  exact /= exact.sum(axis=1, keepdims=True)
  theirs = sklearn.metrics.log_loss(labels, exact, labels=range(num_classes))
  assert classification.log_loss(probabilities, labels) == pytest.approx(
    theirs, rel=1e-5
  )


def test_log_loss_of_a_certain_mistake_is_finite():
  loss = classification.log_loss(np.array([[1, 0]], np.float32), np.array([1]))
  assert loss == pytest.approx(-np.log(np.finfo(np.float32).tiny))


def test_accuracy_interval_holds_the_accuracy_and_shrinks():
  # The textbook value: 8 of 10 gives 0.490 to 0.943.
  assert classification.accuracy_interval(8, 10) == pytest.approx(
    (0.4902, 0.9433), abs=1e-4
  )
  small, large = (
    classification.accuracy_interval(80, 100),
    classification.accuracy_interval(800, 1000),
  )
  assert small[0] < large[0] < 0.8 < large[1] < small[1]
  low, high = classification.accuracy_interval(7, 7)
  assert 0.6 < low < 0.7
  assert high == 1
  with pytest.raises(ValueError):
    classification.accuracy_interval(0, 0)


def of_matrix(matrix):
  """Returns the `Confusion` of a matrix."""
  labels, predictions = np.nonzero(matrix)
  counts = matrix[labels, predictions]
  return classification.Confusion.of(
    np.repeat(labels, counts), np.repeat(predictions, counts), len(matrix)
  )


def test_most_confused_pairs_counts_both_directions():
  matrix = np.array([[9, 1, 0, 0], [4, 5, 0, 0], [3, 0, 7, 0], [2, 0, 0, 0]])
  confusion = of_matrix(matrix)
  pairs = classification.most_confused_pairs(confusion, ['a', 'b', 'c', 'd'], n=10)
  assert [(p.first, p.second, p.count) for p in pairs] == [
    ('a', 'b', 5),
    ('a', 'c', 3),
    ('a', 'd', 2),
  ]
  assert (pairs[0].first_as_second, pairs[0].second_as_first) == (1, 4)
  assert pairs[0].rate == pytest.approx(5 / 19)
  assert classification.most_confused_pairs(confusion, 'abcd', n=1) == pairs[:1]
  assert (
    classification.most_confused_pairs(of_matrix(np.eye(4, dtype=int)), 'abcd', n=5)
    == []
  )


def test_most_confused_pairs_account_for_every_mistake(case):
  num_classes, labels, probabilities = case
  confusion = classification.Confusion.of(
    labels, probabilities.argmax(axis=1), num_classes
  )
  names = [f'class {i}' for i in range(num_classes)]
  pairs = classification.most_confused_pairs(confusion, names, num_classes**2)
  assert sum(pair.count for pair in pairs) == len(labels) - confusion.correct
  # As of the whole matrix, ties in the order of classes.
  matrix = confusion.matrix()
  expected = sorted(
    (-(matrix[i, j] + matrix[j, i]), i, j)
    for i in range(num_classes)
    for j in range(i + 1, num_classes)
    if matrix[i, j] + matrix[j, i]
  )
  assert [(-pair.count, pair.first, pair.second) for pair in pairs] == [
    (count, names[i], names[j]) for count, i, j in expected
  ]


def test_confusion_of_100_000_classes_takes_no_matrix():
  labels = np.arange(0, 100_000, 10)
  predictions = np.where(labels % 100, labels, 99_999)
  confusion = classification.Confusion.of(labels, predictions, 100_000)
  assert len(confusion.counts) == len(labels)
  assert confusion.correct == 9000
  assert confusion.predicted[99_999] == 1000
  np.testing.assert_array_equal(confusion.support, np.arange(100_000) % 10 == 0)
  pairs = classification.most_confused_pairs(confusion, range(100_000), n=3)
  assert [(p.first, p.second, p.count) for p in pairs] == [
    (0, 99_999, 1),
    (100, 99_999, 1),
    (200, 99_999, 1),
  ]


def test_worst_mistakes_lists_the_surest_first_and_ties_in_order():
  probabilities = np.array(
    [[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.2, 0.8], [0.6, 0.4]], np.float32
  )
  mistakes = classification.worst_mistakes(
    probabilities, np.array([0, 0, 0, 0, 1]), n=10
  )
  assert [mistake.index for mistake in mistakes] == [1, 3, 2, 4]
  assert (mistakes[0].true, mistakes[0].predicted) == (0, 1)
  assert mistakes[0].confidence == pytest.approx(0.8)
  assert mistakes[0].true_probability == pytest.approx(0.2)
  assert (
    len(classification.worst_mistakes(probabilities, np.array([0, 0, 0, 0, 1]), 2)) == 2
  )


def test_reliability_equals_sklearn(case):
  _, labels, probabilities = case
  binned = classification.reliability(probabilities, labels)
  right = probabilities.argmax(axis=1) == labels
  accuracy, confidence = sklearn.calibration.calibration_curve(
    right, probabilities.max(axis=1).astype(np.float64), n_bins=15, pos_label=True
  )
  some = binned.count > 0
  assert binned.count.sum() == len(labels)
  np.testing.assert_allclose(binned.accuracy[some], accuracy, rtol=1e-12)
  np.testing.assert_allclose(binned.confidence[some], confidence, rtol=1e-12)
  assert np.isnan(binned.accuracy[~some]).all()


def test_calibration_error_of_known_cases():
  certain = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
  error = classification.expected_calibration_error
  assert error(certain, np.array([0, 1, 2, 0])) == 0
  assert error(certain, np.array([1, 2, 0, 1])) == 1
  # Half the examples at 0.95, all right: gap 0.05. Half at 0.55, none right: 0.55.
  probabilities = np.repeat([[0.95, 0.05], [0.55, 0.45]], 10, axis=0)
  labels = np.repeat([0, 1], 10)
  assert error(probabilities, labels) == pytest.approx(0.3)
  # A confidence that float32 rounded above 1 belongs to the last bin.
  assert error(np.array([[1.0000001, 0.0]]), np.array([0])) == pytest.approx(
    0, abs=1e-6
  )


def test_representative_mistakes_show_every_class_and_the_frequent_pairs():
  rng = np.random.default_rng(3)
  labels = rng.integers(0, 8, 400)
  probabilities = rng.dirichlet(np.full(8, 0.3), 400)
  probabilities[labels == 5, 5] *= 0.01  # nearly always wrong, and never sure of it
  probabilities[labels == 5] = 0.7 * probabilities[labels == 5] + 0.3 / 8
  every = classification.worst_mistakes(probabilities, labels, 400)
  chosen = classification.representative_mistakes(probabilities, labels, 60, 10)
  assert len(chosen) == 60
  assert chosen[:10] == every[:10]
  assert [m.confidence for m in chosen] == sorted(
    (m.confidence for m in chosen), reverse=True
  )
  assert {m.true for m in chosen} == {m.true for m in every}
  pairs = collections.Counter((m.true, m.predicted) for m in every)
  for pair, count in pairs.most_common(5):
    shown = [m for m in chosen if (m.true, m.predicted) == pair]
    first = [m for m in every if (m.true, m.predicted) == pair][:2]
    assert shown[: len(first)] == first
    assert count >= 2
  # Where all fit, all are there.
  assert classification.representative_mistakes(probabilities, labels, 400, 10) == every


def test_confused_classes_stand_side_by_side():
  confusion = np.diag(np.full(12, 50))
  groups = [(0, 7, 3), (5, 11), (2, 9)]
  for group in groups:
    for i, j in itertools.permutations(group, 2):
      confusion[i, j] = 20
  confusion[4] = 0  # a class without examples
  order = classification.confusion_order(confusion).tolist()
  assert sorted(order) == list(range(12))
  for group in groups:
    places = sorted(order.index(i) for i in group)
    assert places[-1] - places[0] == len(group) - 1
  assert classification.confusion_order(np.zeros((2, 2), int)).tolist() == [0, 1]
