"""The page of a classifier, beside onnxruntime in this process."""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from web_models import (
  picture,
  png,
  small_signature,
)
from web_pages import HOSTILE, PIXELS, Classified

from jaxvision.data.decode import decode_image
from jaxvision.deployment import web

pytest.importorskip('onnx', reason='onnx comes with the extra "onnx"')
pytest.importorskip('onnxruntime', reason='onnxruntime comes with the extra "onnx"')


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
    size = [int(side) for side in rng.integers(1, (40, 180)[i % 2], 2)]
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


@pytest.mark.slow
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
