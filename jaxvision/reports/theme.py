"""Colours of figures and names that fit them, without importing matplotlib."""

import dataclasses
import math
import unicodedata


@dataclasses.dataclass(frozen=True)
class Theme:
  """Colours of a figure, distinct for colour-blind readers.

  Attributes:
    background, ink, muted, grid: page, text, secondary text and lines.
    train, validation, test, other: one colour per split.
    right, wrong: correct and wrong predictions.
    ramp: colours of shares from 0 to 1.
    widest: maximum width of a figure in inches; smaller on phones.
  """

  background: str
  ink: str
  muted: str
  grid: str
  train: str
  validation: str
  test: str
  other: str
  right: str
  wrong: str
  ramp: tuple[str, ...]
  widest: float = math.inf

  @property
  def narrow(self) -> bool:
    """Returns whether figures are for phones."""
    return self.widest < math.inf

  def split(self, name: str) -> str:
    """Returns the colour of the split called `name`."""
    named = {'train': self.train, 'validation': self.validation, 'test': self.test}
    return named.get(name, self.other)


# The hues are those of Okabe and Ito, "Color Universal Design", 2008: blue against
# vermilion and green stay apart under every common colour-vision deficiency.
LIGHT = Theme(
  background='#ffffff',
  ink='#1b1f24',
  muted='#5b6470',
  grid='#e3e6ea',
  train='#0072b2',
  validation='#009e73',
  test='#d55e00',
  other='#9a5b93',
  right='#0072b2',
  wrong='#c84e00',
  ramp=('#ffffff', '#dcebf7', '#9cc9e8', '#3f94cc', '#0b5c9b', '#08305f'),
)
DARK = Theme(
  background='#161a20',
  ink='#e8ebef',
  muted='#9aa4b1',
  grid='#2c333d',
  train='#56b4e9',
  validation='#2cc99b',
  test='#ff9350',
  other='#d7a0d0',
  right='#56b4e9',
  wrong='#ff9350',
  ramp=('#161a20', '#17344e', '#1d5b8c', '#3f94cc', '#8fcbf0', '#e6f5ff'),
)


def css_variables(theme: Theme) -> dict[str, str]:
  """Returns the colours of a theme as CSS variables: '--chart-ink' -> '#1b1f24'.

  >>> css_variables(LIGHT)['--chart-ramp-0']
  '#ffffff'
  """
  colors = dataclasses.asdict(theme)
  del colors['widest']
  colors |= {f'ramp-{i}': color for i, color in enumerate(colors.pop('ramp'))}
  return {f'--chart-{name}': color for name, color in colors.items()}


# Placeholders for the colours of a theme, which `style.svg` replaces by CSS variables.
_NAMES = [field.name for field in dataclasses.fields(Theme) if field.name != 'widest']
VARIABLE = Theme(
  **{name: f'#fe00{i:02x}' for i, name in enumerate(_NAMES) if name != 'ramp'},
  ramp=tuple(f'#fe01{i:02x}' for i in range(len(LIGHT.ramp))),
)


def text_width(text: str) -> int:
  """Counts the columns of a text, two for each wide (East Asian) character."""
  return sum(2 if unicodedata.east_asian_width(c) in 'WF' else 1 for c in text)


def short_name(name: str, length: int = 20) -> str:
  """Shortens a name to one line of at most `length` columns.

  The middle is cut, because names of related classes often differ at the end.

  >>> short_name('German short-haired pointer', 12)
  'German …nter'
  """
  printable = ''.join(
    ' ' if unicodedata.category(character).startswith('C') else character
    for character in name
  )
  line = ' '.join(printable.split())
  if text_width(line) <= length:
    return line
  head, tail = line, ''
  while text_width(tail) < length // 3:
    head, tail = head[:-1], head[-1] + tail
  while text_width(head) + 1 + text_width(tail) > length:
    head = head[:-1]
  return f'{head}…{tail}'
