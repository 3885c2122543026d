"""Parts of a run that differ in what is compiled: which layers train, at what size."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from jaxvision.tasks.freezing import frozen_at


@dataclasses.dataclass(frozen=True)
class Phase:
  """What holds from one step of a run to another.

  Attributes:
    first: the step that it begins with.
    frozen: tree of bools like the parameters, True for those that do not train; None: all
      do.
    image_size: height and width that the model sees; 0: that of evaluation.
  """

  first: int = 0
  frozen: Any = None
  image_size: int = 0


WHOLE_RUN = Phase()


def make_phases(
  total_steps: int,
  first_steps: Any = None,
  sizes: Sequence[int] = (),
  until: float = 1.0,
) -> tuple[Phase, ...]:
  """Returns the phases of a run, the first of which begins at step 0.

  Args:
    total_steps: of the run.
    first_steps: tree of ints, the step from which each parameter trains, one that starts
      at `total_steps` never; None: all train from the start.
    sizes: image sizes, each for an equal share of the steps, before that of evaluation.
    until: share of the run at which the last of the `sizes` ends.

  >>> [(p.first, p.image_size) for p in make_phases(100, sizes=(16, 24), until=0.6)]
  [(0, 16), (30, 24), (60, 0)]
  >>> [p.first for p in make_phases(10, {'stem': 10, 'body': 5, 'head': 0})]
  [0, 5]
  """
  starts = [round(total_steps * until * i / len(sizes)) for i in range(len(sizes))]
  changes = dict(zip(starts, sizes))  # of sizes without a step the last holds
  if sizes and until < 1:
    changes[round(total_steps * until)] = 0
  steps = {0} | changes.keys()
  if first_steps is not None:
    steps |= set(jax.tree.leaves(first_steps))
  found = []
  size = 0
  for step in sorted(s for s in steps if s < total_steps):
    size = changes.get(step, size)
    frozen = None if first_steps is None else frozen_at(first_steps, step)
    found.append(Phase(step, frozen, size))
  return tuple(found)
