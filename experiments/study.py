"""What a study is: variants of a config, each trained with several seeds."""

import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Variant:
  """One of the things that a study compares.

  Attributes:
    label: what tables and plots call it.
    config: name of a file in configs/.
    overrides: 'path=value' each, what differs from the config.
  """

  label: str
  config: str
  overrides: tuple[str, ...] = ()

  @property
  def slug(self) -> str:
    """The label as part of a file name."""
    return re.sub(r'[^a-z0-9.]+', '-', self.label.lower()).strip('-')


@dataclasses.dataclass(frozen=True)
class Budget:
  """How much a study may take.

  Attributes:
    name: cpu or full.
    seeds: of each variant: 0, 1, ...
    overrides: of all variants, which may override them in turn.
  """

  name: str
  seeds: int
  overrides: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Axis:
  """A field of numbers that a study draws its variants over.

  Attributes:
    field: path of the config's field.
    label: for people.
    lines: a field that sorts the variants into lines; '': all are one.
    log: whether the numbers are spread over their logarithm.
  """

  field: str
  label: str
  lines: str = ''
  log: bool = False


@dataclasses.dataclass(frozen=True)
class Study:
  """A question, and the runs that answer it.

  Attributes:
    name: of its file, and of what it writes.
    question: one sentence.
    variants: what is compared, in the order in which they are trained.
    budgets: the small one for a CPU and the full one for a GPU.
    reference: label of the variant that the others are held against; '': the best is
      held against the others.
    axis: see `Axis`; None: the variants have no order.
    plots: of `study_report.PLOTS`; the first one is shown in the README.
  """

  name: str
  question: str
  variants: tuple[Variant, ...]
  budgets: tuple[Budget, ...]
  reference: str = ''
  axis: Axis | None = None
  plots: tuple[str, ...] = ('curves', 'ranking')

  def budget(self, name: str) -> Budget:
    """Returns the budget of a name."""
    return next(budget for budget in self.budgets if budget.name == name)
