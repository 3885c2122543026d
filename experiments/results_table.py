"""The README's tables of results, made from the summaries of the runs under results/.

python experiments/results_table.py      # prints them; results.py puts them there
"""

import json
import statistics
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MARKERS = '<!-- {0}: begin -->', '<!-- {0}: end -->'

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
  ('cifar10_lite0_linear', 'C16', ''),
  ('cifar10_lite0_finetune', 'C16', ''),
  ('cifar10_airbench94', 'C14', '94.01'),
  ('cifar10_cct2', 'C17', '89.17'),
  ('cifar100_smallcnn', 'C11', '33.9'),
  ('cifar100_budget', 'C12', ''),
  ('cifar100_to_cifar10', 'from C11', ''),
  ('cifar100_resnet18', 'C15', '75.6'),
  ('cifar100_resnet20', 'judge of G2', ''),
  ('dogs_resnet50_transfer', 'C13', ''),
  ('dogs_lite0_linear', 'C16', ''),
  ('dogs_lite0_finetune', 'C16', ''),
)
# The same of what draws images.
GAN_ROWS = (
  ('digits_dcgan', 'first GAN', ''),
  ('mnist_dcgan', 'G1', 'coherent digits'),
  ('cifar100_dcgan', 'G2', 'FID 66.49'),
  ('cifar100_dcgan_plus', 'G2', ''),
  ('cifar10_dcgan', 'G3', 'FID 48.3'),
  ('digits_flow', 'first flow', ''),
  ('cifar100_flow', 'G2', ''),
  ('cifar10_flow', 'G3', ''),
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


def gan_row(name: str, target: str, reported: str, runs: list[dict[str, Any]]) -> str:
  """Returns one line of the table of GANs and flows; what was not measured is blank."""
  if not runs:
    return f'| `{name}` | {target} | {reported} | | | | | | |'

  def mean(field: str, form: str) -> str:
    values = [run[field] for run in runs]
    if None in values:
      return ''
    spread = f' ± {statistics.stdev(values):{form}}' if len(values) > 1 else ''
    return f'**{statistics.mean(values):{form}}**{spread}'

  distance = ''
  if mean('fd', '.2f'):
    name_of = {run['fd_name'] for run in runs}
    distance = f'{mean("fd", ".2f")} ({", ".join(sorted(name_of))}; floor '
    distance += f'{statistics.mean(run["fd_floor"] for run in runs):.2f})'
  worst = ''
  if all(run['class_shares'] for run in runs) and len(runs[0]['class_shares']) == 10:
    off = [max(abs(10 * share - 1) for share in run['class_shares']) for run in runs]
    worst = f'{100 * max(off):.0f} %'
  confidence = mean('class_confidence', '.3f')
  hardware = ', '.join(sorted({run['device_kind'] for run in runs}))
  wall = minutes(statistics.mean(run['seconds_total'] for run in runs))
  keys = ('params', 'generator_params', 'discriminator_params')
  params = ' + '.join(f'{runs[0][key]:,}' for key in keys if key in runs[0])
  return (
    f'| `{name}` | {target} | {reported} | {distance} | {confidence} | {worst} | '
    f'{len(runs)} | {params} | {hardware}, {wall} |'
  )


def table(results: dict[str, list[dict[str, Any]]]) -> str:
  """Returns the table of the classifiers as Markdown."""
  known = {name for name, _, _ in ROWS + GAN_ROWS}
  if unknown := results.keys() - known:
    raise ValueError(f'results of configs without a row: {", ".join(sorted(unknown))}')
  lines = [
    '| config | row | reported, % | ours, % | seeds | parameters | hardware, wall time |',
    '|---|---|---|---|---|---|---|',
    *(row(*fields, results.get(fields[0], [])) for fields in ROWS),
  ]
  return '\n'.join(lines)


def gan_table(results: dict[str, list[dict[str, Any]]]) -> str:
  """Returns the table of the GANs and flows as Markdown."""
  lines = [
    '| config | row | reported | distance | confidence | classes off uniform, at most | '
    'seeds | parameters | hardware, wall time |',
    '|---|---|---|---|---|---|---|---|---|',
    *(gan_row(*fields, results.get(fields[0], [])) for fields in GAN_ROWS),
  ]
  return '\n'.join(lines)


def replaced(text: str, content: str, name: str = 'results') -> str:
  """Returns `text` with what stands between the markers of a name replaced."""
  begin, end = (marker.format(name) for marker in MARKERS)
  before, found, rest = text.partition(begin)
  _, closed, after = rest.partition(end)
  if not found or not closed:
    raise ValueError(f'the text has no markers {begin} ... {end}')
  return f'{before}{begin}\n{content}\n{end}{after}'


if __name__ == '__main__':
  found = load_results(ROOT / 'experiments' / 'results')
  print(table(found), gan_table(found), sep='\n\n')
