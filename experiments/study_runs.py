"""The runs of a study: trained one after another, and put on record."""

import dataclasses
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from study import Budget, Study, Variant

from jaxvision import config as config_lib
from jaxvision.errors import TrainingDiverged
from jaxvision.reports import html
from jaxvision.training.logging import read_history
from jaxvision.training.run_directory import RunDirectory, write_json

ROOT = Path(__file__).resolve().parent.parent

# What a record takes over from summary.json.
KEPT = (
  'task',
  'dataset',
  'synthetic',
  'model',
  'params',
  'steps',
  'epochs',
  'train_accuracy',
  'train_loss',
  'test_accuracy',
  'test_accuracy_top5',
  'test_loss',
  'seconds_train',
  'seconds_compile',
  'seconds_total',
  'images_per_second',
  'dtype',
  'backend',
  'device_kind',
  'device_count',
  'versions',
  'git_commit',
)


@dataclasses.dataclass(frozen=True)
class Run:
  """One variant with one seed.

  Attributes:
    variant, seed, config: what is trained.
    stem: path of its directory without the seed.
  """

  variant: Variant
  seed: int
  config: ConfigDict
  stem: Path

  @property
  def directory(self) -> RunDirectory:
    """Where it is trained."""
    return RunDirectory(self.stem.with_name(self.name))

  @property
  def name(self) -> str:
    """Of its directory."""
    return f'{self.stem.name}-seed{self.seed}'

  @property
  def diverged_file(self) -> Path:
    """Is there where the loss of the run became infinite, which is a result, too."""
    return self.directory.path / 'diverged.json'

  @property
  def finished(self) -> bool:
    """Whether there is nothing left to train."""
    return self.directory.summary() is not None or self.diverged_file.exists()

  def check(self) -> None:
    """Raises UserError where its directory holds a run of another config."""
    self.directory.check(self.config)


def resolve(
  variant: Variant, budget: Budget, seed: int, extra: Sequence[str] = ()
) -> Any:
  """Returns the config of one run."""
  return config_lib.load(
    ROOT / 'configs' / f'{variant.config}.py',
    # Where a budget takes some of the training images, each seed draws its own.
    (
      *budget.overrides,
      *variant.overrides,
      *extra,
      f'seed={seed}',
      f'data.split_seed={seed}',
    ),
  )


def train(runs: Sequence[Run]) -> bool:
  """Trains what is not finished; returns False if a signal stopped it.

  What another process trains at this moment is left to it.
  """
  import jax

  from jaxvision import commands

  for number, run in enumerate(runs, start=1):
    if run.finished:
      continue
    if not run.directory.is_free():
      print(f'{run.name}: another process trains it')
      continue
    print(f'[{number}/{len(runs)}] {run.name}', flush=True)
    try:
      summary = commands.train(run.config, run.directory.path)
    except TrainingDiverged as error:
      print(f'{run.name}: {error}')
      steps = [point['step'] for point in read_history(run.directory.metrics_file)]
      write_json(run.diverged_file, {'last_logged_step': max(steps, default=0)})
    else:
      if summary is None:
        return False
    # The numbers are what a study keeps: the weights of dozens of runs fill a disk, and
    # their programs the memory.
    shutil.rmtree(run.directory.checkpoints, ignore_errors=True)
    jax.clear_caches()
  return True


def as_json(
  study: Study, budget: Budget, extra: Sequence[str], runs: Sequence[Run]
) -> str:
  """Returns the record of a study: all that its tables and plots are made from.

  Paths of this machine are left out: of a file, its name stays.
  """
  firsts = {run.variant.label: run for run in reversed(runs)}
  decisive = [config_lib.decisive(run.config) for run in firsts.values()]
  differing = [
    path
    for path in sorted(set().union(*decisive) - {'name'})
    if any(fields.get(path) != decisive[0].get(path) for fields in decisive)
    and path not in ('seed', 'data.split_seed')
  ]
  command = ['python', f'experiments/{study.name}.py', f'--budget={budget.name}']
  for change in extra:
    path, _, value = change.partition('=')
    command += ['--set', f'{path}={_portable(value)}']
  return html.lined_json(
    {
      'study': study.name,
      'question': study.question,
      'budget': dataclasses.asdict(budget),
      'command': shlex.join(command),
      'variants': [
        _variant(firsts[variant.label])
        for variant in study.variants
        if variant.label in firsts
      ],
      'runs': [
        {
          'label': run.variant.label,
          'seed': run.seed,
          'budget': budget.name,
          'fields': {
            path: _portable(value)
            for path, value in config_lib.decisive(run.config).items()
            if path in differing
          },
          **_measured(run),
          'command': shlex.join(
            [*command, f'--only={run.variant.label}', f'--seeds={run.seed}-{run.seed}']
          ),
        }
        for run in runs
      ],
    }
  )


def _variant(run: Run) -> dict[str, Any]:
  """Returns what the runs of a variant have in common."""
  from jaxvision.training.describe import flops_per_image

  fields = dict(_flat(run.config))
  return {
    'label': run.variant.label,
    'config_name': run.variant.config,
    'overrides': [_portable(text) for text in run.variant.overrides],
    'flops': flops_per_image(run.config, run.directory.dataset()),
    'config': fields,
  }


def _flat(config: ConfigDict) -> Iterator[tuple[str, Any]]:
  for path, value in config_lib.walk(config):
    if path not in ('seed', 'data.split_seed'):  # those of the run
      yield path, _portable(value)


def _portable(value: Any) -> Any:
  """Returns the name alone of what is an absolute path."""
  if isinstance(value, str) and Path(value).is_absolute():
    return Path(value).name
  return value


def _measured(run: Run) -> dict[str, Any]:
  """Returns what a run came to; of one that diverged, how far it came."""
  summary = run.directory.summary() or {}
  points = [
    point
    for point in read_history(run.directory.metrics_file)
    if point['split'] == 'test'
  ]
  return {
    'diverged': run.diverged_file.exists(),
    **{key: summary.get(key) for key in KEPT},
    'history': {
      key: [point.get(key) for point in points] for key in ('step', 'accuracy', 'loss')
    },
  }
