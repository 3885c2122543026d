"""The charts of a regression report: predicted against true values, residuals."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxvision.reports import style
from jaxvision.reports.style import NORMAL
from jaxvision.reports.theme import LIGHT, Theme, short_name

PANELS = 12  # outputs that are drawn
POINTS = 5000  # of one scatter; more are thinned evenly


def _panels(
  names: Sequence[str], theme: Theme, draw: Callable[[Axes, int], None]
) -> Figure:
  """Draws one panel per output, up to 12, in one column on a phone and up to three."""
  count = min(len(names), PANELS)
  columns = 1 if theme.narrow else min(3, count)
  rows = math.ceil(count / columns)
  width = 4.6 if columns == 1 else 3.2 * columns
  height = 3.9 if columns == 1 else 3.1
  figure = style.new_figure(width, rows * height, theme)
  every = figure.subplots(rows, columns, squeeze=False).ravel()
  for index, axes in enumerate(every):
    if index >= count:
      axes.set_visible(False)
      continue
    style.tidy(axes, theme)
    draw(axes, index)
    axes.set_title(
      short_name(names[index], 30),
      size=NORMAL,
      color=theme.ink,
      loc='left',
      **style.class_text(),
    )
  return figure


def scatter(
  targets: np.ndarray,
  predictions: np.ndarray,
  names: Sequence[str],
  theme: Theme = LIGHT,
) -> Figure:
  """Draws predicted against true values, on the same scale, with the line of equality.

  Args:
    targets: float [n, D].
    predictions: float [n, D].
    names: D names.
    theme: colours.
  """
  chosen = np.linspace(0, len(targets) - 1, min(len(targets), POINTS)).astype(int)

  def draw(axes: Axes, index: int) -> None:
    true, predicted = targets[chosen, index], predictions[chosen, index]
    low = min(true.min(), predicted.min())
    high = max(true.max(), predicted.max())
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    limits = float(low - margin), float(high + margin)
    axes.plot(limits, limits, color=theme.muted, linewidth=1, linestyle='--')
    axes.scatter(
      true,
      predicted,
      s=14 if len(chosen) <= 300 else 6,
      color=theme.train,
      alpha=0.8 if len(chosen) <= 300 else 0.35,
      linewidths=0,
      zorder=2,
    )
    axes.set_xlim(limits)
    axes.set_ylim(limits)
    axes.set_aspect('equal')
    for axis in (axes.xaxis, axes.yaxis):
      axis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel('true')
    axes.set_ylabel('predicted')

  return _panels(names, theme, draw)


def residual_histogram(
  residuals: np.ndarray, names: Sequence[str], theme: Theme = LIGHT
) -> Figure:
  """Draws how often each difference of prediction and truth occurs.

  Args:
    residuals: float [n, D], predictions - targets.
    names: D names.
    theme: colours.
  """
  bins = int(np.clip(np.sqrt(len(residuals)), 5, 40))

  def draw(axes: Axes, index: int) -> None:
    values = residuals[:, index]
    reach = float(np.abs(values).max()) or 1.0
    axes.hist(
      values,
      bins=bins,
      range=(-reach, reach),
      color=theme.ramp[3],
      edgecolor=theme.background,
      linewidth=0.5,
    )
    axes.axvline(0, color=theme.muted, linewidth=1, linestyle='--')
    axes.set_xlim(-reach, reach)
    axes.set_xlabel('predicted \N{MINUS SIGN} true')
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_ylabel('examples')

  return _panels(names, theme, draw)
