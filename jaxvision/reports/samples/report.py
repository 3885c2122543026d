"""Report of generated images: HTML, Markdown, JSON and pictures."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxvision.io import write_all
from jaxvision.reports import html, image_grid, style
from jaxvision.reports.image_grid import Frame, fitting_scale
from jaxvision.reports.samples import plots
from jaxvision.reports.samples.training import TrainingReport

ANIMATION = 'training.webp'
_APART = 16  # pixels between a sample and its neighbours

# Metrics beside the Fréchet distance: key, label, format, meaning with source.
_MEASURES = (
  ('kid', 'KID', '.4f', 'kernel distance of the features, lower is better; nearly independent of the number of samples (Bińkowski et al., 2018)'),
  ('inception_score', 'Inception Score', '.2f', 'confident and diverse classes, higher is better; compares with no real images (Salimans et al., 2016)'),
  ('precision', 'precision', '.3f', 'share of samples in the manifold of real images (Kynkäänniemi et al., 2019)'),
  ('recall', 'recall', '.3f', 'share of real images in the manifold of samples (Kynkäänniemi et al., 2019)'),
  ('density', 'density', '.3f', 'density of real images around samples; 1 for samples like real images (Naeem et al., 2020)'),
  ('coverage', 'coverage', '.3f', 'share of real images with a sample nearby (Naeem et al., 2020)'),
)  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Neighbour:
  """A sample and its nearest training images.

  Attributes:
    sample: uint8 [H, W, C].
    nearest: training images of the same shape, the nearest first.
    distances: their distances, root mean square over pixels in grey levels.
  """

  sample: np.ndarray
  nearest: tuple[np.ndarray, ...]
  distances: tuple[float, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class SampleClasses:
  """The predictions of a classifier for n samples.

  Attributes:
    classifier: describes the classifier to a reader.
    counts: int [K], samples predicted as each class.
    confidence: mean of `confidences`.
    confidences: float [n], largest probability of each sample.
    class_names: K names; None if they are not known.
  """

  classifier: str
  counts: np.ndarray
  confidence: float
  confidences: np.ndarray
  class_names: Sequence[str] | None

  @property
  def names(self) -> list[str]:
    """Returns K names, by default the numbers of the classes."""
    return list(self.class_names or map(str, range(len(self.counts))))

  @property
  def effective_classes(self) -> float:
    """exp of the entropy: the number of equally frequent classes as diverse as these."""
    shares = self.counts[self.counts > 0] / self.counts.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))

  def as_json(self) -> dict[str, Any]:
    """Returns the content of report.json."""
    return {
      'classifier': self.classifier,
      'samples': int(self.counts.sum()),
      'confidence': self.confidence,
      'classes_drawn': int((self.counts > 0).sum()),
      'effective_classes': self.effective_classes,
    }


def write_generation_report(
  directory: str | Path,
  *,
  summary: dict,
  config: dict,
  history: list[dict],
  training: TrainingReport,
  samples: np.ndarray,
  frames: Sequence[Frame],
  interpolation: np.ndarray | None,
  neighbours: Sequence[Neighbour],
  sample_classes: SampleClasses | None,
  scores: Mapping[str, Any] | None,
  class_names: Sequence[str],
  notes: Sequence[str] = (),
) -> Path:
  """Writes report/ in a run directory: report.html, .md, .json and the pictures.

  Every file is replaced as a whole, report.json last: once it exists, the report is
  complete. report.html needs no other file. Sections without data are left out.

  Args:
    directory: the run directory.
    summary: content of summary.json; missing values are shown as a dash.
    config: the resolved config, nested dicts.
    history: the parsed metrics.jsonl.
    training: what the task says of its training.
    samples: uint8 [n, H, W, C], n at least 1, C 1 or 3.
    frames: grids of samples of the same noise, by step; an animation needs two.
    interpolation: uint8 [rows, columns, H, W, C], or None.
    neighbours: samples with their nearest training images.
    sample_classes: predictions of a classifier for the samples.
    scores: `generative.Scores.as_json()`: 'name', 'value', the protocol ('samples',
      'reference', 'weights', 'resizer', 'protocol'), 'floor' and any of 'kid', 'kid_std', 'inception_score', 'inception_score_std', 'precision',
      'recall', 'density', 'coverage'.
    class_names: names of the classes of the training images.
    notes: warnings that stand at the head of the page.

  Returns:
    Path of report.html.

  Raises:
    ValueError: `samples` has another shape.
  """
  if samples.ndim != 4 or not len(samples):
    raise ValueError(f'samples must be uint8 [n, H, W, C], n > 0, not {samples.shape}')
  summary, config = html.jsonable(summary), html.jsonable(config)
  evaluated, notes = html.evaluated(summary, notes)
  scores = html.jsonable(scores) if scores else None
  pictures = _pictures(samples, interpolation, neighbours)
  charts = _charts(summary, history, training, sample_classes, scores)
  animation = image_grid.animation(frames) if len(frames) > 1 else None
  values = {
    'name': html.text(summary.get('config_name')),
    'subject': _subject(summary, samples, class_names),
    'notes': notes,
    'evaluated': evaluated,
    'summary': summary,
    'facts': _facts(summary, training),
    'command': html.command_line(summary.get('command')),
    'config': json.dumps(config, indent=2, ensure_ascii=False),
    'versions': summary.get('versions') or {},
    'scores': scores,
    'protocol': _protocol(scores) if scores else [],
    'measures': _measures(scores) if scores else [],
    'sample_classes': sample_classes,
    'charts': charts,
    'curves': {chart.name: chart.caption for chart in training.charts},
    'pictures': pictures,
    'animation': animation,
    'animation_file': ANIMATION,
    'steps': [step for step, _ in frames],
    'neighbours': neighbours,
    'image_uri': lambda image: html.data_uri(image_grid.png(image)),
  }
  files: dict[str, str | bytes] = {plot.file: plot.light for plot in charts.values()}
  files |= pictures
  if animation:
    files[ANIMATION] = animation
  files |= {
    'report.md': html.render('generation_report.md.j2', **values),
    'report.html': html.render('generation_report.html.j2', **values),
    'report.json': html.lined_json(_record(values, history, training, sample_classes)),
  }
  target = Path(directory) / 'report'
  write_all(target, files, _OPTIONAL)
  return target / 'report.html'


_OPTIONAL = {
  ANIMATION,
  'class_histogram.png',
  'confidence.png',
  'distances.png',
  'diversity.png',
  'gradient_norms.png',
  'interpolation.png',
  'losses.png',
  'neighbours.png',
  'probabilities.png',
}


def _pictures(
  samples: np.ndarray,
  interpolation: np.ndarray | None,
  neighbours: Sequence[Neighbour],
) -> dict[str, bytes]:
  """Returns the grids of images as file name -> PNG."""
  columns = int(np.ceil(np.sqrt(len(samples))))
  scale = fitting_scale(columns * samples.shape[2])
  pictures = {'samples.png': image_grid.grid(samples, columns, scale)}
  if interpolation is not None and interpolation.size:
    columns = interpolation.shape[1]
    images = interpolation.reshape(-1, *interpolation.shape[2:])
    scale = fitting_scale(columns * images.shape[2])
    pictures['interpolation.png'] = image_grid.grid(images, columns, scale)
  if neighbours:
    first = np.stack([neighbour.sample for neighbour in neighbours])
    rest = [image for neighbour in neighbours for image in neighbour.nearest]
    columns = len(neighbours[0].nearest)
    scale = fitting_scale((1 + columns) * first.shape[2])
    left = image_grid.grid(first, 1, scale)
    right = image_grid.grid(np.stack(rest), columns, scale)
    apart = np.full((len(left), _APART, 3), 255, np.uint8)
    pictures['neighbours.png'] = np.concatenate([left, apart, right], axis=1)
  return {file: image_grid.png(image) for file, image in pictures.items()}


def _charts(
  summary: Mapping[str, Any],
  history: list[dict],
  training: TrainingReport,
  sample_classes: SampleClasses | None,
  scores: Mapping[str, Any] | None,
) -> dict[str, style.Plot]:
  """Draws the charts that the log and the scores have numbers for."""
  charts = {
    chart.name: style.draw(f'{chart.name}.png', chart.alt, chart.draw, narrow=True)
    for chart in training.charts
  }
  if plots.has_evaluated(history, 'fd'):
    name = (scores or {}).get('name') or summary.get('fd_name') or 'Fréchet distance'
    floor, final = (scores or {}).get('floor'), None
    if scores and scores.get('value') is not None and summary.get('steps'):
      count = html.number(scores.get('samples'))
      final = summary['steps'], scores['value'], f'{count} samples'
    charts['distances'] = style.draw(
      'distances.png',
      f'{name} between samples and real images against the training step.',
      lambda theme: plots.distances(history, theme, name, floor, final),
      narrow=True,
    )
  keys = 'diversity', 'confidence', 'precision', 'recall'
  if plots.has_evaluated(history, *keys):
    charts['diversity'] = style.draw(
      'diversity.png',
      'Diversity of the samples relative to real images, and the other metrics of each'
      ' evaluation, against the training step.',
      lambda theme: plots.diversity(history, theme),
      narrow=True,
    )
  if sample_classes and sample_classes.counts.sum():
    most = int(np.argmax(sample_classes.counts))
    share = sample_classes.counts[most] / sample_classes.counts.sum()
    charts['classes'] = style.draw(
      'class_histogram.png',
      f'Share of samples of each of {len(sample_classes.counts)} predicted classes; most are'
      f' {sample_classes.names[most]}, {share:.1%}.',
      lambda theme: plots.class_histogram(
        sample_classes.counts, sample_classes.names, theme
      ),
    )
    charts['confidence'] = style.draw(
      'confidence.png',
      f'Confidence of the classifier over the samples; the mean is'
      f' {sample_classes.confidence:.1%}.',
      lambda theme: plots.confidence_histogram(sample_classes.confidences, theme),
    )
  return charts


def _subject(
  summary: Mapping[str, Any], samples: np.ndarray, class_names: Sequence[str]
) -> str:
  """Describes the images, such as '28 x 28 grey images, trained on mnist (10 classes)'."""
  height, width, channels = samples.shape[1:]
  kind = 'grey' if channels == 1 else 'colour'
  size = f'{height} \N{MULTIPLICATION SIGN} {width} {kind} images'
  if not summary.get('dataset'):
    return size
  classes = f' ({len(class_names):,} classes)' if len(class_names) > 1 else ''
  return f'{size}, trained on {summary["dataset"]}{classes}'


def _facts(
  summary: Mapping[str, Any], training: TrainingReport
) -> list[tuple[str, str]]:
  """Lists the facts at the head of the page as (label, value)."""
  return [
    *training.facts,
    ('steps', html.number(summary.get('steps'))),
    ('epochs', html.number(summary.get('epochs'), '.4g')),
    *html.circumstances(summary),
  ]


def _protocol(scores: Mapping[str, Any]) -> list[tuple[str, str]]:
  """Lists how the scores were measured as (label, value)."""
  return [
    ('samples', html.number(scores.get('samples'))),
    ('against', html.text(scores.get('reference'))),
    ('network', html.text(scores.get('weights'))),
    ('resizing', html.text(scores.get('resizer') or 'none')),
  ]


def _measures(scores: Mapping[str, Any]) -> list[tuple[str, str, str]]:
  """Lists the metrics beside the distance as (label, value, meaning)."""
  rows = []
  for key, label, spec, meaning in _MEASURES:
    if scores.get(key) is None:
      continue
    value = html.number(scores[key], spec)
    if scores.get(f'{key}_std') is not None:
      value += f' ± {html.number(scores[f"{key}_std"], spec)}'
    rows.append((label, value, meaning))
  return rows


def _record(
  values: Mapping[str, Any],
  history: list[dict],
  training: TrainingReport,
  sample_classes: SampleClasses | None,
) -> dict[str, Any]:
  """Returns the content of report.json."""
  summary = values['summary']
  counts = zip(sample_classes.names, sample_classes.counts) if sample_classes else ()
  return {
    **{key: summary.get(key) for key in ('config_name', 'steps', 'seed')},
    'notes': values['notes'],
    'evaluated': values['evaluated'],
    **training.record,
    'scores': values['scores'],
    'judged': sample_classes.as_json() if sample_classes else None,
    'per_class': [{'class': name, 'samples': count} for name, count in counts],
    'nearest_distances': [list(near.distances) for near in values['neighbours']],
    'evaluations': [point for point in history if point.get('split') != 'train'],
  }
