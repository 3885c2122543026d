"""What a run writes while it trains: metrics.jsonl and lines on the terminal."""

import json
import logging
import math
import sys
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from jaxvision.io import write_whole
from jaxvision.signals import output_lost
from jaxvision.training import processes
from jaxvision.training.callbacks import Callback, TrainContext
from jaxvision.training.run_directory import read_history

_log = logging.getLogger('jaxvision')


def warn(text: str) -> None:
  """Logs a warning that a user must see."""
  _log.warning(text)


def speaker(quiet: bool) -> Callable[[str], None]:
  """Returns a function that prints a line, in the first process, or does nothing."""

  def say(text: str) -> None:
    if processes.is_writer():
      _say(text)

  return (lambda text: None) if quiet else say


def _say(text: str) -> None:
  try:
    print(text, flush=True)
  except (
    OSError
  ) as error:  # its reader is gone, its terminal is closed, its disk is full
    output_lost(error)


class JsonLinesLogger(Callback):
  """Writes log points and evaluations to metrics.jsonl of the run directory.

  A resumed run drops the points behind the checkpoint that it goes on from: a process
  that was killed wrote them, and they come again.
  """

  every_process = False

  def on_train_begin(self, context: TrainContext) -> None:
    """Opens the file and drops what comes again."""
    super().on_train_begin(context)
    path = context.directory / 'metrics.jsonl'
    kept = [p for p in read_history(path) if p['step'] <= context.start_step]
    write_whole(path, ''.join(json.dumps(point) + '\n' for point in kept))
    self._file = path.open('a')

  def on_log(self, step: int, measures: dict[str, float]) -> None:
    """Writes a log point of training."""
    self._write(step, 'train', measures)

  def on_evaluation(self, step: int, split: str, measures: dict[str, float]) -> None:
    """Writes an evaluation."""
    self._write(step, split, measures)

  def _write(self, step: int, split: str, measures: dict[str, float]) -> None:
    clean = {k: v if math.isfinite(v) else None for k, v in measures.items()}
    self._file.write(json.dumps({'step': step, 'split': split, **clean}) + '\n')
    self._file.flush()

  def on_train_end(self, step: int, summary: dict[str, Any] | None) -> None:
    """Closes the file."""
    self._file.close()


def duration(seconds: float) -> str:
  """Returns seconds for a reader.

  >>> duration(7.31), duration(75), duration(4000)
  ('7.3 s', '1:15', '1:06:40')
  """
  if seconds < 60:
    return f'{seconds:.1f} s'
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02}:{rest:02}' if hours else f'{minutes}:{rest:02}'


# Label and format of measures on the terminal, in this order.
_SHOWN = {
  'loss': ('loss', '.4f'),
  'accuracy': ('accuracy', '.2%'),
  'accuracy_top5': ('top-5', '.2%'),
  'generator_loss': ('loss of G', '.3f'),
  'discriminator_loss': ('of D', '.3f'),
  'd_real': ('D(x)', '.2f'),
  'd_fake': ('D(G(z))', '.2f'),
  'fd': ('FD', '.2f'),
  'kid': ('KID', '.4f'),
  'precision': ('precision', '.2f'),
  'recall': ('recall', '.2f'),
  'confidence': ('confidence', '.1%'),
  'diversity': ('diversity', '.2f'),
}
# Measures that stand elsewhere in the line, or are for the log only.
_HIDDEN = {
  'learning_rate',
  'images_per_second',
  'epoch',
  'penalty',
  'class_loss',
  'generator_grad_norm',
  'discriminator_grad_norm',
  'samples',
}


def describe(measures: dict[str, float], *left_out: str) -> str:
  """Returns measures in one line, the best known first.

  >>> describe({'accuracy': 0.5, 'loss': 1.25, 'learning_rate': 0.1, 'psnr': 20.5})
  'loss 1.2500  accuracy 50.00%  psnr 20.5000'
  """
  shown = {name: (name.replace('_', ' '), '.4f') for name in measures}
  order = [name for name in _SHOWN if name in measures]
  order += [name for name in measures if name not in _SHOWN and name not in _HIDDEN]
  parts = []
  for name in order:
    if name not in left_out:
      label, form = _SHOWN.get(name, shown[name])
      parts.append(f'{label} {measures[name]:{form}}')
  return '  '.join(parts)


class Terminal(Callback):
  """Shows a run on the terminal: a progress bar there, plain lines in a log file.

  Args:
    images_per_step: of the run.
    quiet: print nothing.
  """

  every_process = False

  def __init__(self, images_per_step: int, quiet: bool = False):
    self._images, self._quiet = images_per_step, quiet
    self._total, self._bar = 0, None

  def on_train_begin(self, context: TrainContext) -> None:
    """Starts the progress bar on a terminal."""
    super().on_train_begin(context)
    self._total = context.total_steps
    if not self._quiet and sys.stderr.isatty():
      self._bar = tqdm(
        total=context.total_steps,
        initial=context.start_step,
        unit='step',
        dynamic_ncols=True,
        smoothing=0.05,
        file=sys.stderr,
      )

  def on_step(self, step: int) -> None:
    """Moves the bar."""
    if self._bar is not None:
      self._bar.update(step - self._bar.n)

  def on_log(self, step: int, measures: dict[str, float]) -> None:
    """Shows a training log point: in the bar, or as a line with the time left."""
    speed = measures['images_per_second']
    text = f'{describe(measures, "accuracy_top5")}  {speed:,.0f} images/s'
    if self._bar is not None:
      self._bar.set_postfix_str(text, refresh=False)
      return
    left = (self._total - step) * self._images / speed if speed else 0
    self._say(
      f'step {step:>{len(str(self._total))}}/{self._total}  epoch '
      f'{measures["epoch"]:.2f}  {text}  lr {measures["learning_rate"]:.3g}  '
      f'{duration(left)} left'
    )

  def on_evaluation(self, step: int, split: str, measures: dict[str, float]) -> None:
    """Shows an evaluation."""
    width = len(str(self._total))
    self._say(f'step {step:>{width}}/{self._total}  {split}: {describe(measures)}')

  def _say(self, text: str) -> None:
    if self._quiet:
      return
    if self._bar is None:
      _say(text)
      return
    with self._bar.external_write_mode():
      _say(text)

  def on_train_end(self, step: int, summary: dict[str, Any] | None) -> None:
    """Ends the bar."""
    if self._bar is not None:
      self._bar.close()
