"""What the end of a run comes to, whatever the task: numbers, a line, a report."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from jaxvision.training.loop import Measurer


@dataclasses.dataclass(frozen=True)
class Outcome:
  """The last evaluation of a run.

  Attributes:
    values: what summary.json says of it.
    line: what the terminal says of it.
    write_report: the run's summary -> path of the report's page, which it writes.
  """

  values: dict[str, Any]
  line: str
  write_report: Callable[[dict[str, Any]], Path]


class Examiner(Measurer, Protocol):
  """Evaluates a run: in the middle, where the loop has it `measure`, and at the end.

  Attributes:
    split: what the log calls the evaluations in the middle.
  """

  split: str

  def finish(self, state: Any) -> Outcome:
    """Returns what the run came to."""
    ...

  def training(self, measured: dict[str, float | None]) -> dict[str, Any]:
    """Returns what summary.json says of training, from the means of its last epoch."""
    ...
