"""The report of a regression run: numbers, dashes, names that are markup."""

import numpy as np
import pytest
from report_samples import CONFIG, HISTORY, HOSTILE, SUMMARY, assert_readable
from report_samples import checked_report as checked

from jaxvision.reports.run import regression, regression_plots

PICTURES = ['predicted_against_true.png', 'residuals.png', 'worst_examples.png']


def outputs(count, examples=60):
  rng = np.random.default_rng(0)
  targets = rng.normal(size=(examples, count)) * 10.0 ** np.arange(count)
  return targets, targets + 0.3 * rng.normal(size=targets.shape) * targets.std(0)


def write(directory, targets, predictions, names=None, **changes):
  count = 1 if np.ndim(targets) == 1 else np.shape(targets)[1]
  arguments = {
    'summary': SUMMARY,
    'config': CONFIG,
    'history': [],
    'names': names or [f'output {i}' for i in range(count)],
    'image_at': lambda i: np.full((8, 8, 1), i % 256, np.uint8),
    'split': 'test',
  }
  return regression.write_report(
    directory, targets=targets, predictions=predictions, **{**arguments, **changes}
  )


@pytest.mark.parametrize('count', [1, 3, pytest.param(14, marks=pytest.mark.slow)])
def test_report_is_complete(tmp_path, count):
  targets, predictions = outputs(count)
  history = [
    {**{k: v for k, v in point.items() if k != 'accuracy'}, 'mean_absolute_error': 1.0}
    for point in HISTORY
  ]
  path = write(tmp_path, targets, predictions, history=history)
  page, record = checked(path, [*PICTURES, 'curves.png'])
  assert record['examples'] == 60
  assert record['num_outputs'] == len(record['per_output']) == count
  error = np.abs(predictions - targets)
  assert record['mae'] == pytest.approx(error.mean())
  assert [row['mae'] for row in record['per_output']] == pytest.approx(error.mean(0))
  assert all(0.8 < row['r2'] < 1 for row in record['per_output'])
  assert all(0.9 < row['pearson'] < 1 for row in record['per_output'])
  worst = record['worst_examples'][0]
  assert worst['target'] == pytest.approx(targets[worst['index']])
  scaled = (error / targets.std(0)).mean(1)
  assert worst['index'] == scaled.argmax()
  assert ('The first 12 outputs' in page.text) == (count == 14)


def test_one_number_per_image(tmp_path):
  path = write(tmp_path, np.array([1.0, 2.0]), np.array([1.5, 2.0], np.float32))
  _, record = checked(path, PICTURES)
  assert record['mae'] == 0.25


@pytest.mark.parametrize('examples', [1, 5])
def test_constant_targets(tmp_path, examples):
  targets = np.full((examples, 1), 7.0)
  page, record = checked(write(tmp_path, targets, targets), PICTURES)
  assert record['mae'] == record['rmse'] == 0
  assert record['r2'] is None
  assert record['pearson'] is None
  assert 'inf' not in page.text.split()


def test_names_cannot_break_out(tmp_path, browser):
  path = write(tmp_path, *outputs(3), HOSTILE, notes=HOSTILE[:1])
  page, record = checked(path, PICTURES)
  assert all(name in page.text for name in HOSTILE)
  assert [row['output'] for row in record['per_output']] == HOSTILE
  assert_readable(browser, path, HOSTILE)


def test_charts_hold_the_values():
  targets, predictions = outputs(2)
  names = ['a', 'b']
  left, right = regression_plots.scatter(targets, predictions, names).axes
  points = left.collections[0].get_offsets()
  assert np.asarray(points) == pytest.approx(
    np.stack([targets[:, 0], predictions[:, 0]], 1)
  )
  assert right.get_xlim() == right.get_ylim()
  first, _ = regression_plots.residual_histogram(predictions - targets, names).axes
  assert sum(bar.get_height() for bar in first.patches) == 60


def test_arrays_that_do_not_fit_are_refused(tmp_path):
  targets, predictions = outputs(3)
  for one, other in (
    (targets[:0], predictions[:0]),
    (targets, predictions[:, :2]),
    (targets, predictions * np.inf),
  ):
    with pytest.raises(ValueError, match='targets and predictions'):
      write(tmp_path, one, other)
  assert not (tmp_path / 'report').exists()
