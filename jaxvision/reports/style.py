"""The look that all our figures share: two themes, plain axes, crisp PNGs.

Figures are built with matplotlib's object interface and drawn by Agg, so plotting
touches no global state, needs no display and works in any thread.
"""

import dataclasses
import functools
import io
import math
import unicodedata
import warnings
from collections.abc import Callable

import matplotlib
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image

PIXELS_PER_INCH = 192  # twice the 96 that a browser counts: sharp on any screen
SMALL, NORMAL = 8.0, 9.5  # font sizes in points
PHONE = 3.7  # inches of a page on a phone


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

  def colormap(self) -> LinearSegmentedColormap:
    """Returns the ramp as a colormap; cells without a value are drawn in `grid`."""
    colormap = LinearSegmentedColormap.from_list('share', self.ramp)
    return colormap.with_extremes(bad=self.grid)


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


def new_figure(width: float, height: float, theme: Theme) -> Figure:
  """Makes an empty figure of `width` x `height` inches that lays itself out."""
  figure = Figure(
    figsize=(min(width, theme.widest), height),
    dpi=PIXELS_PER_INCH,
    facecolor=theme.background,
    layout='constrained',
  )
  FigureCanvasAgg(figure)
  return figure


def tidy(axes: Axes, theme: Theme, grid: str = 'both', frame: bool = False) -> None:
  """Gives axes our look: thin grid behind the data, no box, small muted ticks.

  Args:
    axes: what to change.
    theme: colours.
    grid: 'x', 'y', 'both' or 'none'.
    frame: whether to keep a thin box around the data.
  """
  axes.set_facecolor(theme.background)
  axes.set_axisbelow(True)
  if grid != 'none':
    axes.grid(True, axis=grid, color=theme.grid, linewidth=0.8)
  for side, spine in axes.spines.items():
    spine.set_visible(frame or side == 'bottom')
    spine.set_color(theme.grid if frame else theme.muted)
    spine.set_linewidth(0.8)
  axes.tick_params(
    which='both', length=0, colors=theme.muted, labelsize=SMALL, labelcolor=theme.muted
  )
  for label in (axes.xaxis.label, axes.yaxis.label):
    label.set_color(theme.ink)
    label.set_fontsize(NORMAL)


def legend(axes: Axes, theme: Theme, **options) -> None:
  """Adds a legend without a box, in the theme's ink; on a phone in one column."""
  if theme.narrow:
    options['ncols'] = 1
  axes.legend(
    frameon=False, fontsize=SMALL, labelcolor=theme.ink, handlelength=1.6, **options
  )


@functools.cache
def font_families() -> list[str]:
  """Lists matplotlib's own font, then installed ones that know more scripts."""
  wider = (
    'Noto Sans CJK JP',
    'Noto Sans CJK SC',
    'Hiragino Sans',
    'Microsoft YaHei',
    'Arial Unicode MS',
    'Noto Sans',
  )
  installed = {font.name for font in font_manager.fontManager.ttflist}
  return ['DejaVu Sans', *(name for name in wider if name in installed)]


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


def class_text() -> dict:
  """Returns the keywords for text that holds class names: all fonts, no maths.

  Without them matplotlib reads `$5 or $10` as a formula.
  """
  return {'family': font_families(), 'parse_math': False}


def png(figure: Figure) -> bytes:
  """Draws a figure as a PNG, the same bytes for the same figure."""
  buffer = io.BytesIO()
  with warnings.catch_warnings():
    # A script that no installed font knows becomes boxes; the tables have the names.
    warnings.filterwarnings('ignore', message='Glyph .* missing from')
    # Laid out once by hand: savefig would draw everything twice to the same end.
    if engine := figure.get_layout_engine():
      engine.execute(figure)
      figure.set_layout_engine('none')
    version = f'matplotlib {matplotlib.__version__}'
    figure.canvas.print_png(buffer, metadata={'Software': version})
  return buffer.getvalue()


@dataclasses.dataclass(frozen=True)
class Plot:
  """One figure of a report: its file name, what it shows in words, both themes.

  Attributes:
    narrow: the same for phones, light and dark; empty where the figure does for both.
  """

  file: str
  alt: str
  light: bytes
  dark: bytes
  narrow: tuple[bytes, ...] = ()


def draw(
  file: str, alt: str, figure: Callable[[Theme], Figure], narrow: bool = False
) -> Plot:
  """Draws a figure in both themes, with 256 colours; `narrow`: for phones as well."""

  def both(widest: float = math.inf) -> tuple[bytes, bytes]:
    light, dark = (dataclasses.replace(t, widest=widest) for t in (LIGHT, DARK))
    return reduced(png(figure(light))), reduced(png(figure(dark)))

  return Plot(file, alt, *both(), narrow=both(PHONE) if narrow else ())


def reduced(chart: bytes) -> bytes:
  """Rewrites the PNG of a chart with 256 colours: a third of the bytes.

  Few charts have more but for the edges of letters. What there is most of, the
  background, keeps its colour to the bit, so that it does not stand off the page.
  """
  with Image.open(io.BytesIO(chart)) as opened:
    picture = opened.convert('RGB')
  fewer = picture.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
  palette = fewer.getpalette() or []
  place = 3 * fewer.getpixel((0, 0))
  palette[place : place + 3] = picture.getpixel((0, 0))
  fewer.putpalette(palette)
  buffer = io.BytesIO()
  fewer.save(buffer, 'PNG', optimize=True)
  return buffer.getvalue()
