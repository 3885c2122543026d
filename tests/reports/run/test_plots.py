"""What the figures hold: the right curves, bars and words, at every size."""

import numpy as np
import pytest

from jaxvision.metrics import classification
from jaxvision.reports import style, theme
from jaxvision.reports.run import plots


def _texts(figure):
  return [
    text.get_text() for text in figure.findobj(match=lambda a: hasattr(a, 'get_text'))
  ]


def test_series_sorts_and_lets_the_later_record_count():
  history = [
    {'step': 20, 'split': 'train', 'loss': 2.0},
    {'step': 10, 'split': 'train', 'loss': 3.0},
    {'step': 20, 'split': 'train', 'loss': 1.0},
    {'step': 30, 'split': 'train', 'loss': float('inf')},
    {'step': 40, 'split': 'train', 'loss': None},
    {'step': 50, 'split': 'test', 'loss': 9.0},
  ]
  steps, values = plots.series(history, 'train', 'loss')
  assert steps.tolist() == [10, 20]
  assert values.tolist() == [3.0, 1.0]
  assert plots.has_curves(history)
  assert not plots.has_curves([{'step': 1, 'split': 'train', 'learning_rate': 0.1}])


def test_curves_have_a_panel_per_quantity_and_epochs_on_top():
  history = [
    {'step': s, 'split': 'train', 'loss': 2.0, 'accuracy': 0.1, 'learning_rate': 0.1}
    | {'epoch': s / 10}
    for s in (10, 20)
  ] + [{'step': 20, 'split': 'validation', 'loss': 1.9, 'accuracy': 0.2}]
  figure = plots.curves(history)
  assert [axes.get_ylabel() for axes in figure.axes] == [
    'loss',
    'accuracy',
    'learning rate',
  ]
  loss, _, rate = figure.axes
  assert [line.get_label() for line in loss.lines] == [
    'train (last 2.000)',
    'validation (last 1.900)',
  ]
  train, validation = loss.lines
  assert train.get_xdata().tolist() == [10, 20]
  assert train.get_marker() == ''
  assert validation.get_marker() == 's'
  assert len(rate.lines) == 1
  (top,) = loss.child_axes
  assert top.get_xlabel() == 'epoch'
  style.png(figure)
  assert top.get_xlim()[1] == pytest.approx(loss.get_xlim()[1] / 10)


@pytest.mark.parametrize(('smallest', 'scale'), [(0.5, 'linear'), (0.01, 'log')])
def test_loss_axis_is_logarithmic_over_decades(smallest, scale):
  history = [
    {'step': 1, 'split': 'train', 'loss': 2.0},
    {'step': 2, 'split': 'train', 'loss': smallest},
  ]
  assert plots.curves(history).axes[0].get_yscale() == scale


@pytest.mark.parametrize('number', [2, 10, 20, 21, 100])
def test_confusion_matrix_writes_counts_while_they_fit(number):
  confusion = np.diag(np.arange(1, number + 1) + 1000)
  confusion[0, 1] = 77
  names = [f'kind {i}' for i in range(number)]
  figure = plots.confusion_matrix(confusion, names)
  axes = figure.axes[0]
  counts = [text.get_text() for text in axes.texts]
  assert ('77' in counts) == (number <= 20)
  assert len(counts) == (number + 1 if number <= 20 else 0)
  labels = [label.get_text() for label in axes.get_yticklabels()]
  assert labels[0] == 'kind 0'
  every = round(number / len(labels))
  assert labels == names[::every]
  assert (every > 1) == ('2nd class' in axes.get_xlabel()) == (number == 100)
  image = axes.images[0].get_array()
  assert image[0, 1] == pytest.approx(77 / 1078)
  assert image[1, 1] == 1


def test_confusion_matrix_greys_classes_without_examples():
  confusion = np.array([[2, 1, 0], [0, 3, 0], [0, 0, 0]])
  axes = plots.confusion_matrix(confusion, ['a', 'b', 'c']).axes[0]
  assert axes.images[0].get_array().mask[2].all()
  assert not axes.images[0].get_array().mask[:2].any()
  assert 'no examples' in axes.get_ylabel()


@pytest.mark.parametrize(('number', 'columns'), [(2, 1), (50, 1), (100, 2), (400, 2)])
def test_f1_bars_are_sorted_in_columns(number, columns):
  f1 = np.random.default_rng(0).uniform(0.2, 0.9, number)
  support = np.ones(number, np.int64)
  scores = classification.ClassScores(f1, f1, f1, support)
  figure = plots.f1_bars(scores, [f'kind {i}' for i in range(number)])
  assert len(figure.axes) == columns
  widths = [bar.get_width() for axes in figure.axes for bar in axes.patches]
  assert widths == sorted(widths, reverse=True)
  assert len(widths) == min(number, 100 if number > 150 else number)
  best = figure.axes[0].get_yticklabels()[0].get_text()
  assert best == f'kind {f1.argmax()}'
  assert ('best of 400' in figure.axes[0].get_title(loc='left')) == (number == 400)


def test_f1_bars_tell_an_absent_class_from_a_failed_one():
  zeros = np.zeros(2)
  scores = classification.ClassScores(zeros, zeros, zeros, np.array([4, 0]))
  texts = _texts(plots.f1_bars(scores, ['failed', 'absent']))
  assert '0.000' in texts
  assert 'no examples' in texts


def test_reliability_diagram_draws_only_filled_bins():
  probabilities = np.array([[0.95, 0.05], [0.55, 0.45]])
  binned = classification.reliability(probabilities, np.array([0, 1]))
  upper, lower = plots.reliability_diagram(binned, 0.3).axes
  assert [bar.get_height() for bar in upper.patches] == [0, 1]
  assert [bar.get_height() for bar in lower.patches] == [0.5, 0.5]
  assert upper.get_title(loc='right') == 'ECE 30.00%'


def test_plotting_leaves_no_global_state():
  import matplotlib
  import matplotlib._pylab_helpers as managers

  before = dict(matplotlib.rcParams)
  style.png(plots.confusion_matrix(np.eye(3, dtype=np.int64), 'abc', style.DARK))
  assert dict(matplotlib.rcParams) == before
  assert not managers.Gcf.figs


@pytest.mark.parametrize(
  'name', ['a' * 50, '日本語' * 10, 'line\nbreak\ttab', '', 'ok']
)
def test_short_name_fits_on_one_line(name):
  short = theme.short_name(name, 12)
  assert theme.text_width(short) <= 12
  assert '\n' not in short
  assert theme.short_name(short, 12) == short
