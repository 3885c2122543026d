"""The report of a run of any task: curves, final measures, examples."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxvision.reports.image_grid import CaptionedImage
from jaxvision.reports.run import frame


def write_report(
  directory: str | Path,
  *,
  summary: dict[str, Any],
  config: dict[str, Any],
  history: Sequence[Mapping[str, Any]],
  split: str,
  measures: Mapping[str, float],
  examples: Sequence[tuple[np.ndarray, str]] = (),
  notes: Sequence[str] = (),
) -> Path:
  """Writes report/ in a run directory: report.html, .md, .json and the plots.

  Args:
    directory: the run directory.
    summary: as in summary.json; its field `measure` names the measure of the headline.
    config: the resolved config, nested dicts.
    history: the parsed metrics.jsonl.
    split: name of the split.
    measures: name -> mean over the examples of the split.
    examples: images uint8 [H, W, C], C 1 or 3, with captions of any number of lines.
    notes: what a reader must know first.

  Returns:
    Path of report.html.
  """
  logged = (summary.get('measure') or {}).get('logged')
  first = logged if logged in measures else next(iter(measures), None)
  pictured = [
    CaptionedImage(np.asarray(image), tuple(caption.splitlines()) or ('',), index=None)
    for image, caption in examples
  ]
  trained = {name: summary.get(f'train_{name}') for name in measures}
  return frame.write(
    directory,
    'generic',
    summary=summary,
    config=config,
    split=split,
    notes=notes,
    charts=frame.curves(history),
    grids={'examples.png': pictured},
    record={'measures': dict(measures)},
    values=lambda summary: {
      'task': (summary.get('task') or '').rsplit(':', 1)[-1],
      'headline': (first, frame.measure_text(first, measures[first]))
      if first
      else None,
      'measures': [
        (name, frame.measure_text(name, value)) for name, value in measures.items()
      ],
      'facts': [
        *(
          (f'train {name.replace("_", " ")}', frame.measure_text(name, value))
          for name, value in trained.items()
          if value is not None
        ),
        *frame.facts(summary),
      ],
      'pictured': pictured,
    },
  )
