"""The chart of the learning-rate finder."""

import numpy as np
import pytest

from jaxvision.reports import lr_curve, style
from jaxvision.reports.theme import DARK, LIGHT
from jaxvision.training.lr_finder import LearningRateCurve


def curve_of(losses):
  rates = tuple(np.geomspace(1e-4, 10, len(losses)).tolist())
  losses = tuple(float(loss) for loss in losses)
  return LearningRateCurve(rates, losses, losses, len(losses), 8)


def labels(figure):
  (axes,) = figure.axes
  return [line.get_label() for line in axes.lines]


@pytest.mark.parametrize('theme', [LIGHT, DARK])
def test_curve_and_suggestions_are_drawn_and_divergence_is_cut_off(theme):
  place = np.linspace(-4, 1, 101)
  losses = 2.5 - 2 / (1 + np.exp(-6 * (place + 2))) + np.exp(8 * (place - 0.3))
  curve = curve_of(losses)
  figure = lr_curve.draw(curve, theme)
  assert labels(figure) == [
    'loss of a batch',
    'smoothed',
    f'steepest descent: {curve.steepest:.2g}',
    f'a tenth of the minimum: {curve.minimum_tenth:.2g}',
  ]
  (axes,) = figure.axes
  assert axes.get_xscale() == 'log'
  assert axes.lines[2].get_xdata()[0] == curve.steepest
  low, high = axes.get_ylim()
  assert low < losses.min()
  assert losses[0] < high < losses.max()
  assert style.png(figure)


@pytest.mark.parametrize('losses', [[2.0], np.linspace(1, 5, 20), np.zeros(20)])
def test_curve_without_suggestions_is_drawn_too(losses):
  figure = lr_curve.draw(curve_of(losses))
  assert labels(figure) == ['loss of a batch', 'smoothed']
  assert style.png(figure)
