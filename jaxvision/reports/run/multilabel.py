"""The report of a multi-label run, for people (Markdown, HTML) and programs (JSON)."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jaxvision.metrics import multilabel
from jaxvision.metrics.multilabel import LabelScores
from jaxvision.reports import html, style
from jaxvision.reports.image_grid import CaptionedImage
from jaxvision.reports.run import frame, plots
from jaxvision.reports.theme import Theme

PICTURES = 24  # examples with the most wrong labels
MANY = 12  # labels above which the table scrolls and has bars of its own
NAMED = 3  # wrong labels named below an image


def write_report(
  directory: str | Path,
  *,
  summary: dict[str, Any],
  config: dict[str, Any],
  history: Sequence[Mapping[str, Any]],
  labels: np.ndarray,
  probabilities: np.ndarray,
  class_names: Sequence[str],
  image_at: Callable[[int], np.ndarray],
  split: str,
  notes: Sequence[str] = (),
  files: Sequence[str] = (),
) -> Path:
  """Writes report/ in a run directory: report.html, .md, .json and the plots.

  Args:
    directory: the run directory.
    summary: as in summary.json; a field that is missing or None shows as a dash.
    config: the resolved config, nested dicts.
    history: the parsed metrics.jsonl.
    labels: 0 or 1, [n, K].
    probabilities: float [n, K].
    class_names: K names of labels.
    image_at: returns example i of the split as uint8 [H, W, C], C 1 or 3.
    split: name of the split.
    notes: what a reader must know first.
    files: of the examples, where they have some.

  Returns:
    Path of report.html.

  Raises:
    ValueError: no examples, shapes that do not fit, or a value that is not finite.
  """
  labels, probabilities = frame.checked(
    labels, probabilities, class_names, 'labels and probabilities'
  )
  scores = multilabel.label_scores(labels, probabilities)
  averages = {
    'map_macro': multilabel.macro_average(scores.average_precision),
    'map_micro': multilabel.micro_average_precision(labels, probabilities),
    'auroc_macro': multilabel.macro_average(scores.auroc),
    'f1_macro': float(scores.f1.mean()),
    'exact_match': multilabel.exact_match(labels, probabilities),
    'hamming_loss': multilabel.hamming_loss(labels, probabilities),
  }
  worst = multilabel.worst_examples(labels, probabilities, PICTURES)
  pictured = [
    frame.named(
      captioned_labels(image_at(i), labels[i], probabilities[i], class_names, i), files
    )
    for i in worst
  ]
  wrong = multilabel.wrong_labels(labels, probabilities)
  charts = frame.curves(history) | _charts(scores, averages['map_macro'], class_names)
  fields = [field.name for field in dataclasses.fields(scores)]
  return frame.write(
    directory,
    'multilabel',
    summary=summary,
    config=config,
    split=split,
    notes=notes,
    charts=charts,
    grids={'worst_examples.png': pictured},
    record={
      'examples': len(labels),
      'num_labels': len(class_names),
      **averages,
      'per_label': [
        {'index': i, 'label': name}
        | {field: getattr(scores, field)[i] for field in fields}
        for i, name in enumerate(class_names)
      ],
      'worst_examples': [
        {**frame.file_of(i, files), 'wrong_labels': wrong[i]} for i in worst
      ],
    },
    values=lambda summary: {
      **averages,
      'examples': len(labels),
      'class_names': list(class_names),
      'columns': _columns(scores),
      'averages': [('macro average', _macro(scores))],
      'facts': _facts(averages, summary),
      'many': len(class_names) > MANY,
      'pictured': pictured,
      'mistakes': int((wrong > 0).sum()),
    },
  )


def captioned_labels(
  image: np.ndarray,
  labels: np.ndarray,
  probabilities: np.ndarray,
  class_names: Sequence[str],
  index: int,
) -> CaptionedImage:
  """Captions an image with the labels that are missed and those wrongly predicted.

  Args:
    image: uint8 [H, W, C].
    labels: 0 or 1, [K].
    probabilities: float [K].
    class_names: K names.
    index: position of the example in its split.
  """
  true, predicted = np.asarray(labels) > 0.5, probabilities > 0.5
  count = int((true != predicted).sum())
  lines = [
    f'{count} of {len(labels)} wrong' if count else '✓ all right',
    *_named('missed', true & ~predicted, class_names),
    *_named('extra', predicted & ~true, class_names),
  ]
  return CaptionedImage(np.asarray(image), tuple(lines), not count, index)


def _named(what: str, chosen: np.ndarray, class_names: Sequence[str]) -> list[str]:
  """Returns one line with the first names that are chosen, or none."""
  names = [class_names[i] for i in np.flatnonzero(chosen).tolist()]
  if not names:
    return []
  more = f' and {len(names) - NAMED} more' if len(names) > NAMED else ''
  return [f'{what}: {", ".join(names[:NAMED])}{more}']


def _columns(scores: LabelScores) -> list[frame.Column]:
  many = len(scores.support) > MANY
  return [
    frame.Column('AP', scores.average_precision, barred=many),
    frame.Column('AUROC', scores.auroc),
    frame.Column('precision', scores.precision),
    frame.Column('recall', scores.recall),
    frame.Column('F1', scores.f1),
    frame.Column('support', scores.support, ','),
    frame.Column('predicted', scores.predicted, ','),
  ]


def _macro(scores: LabelScores) -> tuple[float, ...]:
  """Averages the first five columns and adds up the counts."""
  shares = (scores.average_precision, scores.auroc, scores.precision, scores.recall)
  return (
    *(multilabel.macro_average(values) for values in (*shares, scores.f1)),
    int(scores.support.sum()),
    int(scores.predicted.sum()),
  )


def _facts(
  averages: Mapping[str, float], summary: Mapping[str, Any]
) -> list[tuple[str, str]]:
  return [
    ('micro mAP', html.number(averages['map_micro'], '.4f')),
    ('macro AUROC', html.number(averages['auroc_macro'], '.4f')),
    ('macro F1', html.number(averages['f1_macro'], '.4f')),
    ('exact match', html.percent(averages['exact_match'])),
    ('Hamming loss', html.number(averages['hamming_loss'], '.4f')),
    *frame.facts(summary),
  ]


def _charts(
  scores: LabelScores, macro: float, class_names: Sequence[str]
) -> dict[str, style.Plot]:
  plot = style.draw(
    'average_precision.png',
    f'Average precision of each of the {len(class_names)} labels as bars; the macro'
    f' average is {html.number(macro, ".3f")}.',
    lambda theme: average_precision_bars(scores, class_names, theme),
  )
  return {'average_precision': plot}


def average_precision_bars(
  scores: LabelScores, class_names: Sequence[str], theme: Theme = style.LIGHT
) -> Figure:
  """Draws the average precision of each label as bars, the best first.

  Above 150 labels only the 50 best and the 50 worst are drawn.

  Args:
    scores: of K labels.
    class_names: K names.
    theme: colours.
  """
  known = np.nan_to_num(scores.average_precision)
  macro = multilabel.macro_average(scores.average_precision)
  texts = [
    (f'{value:.3f}', theme.ink) if support else ('no examples', theme.muted)
    for value, support in zip(scores.average_precision, scores.support)
  ]
  figure = plots.class_bars(
    known,
    texts,
    class_names,
    np.argsort(-known, kind='stable'),
    plots.BAR_CLASSES,
    (f'the {plots.ROWS} best of {len(class_names)}', f'the {plots.ROWS} worst'),
    macro,
    1.0,
    5.0,
    theme,
  )
  for axes in figure.axes:
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    average = f' (dashed: macro average {macro:.3f})' if macro == macro else ''
    axes.set_xlabel(f'average precision{average}')
  return figure
