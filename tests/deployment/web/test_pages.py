"""The pages as a browser runs them, beside onnxruntime in this process."""

import base64
import http.server
import io
import json

import numpy as np
import pytest
from PIL import Image
from web_models import (
  CLASSES,
  classifier,
  generator,
  generator_signature,
  picture,
  png,
  small_signature,
)

from jaxvision.data.decode import decode_image
from jaxvision.deployment import web
from jaxvision.inference.onnx_model import load_onnx, open_session
from jaxvision.training.sampler import slerp

HOSTILE = (
  '</script><script>window.hit = 1</script>',
  '<img src=x onerror="window.hit = 1">',
  '"日本語" & \'$x$\' {{ 7 * 7 }} <!--',
)
PIXELS = """(canvas) => {
  const {data, width, height} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  return [height, width, btoa(String.fromCharCode(...data))];
}"""

pytest.importorskip('onnx', reason='onnx comes with the extra "onnx"')
pytest.importorskip('onnxruntime', reason='onnxruntime comes with the extra "onnx"')


class Classified:
  """A page of a classifier that is open, and the same classifier by onnxruntime."""

  def __init__(self, page, path):
    self.page, self.classifier = page, load_onnx(path)
    self.requests = []
    page.wait_for_selector('body[data-ready]', timeout=30_000)
    self.done = int(page.get_attribute('body', 'data-done') or 0)
    page.on('request', lambda request: self.requests.append(request.url))

  def give(self, files):
    """Chooses files, (name, bytes) each, and waits for them to be classified."""
    types = {'jpg': 'image/jpeg', 'txt': 'text/plain'}
    self.page.set_input_files(
      '#choose',
      [
        {
          'name': name,
          'mimeType': types.get(name[-3:], f'image/{name[-3:]}'),
          'buffer': content,
        }
        for name, content in files
      ],
    )
    self.wait(len(files))

  def wait(self, count=1):
    self.done += count
    self.page.wait_for_selector(f'body[data-done="{self.done}"]', timeout=60_000)

  def input(self, selector='#input'):
    """What the network has been given: uint8 [H, W, C]."""
    shape = self.classifier.signature.image_shape
    return _canvas(self.page, selector)[..., : shape[2]]

  def top(self, images):
    return self.classifier.predict(images).top(1)


def _canvas(page, selector):
  """Returns the pixels of a canvas, uint8 [H, W, 3]."""
  height, width, text = page.eval_on_selector(selector, PIXELS)
  return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)[
    ..., :3
  ]


@pytest.fixture(scope='module')
def publish(tmp_path_factory, runtime, serve):
  """Writes the page of a network: (its URL or file, the ONNX file)."""

  def write(signature, *, single_file=False, examples=()):
    folder = tmp_path_factory.mktemp('published')
    make = generator if signature.kind == 'generator' else classifier
    model = make(signature)
    (folder / 'model.onnx').write_bytes(model)
    written = web.write_web(
      folder / ('page.html' if single_file else 'site'),
      model,
      signature,
      examples=examples,
      single_file=single_file,
      runtime=runtime,
    )
    return written if single_file else serve(written.parent), folder / 'model.onnx'

  return write


@pytest.fixture(scope='module')
def opened(chromium, publish):
  """A page of a classifier, which the tests of pictures share: it takes a while to load."""
  from browsing import Browser

  browser = Browser(chromium)
  examples = [web.Example(png(np.full((32, 32, 3), 9, np.uint8)), 'cat')]
  url, path = publish(
    small_signature(crop_fraction=0.875, interpolation='bicubic'), examples=examples
  )
  yield Classified(browser.open(url), path)
  browser.close()


def fit(image):
  """The input of that classifier for a picture or the bytes of a file."""
  return decode_image(image, (32, 32, 3), 0.875, 'bicubic')


def _files():
  """A hundred files of mixed sizes, modes and formats, as (name, bytes)."""
  rng = np.random.default_rng(1)
  modes = ('RGB', 'L', 'RGBA', 'LA', 'P', '1')
  files = []
  for i in range(100):
    size = [int(side) for side in rng.integers(1, (40, 400)[i % 2], 2)]
    image = picture(rng, *size, modes[i % len(modes)])
    name, options = 'png', {}
    if i % 5 == 4:
      name = ('jpg', 'bmp', 'gif')[i % 3]
      image = image.convert('L' if name == 'gif' else 'RGB')
    if name == 'jpg':
      exif = Image.Exif()
      exif[0x0112] = 1 + i % 8  # every way in which a camera can be held
      options = {'exif': exif, 'quality': 95}
    file = io.BytesIO()
    image.save(file, {'jpg': 'JPEG'}.get(name, name), **options)
    files.append((f'{i}.{name}', file.getvalue()))
  return files


def test_files_are_classified_as_by_predict_and_nobody_is_asked(opened):
  page, files = opened.page, _files()
  opened.give(files)
  inputs = page.eval_on_selector_all(
    '#earlier-list canvas', f'(all) => all.map({PIXELS})'
  )
  names = page.texts('#earlier-list .name')
  shares = page.texts('#earlier-list .value')
  assert len(names) == 100
  largest = {}
  for (name, content), (height, width, text), found, share in zip(
    files, inputs[::-1], names[::-1], shares[::-1]
  ):
    expected = fit(content)
    pixels = np.frombuffer(base64.b64decode(text), np.uint8)
    pixels = pixels.reshape(height, width, 4)[..., :3]
    kind = name[-3:]
    wrong = int(np.abs(pixels.astype(int) - expected).max())
    largest[kind] = max(wrong, largest.get(kind, 0))
    [[(best, probability)]] = opened.top(expected)
    assert found == best, name
    assert float(share.rstrip('%')) == pytest.approx(100 * probability, abs=1), name
  assert largest['png'] == largest['bmp'] == largest['gif'] == 0
  assert largest['jpg'] <= 3  # another decoder
  assert opened.requests == []


def test_what_is_dropped_and_pasted_is_classified(opened):
  page, rng = opened.page, np.random.default_rng(2)
  for event in ('drop', 'paste'):
    content = png(picture(rng, 50, 70))
    page.evaluate(
      """([event, text]) => {
        const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], 'given.png', {type: 'image/png'}));
        const options = {bubbles: true, cancelable: true};
        document.body.dispatchEvent(event === 'drop' ?
          new DragEvent('drop', {...options, dataTransfer: data}) :
          new ClipboardEvent('paste', {...options, clipboardData: data}));
      }""",
      [event, base64.b64encode(content).decode()],
    )
    opened.wait()
    expected = fit(content)
    np.testing.assert_array_equal(opened.input(), expected)
    [[(best, probability)]] = opened.top(expected)
    assert page.texts('#best') == [best]
    said = page.text_content('#announcement')
    assert said.startswith(f'given.png: {best} {100 * probability:.1f}%, then ')

  # What is no image is said so, and the next image takes the words away.
  opened.give([('<b>notes</b>.txt', b'no image')])
  [problem] = page.texts('#problem')
  assert problem.startswith(
    '<b>notes</b>.txt: it is not an image that this browser can'
  )
  opened.give([('right.png', png(picture(rng, 9, 9)))])
  assert page.texts('#problem') == []
  assert opened.requests == []


def test_a_single_file_works_from_the_disk_and_names_are_only_names(browser, publish):
  signature = small_signature(class_names=HOSTILE, facts={'dataset': HOSTILE[1]})
  grey = picture(np.random.default_rng(3), 32, 32)
  examples = [web.Example(png(grey), HOSTILE[0])]
  target, path = publish(signature, single_file=True, examples=examples)
  opened = Classified(browser.open(target, dark=True), path)
  page = opened.page
  [[(best, _)]] = opened.top(decode_image(grey, (32, 32, 3)))
  assert page.texts('#best') == [best]
  assert HOSTILE[0] in page.texts('#verdict')[0]
  assert HOSTILE[1] in page.texts('.facts dd')
  opened.give(
    [(f'{name}\u202egnp.png'.replace('/', '_'), png(grey)) for name in HOSTILE]
  )
  assert (
    'window.hit' in page.texts('#source')[0] or '日本語' in page.texts('#source')[0]
  )
  assert '\u202e' not in page.text_content('body')
  assert page.evaluate('window.hit') is None
  assert page.evaluate('document.querySelectorAll("#earlier img").length') == 0
  assert page.overflow() <= 0
  background = page.evaluate('getComputedStyle(document.body).backgroundColor')
  assert background == 'rgb(16, 20, 25)'
  assert opened.requests == []


def _y4m(path, image, frames=30):
  """Writes a film of one picture, in which every pixel has its own luma and colour."""
  pixels = np.asarray(image.convert('RGB').convert('YCbCr')).astype(float)
  limited = pixels * [219 / 255, 224 / 255, 224 / 255] + [16, 16, 16]  # of television
  planes = limited.round().astype(np.uint8).transpose(2, 0, 1)
  halved = planes[1:, ::2, ::2]
  width, height = image.size
  frame = b'FRAME\n' + planes[0].tobytes() + halved.tobytes()
  head = f'YUV4MPEG2 W{width} H{height} F30:1 Ip A1:1 C420\n'
  path.write_bytes(head.encode() + frame * frames)


def test_the_camera_is_classified_frame_by_frame(chromium, publish, tmp_path):
  import browsing

  blocks = np.random.default_rng(4).integers(60, 200, (6, 8, 3), dtype=np.uint8)
  film = Image.fromarray(blocks).resize((320, 240), Image.Resampling.NEAREST)
  _y4m(tmp_path / 'film.y4m', film)
  filmed = browsing.Chromium(
    browsing.find_chromium(),
    [
      '--use-fake-ui-for-media-stream',
      '--use-fake-device-for-media-stream',
      f'--use-file-for-fake-video-capture={tmp_path / "film.y4m"}',
    ],
  )
  opener = browsing.Browser(filmed)
  try:
    url, path = publish(small_signature())
    opened = Classified(opener.open(url), path)
    page = opened.page
    page.click('#camera')
    while int(page.get_attribute('body', 'data-frames') or 0) < 8:
      page.wait_for_timeout(50)
    assert page.texts('#rate')[0].endswith('frames/s')
    assert page.texts('#camera') == ['Stop camera']
    assert not page.evaluate('document.getElementById("video").matches(".mirrored")')
    page.check('#mirror')
    assert page.evaluate('document.getElementById("video").matches(".mirrored")')
    page.click('#camera')
    page.wait_for_selector('#camera[aria-pressed=false]')
    # The last frame stays, as do its pixels and what the network says of it.
    seen = opened.input()
    difference = seen.astype(int) - decode_image(film, (32, 32, 3))
    assert np.abs(difference).mean() < 8
    [[(best, probability)]] = opened.top(seen)
    assert page.texts('#best') == [best]
    assert page.texts('#confidence') == [f'{100 * probability:.1f}%']
    frames = page.get_attribute('body', 'data-frames')
    page.wait_for_timeout(200)
    assert page.get_attribute('body', 'data-frames') == frames
    assert opened.requests == []
  finally:
    opener.close()
    filmed.close()


def _noise(seed, count):
  """The noise of noise.js in Python: sfc32, then Box and Muller's transform."""
  a, b, c, counter = seed, 0x9E3779B9, 0x243F6A88, 1
  mask, numbers = 0xFFFFFFFF, []
  for _ in range(15 + count + count % 2):
    total = (a + b + counter) & mask
    counter = (counter + 1) & mask
    a = b ^ (b >> 9)
    b = (c + (c << 3)) & mask
    c = (((c << 21) | (c >> 11)) + total) & mask
    numbers.append(total)
  uniform = (np.array(numbers[15:], np.float64) + 0.5) / 2**32
  radius = np.sqrt(-2 * np.log(uniform[::2]))
  angle = 2 * np.pi * uniform[1::2]
  pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
  return pairs.ravel()[:count].astype(np.float32)


def test_a_generator_draws_seeds_classes_and_ways(browser, publish):
  signature = generator_signature(class_names=(*CLASSES[:4], *HOSTILE))
  url, path = publish(signature)
  page = browser.open(url)
  page.wait_for_selector('body[data-done]', timeout=30_000)
  requests = []
  page.on('request', lambda request: requests.append(request.url))
  _, session = open_session(path)

  def drawn(noise, label):
    feeds = {'noise': noise[None], 'labels': np.array([label], np.int32)}
    return session.run(['images'], feeds)[0][0].astype(int)

  def shown(selector='#sample'):
    return _canvas(page, selector).astype(int)

  def settle(caption):
    page.wait_for_selector(f'#caption:text-is({json.dumps(caption)})')

  settle('plane, seed 0')
  assert np.abs(shown() - drawn(_noise(0, 11), 0)).max() <= 1
  page.select_option('#class', '3')
  page.fill('#seed-number', '4711')
  page.press('#seed-number', 'Enter')
  settle('cat, seed 4711')
  assert page.input_value('#seed') == '4711'
  assert np.abs(shown() - drawn(_noise(4711, 11), 3)).max() <= 1
  # By keys, on the way to another seed.
  page.fill('#other-number', '12')
  page.press('#other-number', 'Enter')
  for _ in range(3):
    page.press('#share', 'PageUp')
  settle('cat, 30% of the way from seed 4711 to 12')
  way = slerp(_noise(4711, 11), _noise(12, 11), 101)
  assert np.abs(shown() - drawn(way[30], 3)).max() <= 1
  page.wait_for_selector('body[data-samples="0"]')
  assert (
    np.abs(shown('#samples li:nth-child(6) canvas') - drawn(_noise(5, 11), 3)).max()
    <= 1
  )
  page.click('#samples li:nth-child(6) button')
  settle('cat, seed 5')
  page.click('#classes li:nth-child(6) button')
  settle(f'{HOSTILE[1]}, seed 5')
  assert page.input_value('#class') == '5'
  assert page.evaluate('window.hit') is None
  page.click('#next')
  page.wait_for_selector('body[data-samples="24"]')
  assert page.texts('#range') == ['Seeds 24 to 47']
  assert requests == []


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
    _canvas(page, '#input'), decode_image(image, (32, 32, 3))
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
  assert set(_canvas(page, '#sample').ravel()) == {77}
  assert page.texts('#travel') == []


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
