"""Colours of figures and names that fit them, without importing matplotlib."""

import dataclasses
import math
import unicodedata


@dataclasses.dataclass(frozen=True)
class Theme:
  """Colours of a figure, told apart by colour-blind readers too.

  Attributes:
    background, ink, muted, grid: the page, text, lesser text and lines.
    train, validation, test, other: one colour per split.
    right, wrong: correct and mistaken predictions.
    ramp: colours of shares from 0 to 1.
    widest: inches that a figure may take; the page of a phone has fewer.
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
    """Whether figures are for phones."""
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


def text_width(text: str) -> int:
  """Counts the columns of a text, two for each wide (East Asian) character."""
  return sum(2 if unicodedata.east_asian_width(c) in 'WF' else 1 for c in text)


def short_name(name: str, length: int = 20) -> str:
  """Fits a class name onto a plot: one line, at most `length` columns.

  The middle goes, for names of one family often differ at their end.

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
