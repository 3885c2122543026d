"""Report of a classification run: HTML, Markdown, JSON and pictures."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxvision.metrics import classification
from jaxvision.reports import html, image_grid, style
from jaxvision.reports.image_grid import CaptionedImage, captioned_prediction
from jaxvision.reports.run import frame, plots

PAIRS = 20  # most confused pairs
PICTURES = 24  # worst mistakes in the Markdown, and sample predictions
PICTURED = 240  # mistakes on the page
MATRIX_CLASSES = (
  1000  # up to this number; a matrix grows with the square of the classes
)


@dataclasses.dataclass(frozen=True)
class Results:
  """Metrics of one split of n examples and K classes.

  Attributes:
    class_names: K names.
    examples: n.
    accuracy, accuracy_top5: shares; top-5 is 1 for five classes or fewer.
    accuracy_interval: Wilson's 95 % interval of the accuracy.
    loss: mean cross-entropy in nats, without label smoothing.
    ece: expected calibration error, 15 bins.
    confusion: which classes were predicted as which.
    scores, macro, weighted: scores of each class and their averages.
    pairs: most confused pairs of classes.
    mistakes: the most confident mistakes.
    reliability: accuracy per bin of confidence.
  """

  class_names: tuple[str, ...]
  examples: int
  accuracy: float
  accuracy_top5: float
  accuracy_interval: tuple[float, float]
  loss: float
  ece: float
  confusion: classification.Confusion
  scores: classification.ClassScores
  macro: classification.ClassScores
  weighted: classification.ClassScores
  pairs: list[classification.ConfusedPair]
  mistakes: list[classification.Mistake]
  reliability: classification.Reliability

  @property
  def has_matrix(self) -> bool:
    """Whether the confusion matrix is shown and written as a whole."""
    return len(self.class_names) <= MATRIX_CLASSES

  def as_json(self, files: Sequence[str] = ()) -> dict[str, Any]:
    """Returns the metrics as in report.json; `files` are those of the examples."""
    predicted = self.confusion.predicted
    return {
      'examples': self.examples,
      'num_classes': len(self.class_names),
      'accuracy': self.accuracy,
      'accuracy_interval_95': self.accuracy_interval,
      'accuracy_top5': self.accuracy_top5,
      'loss': self.loss,
      'ece': self.ece,
      'averages': {
        'macro': dataclasses.asdict(self.macro),
        'weighted': dataclasses.asdict(self.weighted),
      },
      'per_class': [
        {
          'index': i,
          'class': name,
          'precision': self.scores.precision[i],
          'recall': self.scores.recall[i],
          'f1': self.scores.f1[i],
          'support': self.scores.support[i],
          'predicted': predicted[i],
        }
        for i, name in enumerate(self.class_names)
      ],
      'most_confused_pairs': [dataclasses.asdict(pair) for pair in self.pairs],
      'worst_mistakes': [
        {
          **dataclasses.asdict(mistake),
          **frame.file_of(mistake.index, files),
          'true_class': self.class_names[mistake.true],
          'predicted_class': self.class_names[mistake.predicted],
        }
        for mistake in self.mistakes
      ],
      'reliability': [
        {'above': low, 'to': high, 'count': n, 'confidence': c, 'accuracy': a}
        for low, high, n, c, a in zip(
          self.reliability.edges[:-1],
          self.reliability.edges[1:],
          self.reliability.count,
          self.reliability.confidence,
          self.reliability.accuracy,
        )
      ],
      'confusion_matrix': self.confusion.matrix() if self.has_matrix else None,
      # [true class, predicted class, examples] where there is no matrix.
      'confusion_cells': None if self.has_matrix else _cells(self.confusion),
    }


def measure(
  labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str]
) -> Results:
  """Computes the metrics of a report.

  Args:
    labels: integer [n], n at least 1.
    probabilities: float [n, K], rows sum to 1.
    class_names: K names.

  Raises:
    ValueError: shapes do not match, or there are no examples or values that are not
      finite.
  """
  labels, probabilities = np.asarray(labels), np.asarray(probabilities)
  shape = (len(labels), len(class_names))
  if not len(labels) or probabilities.shape != shape:
    raise ValueError(f'probabilities must be {shape}, n > 0, not {probabilities.shape}')
  if not np.isfinite(probabilities).all():
    raise ValueError('probabilities hold NaN or infinity')
  predictions = probabilities.argmax(axis=1)
  outcome = labels, predictions, len(class_names)
  confusion = classification.Confusion.of(*outcome)
  correct = confusion.correct
  return Results(
    class_names=tuple(class_names),
    examples=len(labels),
    accuracy=correct / len(labels),
    accuracy_top5=classification.top_k_accuracy(probabilities, labels, k=5),
    accuracy_interval=classification.accuracy_interval(correct, len(labels)),
    loss=classification.log_loss(probabilities, labels),
    ece=classification.expected_calibration_error(probabilities, labels),
    confusion=confusion,
    scores=classification.class_scores(*outcome),
    macro=classification.class_scores(*outcome, 'macro'),
    weighted=classification.class_scores(*outcome, 'weighted'),
    pairs=classification.most_confused_pairs(confusion, class_names, PAIRS),
    mistakes=classification.worst_mistakes(probabilities, labels, PICTURES),
    reliability=classification.reliability(probabilities, labels),
  )


def write_report(
  directory: str | Path,
  *,
  summary: dict,
  config: dict,
  history: list[dict],
  labels: np.ndarray,
  probabilities: np.ndarray,
  class_names: Sequence[str],
  image_at: Callable[[int], np.ndarray],
  split: str,
  notes: Sequence[str] = (),
  files: Sequence[str] = (),
) -> Path:
  """Writes report/ in a run directory: report.html, .md, .json and the plots.

  Every file is replaced as a whole, report.json last: where it stands, the report is
  complete. The HTML is one file that needs nothing else.

  Args:
    directory: the run directory.
    summary: as in summary.json; a field that is missing or None shows as a dash.
    config: the resolved config, nested dicts.
    history: the parsed classification.jsonl.
    labels: integer [n], true classes.
    probabilities: float32 [n, K].
    class_names: K names.
    image_at: gives example i of the split as uint8 [H, W, C], C 1 or 3.
    split: name of the split, 'test' or 'validation'.
    notes: what a reader must know first, such as that the data are synthetic.
    files: of the examples, where they have some.

  Returns:
    Path of report.html.

  Raises:
    ValueError: see `measure`.
  """
  labels, probabilities = np.asarray(labels), np.asarray(probabilities)
  results = measure(labels, probabilities, class_names)
  mistakes = classification.representative_mistakes(
    probabilities, labels, PICTURED, PICTURES
  )

  def captioned(indices: Sequence[int]) -> list[CaptionedImage]:
    return [
      frame.named(
        captioned_prediction(image_at(i), labels[i], probabilities[i], class_names, i),
        files,
      )
      for i in indices
    ]

  pictured = captioned([mistake.index for mistake in mistakes])
  worst = pictured[: len(results.mistakes)]  # the most confident come first in both
  sampler = np.random.default_rng(0)  # the same examples in every report on this split
  samples = captioned(sampler.permutation(results.examples)[:PICTURES].tolist())
  return frame.write(
    directory,
    'report',
    summary=summary,
    config=config,
    split=split,
    notes=notes,
    charts=_charts(results, history, split),
    grids={'worst_mistakes.png': worst, 'samples.png': samples},
    record=results.as_json(files),
    values=lambda summary: {
      'facts': _facts(results, summary, split),
      'results': results,
      'columns': [
        frame.Column('precision', results.scores.precision, barred=True),
        frame.Column('recall', results.scores.recall, barred=True),
        frame.Column('F1', results.scores.f1, barred=True),
        frame.Column('support', results.scores.support, ','),
      ],
      'averages': [
        (label, (average.precision, average.recall, average.f1, average.support))
        for label, average in (
          ('macro average', results.macro),
          ('weighted average', results.weighted),
        )
      ],
      'mistakes': mistakes,
      'confidence': image_grid.confidence_text,
      'pictured': pictured,
      'data': _data(results),
      'ramps': {'light': style.LIGHT.ramp, 'dark': style.DARK.ramp},
      'samples': samples,
    },
  )


def _cells(confusion: classification.Confusion) -> np.ndarray:
  """Returns int64 [m, 3]: true class, predicted class and examples of each cell."""
  return np.stack([confusion.rows, confusion.columns, confusion.counts], axis=1)


def _data(results: Results) -> dict[str, Any]:
  """Returns the data of the scripts of the page."""
  confusion, shown = results.confusion, results.has_matrix
  return {
    'names': list(results.class_names),
    # Flattened: of 1,000 classes, nearly all cells are 0.
    'cells': _cells(confusion).ravel().tolist() if shown else [],
    'alike': classification.confusion_order(confusion.matrix()).tolist()
    if shown
    else [],
    'mistakes': results.examples - confusion.correct,
  }


def _charts(results: Results, history: list[dict], split: str) -> dict[str, style.Plot]:
  """Draws the charts."""
  names, number = results.class_names, len(results.class_names)
  charts = frame.curves(history, ('loss', 'accuracy'))
  best = int(np.argmax(results.scores.f1))
  worst = int(np.argmin(results.scores.f1))
  charts['f1'] = style.draw(
    'f1_per_class.png',
    f'F1 of each of the {number} classes as bars, from {names[best]}'
    f' ({results.scores.f1[best]:.3f}) down to {names[worst]}'
    f' ({results.scores.f1[worst]:.3f}); the macro average is {results.macro.f1:.3f}.',
    lambda theme: plots.f1_bars(results.scores, names, theme),
  )
  pair = results.pairs[0] if results.pairs else None
  most = (
    f'Most confused: {pair.first} and {pair.second}, {pair.count} times.'
    if pair
    else 'No two classes were confused.'
  )
  if results.has_matrix:
    matrix = results.confusion.matrix()
    charts['confusion'] = style.draw(
      'confusion_matrix.png',
      f'Confusion matrix of {number} classes on the {split} split, true classes in the'
      f' rows, predicted ones in the columns. {most}',
      lambda theme: plots.confusion_matrix(matrix, names, theme),
    )
  charts['reliability'] = style.draw(
    'reliability.png',
    'Accuracy against confidence in 15 bins, with the share of examples in each; the'
    f' expected calibration error is {results.ece:.2%}.',
    lambda theme: plots.reliability_diagram(results.reliability, results.ece, theme),
  )
  return charts


def _facts(
  results: Results, summary: Mapping[str, Any], split: str
) -> list[tuple[str, str]]:
  """Lists the facts at the head of the page as (label, value)."""
  facts = [(f'{split} loss', html.number(results.loss, '.4f'))]
  if len(results.class_names) > 5:
    facts.append((f'{split} top-5', html.percent(results.accuracy_top5)))
  return [
    *facts,
    ('macro F1', html.number(float(results.macro.f1), '.4f')),
    ('calibration error', html.percent(results.ece)),
    ('train accuracy', html.percent(summary.get('train_accuracy'))),
    *frame.facts(summary),
  ]
