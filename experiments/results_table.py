"""The README's results table, made from the summaries of the runs under results/.

python experiments/results_table.py [--write]
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = '<!-- results: begin -->', '<!-- results: end -->'

# Config, row of the targets and what the row's author reported, in the README's order.
ROWS = (
  ('digits_cnn', 'first model', ''),
  ('mnist_cnn', 'C1', '99 +'),
  ('cifar10_simcnn', 'C2', '58'),
  ('cifar10_basiccnn', 'C4', '66.2'),
  ('cifar10_basiccnn_augment', 'C4, S3', ''),
  ('cifar10_resnet20', 'C5', '79.7'),
  ('cifar10_resnet20_augment', 'C6', '82.6'),
  ('cifar10_resnet', 'C5', '79.7'),
  ('cifar10_resnet_augment', 'C6', '82.6'),
  ('cifar10_originalcnn', 'C7', '88.4'),
  ('cifar10_customcnn', 'C8', '93.3'),
  ('cifar10_resnet18', 'C9', '93.3'),
  ('cifar10_resnet50_transfer', 'C10', '70-73'),
  ('cifar10_airbench94', 'C14', '94.01'),
  ('cifar100_smallcnn', 'C11', '33.9'),
  ('cifar100_to_cifar10', 'from C11', ''),
  ('cifar100_resnet18', 'C15', '75.6'),
  ('dogs_resnet50_transfer', 'C13', ''),
)


def load_results(directory: Path) -> dict[str, list[dict[str, Any]]]:
  """Returns config name -> summaries of its runs, by seed."""
  results: dict[str, list[dict[str, Any]]] = {}
  for path in sorted(directory.glob('*.json')):
    summary = json.loads(path.read_text())
    results.setdefault(summary['config_name'], []).append(summary)
  for summaries in results.values():
    summaries.sort(key=lambda summary: summary['seed'])
  return results


def minutes(seconds: float) -> str:
  """Returns a duration as '0:25' or '12:03': minutes and seconds."""
  whole = round(seconds)
  return f'{whole // 60}:{whole % 60:02}'


def row(name: str, target: str, reported: str, runs: list[dict[str, Any]]) -> str:
  """Returns one line of the table; what was not measured is blank."""
  if not runs:
    return f'| `{name}` | {target} | {reported} | | | | |'
  accuracies = [100 * run['test_accuracy'] for run in runs]
  accuracy = f'**{statistics.mean(accuracies):.2f}**'
  if len(runs) > 1:
    accuracy += f' ± {statistics.stdev(accuracies):.2f}'
  hardware = ', '.join(sorted({run['device_kind'] for run in runs}))
  wall = minutes(statistics.mean(run['seconds_total'] for run in runs))
  params = f'{runs[0]["params"]:,}'
  return (
    f'| `{name}` | {target} | {reported} | {accuracy} | {len(runs)} | {params} | '
    f'{hardware}, {wall} |'
  )


def table(results: dict[str, list[dict[str, Any]]]) -> str:
  """Returns the whole table as Markdown."""
  unknown = results.keys() - {name for name, _, _ in ROWS}
  if unknown:
    raise ValueError(f'results of configs without a row: {", ".join(sorted(unknown))}')
  lines = [
    '| config | row | reported, % | ours, % | seeds | parameters | hardware, wall time |',
    '|---|---|---|---|---|---|---|',
    *(row(*fields, results.get(fields[0], [])) for fields in ROWS),
  ]
  return '\n'.join(lines)


def replaced(text: str, content: str) -> str:
  """Returns `text` with what stands between the markers replaced."""
  before, _, rest = text.partition(BEGIN)
  _, _, after = rest.partition(END)
  return f'{before}{BEGIN}\n{content}\n{END}{after}'


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--write', action='store_true', help='into README.md')
  content = table(load_results(ROOT / 'experiments' / 'results'))
  if not parser.parse_args().write:
    print(content)
    return
  readme = ROOT / 'README.md'
  readme.write_text(replaced(readme.read_text(), content))


if __name__ == '__main__':
  main()
