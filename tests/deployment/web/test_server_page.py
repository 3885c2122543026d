"""The page of a server: what it asks, and what it shows of the answers."""

import http.server
import io
import json

import numpy as np
import pytest
from PIL import Image
from web_models import generator_signature, picture, png, small_signature
from web_pages import HOSTILE, canvas

from jaxvision.data.decode import decode_image
from jaxvision.deployment import web


class Answering(http.server.SimpleHTTPRequestHandler):
  """A server with the answers that `page` documents."""

  def do_POST(self):
    body = self.rfile.read(int(self.headers['Content-Length']))
    wide = Image.open(io.BytesIO(body)).size == (50, 20)
    best = [{'class': HOSTILE[1], 'probability': 0.75}]
    good = {'images': [{'predictions': best}]} if self.path == '/predict?top=5' else {}
    self._answer(413, {'error': 'it is <b>too</b> wide'}) if wide else self._answer(
      200, good if self.headers['Content-Type'] == 'image/png' else {}
    )

  def do_GET(self):
    if self.path == '/':
      return super().do_GET()
    seed = int(self.path.split('seed=')[1].split('&')[0])
    image = np.full((16, 16, 3), seed % 256, np.uint8)
    return self._answer(200, png(image), 'image/png')

  def _answer(self, code, content, kind='application/json'):
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    self.send_response(code)
    self.send_header('Content-Type', kind)
    self.send_header('Content-Length', str(len(data)))
    self.end_headers()
    self.wfile.write(data)


def test_the_page_of_a_server_asks_the_server(browser, serve, tmp_path):
  (tmp_path / 'index.html').write_text(web.page(small_signature()), 'utf-8')
  url = serve(tmp_path, Answering)
  page = browser.open(url)
  image = picture(np.random.default_rng(5), 40, 60)
  choose = {'name': 'given.png', 'mimeType': 'image/png'}
  page.set_input_files('#choose', [{**choose, 'buffer': png(image)}])
  page.wait_for_selector('body[data-done="1"]')
  assert page.texts('#best') == [HOSTILE[1]]
  assert page.texts('#confidence') == ['75.0%']
  np.testing.assert_array_equal(
    canvas(page, '#input'), decode_image(image, (32, 32, 3))
  )
  assert 'sent to this server' in page.texts('.privacy')[0]


@pytest.mark.slow
def test_what_a_server_refuses_is_shown(chromium, serve, tmp_path):
  from browsing import Page

  (tmp_path / 'index.html').write_text(web.page(small_signature()), 'utf-8')
  page = Page(chromium, serve(tmp_path, Answering), 1200, 900, False, True)
  choose = {'name': 'wide.png', 'mimeType': 'image/png'}
  image = picture(np.random.default_rng(5), 50, 20)
  page.set_input_files('#choose', [{**choose, 'buffer': png(image)}])
  page.wait_for_selector('body[data-done="1"]')
  assert page.texts('#problem') == ['wide.png: it is <b>too</b> wide.']
  # The browser itself notes the status on the console, and nothing else is wrong.
  assert all('status of 413' in problem for problem in page.finish())


@pytest.mark.slow
def test_a_server_draws_for_its_page(browser, serve, tmp_path):
  (tmp_path / 'index.html').write_text(web.page(generator_signature()), 'utf-8')
  page = browser.open(serve(tmp_path, Answering))
  page.fill('#seed-number', '77')
  page.press('#seed-number', 'Enter')
  page.wait_for_selector('#caption:text-is("plane, seed 77")')
  assert set(canvas(page, '#sample').ravel()) == {77}
  assert page.texts('#travel') == []
