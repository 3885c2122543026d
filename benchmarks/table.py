"""What every benchmark prints and writes: a table, and JSON with where it was measured."""

import argparse
import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = (
  'jax',
  'jaxlib',
  'flax',
  'optax',
  'numpy',
  'grain',
  'pillow',
  'simplejpeg',
  'cykooz-resizer',
  'torch',
  'onednn-cpu-gomp',
  'tensorflow',
  'tensorflow-cpu',
)


def parser(description: str) -> argparse.ArgumentParser:
  """Returns a parser with the options that all benchmarks have.

  Args:
    description: the script's docstring, whose first line is the description.
  """
  made = argparse.ArgumentParser(description=description.strip().splitlines()[0])
  made.add_argument('--json', metavar='FILE', type=Path, help='write the result there')
  return made


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
  """Returns a Markdown table; floats with three significant digits, None as a dash."""

  def text(cell: Any) -> str:
    if cell is None:
      return '-'
    if isinstance(cell, float):
      return f'{cell:,.0f}' if abs(cell) >= 1000 else f'{cell:.3g}'
    return f'{cell:,}' if isinstance(cell, int) else str(cell)

  cells = [list(header), *([text(cell) for cell in row] for row in rows)]
  widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
  lines = [
    '| ' + ' | '.join(cell.ljust(width) for cell, width in zip(row, widths)) + ' |'
    for row in cells
  ]
  rule = '|' + '|'.join('-' * (width + 2) for width in widths) + '|'
  return '\n'.join([lines[0], rule, *lines[1:]])


def machine() -> dict[str, Any]:
  """Returns the processor, cores, load and system of this machine, without JAX."""
  cores = (
    len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
  )
  processor = platform.processor() or platform.machine()
  try:
    for line in Path('/proc/cpuinfo').read_text().splitlines():
      if line.startswith('model name'):
        processor = line.split(':', 1)[1].strip()
        break
  except OSError:
    pass
  return {
    'processor': processor,
    'cores': cores,
    'features': features(),
    # Of the minute before: what else ran here when the numbers were taken.
    'load_average': os.getloadavg()[0],
    # Not the build of its kernel, which tells readers nothing.
    'system': platform.system(),
  }


# Of the processor's flags, those that decide how fast matrix products are.
_FEATURES = ('avx2', 'avx512f', 'avx512_vnni', 'avx512_bf16', 'avx512_fp16', 'amx_bf16')


def features() -> list[str]:
  """Returns which vector and matrix units this processor has, by Linux's names."""
  try:
    text = Path('/proc/cpuinfo').read_text()
  except OSError:
    return []
  flags = text.partition('flags')[2].partition('\n')[0].split()
  return [feature for feature in _FEATURES if feature in flags]


def versions() -> dict[str, str]:
  """Returns the versions of Python and of the packages at hand in this interpreter."""
  found = {'python': platform.python_version()}
  for name in _PACKAGES:
    try:
      found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      continue
  return found


def commit() -> str | None:
  """Returns the commit of the project, '+dirty' if it has changes, or None."""

  def git(*arguments: str) -> str:
    here = Path(__file__).resolve().parent
    command = ['git', *arguments]
    return subprocess.run(
      command, cwd=here, capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()

  try:
    found = git('rev-parse', 'HEAD')
    return found + ('+dirty' if git('status', '--porcelain', '-uno') else '')
  except (OSError, subprocess.SubprocessError):
    return None


def warn_if_busy() -> None:
  """Says so where other processes have kept this machine's cores busy of late."""
  here = machine()
  if here['load_average'] > here['cores'] / 4:
    print(
      f'warning: other work runs on this machine (load {here["load_average"]:.1f} on '
      f'{here["cores"]} cores): the figures are not to be trusted',
      file=sys.stderr,
      flush=True,
    )


class Result:
  """Collects a benchmark's rows; writes the JSON after each, so that none is lost.

  Says so on the standard error where the machine is busy already.

  Args:
    name: of the benchmark.
    path: of the JSON; None: it is not written.
    timed: whether the figures depend on how busy the machine is.
    facts: further entries, such as the settings.
  """

  def __init__(self, name: str, path: Path | None, *, timed: bool = True, **facts: Any):
    if timed:
      warn_if_busy()
    self._path = path
    self._content = {
      'benchmark': name,
      'command': shlex.join(['python', *sys.argv]),
      'started': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
      'git_commit': commit(),
      'machine': machine(),
      'versions': versions(),
      **facts,
      'rows': [],
    }

  @property
  def content(self) -> dict[str, Any]:
    """What is written: the rows, and all that is known beside them."""
    return self._content

  @property
  def rows(self) -> list[dict[str, Any]]:
    """The rows so far."""
    return self._content['rows']

  def add(self, row: dict[str, Any]) -> None:
    """Adds a row and writes the file anew."""
    self.rows.append(row)
    self.write()

  def write(self) -> None:
    """Writes the file anew, if there is one to write."""
    if self._path:
      self._path.parent.mkdir(parents=True, exist_ok=True)
      self._path.write_text(json.dumps(self._content, indent=2) + '\n')

  def note(self, **facts: Any) -> None:
    """Adds entries that are known only now, such as what a side says of itself."""
    self._content.update(facts)
