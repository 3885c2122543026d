"""What the reports of all tasks have in common: curves, facts, thumbnails, files."""

import dataclasses
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxvision.io import write_all
from jaxvision.reports import html, image_grid, style
from jaxvision.reports.image_grid import CaptionedImage, captioned_grid
from jaxvision.reports.run import plots

THUMBNAIL = 144  # pixels; larger images are reduced for the page
LOSSLESS = 64  # pixels; images above it are JPEG, or 240 of them would weigh 10 MB


@dataclasses.dataclass(frozen=True)
class Column:
  """A column of numbers in a table with one row per class, label or output.

  Attributes:
    head: its heading.
    values: one number per row; NaN shows as a dash.
    spec: their format, see `format`.
    barred: whether the page draws each number, a share, as a bar behind it.
  """

  head: str
  values: np.ndarray
  spec: str = '.3f'
  barred: bool = False


def curves(
  history: Sequence[Mapping], measures: Sequence[str] | None = None
) -> dict[str, style.Plot]:
  """Draws the curves of a run, or nothing where the log holds none of the measures.

  Args:
    history: the parsed metrics.jsonl.
    measures: names of what is drawn; None: all that was logged.
  """
  if not plots.has_curves(history, measures):
    return {}
  named = plots.logged_measures(history) if measures is None else measures
  words = ', '.join(name.replace('_', ' ') for name in named)
  plot = style.draw(
    'curves.png',
    f'{words[0].upper()}{words[1:]} and learning rate against the training step, for'
    ' each split.',
    lambda theme: plots.curves(history, theme, measures),
    narrow=True,
  )
  return {'curves': plot}


def facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
  """Lists what the head of a page says of the run, as (label, value)."""
  evaluated = summary.get('evaluated') or {}
  return [
    *([('data', html.text(evaluated['data']))] if evaluated else []),
    ('parameters', html.number(summary.get('params'))),
    ('steps', html.number(summary.get('steps'))),
    ('epochs', html.number(summary.get('epochs'), '.4g')),
    *html.circumstances(summary),
  ]


def measure_text(name: str, value: float | None) -> str:
  """Formats a measure: shares in per cent, others with four significant digits.

  >>> measure_text('accuracy_top5', 0.98765), measure_text('psnr', 21.3456)
  ('98.77%', '21.35')
  """
  if 'accuracy' in name:
    return html.percent(value)
  large = value is not None and math.isfinite(value) and 1e4 <= abs(value) < 1e9
  return html.number(value, ',.0f' if large else '#.4g')


def named(image: CaptionedImage, files: Sequence[str]) -> CaptionedImage:
  """Returns the image with the file of its example; `files` may be empty."""
  if not files or image.index is None:
    return image
  return dataclasses.replace(image, name=files[image.index])


def file_of(index: int, files: Sequence[str]) -> dict[str, Any]:
  """Returns what a record says of an example: its place in the split, and its file."""
  return {'index': index, **({'file': files[index]} if files else {})}


def checked(
  one: np.ndarray, other: np.ndarray, names: Sequence[str], what: str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns two arrays [n, K] of finite numbers.

  Args:
    one: the true values; [n] stands for [n, 1].
    other: the predicted values.
    names: K names.
    what: what the arrays are called in the message.

  Raises:
    ValueError: no examples, shapes that do not fit, or a value that is not finite.
  """
  one, other = np.asarray(one), np.asarray(other)
  one, other = (a[:, None] if a.ndim == 1 else a for a in (one, other))
  shape = (len(one), len(names))
  if not one.size or one.shape != shape or other.shape != shape:
    raise ValueError(
      f'{what} must both be [n, {len(names)}], n > 0, not {one.shape} and {other.shape}'
    )
  if not (np.isfinite(one).all() and np.isfinite(other).all()):
    raise ValueError(f'{what} hold NaN or infinity')
  return one, other


def thumbnail(image: np.ndarray) -> str:
  """Encodes an image as a URI, reduced to the size that the page shows."""
  picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
  kind, options = 'png', {}
  if max(picture.size) > LOSSLESS:
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    kind, options = 'jpeg', {'quality': 80}
  buffer = io.BytesIO()
  picture.save(buffer, kind.upper(), optimize=True, **options)
  return html.data_uri(buffer.getvalue(), kind)


def write(
  directory: str | Path,
  template: str,
  *,
  summary: Mapping[str, Any],
  config: Mapping[str, Any],
  split: str,
  notes: Sequence[str],
  charts: Mapping[str, style.Plot],
  grids: Mapping[str, Sequence[CaptionedImage]],
  record: Mapping[str, Any],
  values: Callable[[Mapping[str, Any]], Mapping[str, Any]],
) -> Path:
  """Writes report/ in a run directory: report.html, .md, .json and the plots.

  Every file is replaced as a whole, report.json last: where it is present, the report
  is complete.

  Args:
    directory: the run directory.
    template: name of the templates of the page, without .html.j2 and .md.j2.
    summary: as in summary.json; a field that is missing or None shows as a dash.
    config: the resolved config, nested dicts.
    split: name of the split.
    notes: what a reader must know first.
    charts: the charts by the names that the template has for them.
    grids: file name -> images drawn into it; empty ones are not written.
    record: what report.json holds besides the name, the split and the notes.
    values: summary -> further values of the template.

  Returns:
    Path of report.html.
  """
  summary, config = html.jsonable(summary), html.jsonable(config)
  evaluated, notes = html.evaluated(summary, notes)
  images = {plot.file: plot.light for plot in charts.values()}
  for file, drawn in grids.items():
    if drawn:
      images[file] = image_grid.png(captioned_grid(drawn))
  page = {
    'name': html.text(summary.get('config_name')),
    'split': split,
    'notes': notes,
    'facts': facts(summary),
    'command': html.command_line(summary.get('command')),
    'config': json.dumps(config, indent=2, ensure_ascii=False),
    'versions': summary.get('versions') or {},
    'charts': charts,
    'thumbnail': thumbnail,
    **values(summary),
  }
  head = {
    'config_name': summary.get('config_name'),
    'split': split,
    'notes': notes,
    'evaluated': evaluated,
  }
  files: dict[str, str | bytes] = {
    **images,
    'report.md': html.render(f'{template}.md.j2', **page),
    'report.html': html.render(f'{template}.html.j2', **page),
    'report.json': html.lined_json({**head, **record}),
  }
  target = Path(directory) / 'report'
  write_all(target, files, {'curves.png', *grids})
  return target / 'report.html'
