"""What a report of generated images says of how they were learned, which is the task's."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from jaxvision.reports import html
from jaxvision.reports.run.plots import series
from jaxvision.reports.samples import plots
from jaxvision.reports.theme import Theme
from jaxvision.tasks.gan_losses import is_probability


@dataclasses.dataclass(frozen=True)
class TrainingChart:
  """A chart over the steps of training.

  Attributes:
    name: of its file, without '.png', and of its place in the page.
    alt: what it shows, in a sentence.
    caption: what a reader should see in it.
    draw: theme -> figure.
  """

  name: str
  alt: str
  caption: str
  draw: Callable[[Theme], Figure]


@dataclasses.dataclass(frozen=True)
class TrainingReport:
  """What a task says of its training.

  Attributes:
    charts: those that the log has numbers for.
    facts: (label, value) at the head of the page.
    record: what report.json holds of it.
  """

  charts: tuple[TrainingChart, ...] = ()
  facts: tuple[tuple[str, str], ...] = ()
  record: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def of_gan(
  summary: Mapping[str, Any], loss: str, history: Sequence[dict]
) -> TrainingReport:
  """Returns what there is to say of a GAN: both losses, outputs of the discriminator.

  Args:
    summary: content of summary.json.
    loss: `gan.loss`.
    history: the parsed metrics.jsonl.
  """
  charts, line = [], 0.5 if is_probability(loss) else None
  if plots.has(history, 'd_real', 'd_fake'):
    charts.append(
      TrainingChart(
        'probabilities',
        'Outputs of the discriminator for real and for generated images, D(x) and '
        'D(G(z)), against the training step'
        + ('.' if line is None else ', with a line at 0.5.'),
        'The further apart the curves, the better the discriminator distinguishes real '
        'from generated images.'
        if line is None
        else 'At 0.5 the discriminator cannot distinguish real from generated images. '
        'Near 1 and 0 it is saturated, and the generator learns nothing.',
        lambda theme: plots.probabilities(history, theme, line),
      )
    )
  if plots.has(history, 'generator_loss', 'discriminator_loss'):
    charts.append(
      TrainingChart(
        'losses',
        'Losses of the generator and of the discriminator against the training step.',
        'Neither loss measures the quality of samples: each depends on the other network '
        'at the same step.',
        lambda theme: plots.losses(history, theme),
      )
    )
  if plots.has(history, 'generator_grad_norm', 'discriminator_grad_norm'):
    charts.append(
      TrainingChart(
        'gradient_norms',
        'Gradient norms of generator and discriminator against the training step, on a '
        'logarithmic axis.',
        'Before clipping. Training fails where a norm grows without bound or vanishes.',
        lambda theme: plots.gradient_norms(history, theme),
      )
    )
  counts = 'generator_params', 'discriminator_params'
  ends = 'd_real', 'd_fake', 'generator_loss', 'discriminator_loss'
  last = {key: last_value(summary, history, key) for key in ends}
  labels = (
    'D(x) at the end',
    'D(G(z)) at the end',
    'generator loss',
    'discriminator loss',
  )
  return TrainingReport(
    tuple(charts),
    (
      ('generator parameters', html.number(summary.get('generator_params'))),
      ('discriminator parameters', html.number(summary.get('discriminator_params'))),
      *((label, html.number(last[key], '.3g')) for label, key in zip(labels, ends)),
    ),
    {**{key: summary.get(key) for key in counts}, **last},
  )


def of_flow(
  summary: Mapping[str, Any], settings: Mapping[str, Any], history: Sequence[dict]
) -> TrainingReport:
  """Returns what there is to say of flow matching: its loss, how samples are drawn.

  Args:
    summary: content of summary.json.
    settings: the config's section `flow`.
    history: the parsed metrics.jsonl.
  """
  charts = []
  if plots.has(history, 'loss'):
    charts.append(
      TrainingChart(
        'losses',
        'Loss of training and of held-out images against the training step.',
        'Mean squared error of the velocity. It cannot reach 0: one image under noise may '
        'come from many. Where the held-out loss rises, the network learns images by '
        'heart.',
        lambda theme: plots.loss(history, theme),
      )
    )
  last = summary.get('train_loss')
  if last is None:
    last = last_value(summary, history, 'loss')
  guidance = html.number(settings['guidance'], '.3g')
  return TrainingReport(
    tuple(charts),
    (
      ('parameters', html.number(summary.get('params'))),
      ('loss', html.number(last, '.3g')),
      ('test loss', html.number(summary.get('test_loss'), '.3g')),
      ('sampler', f'{settings["sampler"]}, {settings["steps"]:,} steps'),
      ('guidance', 'none' if settings['guidance'] == 1 else guidance),
    ),
    {
      'params': summary.get('params'),
      'loss': last,
      'test_loss': summary.get('test_loss'),
      'flow': {key: settings[key] for key in ('sampler', 'steps', 'guidance')},
    },
  )


def last_value(
  summary: Mapping[str, Any], history: Sequence[dict], key: str
) -> float | None:
  """Returns a training metric from summary.json, by default its last value in the log."""
  if summary.get(key) is not None:
    return summary[key]
  values = series(history, 'train', key)[1]
  return float(values[-1]) if values.size else None
