"""The report of a regression run, for people (Markdown, HTML) and programs (JSON)."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxvision.metrics import regression
from jaxvision.metrics.regression import OutputErrors
from jaxvision.reports import html, style
from jaxvision.reports.image_grid import CaptionedImage
from jaxvision.reports.run import frame, regression_plots

PICTURES = 24  # examples with the largest errors
NAMED = 2  # outputs named below an image


def write_report(
  directory: str | Path,
  *,
  summary: dict[str, Any],
  config: dict[str, Any],
  history: Sequence[Mapping[str, Any]],
  targets: np.ndarray,
  predictions: np.ndarray,
  names: Sequence[str],
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
    targets: float [n, D], or [n] for one output.
    predictions: float, of the same shape.
    names: D names of outputs.
    image_at: returns example i of the split as uint8 [H, W, C], C 1 or 3.
    split: name of the split.
    notes: what a reader must know first.
    files: of the examples, where they have some.

  Returns:
    Path of report.html.

  Raises:
    ValueError: no examples, shapes that do not fit, or a value that is not finite.
  """
  targets, predictions = frame.checked(
    targets, predictions, names, 'targets and predictions'
  )
  targets, predictions = targets.astype(np.float64), predictions.astype(np.float64)
  errors = regression.output_errors(targets, predictions)
  columns = _columns(errors)
  means = {c.head: _mean(c.values) for c in columns}
  worst = regression.worst_examples(targets, predictions, PICTURES)
  scaled = regression.scaled_errors(targets, predictions)

  def captioned(i: int) -> CaptionedImage:
    lines = _caption(targets[i], predictions[i], scaled[i], names)
    return frame.named(CaptionedImage(np.asarray(image_at(i)), lines, index=i), files)

  pictured = [captioned(i) for i in worst]
  fields = [field.name for field in dataclasses.fields(errors)]
  return frame.write(
    directory,
    'regression',
    summary=summary,
    config=config,
    split=split,
    notes=notes,
    charts=frame.curves(history) | _charts(targets, predictions, names),
    grids={'worst_examples.png': pictured},
    record={
      'examples': len(targets),
      'num_outputs': len(names),
      **{field: _mean(getattr(errors, field)) for field in fields},
      'per_output': [
        {'index': i, 'output': name}
        | {field: getattr(errors, field)[i] for field in fields}
        for i, name in enumerate(names)
      ],
      'worst_examples': [
        {
          **frame.file_of(i, files),
          'target': targets[i],
          'prediction': predictions[i],
        }
        for i in worst
      ],
    },
    values=lambda summary: {
      'examples': len(targets),
      'names': list(names),
      'columns': columns,
      'averages': [('mean', list(means.values()))] if len(names) > 1 else [],
      'mae': means['MAE'],
      'drawn': min(len(names), regression_plots.PANELS),
      'facts': [
        *(
          (f'{split} {head}', _text(means[head])) for head in ('RMSE', 'R²', 'Pearson')
        ),
        *frame.facts(summary),
      ],
      'pictured': pictured,
    },
  )


def _text(value: float) -> str:
  return html.number(value, '#.4g')


def _mean(values: np.ndarray) -> float:
  """Averages the outputs that have a value; NaN where none has."""
  known = np.asarray(values)[~np.isnan(values)]
  return float(known.mean()) if known.size else float('nan')


def _columns(errors: OutputErrors) -> list[frame.Column]:
  named = {
    'MAE': errors.mae,
    'RMSE': errors.rmse,
    'R²': errors.r2,
    'Pearson': errors.pearson,
  }
  return [frame.Column(head, values, '#.4g') for head, values in named.items()]


def _caption(
  target: np.ndarray, prediction: np.ndarray, errors: np.ndarray, names: Sequence[str]
) -> tuple[str, ...]:
  """Returns the predicted and true values of the outputs with the largest errors."""
  if len(names) == 1:
    return f'{prediction[0]:.4g}', f'true: {target[0]:.4g}'
  worst = np.argsort(-errors, kind='stable')[:NAMED]
  return tuple(
    line
    for i in worst
    for line in (f'{names[i]}: {prediction[i]:.4g}', f'true: {target[i]:.4g}')
  )


def _charts(
  targets: np.ndarray, predictions: np.ndarray, names: Sequence[str]
) -> dict[str, style.Plot]:
  drawn = ', '.join(names[: regression_plots.PANELS])
  residuals = predictions - targets
  return {
    'scatter': style.draw(
      'predicted_against_true.png',
      f'Predicted against true values of {drawn}, with the line of equality.',
      lambda theme: regression_plots.scatter(targets, predictions, names, theme),
      narrow=True,
    ),
    'residuals': style.draw(
      'residuals.png',
      f'Histogram of predicted minus true values of {drawn}.',
      lambda theme: regression_plots.residual_histogram(residuals, names, theme),
      narrow=True,
    ),
  }
