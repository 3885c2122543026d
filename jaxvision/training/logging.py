"""What a run tells while it trains: metrics.jsonl, TensorBoard events, the terminal."""

import json
import math
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from jaxvision.io import write_whole


def warn(text: str) -> None:
  """Tells something that a user must see, apart from the output proper."""
  print(f'warning: {text}', file=sys.stderr, flush=True)


def read_history(path: Path) -> list[dict[str, Any]]:
  """Returns the log points of metrics.jsonl; a line cut off by a kill is left out."""
  points = []
  try:
    text = path.read_text()
  except FileNotFoundError:
    return points
  for line in text.splitlines():
    try:
      points.append(json.loads(line))
    except ValueError:
      continue
  return points


def _summary_writer() -> Any:
  """Returns tensorboardX's SummaryWriter: imported here, as only training needs it.

  For the sake of an annotation the package imports PyTorch wherever that is installed,
  which takes seconds and a quarter of a GB; it does without where it finds none.
  """
  hide = 'torch' not in sys.modules
  if hide:
    sys.modules['torch'] = None  # type: ignore[assignment]
  try:
    from tensorboardX import SummaryWriter
  finally:
    if hide:
      del sys.modules['torch']
  return SummaryWriter


class MetricLog:
  """Writes log points to metrics.jsonl and as TensorBoard events.

  Args:
    directory: the run directory.
    step: where the run goes on; points behind it, written by a process that was killed
      after its last checkpoint, are dropped, as they come again.
  """

  def __init__(self, directory: Path, step: int = 0):
    self._path = directory / 'metrics.jsonl'
    self.history = [p for p in read_history(self._path) if p['step'] <= step]
    kept = ''.join(json.dumps(point) + '\n' for point in self.history)
    write_whole(self._path, kept)
    self._file = self._path.open('a')
    # A thread of its own writes the events; a viewer is behind by two seconds at most.
    self._events = _summary_writer()(
      str(directory), purge_step=step + 1 if step else None, flush_secs=2
    )

  def write(self, step: int, split: str, values: dict[str, float]) -> None:
    """Writes one log point; numbers only, not-finite ones as null."""
    clean = {k: v if math.isfinite(v) else None for k, v in values.items()}
    point = {'step': step, 'split': split, **clean}
    self.history.append(point)
    self._file.write(json.dumps(point) + '\n')
    self._file.flush()
    for name, value in values.items():
      self._events.add_scalar(f'{split}/{name}', value, step)

  def show(self, step: int, name: str, picture: np.ndarray) -> None:
    """Puts a picture, uint8 [h, w, 3], into the events."""
    self._events.add_image(name, picture, step, dataformats='HWC')

  def close(self) -> None:
    """Flushes and closes both files."""
    self._file.close()
    self._events.close()


def last_epoch(
  history: Iterable[dict[str, Any]],
  names: Iterable[str],
  total_steps: int,
  steps_per_epoch: float,
) -> dict[str, float | None]:
  """Returns measures of training over about the last epoch of the run.

  The mean over the log points that end in it, weighted by their steps: images as
  trained on, with augmentation and dropout, like the history of Keras. None without any.
  """
  points = [p for p in history if p['split'] == 'train']
  begins = [0, *(p['step'] for p in points[:-1])]
  late = [
    (p, p['step'] - begin)
    for p, begin in zip(points, begins)
    if begin >= total_steps - steps_per_epoch - 1e-6
  ] or [(p, p['step'] - b) for p, b in list(zip(points, begins))[-1:]]
  weight = sum(steps for _, steps in late)
  if not weight:
    return dict.fromkeys(names)
  return {name: sum(p[name] * steps for p, steps in late) / weight for name in names}


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


# What of a log point a line on the terminal shows, in this order: label and format.
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


def describe(values: dict[str, float], *left_out: str) -> str:
  """Returns what a reader wants of a log point first.

  >>> describe({'accuracy': 0.5, 'loss': 1.25, 'learning_rate': 0.1})
  'loss 1.2500  accuracy 50.00%'
  """
  return '  '.join(
    f'{label} {values[name]:{form}}'
    for name, (label, form) in _SHOWN.items()
    if name in values and name not in left_out
  )


class Terminal:
  """A progress bar on a terminal, plain lines in a log.

  Args:
    total: steps of the run.
    start: steps already done.
    images: of a step.
    quiet: say nothing.
  """

  def __init__(self, total: int, start: int, images: int, quiet: bool = False):
    self._total, self._images, self._quiet = total, images, quiet
    self._begin, self._start, self._paused = time.perf_counter(), start, 0.0
    self._bar = None
    if not quiet and sys.stderr.isatty():
      self._bar = tqdm(
        total=total,
        initial=start,
        unit='step',
        dynamic_ncols=True,
        smoothing=0.05,
        file=sys.stderr,
      )

  def advance(self, step: int) -> None:
    """Moves the bar to `step`."""
    if self._bar is not None:
      self._bar.update(step - self._bar.n)

  def say(self, text: str) -> None:
    """Prints a line, above the bar where there is one."""
    if self._quiet:
      return
    if self._bar is not None:
      self._bar.write(text)
    else:
      print(text, flush=True)

  def train(self, step: int, values: dict[str, float]) -> None:
    """Tells a training log point: in the bar, or as a line with the time left."""
    speed = values['images_per_second']
    text = f'{describe(values, "accuracy_top5")}  {speed:,.0f} images/s'
    if self._bar is not None:
      self._bar.set_postfix_str(text, refresh=False)
      return
    left = (self._total - step) * self._images / speed if speed else 0
    self.say(
      f'step {step:>{len(str(self._total))}}/{self._total}  epoch {values["epoch"]:.2f}  '
      f'{text}  lr {values["learning_rate"]:.3g}  {duration(left)} left'
    )

  def evaluation(self, step: int, split: str, values: dict[str, float]) -> None:
    """Tells an evaluation."""
    self.say(
      f'step {step:>{len(str(self._total))}}/{self._total}  {split}: {describe(values)}'
    )

  def close(self) -> None:
    """Ends the bar."""
    if self._bar is not None:
      self._bar.close()
