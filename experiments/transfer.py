"""Transfer learning by the number of training images: four ways to use the same weights.

    python experiments/transfer.py --root=DIR --pretrained=SOURCE

DIR/{train,test}/CLASS/*.jpg are the images, SOURCE is what `init.pretrained` takes. Each
method is trained for the same number of steps on the same images, drawn per class:

  scratch    random weights, everything trains.
  linear     the pretrained layers are frozen, and only a linear classifier trains, on
             features that are computed once.
  head_first the classifier alone for the first fifth of the run, then everything.
  all        everything from the start.

The options are those of every study, and those of the images and weights; see --help.
"""

import statistics
from collections.abc import Sequence
from typing import Any

import study as study_lib
from study import Budget, Measured, Report, Study, Variant

BODY = '(?!head/).*'
NORMS = '.*bn[0-9]?'
PER_CLASS = (5, 15, 40, 100)

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


def accuracies(measured: Any) -> dict[str, dict[int, list[float]]]:
  """Returns method -> images per class -> test accuracies in %, one for each seed.

  Args:
    measured: the record of a study, or a list of its runs.
  """
  found: dict[str, dict[int, list[float]]] = {}
  for run in measured if isinstance(measured, list) else measured['runs']:
    if run['test_accuracy'] is not None:
      by_count = found.setdefault(run['method'], {})
      by_count.setdefault(run['per_class'], []).append(100 * run['test_accuracy'])
  return found


def _counts(found: dict[str, dict[int, list[float]]]) -> list[int]:
  return sorted({count for by_count in found.values() for count in by_count})


def table(study: Study, measured: Measured) -> str:
  """Returns a Markdown table: a row for each method, a column for each count."""
  found = accuracies(measured)
  counts = _counts(found)
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


def plot(study: Study, measured: Measured) -> dict[str, bytes]:
  """Draws accuracy over images per class, a line for each method."""
  from jaxvision.reports import style

  theme = style.LIGHT
  figure = style.new_figure(6.4, 3.8, theme)
  axes = figure.add_subplot()
  colors = (theme.muted, theme.validation, theme.train, theme.test)
  found = accuracies(measured)
  for (method, (title, _)), color in zip(METHODS.items(), colors):
    by_count = sorted(found.get(method, {}).items())
    means = [statistics.mean(values) for _, values in by_count]
    counts = [count for count, _ in by_count]
    axes.plot(counts, means, color=color, marker='o', markersize=4, label=title)
    for count, values in by_count:
      axes.vlines(count, min(values), max(values), color=color, linewidth=1)
  axes.set_xscale('log')
  axes.set_xticks(_counts(found), [str(count) for count in _counts(found)])
  axes.minorticks_off()
  axes.set_ylim(bottom=0)
  axes.set_xlabel('training images per class')
  axes.set_ylabel('test accuracy, %')
  style.tidy(axes, theme, grid='y')
  style.legend(axes, theme, loc='best')
  return {'': style.png(figure)}


def made(
  *,
  root: str = '',
  pretrained: str = '',
  image_size: int = 128,
  per_class: Sequence[int] = PER_CLASS,
  steps: int = 240,
  name: str = 'transfer',
) -> Study:
  """Returns the study on an image folder; the arguments are the options of main."""
  return Study(
    name=name,
    question='What are pretrained weights worth, by the number of training images?',
    variants=tuple(
      Variant(
        f'{method} {count}',
        'folder_resnet_transfer',
        (f'data.examples_per_class={count}', *changes),
        {'method': method, 'per_class': count},
      )
      for count in per_class
      for method, (_, changes) in METHODS.items()
    ),
    budgets=(
      Budget(
        '',
        1,
        (
          f'data.root={root}',
          f'data.image_size={image_size}',
          f'init.pretrained={pretrained}',
          f'steps={steps}',
          f'eval_every_steps={steps}',  # once, at the end
        ),
      ),
    ),
    report=Report(table, lambda *shown: table(*shown) + '\n', plot),
    command=(
      'experiments/transfer.py',
      '--root=DIR',
      '--pretrained=SOURCE',
      f'--image_size={image_size}',
      f'--per_class={",".join(map(str, per_class))}',
      f'--steps={steps}',
    ),
  )


STUDY = made()


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command line; returns its exit code."""
  parser = study_lib.parser(STUDY)
  # Every call writes here, with --set too: the stored table has some fields set.
  parser.set_defaults(output=study_lib.STUDIES, workdir='runs')
  parser.add_argument('--root', help='image folder')
  parser.add_argument('--pretrained', help='as init.pretrained')
  parser.add_argument('--image_size', type=int, default=128)
  parser.add_argument(
    '--per_class',
    type=lambda text: [int(n) for n in text.split(',')],
    default=PER_CLASS,
  )
  parser.add_argument('--steps', type=int, default=240)
  parser.add_argument('--name', default='transfer', help='of the files it writes')
  options = parser.parse_args(arguments)
  if not options.redraw and not (options.root and options.pretrained):
    parser.error('--root and --pretrained name the images and the weights')
  study = made(
    root=options.root or '',
    pretrained=options.pretrained or '',
    image_size=options.image_size,
    per_class=options.per_class,
    steps=options.steps,
    name=options.name,
  )
  return study_lib.run(study, options, restart=arguments is None)


if __name__ == '__main__':
  raise SystemExit(main())
