"""Pages in a headless Chromium, where whatever goes wrong fails the test.

Playwright drives a browser that is installed already; it downloads none.
"""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

NAMES = (
  'chromium',
  'chromium-browser',
  'google-chrome',
  'google-chrome-stable',
  'chrome',
)


def find_chromium():
  """Returns the path of $CHROME, $CHROMIUM or a browser on the PATH; None without."""
  named = os.environ.get('CHROME') or os.environ.get('CHROMIUM')
  return named or next(filter(None, map(shutil.which, NAMES)), None)


class Chromium:
  """The browser, in a thread of its own.

  There because Playwright leaves an event loop running in the thread that it was started
  in, and checkpoints, say, could not be written in that thread any more.
  """

  def __init__(self, executable, args=()):
    self.thread = ThreadPoolExecutor(1)
    self._playwright, self.browser = self.call(self._start, executable, args)

  def _start(self, executable, args):
    from playwright.sync_api import sync_playwright

    playwright = sync_playwright().start()
    return playwright, playwright.chromium.launch(
      executable_path=executable, args=['--disable-quic', *args]
    )

  def call(self, function, *args, **options):
    """Returns function(*args, **options), called in the browser's thread."""
    return self.thread.submit(function, *args, **options).result()

  def close(self):
    """Ends the browser."""
    self.call(self.browser.close)
    self.call(self._playwright.stop)
    self.thread.shutdown()


class Page:
  """An open page, with the methods of a Playwright page: evaluate, click, fill, press...

  Attributes:
    problems: exceptions that nobody caught, errors on the console, and requests for
      anything but the page itself and what it embeds.
  """

  def __init__(self, chromium, target, width, height, dark, scripts):
    self.problems = []
    self._chromium = chromium
    self._page = chromium.call(self._open, target, width, height, dark, scripts)

  def _open(self, target, width, height, dark, scripts):
    context = self._chromium.browser.new_context(
      viewport={'width': width, 'height': height},
      color_scheme='dark' if dark else 'light',
      java_script_enabled=scripts,
    )
    page = context.new_page()
    page.set_default_timeout(10_000)
    url = target.resolve().as_uri() if isinstance(target, Path) else target
    page.on('pageerror', lambda error: self.problems.append(f'uncaught: {error}'))
    page.on('console', lambda message: self._hear(message))
    page.on('request', lambda request: self._see(request, url))
    page.goto(url)
    return page

  def _hear(self, message):
    if message.type in ('error', 'warning'):
      self.problems.append(f'console: {message.text}')

  def _see(self, request, url):
    # A page from a server (url ends in /) may ask that server, a file nobody.
    own = request.url.startswith(url) if url.endswith('/') else request.url == url
    if not own and not request.url.startswith(('data:', 'blob:')):
      self.problems.append(f'request: {request.url}')

  def __getattr__(self, name):
    if name.startswith('_'):
      raise AttributeError(name)
    method = getattr(self._page, name)
    return lambda *args, **options: self._chromium.call(method, *args, **options)

  def texts(self, selector):
    """Returns the texts of the elements that can be seen."""
    return self.evaluate(
      's => [...document.querySelectorAll(s)].filter(e => e.checkVisibility())'
      '.map(e => e.textContent.trim())',
      selector,
    )

  def overflow(self):
    """Returns by how many pixels the page is wider than the window."""
    return self.evaluate('document.documentElement.scrollWidth - innerWidth')

  def finish(self):
    """Closes the page and returns its problems."""
    self._chromium.call(self._page.context.close)
    return self.problems


class Browser:
  """Opens pages for one test."""

  def __init__(self, chromium):
    self._chromium, self._pages = chromium, []

  def open(self, target, *, width=1200, height=900, dark=False, scripts=True):
    """Opens a file, or a URL that ends in '/'; returns a `Page` once it has loaded."""
    page = Page(self._chromium, target, width, height, dark, scripts)
    self._pages.append(page)
    return page

  def close(self):
    """Closes the pages; raises AssertionError if anything was wrong with one."""
    problems = [problem for page in self._pages for problem in page.finish()]
    assert not problems, '\n'.join(problems)
