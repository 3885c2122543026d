"""The look that all our figures share: two themes, plain axes, crisp PNGs.

Figures are built with matplotlib's object interface and drawn by Agg, so plotting
touches no global state, needs no display and works in any thread.
"""

import dataclasses
import functools
import io
import math
import warnings
from collections.abc import Callable

import matplotlib
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image

from jaxvision.reports.theme import DARK, LIGHT, Theme

PIXELS_PER_INCH = 192  # twice the 96 that a browser counts: sharp on any screen
SMALL, NORMAL = 8.0, 9.5  # font sizes in points
PHONE = 3.7  # inches of a page on a phone


def colormap(theme: Theme) -> LinearSegmentedColormap:
  """Returns the theme's ramp; cells without a value are drawn in `theme.grid`."""
  ramp = LinearSegmentedColormap.from_list('share', theme.ramp)
  return ramp.with_extremes(bad=theme.grid)


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
