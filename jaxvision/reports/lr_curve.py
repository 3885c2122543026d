"""The chart of the learning-rate finder."""

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from jaxvision.reports import style
from jaxvision.reports.style import NORMAL
from jaxvision.reports.theme import LIGHT, Theme
from jaxvision.training.lr_finder import LearningRateCurve


def draw(curve: LearningRateCurve, theme: Theme = LIGHT) -> Figure:
  """Draws the loss over the learning rate, with the suggestions.

  Args:
    curve: of at least one step.
    theme: colours.
  """
  figure = style.new_figure(6.8, 3.6, theme)
  axes = figure.subplots()
  style.tidy(axes, theme)
  axes.plot(
    curve.rates,
    curve.losses,
    color=theme.muted,
    alpha=0.45,
    linewidth=0.9,
    label='loss of a batch',
  )
  axes.plot(
    curve.rates, curve.smoothed, color=theme.train, linewidth=1.8, label='smoothed'
  )
  for label, rate, color, line in (
    ('steepest descent', curve.steepest, theme.test, '-'),
    ('a tenth of the minimum', curve.minimum_tenth, theme.validation, '--'),
  ):
    if rate is not None:
      axes.axvline(
        rate, color=color, linewidth=1.4, linestyle=line, label=f'{label}: {rate:.2g}'
      )
  axes.set_xscale('log')
  axes.set_xlim(curve.rates[0], max(curve.rates[-1], 1.01 * curve.rates[0]))
  axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
  axes.tick_params(axis='x', which='minor', labelbottom=False)
  # What diverges would make a line of all that came before.
  shown = curve.smoothed[: (curve.lowest or 0) + 1]
  low, high = min(shown), max(shown)
  margin = 0.3 * (high - low) or 0.1 * abs(high) or 1.0
  axes.set_ylim(low - margin, high + margin)
  axes.set_xlabel('learning rate', color=theme.ink, fontsize=NORMAL)
  axes.set_ylabel('training loss', color=theme.ink, fontsize=NORMAL)
  style.legend(axes, theme, loc='lower left')
  return figure
