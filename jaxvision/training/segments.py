"""The segments of a run: what `train --extend` changes from a step on.

    train --config=FILE --config.epochs=30                steps 0 to 390
    train --config=FILE --config.epochs=60 --extend       steps 390 to 780

The learning rate has no memory: from the first step of a segment on it is what the
schedule, as the config is now, gives for that step of the whole run. A warm-up is not
repeated, and a cosine that had come to its end rises again to where the longer one is.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from jaxvision import config as config_lib
from jaxvision.errors import UserError, shown
from jaxvision.training.run import Run
from jaxvision.training.run_directory import RunDirectory

Changes = Mapping[str, Sequence[Any]]  # path of a field -> (before, after)


@dataclasses.dataclass(frozen=True)
class Segment:
  """What begins at a step of a run.

  Attributes:
    first_step: steps that the run had taken before.
    changes: of the config.
    summary: summary.json as it was, where the run had ended before.
  """

  first_step: int
  changes: Changes
  summary: dict[str, Any] | None = None


def changes_of(directory: RunDirectory, config: ConfigDict) -> Changes:
  """Returns what `train --extend` changes in a run; {} where it has been done before.

  Raises:
    UserError: there is no run, or a field differs that cannot change in it.
  """
  if not directory.config_file.exists():
    raise UserError(
      f'train: there is no run in {directory.path} to extend: train it without --extend'
    )
  before = directory.config()
  changed = config_lib.changes(before, config)
  old, new = dict(config_lib.walk(before)), dict(config_lib.walk(config))
  for path in new:
    # Free for a run under way; one that it has ended goes on by --extend alone.
    if path.startswith('early_stopping.') and old.get(path) != new[path]:
      changed[path] = (old.get(path), new[path])
  if fixed := config_lib.fixed(changed):
    raise UserError(
      f'train: --extend cannot change {in_words({p: changed[p] for p in fixed})} in the '
      f'run in {directory.path}, only {", ".join(config_lib.EXTENDABLE)}: choose another '
      'directory with --workdir=DIR'
    )
  return changed


def begin(
  directory: RunDirectory, config: ConfigDict, changed: Changes, step: int
) -> None:
  """Records a segment and makes the config that of the run.

  A process that is killed in between leaves a run that the same command extends.

  Args:
    directory: of the run; hold it `locked`.
    config: as it is from now on.
    changed: from `changes_of`.
    step: of the state that the run goes on from; 0: it has not begun.
  """
  kept = [segment for segment in read(directory) if segment.first_step < step]
  again = [segment for segment in read(directory) if segment.first_step >= step]
  both: dict[str, Sequence[Any]] = {}
  for changes in (*(segment.changes for segment in again), changed):
    for path, (before, after) in changes.items():
      both[path] = (both.get(path, (before,))[0], after)
  both = {path: pair for path, pair in both.items() if pair[0] != pair[1]}
  if step and (both or again):
    known = again[0].summary if again else directory.summary()
    kept.append(Segment(step, both, known))
  write(directory, kept)
  directory.summary_file.unlink(missing_ok=True)
  directory.open(config)


def continuation(run: Run, changed: Changes, step: int) -> str:
  """Returns in words what goes on from a step, and how the learning rate does."""
  assert run.directory
  total = run.plan.total_steps
  points = [p for p in run.directory.history() if 'learning_rate' in p]
  before = [f'{p["learning_rate"]:.3g}' for p in points if p['step'] <= step]
  return (
    f'extended at step {step}: {in_words(changed)}; learning rate '
    f'{before[-1] if before else "unknown"} before, now by {run.config.schedule.name} '
    f'over all {total} steps: {run.task.learning_rate(step):.3g} at step {step + 1}, '
    f'{run.task.learning_rate(max(step, total - 1)):.3g} at step {total}'
  )


def read(directory: RunDirectory) -> list[Segment]:
  """Returns the segments of a run after its first, in their order."""
  found = directory.segments()
  return [Segment(**entry) for entry in found]


def write(directory: RunDirectory, segments: Sequence[Segment]) -> None:
  """Stores the segments of a run."""
  directory.write_segments([dataclasses.asdict(segment) for segment in segments])


def at(directory: RunDirectory, step: int) -> list[Segment]:
  """Returns the segments of a run that goes on from a step.

  Where its last checkpoints are damaged, that is before a segment began: what is trained
  again is trained with what the config is now.
  """
  found = read(directory)
  begun = [dataclasses.replace(s, first_step=min(s.first_step, step)) for s in found]
  if begun != found:
    write(directory, begun)
  return begun


def record(directory: RunDirectory, last_step: int) -> list[dict[str, Any]]:
  """Returns the segments for summary.json; [] for a run that was never extended.

  Each has first_step, last_step, changes (path -> [before, after]) and what the run
  measured at its end, where it had ended there.
  """
  segments = [Segment(0, {}), *read(directory)]
  if len(segments) == 1:
    return []
  ends = [s.first_step for s in segments[1:]] + [last_step]
  results = [s.summary for s in segments[1:]] + [None]
  return [
    {
      'first_step': segment.first_step,
      'last_step': end,
      'changes': {path: list(pair) for path, pair in segment.changes.items()},
      'result': _result(result),
    }
    for segment, end, result in zip(segments, ends, results)
  ]


def _result(summary: dict[str, Any] | None) -> dict[str, Any] | None:
  key = ((summary or {}).get('measure') or {}).get('key')
  return {key: summary.get(key)} if summary and key else None


def notes(directory: RunDirectory) -> list[str]:
  """Returns what a reader of a report must know of how a run was extended."""
  return [
    f'Extended at step {segment.first_step:,}: {in_words(segment.changes)}.'
    for segment in read(directory)
    if segment.changes
  ]


def in_words(changed: Changes) -> str:
  """Returns the changes for a message.

  >>> in_words({'epochs': (30.0, 60.0), 'grad_clip': (0.0, 1.0)})
  'epochs 30.0 -> 60.0, grad_clip 0.0 -> 1.0'
  """
  return ', '.join(f'{p} {shown(a)} -> {shown(b)}' for p, (a, b) in changed.items())
