"""Two results of one benchmark: which rows lost by more than their noise.

    python benchmarks/compare.py benchmarks/results/train_throughput_cpu.json new.json

Of train_throughput.py, latency.py, input_pipeline.py, growth.py and
speedrun.py. A measure of a row is a spread: the least, the median and the largest of its
turns. Of a row that was measured beside a peer it is the ratio, which a machine that slows
down does not move; of one that was not, images per second or seconds. A speed run is one
row, whose spreads are of its seeds. Rows of the peers alone are left out.

The rule: a loss is where the median of NEW is worse than all turns of OLD, and the median of
OLD is better than all turns of NEW; a gain is the same the other way round. What lies between
is noise. Of five turns each that differ by chance alone, one comparison in 42 is called a
loss. A measure of fewer than three turns on a side has no noise to tell, and is shown only.

Exit code 1 where there is a loss, 2 where the files cannot be compared. Rows that only one
file has, and settings or machines that differ, are named in a line.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sides import spread
from table import table

# The first of these that a row has are compared, with whether more is better.
_MEASURES: tuple[Mapping[str, bool], ...] = (
  {'ratio': True},
  {'ratio_to_torch': True, 'ratio_to_tf.data': True},
  {'images_per_second': True},
  {'seconds': False, 'accuracy': True},
)
_FEWEST = 3  # turns that tell how noisy a measure is
# What a run finds out; the other numbers and words of a row say what was measured.
_FOUND = (
  'bytes',
  'float32_bytes',
  'loss',
  'model_flops_per_step',
  'parameters',
  'peak_bytes',
  'peak_memory_bytes',
  'ours_peak_memory_bytes',
  'peer_peak_memory_bytes',
  'seconds_to_ready',
  'steps_per_dispatch',
  'temp_bytes',
  'work',
)
_PEER = ('channels_last', 'compile', 'optimizer', 'freezing')
_PEER_PIPELINES = ('torch', 'tf.data')
_SETTINGS = (
  'dtype',
  'dtypes',
  'model',
  'rounds',
  'seconds_per_turn',
  'seconds',
  'batch',
  'config',
)


class Mistake(Exception):
  """What is wrong with a file, in one line."""


@dataclasses.dataclass(frozen=True)
class Measured:
  """A measure of a row in both files.

  Attributes:
    row: what was measured, in words.
    measure: its name.
    old, new: {'n', 'min', 'median', 'max'}.
    more_is_better: of the measure.
  """

  row: str
  measure: str
  old: Mapping[str, float]
  new: Mapping[str, float]
  more_is_better: bool

  @property
  def change(self) -> float:
    """The median of the new over that of the old, less 1."""
    return self.new['median'] / self.old['median'] - 1

  @property
  def verdict(self) -> str:
    """Returns 'loss', 'gain', 'noise', or '' where there are too few turns."""
    if min(self.old['n'], self.new['n']) < _FEWEST:
      return ''
    if _beyond(self.old, self.new):
      return 'gain' if self.more_is_better else 'loss'
    if _beyond(self.new, self.old):
      return 'loss' if self.more_is_better else 'gain'
    return 'noise'


def _beyond(low: Mapping[str, float], high: Mapping[str, float]) -> bool:
  """Returns whether each median lies outside of the other's turns, `high` above."""
  return high['median'] > low['max'] and low['median'] < high['min']


def read(path: Path) -> dict[str, Any]:
  """Returns the content of a result; raises Mistake where it is none."""
  try:
    content = json.loads(path.read_text())
  except (OSError, ValueError) as error:
    raise Mistake(f'{path} cannot be read: {" ".join(str(error).split())}') from error
  if not isinstance(content, dict) or not {'benchmark', 'rows'} <= content.keys():
    raise Mistake(
      f'{path} is no result of a benchmark: it has no "benchmark" and "rows"'
    )
  return content


def rows_of(content: Mapping[str, Any]) -> dict[str, dict[str, tuple[Any, bool]]]:
  """Returns what each row is of, in words -> measure -> (spread, if more is better)."""
  rows = content['rows']
  if content['benchmark'] == 'speedrun':
    if not rows:
      return {}
    name = content.get('config', {}).get('name') or 'runs'
    measures = _MEASURES[-1]
    return {name: {k: (spread([r[k] for r in rows]), m) for k, m in measures.items()}}
  found: dict[str, dict[str, tuple[Any, bool]]] = {}
  for row in rows:
    if row.get('pipeline') in _PEER_PIPELINES:
      continue
    # The ratio of latency.py is the float32 file's speed over that of what a row names,
    # which for int8 is ours as well.
    flipped = row.get('what') == 'int8'
    for measures in _MEASURES:
      spreads = {
        key: (row[key], more != flipped)
        for key, more in measures.items()
        if _is_spread(row.get(key))
      }
      if spreads:
        words = {k: v for k, v in row.items() if _names(k, v)}
        found[_in_words(words)] = spreads
        break
  return found


def _is_spread(value: Any) -> bool:
  return isinstance(value, dict) and {'n', 'min', 'median', 'max'} <= value.keys()


def _names(key: str, value: Any) -> bool:
  """Returns whether a field of a row says what was measured."""
  plain = isinstance(value, str | int) or (key == 'fields' and value)
  return bool(plain) and key not in _FOUND and key not in _PEER


def _in_words(words: Mapping[str, Any]) -> str:
  named = [f'{v}' if isinstance(v, str) else f'{k}={v}' for k, v in words.items()]
  return ' '.join(word for word in named if word and not word.endswith('=False'))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
  """Returns what differs between where and how the two were measured: 'NAME A, B'."""
  facts = [
    {
      **{key: content.get(key) for key in _SETTINGS},
      'processor': content.get('machine', {}).get('processor'),
      'cores': content.get('machine', {}).get('cores'),
      'device': (content.get('ours') or {}).get('device') or content.get('device_kind'),
      **{f'{k} version': v for k, v in content.get('versions', {}).items()},
    }
    for content in (old, new)
  ]
  different = []
  for key in dict.fromkeys([*facts[0], *facts[1]]):
    a, b = (fact.get(key) for fact in facts)
    if a != b:
      shown = '' if isinstance(a, dict) or isinstance(b, dict) else f' {a}, {b}'
      different.append(f'{key}{shown}')
  return different


def compare(
  old: Mapping[str, Any], new: Mapping[str, Any]
) -> tuple[list[Measured], list[str], list[str]]:
  """Returns the measures that both have, the rows only in the old, only in the new.

  Raises:
    Mistake: they are of different benchmarks, or have no row in common.
  """
  if old['benchmark'] != new['benchmark']:
    raise Mistake(
      f'these are two benchmarks, {old["benchmark"]} and {new["benchmark"]}: compare '
      'results of one'
    )
  before, after = rows_of(old), rows_of(new)
  measured = [
    Measured(row, measure, spread, after[row][measure][0], more)
    for row in before
    if row in after
    for measure, (spread, more) in before[row].items()
    if measure in after[row]
  ]
  if not measured:
    raise Mistake(
      f'no row of {old["benchmark"]} is in both: the one has {_listed(before)}, the '
      f'other {_listed(after)}'
    )
  only_old = [row for row in before if row not in after]
  only_new = [row for row in after if row not in before]
  return measured, only_old, only_new


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
  return '; '.join(names) or 'none that has spreads'


def cells(found: Measured) -> tuple:
  """Returns a row of the table."""
  spreads = [f'{s["min"]:.4g} to {s["max"]:.4g}' for s in (found.old, found.new)]
  return (
    found.row,
    found.measure,
    found.old['median'],
    spreads[0],
    found.new['median'],
    spreads[1],
    f'{found.change:+.1%}',
    found.verdict or 'too few turns',
  )


_HEADER = ('row', 'measure', 'old', 'turns', 'new', 'turns', 'change', '')


def main(arguments: Sequence[str] | None = None) -> int:
  """Compares the two files; returns the exit code."""
  assert __doc__
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('old', type=Path, metavar='OLD', help='JSON of a benchmark')
  parser.add_argument('new', type=Path, metavar='NEW', help='JSON of the same one')
  options = parser.parse_args(arguments)
  try:
    old, new = read(options.old), read(options.new)
    measured, only_old, only_new = compare(old, new)
  except Mistake as error:
    print(f'compare: {error}', file=sys.stderr)
    return 2
  if different := differences(old, new):
    print(f'not the same: {"; ".join(different)}')
  for path, rows in ((options.old, only_old), (options.new, only_new)):
    if rows:
      print(f'only in {path}: {_listed(rows)}')
  print(table(_HEADER, [cells(found) for found in measured]))
  lost = [found for found in measured if found.verdict == 'loss']
  for found in lost:
    print(f'loss: {found.row}: {found.measure} {found.change:+.1%}')
  return 1 if lost else 0


if __name__ == '__main__':
  sys.exit(main())
