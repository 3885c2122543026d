"""What the battery for GPUs measures: its entries, in the order of their worth.

Seconds are estimates for one H100, compilation included; what really passed is in the
battery's state. `rehearsal` has the same kinds of entries with tiny sizes, for a CPU.
"""

import dataclasses
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from battery import Entry

# max-autotune compiles for minutes, and its kernels for convolutions are seldom ahead of
# cuDNN's; `train_throughput.py` without --peer-modes tries it as well.
_MODES = '--peer-modes=eager,default,reduce-overhead'
# Both sides are there at once, and JAX would take three quarters of the memory.
_SHARED = {'XLA_CLIENT_MEM_FRACTION': '0.45'}
if 'XLA_PYTHON_CLIENT_MEM_FRACTION' in os.environ:  # JAX refuses to be given both
  _SHARED = {}

_TINY = (
  '--config.batch_size=8',
  '--config.eval_batch_size=16',
  '--config.dtype=float32',
  '--config.log_every_steps=2',
  '--config.eval_every_steps=3',
)
_EAGER = '--peer-modes=eager'
_TINY_GAN = (
  *_TINY[:2],
  '--config.steps=4',
  '--config.model.width=4',
  '--config.evaluation.samples=20',
  '--config.evaluation.samples_while_training=20',
)


@dataclasses.dataclass(frozen=True)
class Maker:
  """Makes entries.

  Attributes:
    folder: of the battery; absolute.
    peer: the peer's speed-run script, or None.
    peer_python: interpreter that has torch.
    inception: file of Inception's weights for FIDs, or None: judges of ours.
  """

  folder: Path
  peer: Path | None = None
  peer_python: str = sys.executable
  inception: Path | None = None

  def run(self, config: str) -> Path:
    """Returns the workdir of the training of a config."""
    return self.folder / 'runs' / f'{config}-seed0'

  def training(
    self, config: str, seconds: float, *overrides: str, judge: str = ''
  ) -> Entry:
    """Trains seed 0 of a config to its end; goes on where it was stopped."""
    if self.inception:
      overrides += (f'--config.evaluation.features={self.inception}',) * bool(judge)
    elif judge:
      overrides += (f'--config.evaluation.features={self.run(judge)}',)
    arguments = (
      f'--config=configs/{config}.py',
      '--config.seed=0',
      f'--workdir={self.run(config)}',
      '--config.report=False',
      *overrides,
    )
    return Entry(
      name=config,
      commands=((sys.executable, '-m', 'jaxvision.main', *arguments),),
      shown=self._shown('-m', 'jaxvision.main', *arguments),
      result=str((self.run(config) / 'summary.json').relative_to(self.folder)),
      target=f'experiments/results/{config}-seed0.json',
      seconds=seconds,
      headline=_of_training,
      resumes=True,
      data=(config.partition('_')[0],),
      after=(judge,) if judge and not self.inception else (),
    )

  def benchmark(
    self, name: str, script: str, seconds: float, *arguments: str, **fields: Any
  ) -> Entry:
    """Runs a script of this folder, which writes its JSON; anew where it was cut off."""
    result = f'benchmarks/{name}.json'
    private = [f'--json={self.folder / result}']
    if fields.get('torch'):
      private.append(f'--peer-python={self.peer_python}')
    command = (sys.executable, f'benchmarks/{script}', *arguments, *private)
    return Entry(
      name=name,
      commands=(*fields.pop('before', ()), command),
      shown=self._shown(f'benchmarks/{script}', *arguments),
      result=result,
      target=f'benchmarks/results/{name}_gpu.json',
      seconds=seconds,
      **fields,
    )

  def throughput(
    self, model: str, dtype: str, seconds: float, *more: str, modes: str = _MODES
  ) -> Entry:
    """Measures training beside PyTorch."""
    name, script = f'train_throughput_{model}_{dtype}', 'train_throughput.py'
    which = (f'--models={model}', f'--dtypes={dtype}', modes, *more)
    how = {'torch': True, 'environment': _SHARED, 'headline': _of_ratios}
    return self.benchmark(name, script, seconds, *which, **how)

  def speedrun(self, seconds: float, *arguments: str) -> Entry:
    """Measures C14, beside the peer's script where a copy is given."""
    fields: dict[str, Any] = {}
    if self.peer:
      # In the battery's folder, where the script finds the images and downloads nothing.
      folder = self.folder / 'peer'
      copied = f'import shutil; shutil.copy({str(self.peer)!r}, {str(folder)!r})'
      images = self.folder / 'cache' / 'cifar10'
      data = ('benchmarks/peer_cifar10.py', str(images), str(folder / 'cifar10'))
      fields['before'] = (
        (self.peer_python, *data),
        (sys.executable, '-c', copied),
      )
      arguments += (f'--peer={folder / self.peer.name}',)
    return self.benchmark(
      'speedrun',
      'speedrun.py',
      seconds,
      '--config=configs/cifar10_airbench94.py',
      *arguments,
      torch=bool(self.peer),
      data=('cifar10',),
      headline=_of_speedrun,
      **fields,
    )

  def _shown(self, *arguments: str) -> str:
    """Returns a command line without the folders of this machine."""
    texts = []
    for text in arguments:
      text = text.replace(f'{self.folder / "peer"}/', '')
      text = text.replace(str(self.folder / 'runs'), 'runs')
      texts.append(text.replace(str(self.inception), 'inception'))
    return shlex.join(['python', *texts])


def entries(maker: Maker) -> list[Entry]:
  """Returns what is blank in the tables, in the order of its worth."""
  bfloat16 = '--config.dtype=bfloat16'
  models = (('resnet18', 120), ('resnet50', 180), ('vit_small', 120), ('dcgan', 90))
  repeated = [
    '--config=configs/cifar10_resnet18.py',
    bfloat16,
    *_made_up(side=32, channels=3, examples=6000),
  ]
  return [
    maker.speedrun(300, '--seeds=20'),
    *(maker.throughput(model, 'bfloat16', seconds) for model, seconds in models),
    # As long as a GPU makes worth while: the configs' own lengths are for a CPU.
    maker.training('cifar10_resnet18', 150, bfloat16, '--config.epochs=40'),
    maker.training('cifar100_resnet18', 420, bfloat16, '--config.epochs=150'),
    maker.training('cifar100_resnet20', 75),
    maker.training('cifar100_dcgan', 240, judge='cifar100_resnet20'),
    maker.training('cifar10_dcgan', 240, judge='cifar10_resnet18'),
    *(maker.throughput(model, 'float32', seconds) for model, seconds in models),
    maker.benchmark(
      'growth_batch',
      'growth.py',
      200,
      *('--axes=batch', '--model=resnet18', '--values=64,256,1024,4096'),
      '--dtype=bfloat16',
      headline=_of_growth,
    ),
    maker.benchmark('repeats', 'repeats.py', 200, *repeated, headline=_of_checks),
    maker.benchmark(
      'repeats_processes',
      'repeats.py',
      150,
      *(*repeated, '--checks=processes'),
      gpus=2,
      headline=_of_checks,
    ),
    maker.training('cifar100_flow', 300, judge='cifar100_resnet20'),
    maker.training('cifar10_flow', 300, judge='cifar10_resnet18'),
  ]


def rehearsal(maker: Maker) -> list[Entry]:
  """Returns an entry of each kind that takes seconds on a CPU."""
  turns = ('--batch-size=8', '--rounds=2', '--seconds=0.1')
  images = _made_up(side=8, channels=1, examples=300)
  digits = ('--config=configs/digits_cnn.py', '--steps=30', *images)
  airbench = (*_TINY[:3], '--config.steps=5', '--config.model.widths=(4,6)')
  made = [
    maker.speedrun(20, '--seeds=2', *airbench),
    maker.throughput('small_filters_cnn', 'float32', 20, *turns, modes=_EAGER),
    maker.throughput('dcgan', 'float32', 20, *turns, modes=_EAGER),
    maker.training('cifar10_simcnn', 20, '--config.steps=6', *_TINY),
    maker.training('cifar10_dcgan', 20, *_TINY_GAN, judge='cifar10_simcnn'),
    maker.benchmark(
      'growth_batch',
      'growth.py',
      20,
      *('--axes=batch', '--values=4,8', '--rounds=2', '--seconds=0.1'),
      headline=_of_growth,
    ),
    maker.benchmark('repeats', 'repeats.py', 40, *digits, headline=_of_checks),
    maker.benchmark(
      'repeats_processes',
      'repeats.py',
      30,
      *(*digits, '--checks=processes'),
      headline=_of_checks,
    ),
  ]
  return [dataclasses.replace(entry, gpus=0) for entry in made]


def _made_up(*, side: int, channels: int, examples: int) -> tuple[str, ...]:
  """Returns fields of made-up images, which need no data set."""
  return (
    '--config.data.name=synthetic',
    f'--config.data.image_size={side}',
    f'--config.data.channels={channels}',
    f'--config.data.synthetic_examples={examples}',
  )


def chosen(made: Sequence[Entry], names: Sequence[str]) -> list[Entry]:
  """Returns the entries of these names, in their order; ends the command on another."""
  known = {entry.name: entry for entry in made}
  for name in names:
    if name not in known:
      raise SystemExit(f'gpu: there is no entry "{name}": {", ".join(known)}')
  return [known[name] for name in names] or list(made)


def _of_training(summary: dict[str, Any]) -> str:
  parts = []
  if summary.get('test_accuracy') is not None:
    parts.append(f'test accuracy {summary["test_accuracy"]:.2%}')
  if summary.get('fid') is not None:
    parts.append(f'FID {summary["fid"]:.2f}')
  elif summary.get('fd') is not None:
    parts.append(f'{summary["fd_name"]} {summary["fd"]:.2f}')
  parts.append(f'{summary["steps"]:,} steps in {summary["seconds_train"]:.0f} s')
  return ', '.join(parts)


def _of_ratios(result: dict[str, Any]) -> str:
  (row,) = result['rows']
  ours, ratio = row['ours'], row['ratio']
  return (
    f'{ours["median"]:,.0f} images/s, ratio {ratio["median"]:.2f} '
    f'({ratio["min"]:.2f} to {ratio["max"]:.2f})'
  )


def _of_speedrun(result: dict[str, Any]) -> str:
  ours = result['ours']
  text = f'{ours["accuracy"]["mean"]:.2%} in {ours["seconds"]["median"]:.2f} s'
  if 'ratio' not in result:
    return text
  peer = result['peer']
  theirs = f'{peer["accuracy"]["mean"]:.2%} in {peer["seconds"]["median"]:.2f} s'
  return f'{text}, the peer {theirs}, ratio {result["ratio"]:.2f}'


def _of_growth(result: dict[str, Any]) -> str:
  done = [row for row in result['rows'] if 'error' not in row]
  best = max(done, key=lambda row: row['at'] / row['seconds']['median'])
  return (
    f'{best["at"] / best["seconds"]["median"]:,.0f} images/s at {best["at"]:,} images, '
    f'{best["peak_bytes"] / 1e6:,.0f} MB'
  )


def _of_checks(result: dict[str, Any]) -> str:
  texts = []
  for row in result['rows']:
    equal = 'equal to the bit' if row['equal'] else f'differs by {row["largest"]:.1e}'
    texts.append(f'{row["check"]}: {equal}')
  return '; '.join(texts)
