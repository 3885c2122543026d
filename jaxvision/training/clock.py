"""Where the seconds of a run go, over all parts of one that was interrupted."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

Kind = Literal['start', 'compile', 'train', 'data', 'evaluation', 'checkpoints']
_KINDS: tuple[Kind, ...] = get_args(Kind)


class RunClock:
  """Seconds spent so far.

  Args:
    begun: `time.perf_counter()` when this process's part of the run began.

  Attributes:
    seconds: by what they were spent for. 'start': from the beginning of each part to its
      first step, without compiling. 'train': in training steps; 'data', which is within
      it: in steps that waited for their images. 'evaluation' and 'checkpoints': while no
      step was under way.
    repeated: seconds after the checkpoint that a part went on from, up to where the part
      before was last seen alive: those of steps that were taken again, and all else.
    repeated_steps: that were taken again.
    starts: how often it has begun: processes that have trained the run, one after the other.
  """

  def __init__(self, begun: float):
    self.seconds: dict[Kind, float] = dict.fromkeys(_KINDS, 0.0)
    self.repeated, self.repeated_steps, self.starts = 0.0, 0, 1
    self._begun, self._earlier = begun, 0.0

  def total(self) -> float:
    """Returns the seconds in all, up to now."""
    return self._earlier + time.perf_counter() - self._begun

  @contextlib.contextmanager
  def spent_for(self, kind: Kind) -> Iterator[None]:
    """Adds the seconds of a block."""
    begun = time.perf_counter()
    try:
      yield
    finally:
      self.seconds[kind] += time.perf_counter() - begun

  def add(self, kind: Kind, seconds: float) -> None:
    """Adds seconds."""
    self.seconds[kind] += seconds

  def started(self, compiling: float) -> None:
    """Counts the start of this part, which is over.

    Args:
      compiling: seconds of it that were spent compiling.
    """
    self.add('start', max(0.0, time.perf_counter() - self._begun - compiling))

  def record(self) -> dict[str, float]:
    """Returns what a checkpoint holds, and `resume` reads."""
    return {
      **self.seconds,
      'repeated': self.repeated,
      'repeated_steps': self.repeated_steps,
      'starts': self.starts,
      'total': self.total(),
    }

  def summary(self) -> dict[str, float]:
    """Returns what summary.json holds; `goodput` is the share of steps in the seconds."""
    total = self.total()
    return {
      **{f'seconds_{kind}': seconds for kind, seconds in self.seconds.items()},
      'seconds_repeated': self.repeated,
      'seconds_total': total,
      'repeated_steps': self.repeated_steps,
      'starts': self.starts,
      'goodput': (self.seconds['train'] - self.seconds['data']) / total,
    }

  def resume(
    self, record: Mapping[str, float], step: int, seen: Mapping[str, Any] | None
  ) -> None:
    """Adds the seconds of the parts before this one.

    Args:
      record: of the checkpoint that this part goes on from; {} where it begins at step 0.
      step: of that checkpoint.
      seen: {'step', 'total', 'repeated_steps', 'starts'} when the run was last
        seen alive; None where that is not known.
    """
    for kind in _KINDS:
      self.seconds[kind] += record.get(kind, 0.0)
    self.repeated = record.get('repeated', 0.0)
    self.repeated_steps = int(record.get('repeated_steps', 0))
    self.starts = 1 + int(record.get('starts', 1)) if record else 1
    self._earlier = record.get('total', 0.0)
    if seen is None:
      return
    # What was repeated before the run was last seen, and is in no checkpoint, counts too.
    lost = max(0.0, seen['total'] - self._earlier)
    self.repeated += lost
    self._earlier += lost
    self.starts = max(self.starts, 1 + int(seen['starts']))
    again = max(0, int(seen['step']) - step)
    self.repeated_steps = max(self.repeated_steps, int(seen['repeated_steps'])) + again
