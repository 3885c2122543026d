"""Style of all figures: themes, axes, legends, PNG files.

Figures use matplotlib's object interface and Agg: no global state, no display, any
thread.
"""

import dataclasses
import functools
import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image

from jaxvision.reports.theme import DARK, LIGHT, VARIABLE, Theme, css_variables

PIXELS_PER_INCH = 192  # twice the 96 that a browser counts: sharp on any screen
SMALL, NORMAL = 8.0, 9.5  # font sizes in points
PHONE = 3.7  # inches of a page on a phone
LARGEST_SVG = 200_000  # characters; above it, such as for scatters, PNG is smaller


def colormap(theme: Theme) -> LinearSegmentedColormap:
  """Returns the theme's ramp; cells without a value are drawn in `theme.grid`."""
  ramp = LinearSegmentedColormap.from_list('share', theme.ramp)
  return ramp.with_extremes(bad=theme.grid)


def new_figure(width: float, height: float, theme: Theme) -> Figure:
  """Returns an empty figure of `width` x `height` inches with constrained layout."""
  figure = Figure(
    figsize=(min(width, theme.widest), height),
    dpi=PIXELS_PER_INCH,
    facecolor=theme.background,
    layout='constrained',
  )
  FigureCanvasAgg(figure)
  return figure


def tidy(axes: Axes, theme: Theme, grid: str = 'both', frame: bool = False) -> None:
  """Styles axes: thin grid behind the data, no box, small muted tick labels.

  Args:
    axes: the axes.
    theme: colours.
    grid: 'x', 'y', 'both' or 'none'.
    frame: whether to draw a thin box around the data.
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
  """Adds a legend without a box; on a phone it has one column."""
  if theme.narrow:
    options['ncols'] = 1
  axes.legend(
    frameon=False, fontsize=SMALL, labelcolor=theme.ink, handlelength=1.6, **options
  )


@functools.cache
def font_families() -> list[str]:
  """Lists matplotlib's font and the installed fonts with East Asian characters."""
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
  """Returns keywords for text with class names: all fonts, no mathematics.

  Without them matplotlib reads `$5 or $10` as a formula.
  """
  return {'family': font_families(), 'parse_math': False}


def png(figure: Figure) -> bytes:
  """Encodes a figure as PNG; equal figures give equal bytes."""
  buffer = io.BytesIO()
  with warnings.catch_warnings():
    # Characters that no installed font has become boxes; the tables have the names.
    warnings.filterwarnings('ignore', message='Glyph .* missing from')
    # Lay out once here: savefig would draw everything twice.
    if engine := figure.get_layout_engine():
      engine.execute(figure)
      figure.set_layout_engine('none')
    version = f'matplotlib {matplotlib.__version__}'
    figure.canvas.print_png(buffer, metadata={'Software': version})
  return buffer.getvalue()


# In the SVG that matplotlib writes: ids of clip paths and markers, which are random; what a
# page does not need; attributes with coordinates, in points.
_RANDOM_ID = re.compile(r'\b[mp][0-9a-f]{10}\b')
_UNUSED = re.compile(
  r'<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>|(?<=>)\s+'
  r'| id="[a-z.]+\d?[a-z]*_\d+"',
  re.DOTALL,
)
_COORDINATES = re.compile(r' (?:d|x|y)="[^"]*"')


def svg(figure: Figure, name: str) -> str | None:
  """Encodes a figure drawn in `VARIABLE` as SVG that takes its colours from the page.

  Text is drawn as paths, because browsers have other fonts than matplotlib.

  Args:
    figure: the figure.
    name: prefix of ids, which must be unique in a page.

  Returns:
    None for a figure with images, or with colours that are not those of the theme.
  """
  if figure.findobj(AxesImage):
    return None
  buffer = io.StringIO()
  with warnings.catch_warnings():
    warnings.filterwarnings('ignore', message='Glyph .* missing from')
    figure.savefig(buffer, format='svg', metadata={'Date': None})
  text = buffer.getvalue()
  start = text.index('>', text.index('<svg')) + 1
  body = _UNUSED.sub('', text[start : text.rindex('</svg>')])

  def rounded(attribute: re.Match) -> str:
    return re.sub(r'\d+\.\d+', lambda n: f'{float(n[0]):.1f}', attribute[0])

  body = _COORDINATES.sub(rounded, body)
  for number, own in enumerate(dict.fromkeys(_RANDOM_ID.findall(body))):
    body = body.replace(own, f'{name}-{number}')
  body = re.sub(r'(id="|href="#)(?=[A-Z])', rf'\1{name}-', body)  # of glyphs
  for variable, color in css_variables(VARIABLE).items():
    body = body.replace(color, f'var({variable})')
  if re.search('#[0-9a-f]{6}', body):
    return None
  width, height = (96 * side for side in figure.get_size_inches())  # CSS pixels
  return (
    f'<svg viewBox="0 0 {0.75 * width:g} {0.75 * height:g}" width="{width:.0f}" '
    f'height="{height:.0f}" style="--width: {width:.0f}px; stroke-linejoin: round">'
    f'{body}</svg>'
  )


@dataclasses.dataclass(frozen=True)
class Plot:
  """A figure of a report.

  Attributes:
    file: name of the PNG file.
    alt: alternative text.
    light: PNG in the light theme.
    dark: PNG in the dark theme; empty if there is `svg`.
    svg: SVG that follows the colours of the page; empty for images and large scatters.
    narrow: the same for phones; empty if one width serves both.
  """

  file: str
  alt: str
  light: bytes
  dark: bytes = b''
  svg: str = ''
  narrow: str = ''


def draw(
  file: str, alt: str, figure: Callable[[Theme], Figure], narrow: bool = False
) -> Plot:
  """Draws a figure as a PNG file and for a page; `narrow` adds a version for phones."""
  light, name = reduced(png(figure(LIGHT))), Path(file).stem
  drawn = svg(figure(VARIABLE), name)
  if drawn is None or len(drawn) > LARGEST_SVG:
    return Plot(file, alt, light, dark=reduced(png(figure(DARK))))
  phone = dataclasses.replace(VARIABLE, widest=PHONE)
  small = svg(figure(phone), f'{name}-narrow') if narrow else None
  return Plot(file, alt, light, svg=drawn, narrow=small or '')


def reduced(chart: bytes) -> bytes:
  """Re-encodes the PNG of a chart with 256 colours, in a third of the bytes.

  The colour of the background is kept exactly, so that it matches the page.
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
