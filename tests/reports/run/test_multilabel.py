"""The report of a multi-label run: numbers, dashes, names that are markup."""

import numpy as np
import pytest
from report_samples import (
  CONFIG,
  HISTORY,
  HOSTILE,
  SUMMARY,
  assert_readable,
  checked_report,
)

from jaxvision.reports import html
from jaxvision.reports.run import multilabel


def outputs(count, examples=60):
  rng = np.random.default_rng(0)
  labels = (rng.random((examples, count)) < 0.3).astype(np.float32)
  logits = rng.normal(size=labels.shape) + 2 * labels - 1
  return labels, (1 / (1 + np.exp(-logits))).astype(np.float32)


def write(directory, labels, probabilities, names=None, **changes):
  arguments = {
    'summary': SUMMARY,
    'config': CONFIG,
    'history': [],
    'class_names': names or [f'label {i}' for i in range(np.shape(labels)[1])],
    'image_at': lambda i: np.full((8, 8, 1), i % 256, np.uint8),
    'split': 'test',
  }
  return multilabel.write_report(
    directory, labels=labels, probabilities=probabilities, **{**arguments, **changes}
  )


@pytest.mark.parametrize('count', [2, 5, 40])
def test_report_is_complete(tmp_path, count):
  labels, probabilities = outputs(count)
  path = write(tmp_path, labels, probabilities, history=HISTORY)
  pictures = ['average_precision.png', 'curves.png', 'worst_examples.png']
  page, record = checked_report(path, pictures)
  assert record['examples'] == 60
  assert record['num_labels'] == len(record['per_label']) == count
  wrong = (labels > 0.5) != (probabilities > 0.5)
  assert record['hamming_loss'] == pytest.approx(wrong.mean())
  assert record['exact_match'] == pytest.approx(np.mean(~wrong.any(1)))
  precisions = [row['average_precision'] for row in record['per_label']]
  assert record['map_macro'] == pytest.approx(np.mean(precisions))
  assert 0 < record['map_micro'] < 1
  assert [row['support'] for row in record['per_label']] == labels.sum(0).tolist()
  counts = [row['wrong_labels'] for row in record['worst_examples']]
  assert counts == sorted(counts, reverse=True)
  assert counts[0] == wrong.sum(1).max()
  assert html.number(record['map_macro'], '.4f') in page.text
  assert f'{counts[0]} of {count} wrong' in page.text
  assert 'micro mAP' in page.text


def test_labels_that_no_example_has(tmp_path):
  labels, probabilities = np.zeros((3, 2)), np.full((3, 2), 0.1)
  path = write(tmp_path, labels, probabilities)
  page, record = checked_report(path, ['average_precision.png'])
  assert record['map_macro'] is None
  assert record['map_micro'] is None
  assert record['per_label'][0]['auroc'] is None
  assert record['exact_match'] == 1
  assert record['worst_examples'] == []
  assert 'all labels of all 3 examples are right' in page.text
  assert f'<strong>{html.MISSING}</strong>' in page.source


def test_one_example_of_one_label(tmp_path):
  path = write(tmp_path, np.array([[1]]), np.array([[0.2]]))
  page, record = checked_report(path, ['average_precision.png', 'worst_examples.png'])
  assert record['map_macro'] == 1
  assert record['exact_match'] == 0
  assert 'missed: label 0' in page.text


def test_names_cannot_break_out(tmp_path, browser):
  labels, probabilities = outputs(3)
  path = write(tmp_path, labels, probabilities, HOSTILE, notes=HOSTILE[:1])
  page, record = checked_report(path, ['average_precision.png', 'worst_examples.png'])
  assert all(name in page.text for name in HOSTILE)
  assert [row['label'] for row in record['per_label']] == HOSTILE
  assert_readable(browser, path, HOSTILE)


def test_arrays_that_do_not_fit_are_refused(tmp_path):
  labels, probabilities = outputs(3)
  for one, other in (
    (labels[:0], probabilities[:0]),
    (labels, probabilities[:, :2]),
    (labels, probabilities * np.nan),
  ):
    with pytest.raises(ValueError, match='labels and probabilities'):
      write(tmp_path, one, other)
  assert not (tmp_path / 'report').exists()
