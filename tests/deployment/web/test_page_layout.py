"""The pages on phones and screens, by keys, and where something is missing."""

import http.server

import numpy as np
import pytest
from web_models import (
  CLASSES,
  generator_signature,
  picture,
  png,
  small_signature,
)
from web_pages import Classified

from jaxvision.data.decode import decode_image
from jaxvision.deployment import web

pytest.importorskip('onnx', reason='onnx comes with the extra "onnx"')
pytest.importorskip('onnxruntime', reason='onnxruntime comes with the extra "onnx"')


@pytest.fixture(scope='module')
def shown(publish):
  """URLs of pages, by what they show."""
  square = np.full((32, 32, 3), 9, np.uint8)
  examples = [web.Example(png(square), name) for name in CLASSES]
  names = ('a' * 60, *(f'class {i}' for i in range(30)))
  return {
    'classes': publish(small_signature(), examples=examples),
    'long names': publish(small_signature(class_names=names), single_file=True),
    'labels': publish(small_signature(kind='multilabel')),
    'values': publish(small_signature(kind='regression')),
    'drawn': publish(generator_signature()),
    'without classes': publish(
      generator_signature(class_names=(), image_shape=(9, 16, 1))
    ),
  }


SHOWN = ('classes', 'long names', 'labels', 'values', 'drawn', 'without classes')


@pytest.mark.slow
@pytest.mark.parametrize('what', SHOWN)
@pytest.mark.parametrize('width', [320, 390, 1280])
def test_a_page_fits_phones_and_screens(browser, shown, what, width):
  page = browser.open(shown[what][0], width=width, dark=width == 390)
  page.wait_for_selector('body[data-ready]', timeout=30_000)
  assert page.overflow() <= 0
  if page.query_selector('#choose'):
    wide = png(picture(np.random.default_rng(6), 300, 40))
    file = {'name': 'w' * 90 + '.png', 'mimeType': 'image/png', 'buffer': wide}
    page.set_input_files('#choose', [file])
    page.wait_for_selector(f'#source:text-is("{file["name"]}")')
    assert page.overflow() <= 0


@pytest.mark.slow
@pytest.mark.parametrize('what', ['labels', 'values'])
def test_labels_and_values_are_shown_as_they_are(browser, shown, what):
  url, path = shown[what]
  opened = Classified(browser.open(url), path)
  image = picture(np.random.default_rng(7), 32, 32)
  opened.give([('given.png', png(image))])
  [outputs] = opened.classifier.predict(image).probabilities
  names, values = (opened.page.texts(f'#ranking .{c}') for c in ('name', 'value'))
  if what == 'labels':
    best = np.argsort(-outputs, kind='stable')[:5]
    assert names == [CLASSES[i] for i in best]
    assert [float(v.rstrip('%')) for v in values] == pytest.approx(
      100 * outputs[best], abs=0.11
    )
  else:
    assert names == list(CLASSES)
    assert list(map(float, values)) == pytest.approx(outputs, rel=1e-3)
    assert opened.page.texts('.best') == []


@pytest.mark.slow
def test_everything_is_reached_by_keys(browser, shown):
  page = browser.open(shown['classes'][0])
  page.wait_for_selector('body[data-done="1"]', timeout=30_000)
  reached = []
  for _ in range(20):
    page.press(':focus, body', 'Tab')
    reached.append(
      page.evaluate(
        'document.activeElement.id || document.activeElement.getAttribute("aria-label")'
        ' || document.activeElement.tagName'
      )
    )
  assert reached[:2] == ['choose', 'camera']
  assert 'Example 1: plane' in reached
  assert 'SUMMARY' in reached
  page.focus('#example-list li:nth-child(2) button')
  page.press('#example-list li:nth-child(2) button', 'Enter')
  page.wait_for_selector('body[data-done="2"]')
  assert page.text_content('#announcement').startswith('Example 2: ')
  assert page.get_attribute('#announcement', 'role') == 'status'


@pytest.mark.slow
def test_an_isolated_page_runs_with_threads(browser, publish, tmp_path, serve):
  class Isolated(http.server.SimpleHTTPRequestHandler):
    def end_headers(self):
      self.send_header('Cross-Origin-Opener-Policy', 'same-origin')
      self.send_header('Cross-Origin-Embedder-Policy', 'require-corp')
      super().end_headers()

  _, path = publish(small_signature())
  opened = Classified(browser.open(serve(path.parent / 'site', Isolated)), path)
  assert opened.page.evaluate('crossOriginIsolated')
  image = picture(np.random.default_rng(8), 60, 40)
  opened.give([('given.png', png(image))])
  [[(best, _)]] = opened.top(decode_image(image, (32, 32, 3)))
  assert opened.page.texts('#best') == [best]
  assert opened.requests == []


@pytest.mark.slow
@pytest.mark.parametrize(
  ('damage', 'words'),
  [
    ('model.onnx', 'The network could not be loaded. model.onnx did not load'),
    (
      'ort.wasm.min.js',
      'The network could not be loaded. The script of onnxruntime-web',
    ),
    (
      'file',
      'A browser does not let a page read the files beside it. Serve this folder',
    ),
    ('not a model', 'The network could not be loaded. '),
  ],
)
def test_what_keeps_a_page_from_working_is_said(
  chromium, publish, serve, damage, words
):
  from browsing import Page

  url, path = publish(small_signature())
  if damage == 'file':
    url = path.parent / 'site' / 'index.html'
  elif damage == 'not a model':
    (path.parent / 'site' / 'model.onnx').write_bytes(b'no model')
  else:
    (path.parent / 'site' / damage).unlink()
  page = Page(chromium, url, 1200, 900, False, True)
  page.wait_for_selector('#problem:not([hidden])', timeout=30_000)
  assert words in page.texts('#problem')[0]
  assert page.texts('#loading') == []
  page.finish()


@pytest.mark.slow
def test_a_camera_that_is_not_there_is_said(browser, shown):
  page = browser.open(shown['classes'][0])
  page.wait_for_selector('body[data-ready]', timeout=30_000)
  page.click('#camera')
  page.wait_for_selector('#problem:not([hidden])')
  assert 'camera' in page.texts('#problem')[0]
  assert page.get_attribute('#camera', 'aria-pressed') == 'false'
