"""The page of `growth.py`: a section, a plot and a table for each axis."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from growth_axes import AXES
from matplotlib.figure import Figure
from table import table

from jaxvision.reports import style

_TEXT = """\
# How cost grows

Time and memory as one thing grows and all else stays: batch, width, depth, image size,
classes, images, devices. `python benchmarks/growth.py` measures it, each row in a process
of its own, and makes this page out of
[{results}](../benchmarks/results/{results}).

*Time* and *work* are multiples of those in the first row. Work is floating-point operations
where a network computes, else what the axis counts. Where time grows less than work, the
larger one is done more efficiently; where it grows more, the text says why. *Temp* is the
memory that XLA says a step needs beside its arguments, *peak* that of the whole process with
its compiler, or what is added to it where no network computes.

{where}
"""

Rows = Sequence[dict[str, Any]]


def read(path: Path) -> dict[str, Any]:
  """Returns a result; ends the command where the file is none."""
  try:
    content = json.loads(path.read_text())
  except (OSError, ValueError) as error:
    raise SystemExit(f'{path} cannot be read: {error}') from error
  if not isinstance(content, dict) or content.get('benchmark') != 'growth':
    raise SystemExit(f'{path} is no result of this benchmark')
  return content


def by_axis(content: dict[str, Any]) -> Iterator[tuple[str, Rows]]:
  """Yields each axis that was measured, and its rows."""
  for axis in AXES:
    if rows := [row for row in content['rows'] if row['axis'] == axis]:
      yield axis, rows


def _work(row: dict[str, Any], first: dict[str, Any]) -> float:
  if row['work'] is not None:
    return row['work'] / first['work']
  return row['at'] / first['at']


def _has(rows: Rows, name: str) -> bool:
  return any(row.get(name) is not None for row in rows)


def header(axis: str) -> tuple[str, ...]:
  """Returns the heads of the columns."""
  return AXES[axis].unit, 'ms', 'least', 'most', 'time', 'work', 'temp, MB', 'peak, MB'


def cells(axis: str, rows: Rows) -> list[tuple]:
  """Returns the table of an axis."""
  done = [row for row in rows if 'error' not in row]
  made = []
  for row in rows:
    if 'error' in row:
      made.append((row['at'], row['error'], *[None] * 6))
      continue
    seconds, first = row['seconds'], done[0]
    temp = row.get('temp_bytes')
    made.append(
      (
        row['at'],
        *(1e3 * seconds[key] for key in ('median', 'min', 'max')),
        seconds['median'] / first['seconds']['median'],
        _work(row, first),
        None if temp is None else temp / 1e6,
        row['peak_bytes'] / 1e6,
      )
    )
  return made


def plot(axis: str, rows: Rows) -> Figure:
  """Draws time and memory over the work, all as multiples of the first row."""
  theme, done = style.LIGHT, [row for row in rows if 'error' not in row]
  first = done[0]
  values = [row['at'] for row in done]
  memory, label = (
    ('temp_bytes', 'temp memory')
    if _has(done, 'temp_bytes')
    else (
      'peak_bytes',
      'added memory',
    )
  )
  figure = style.new_figure(6.8, 3.4, theme)
  axes = figure.subplots()
  style.tidy(axes, theme)
  work = [_work(row, first) for row in done]
  axes.plot(values, work, color=theme.muted, linestyle='--', linewidth=1, label='work')
  lines = (
    ([row['seconds']['median'] for row in done], 'time', theme.train, 'o'),
    ([row[memory] for row in done], label, theme.test, 's'),
  )
  for measured, name, color, marker in lines:
    if measured[0]:
      over = [value / measured[0] for value in measured]
      axes.plot(values, over, color=color, marker=marker, markersize=4, label=name)
  axes.set_xscale('log')
  axes.set_yscale('log')
  axes.set_xticks(values, [f'{value:,}' for value in values])
  axes.minorticks_off()
  axes.set_xlabel(AXES[axis].unit, color=theme.ink, fontsize=style.NORMAL)
  axes.set_ylabel('times the first row', color=theme.ink, fontsize=style.NORMAL)
  style.legend(axes, theme, loc='best')
  return figure


def _file(axis: str) -> str:
  return f'growth-{axis}.png'


def page(content: dict[str, Any], results: str) -> str:
  """Returns the page.

  Args:
    content: of the JSON.
    results: the name of its file.
  """
  done = [row for row in content['rows'] if 'error' not in row]
  hello = done[0]['hello']
  rounds = sorted({row['seconds']['n'] for row in done})
  machine, versions = content['machine'], hello['versions']
  where = (
    f'Measured on {hello["device"]}, JAX {versions["jax"]}, Python {versions["python"]}, '
    f'medians of {" or ".join(map(str, rounds))} rounds ({machine["system"]}).'
  )
  measured = dict(by_axis(content))
  missing = [
    known.title.lower() for axis, known in AXES.items() if axis not in measured
  ]
  if missing:
    where += f' Not measured yet: {"; ".join(missing)}.'
  parts = [_TEXT.format(results=results, where=where)]
  for axis, rows in measured.items():
    known = AXES[axis]
    parts += [
      f'## {known.title}\n',
      f'The time is that of {known.measured}. {known.why}'.strip() + '\n',
      f'![{known.title}: time and memory](images/{_file(axis)})\n',
      table(header(axis), cells(axis, rows)) + '\n',
    ]
  return '\n'.join(parts)


def write(
  content: dict[str, Any], path: Path, results: str = 'growth_cpu.json'
) -> None:
  """Writes the page, and its plots into `images` beside it."""
  images = path.parent / 'images'
  images.mkdir(parents=True, exist_ok=True)
  for axis, rows in by_axis(content):
    if any('error' not in row for row in rows):
      (images / _file(axis)).write_bytes(style.reduced(style.png(plot(axis, rows))))
  path.write_text(page(content, results))
