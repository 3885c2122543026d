"""Rendering of pages: templates, formatting of values, JSON."""

import base64
import json
import math
import re
import shlex
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from jaxvision.reports.theme import DARK, LIGHT, css_variables

_HERE = Path(__file__).parent
MISSING = '\N{EN DASH}'  # shown for a value that was not measured


def jsonable(value: Any) -> Any:
  """Converts nested values to strict JSON; NaN and infinity become None.

  >>> jsonable({'loss': np.float32('nan'), 'shape': (np.int64(8), 8)})
  {'loss': None, 'shape': [8, 8]}
  """
  if isinstance(value, Mapping):
    return {str(key): jsonable(item) for key, item in value.items()}
  if isinstance(value, np.ndarray | np.generic):
    return jsonable(value.tolist())
  if isinstance(value, list | tuple):
    return [jsonable(item) for item in value]
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  if value is None or isinstance(value, bool | int | str):
    return value
  return str(value)


def number(value: float | None, spec: str = ',') -> str:
  """Formats a number; None and NaN as a dash.

  >>> number(57332), number(0.51234, '.3f'), number(None) == MISSING
  ('57,332', '0.512', True)
  """
  if value is None or not math.isfinite(value):
    return MISSING
  return format(value, spec)


def percent(value: float | None, decimals: int = 2) -> str:
  """Formats a share in per cent.

  >>> percent(0.98765), percent(None) == MISSING
  ('98.77%', True)
  """
  return number(value, f'.{decimals}%')


def elapsed_time(seconds: float | None) -> str:
  """Formats a time in its two largest units.

  >>> elapsed_time(0.25), elapsed_time(93.4), elapsed_time(7384), elapsed_time(None) == MISSING
  ('0.2 s', '1 min 33 s', '2 h 3 min', True)
  """
  if seconds is None or not math.isfinite(seconds):
    return MISSING
  if seconds < 60:
    return f'{seconds:.1f} s'
  minutes, rest = divmod(round(seconds), 60)
  if minutes < 60:
    return f'{minutes} min {rest} s'
  return f'{minutes // 60} h {minutes % 60} min'


def size(count: float | None) -> str:
  """Formats a number of bytes.

  >>> size(1_500_000_000), size(820_000), size(None) == MISSING
  ('1.5 GB', '0.8 MB', True)
  """
  if count is None or not math.isfinite(count):
    return MISSING
  return f'{count / 1e9:.1f} GB' if count >= 1e9 else f'{count / 1e6:.1f} MB'


def text(value: Any) -> str:
  """Formats any other value; None and '' as a dash."""
  return MISSING if value is None or value == '' else str(value)


def markdown(value: Any) -> str:
  """Escapes text for one line of Markdown, inside a table or outside.

  >>> print(markdown('a|b <c> *d*'))
  a\\|b &lt;c&gt; \\*d\\*
  """
  line = ' '.join(str(value).split()).replace('&', '&amp;').replace('<', '&lt;')
  return re.sub(r'([\\`*_\[\]|~$#])', r'\\\1', line.replace('>', '&gt;'))


def fenced(content: str, language: str = '') -> str:
  """Wraps text as a Markdown code block with a fence longer than any in the text."""
  longest = max((len(run) for run in re.findall('`+', content)), default=0)
  fence = '`' * max(3, longest + 1)
  return f'{fence}{language}\n{content}\n{fence}'


def command_line(command: str | list[str] | None) -> str:
  """Quotes a command for a shell; '' if there is none.

  >>> command_line(['jaxvision', '--workdir=my runs'])
  "jaxvision '--workdir=my runs'"
  """
  return shlex.join(command) if isinstance(command, list) else command or ''


def circumstances(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
  """Lists time, speed, hardware, seed and commit of a run as (label, value)."""
  count, kind = summary.get('device_count'), summary.get('device_kind')
  device = f'{count} \N{MULTIPLICATION SIGN} {kind}' if count and kind else text(kind)
  backend = summary.get('backend')
  commit = summary.get('git_commit')
  return [
    ('training time', elapsed_time(summary.get('seconds_train'))),
    ('compile time', elapsed_time(summary.get('seconds_compile'))),
    ('where the time went', time_shares(summary)),
    ('images/s', number(summary.get('images_per_second'), ',.0f')),
    ('device', device + (f' ({backend})' if backend and backend != kind else '')),
    ('compute dtype', text(summary.get('dtype'))),
    ('peak memory', size(summary.get('peak_memory_bytes'))),
    ('seed', text(summary.get('seed'))),
    ('commit', text(commit[:10] if commit else None)),
  ]


_SPENT = {
  'start': 'starting',
  'compile': 'compiling',
  'data': 'waiting for data',
  'evaluation': 'evaluation',
  'checkpoints': 'checkpoints',
  'repeated': 'repeated steps',
}


def time_shares(summary: Mapping[str, Any]) -> str:
  """Returns the shares of a run's seconds, the steps first, each of 1 % or more.

  >>> time_shares({'seconds_total': 100.0, 'goodput': 0.9, 'seconds_compile': 7.0})
  'steps 90 %, compiling 7 %'
  """
  total, goodput = summary.get('seconds_total'), summary.get('goodput')
  if not total or goodput is None:
    return MISSING
  shares = {'steps': goodput} | {
    words: (summary.get(f'seconds_{kind}') or 0.0) / total
    for kind, words in _SPENT.items()
  }
  shown = [f'{words} {share:.0%}' for words, share in shares.items() if share >= 0.01]
  return ', '.join(shown).replace('%', ' %')


def evaluated(
  summary: Mapping[str, Any], notes: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
  """Returns what a report measured, and the notes of its head, of that first.

  Args:
    summary: its field `evaluated` is the first; a summary without it says nothing.
    notes: further notes.
  """
  known = dict(summary.get('evaluated') or {})
  return known, [*known.pop('notes', ()), *notes]


def data_uri(image: bytes, kind: str = 'png') -> str:
  """Returns an image as a data URI; `kind` is the MIME subtype."""
  return f'data:image/{kind};base64,' + base64.b64encode(image).decode('ascii')


def png_size(png: bytes) -> tuple[int, int]:
  """Reads width and height in pixels from the header of a PNG."""
  width, height = struct.unpack('>II', png[16:24])
  return width, height


def render(template: str, **values: Any) -> str:
  """Renders a template of this package; *.html.j2 escapes every value.

  Raises:
    jinja2.UndefinedError: the template names a value that was not given.
  """
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(
      [_HERE, *(p for p in _HERE.iterdir() if p.is_dir())]
    ),
    autoescape=lambda name: name is not None and name.endswith('.html.j2'),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )
  functions = (
    number,
    percent,
    elapsed_time,
    size,
    text,
    markdown,
    fenced,
    data_uri,
    png_size,
  )
  environment.globals['chart_colors'] = {
    name: '; '.join(f'{key}: {color}' for key, color in css_variables(theme).items())
    for name, theme in (('light', LIGHT), ('dark', DARK))
  }
  environment.filters |= {function.__name__: function for function in functions}
  return environment.get_template(template).render(**values)


def lined_json(record: Mapping[str, Any]) -> str:
  """Formats JSON with one line per field and per item of a list of lists or objects.

  >>> print(lined_json({'accuracy': 0.5, 'matrix': [[1, 1], [0, 2]]}), end='')
  {
    "accuracy": 0.5,
    "matrix": [
      [1, 1],
      [0, 2]
    ]
  }
  """

  def dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)

  fields = []
  for key, value in jsonable(record).items():
    if isinstance(value, list) and value and isinstance(value[0], list | dict):
      items = ',\n'.join(f'    {dump(item)}' for item in value)
      fields.append(f'  {dump(key)}: [\n{items}\n  ]')
    else:
      fields.append(f'  {dump(key)}: {dump(value)}')
  return '{\n' + ',\n'.join(fields) + '\n}\n'
