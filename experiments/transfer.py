"""Transfer learning by the number of training images: four ways to use the same weights.

    python experiments/transfer.py --root=DIR --pretrained=SOURCE

DIR/{train,test}/CLASS/*.jpg are the images, SOURCE is what `init.pretrained` takes. Each
way is trained for the same number of steps on the same images, drawn per class:

  scratch    random weights, everything trains.
  linear     the pretrained layers are frozen, and only a linear classifier trains, on
             features that are computed once.
  head_first the classifier alone for the first fifth of the run, then everything.
  all        everything from the start.

Writes one JSON file with every number and what it was measured with, a table and a plot,
under experiments/studies. Runs that are there already (in --workdir) are not trained
again, so that a study which was stopped goes on.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / 'configs' / 'folder_resnet_transfer.py'
STUDIES = ROOT / 'experiments' / 'studies'

BODY = '(?!head/).*'
NORMS = '.*bn[0-9]?'

# What differs from the config. The pretrained networks keep the batch norms that they
# came with: statistics of small batches would change features that are good already.
METHODS: dict[str, tuple[str, tuple[str, ...]]] = {
  'scratch': (
    'from scratch',
    (
      'init.pretrained=',
      'init.skip=()',
      'optimizer.learning_rate=2e-3',
      'optimizer.groups.body.learning_rate=2e-3',
      'optimizer.groups.body.start=0.0',
      'schedule.warmup_steps=20',
    ),
  ),
  'linear': (
    'linear probe',
    (
      f'freeze=("{BODY}",)',
      'augment.resized_crop=()',
      'augment.flip=False',
      'optimizer.learning_rate=0.1',
    ),
  ),
  'head_first': ('head, then all', (f'freeze=("{NORMS}",)',)),
  'all': (
    'all at once',
    (
      f'freeze=("{NORMS}",)',
      'optimizer.groups.body.start=0.0',
      'schedule.warmup_steps=20',
    ),
  ),
}


def train_all(options: argparse.Namespace) -> list[dict[str, Any]]:
  """Trains what is not trained yet, and returns a record for each run."""
  from jaxvision import commands, config

  records = []
  for count in options.per_class:
    for method, (_, changes) in METHODS.items():
      for seed in range(options.seeds):
        overrides = (
          f'data.root={options.root}',
          f'data.examples_per_class={count}',
          f'data.image_size={options.image_size}',
          f'init.pretrained={options.pretrained}',
          f'steps={options.steps}',
          # Evaluated once, at the end.
          f'eval_every_steps={options.steps}',
          f'seed={seed}',
          f'data.split_seed={seed}',
          *options.set,
          *changes,
        )
        workdir = Path(options.workdir) / f'{method}-{count}-seed{seed}'
        loaded = config.load(str(CONFIG), overrides)
        summary = commands.train(loaded, workdir)
        if summary is None:
          raise SystemExit('stopped; the same command goes on from here')
        records.append(
          {'method': method, 'per_class': count}
          | {key: summary[key] for key in KEPT}
          | {'pretrained': origin(summary), 'changes': [*options.set, *changes]}
        )
  return records


KEPT = (
  'seed',
  'model',
  'params',
  'steps',
  'epochs',
  'train_accuracy',
  'test_accuracy',
  'test_loss',
  'seconds_total',
  'images_per_second',
  'device_kind',
  'dtype',
  'versions',
  'git_commit',
)


def origin(summary: dict[str, Any]) -> dict[str, Any] | None:
  """Returns where the weights of a run came from, without the folder of a file."""
  found = summary['pretrained']
  if found is None:
    return None
  path = Path(found['source'])
  source = path.name if path.exists() else found['source']
  return {'source': source, 'sha256': found['sha256'], 'revision': found['revision']}


def accuracies(records: list[dict[str, Any]]) -> dict[str, dict[int, list[float]]]:
  """Returns method -> images per class -> test accuracies in %, one for each seed."""
  found: dict[str, dict[int, list[float]]] = {}
  for record in records:
    by_count = found.setdefault(record['method'], {})
    by_count.setdefault(record['per_class'], []).append(100 * record['test_accuracy'])
  return found


def table(records: list[dict[str, Any]]) -> str:
  """Returns the study as a Markdown table: a row for each way, a column for each count."""
  found = accuracies(records)
  counts = sorted({record['per_class'] for record in records})
  lines = [
    '| test accuracy, % | ' + ' | '.join(f'{n} per class' for n in counts) + ' |',
    '|---' * (len(counts) + 1) + '|',
  ]
  for method, (title, _) in METHODS.items():
    cells = []
    for count in counts:
      values = found.get(method, {}).get(count, [])
      cell = f'{statistics.mean(values):.1f}' if values else ''
      if len(values) > 1:
        cell += f' ± {statistics.stdev(values):.1f}'
      cells.append(cell)
    lines.append(f'| {title} | ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def plot(records: list[dict[str, Any]]) -> bytes:
  """Returns the same as a PNG: accuracy over images per class, a line for each way."""
  from jaxvision.reports import style

  theme = style.LIGHT
  figure = style.new_figure(6.4, 3.8, theme)
  axes = figure.add_subplot()
  colors = (theme.muted, theme.validation, theme.train, theme.test)
  found = accuracies(records)
  for (method, (title, _)), color in zip(METHODS.items(), colors):
    by_count = sorted(found.get(method, {}).items())
    counts = [count for count, _ in by_count]
    means = [statistics.mean(values) for _, values in by_count]
    axes.plot(counts, means, color=color, marker='o', markersize=4, label=title)
    for count, values in by_count:
      axes.vlines(count, min(values), max(values), color=color, linewidth=1)
  axes.set_xscale('log')
  counts = sorted({record['per_class'] for record in records})
  axes.set_xticks(counts, [str(count) for count in counts])
  axes.minorticks_off()
  axes.set_ylim(bottom=0)
  axes.set_xlabel('training images per class')
  axes.set_ylabel('test accuracy, %')
  style.tidy(axes, theme, grid='y')
  style.legend(axes, theme, loc='best')
  return style.png(figure)


def redraw(file: Path) -> str:
  """Writes table and plot beside the file of the numbers; returns the table."""
  records = json.loads(file.read_text())
  drawn = table(records)
  file.with_suffix('.md').write_text(drawn + '\n')
  file.with_suffix('.png').write_bytes(plot(records))
  return drawn


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--root', help='image folder')
  parser.add_argument('--pretrained', help='as init.pretrained')
  parser.add_argument(
    '--set',
    action='append',
    default=[],
    metavar='KEY=VALUE',
    help='any field of the config, for all runs',
  )
  parser.add_argument('--image_size', type=int, default=128)
  parser.add_argument(
    '--per_class',
    type=lambda text: [int(n) for n in text.split(',')],
    default=[5, 15, 40, 100],
  )
  parser.add_argument('--steps', type=int, default=240)
  parser.add_argument('--seeds', type=int, default=1)
  parser.add_argument('--workdir', default='runs/transfer')
  parser.add_argument('--name', default='transfer', help='of the files it writes')
  parser.add_argument(
    '--redraw', action='store_true', help='table and plot from the file, no training'
  )
  options = parser.parse_args()
  file = STUDIES / f'{options.name}.json'
  if not options.redraw:
    if not options.root or not options.pretrained:
      parser.error('--root and --pretrained say what to train on and from')
    records = train_all(options)
    STUDIES.mkdir(exist_ok=True)
    file.write_text(json.dumps(records, indent=2) + '\n')
  print(redraw(file))


if __name__ == '__main__':
  main()
