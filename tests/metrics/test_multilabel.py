"""Metrics of multi-label classification against values worked out by hand."""

import numpy as np
import pytest

from jaxvision.metrics import multilabel

# Ranked by probability, label 0 reads 1 0 1 0, label 1 reads 0 1 0 0.
LABELS = np.array([[1, 0], [0, 1], [1, 0], [0, 0]])
PROBABILITIES = np.array([[0.9, 0.8], [0.7, 0.6], [0.4, 0.3], [0.2, 0.1]], np.float32)


def test_scores_of_each_label():
  scores = multilabel.label_scores(LABELS, PROBABILITIES)
  # Label 0: precision 1/1 at the first positive, 2/3 at the second.
  assert scores.average_precision == pytest.approx([(1 + 2 / 3) / 2, 1 / 2])
  # Of the pairs of a positive and a negative, 3 of 4 and 2 of 3 are in order.
  assert scores.auroc == pytest.approx([3 / 4, 2 / 3])
  assert scores.precision == pytest.approx([1 / 2, 1 / 2])
  assert scores.recall == pytest.approx([1 / 2, 1])
  assert scores.f1 == pytest.approx([1 / 2, 2 / 3])
  assert scores.support.tolist() == [2, 1]
  assert scores.predicted.tolist() == [2, 2]


def test_averages_over_labels():
  scores = multilabel.label_scores(LABELS, PROBABILITIES)
  assert multilabel.macro_average(scores.average_precision) == pytest.approx(2 / 3)
  # All eight in one ranking: 1 0 0 1 1 0 0 0.
  micro = multilabel.micro_average_precision(LABELS, PROBABILITIES)
  assert micro == pytest.approx((1 + 2 / 4 + 3 / 5) / 3)


def test_wrong_labels_of_examples():
  # Predicted: [1 1], [1 1], [0 0], [0 0].
  wrong = multilabel.wrong_labels(LABELS, PROBABILITIES)
  assert wrong.tolist() == [1, 1, 1, 0]
  assert multilabel.exact_match(LABELS, PROBABILITIES) == 1 / 4
  assert multilabel.hamming_loss(LABELS, PROBABILITIES) == 3 / 8
  # One wrong label each, at distances from the labels of 0.9, 1.1 and 0.9.
  worst = multilabel.worst_examples(LABELS, PROBABILITIES, n=5)
  assert worst[0] == 1
  assert sorted(worst) == [0, 1, 2]
  assert multilabel.worst_examples(LABELS, PROBABILITIES, n=1) == [1]


def test_examples_with_more_wrong_labels_come_first():
  labels = np.array([[1, 0], [0, 0], [0, 0]])
  probabilities = np.array([[0.4, 0.6], [0.99, 0.0], [0.0, 0.0]])
  assert multilabel.worst_examples(labels, probabilities, n=5) == [0, 1]


def test_labels_of_one_value_have_no_auroc():
  labels = np.array([[0, 1], [0, 1]])
  probabilities = np.array([[0.2, 0.9], [0.1, 0.4]])
  scores = multilabel.label_scores(labels, probabilities)
  assert np.isnan(scores.auroc).all()
  assert np.isnan(scores.average_precision[0])
  assert scores.average_precision[1] == 1
  assert scores.recall.tolist() == [0, 0.5]
  assert np.isnan(multilabel.macro_average(scores.auroc))
  assert multilabel.macro_average(scores.average_precision) == 1
  assert np.isnan(
    multilabel.micro_average_precision(labels[:, :1], probabilities[:, :1])
  )


def test_one_example():
  scores = multilabel.label_scores(np.array([[1, 0]]), np.array([[0.9, 0.2]]))
  assert scores.f1.tolist() == [1, 0]
  assert scores.support.tolist() == scores.predicted.tolist() == [1, 0]
