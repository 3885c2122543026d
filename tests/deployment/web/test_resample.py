"""Pillow's resampling in JavaScript, on pixels that no decoder touched."""

import base64
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image
from web_models import picture

from jaxvision.data.decode import decode_image
from jaxvision.deployment import web

SCRIPT = Path(web.__file__).parent / 'resample.js'
FIT = """([text, width, height, signature]) => {
  const rgba = Uint8ClampedArray.from(atob(text), (c) => c.charCodeAt(0));
  const read = (top, rows) => rgba.subarray(top * width * 4, (top + rows) * width * 4);
  return [...fitted({width, height, read}, signature)];
}"""


@pytest.fixture
def fit(browser, tmp_path):
  """Brings a picture of Pillow to the input of a network, in a browser."""
  path = tmp_path / 'page.html'
  path.write_text(f'<!doctype html><script>{SCRIPT.read_text()}</script>')
  page = browser.open(path)

  def run(image, shape, fraction, interpolation):
    text = base64.b64encode(image.convert('RGBA').tobytes()).decode()
    signature = {
      'image_shape': shape,
      'crop_fraction': fraction,
      'interpolation': interpolation,
    }
    values = page.evaluate(FIT, [text, *image.size, signature])
    return np.array(values, np.uint8).reshape(shape)

  return run


def test_pixels_are_those_of_pillow_to_the_bit(fit):
  rng = np.random.default_rng(0)
  sizes = [1, 2, 3, 7, 8, 28, 31, 32, 33, 64, 100, 150]
  cases = [
    ((320, 240), 'RGB', (112, 112, 3), 0.875, 'bicubic'),
    ((200, 270), 'RGBA', (32, 32, 3), 1.0, 'bilinear'),
    ((32, 32), 'RGB', (32, 32, 3), 1.0, 'bilinear'),  # its pixels as they are
    ((36, 36), 'RGB', (32, 32, 3), 32 / 36, 'bilinear'),  # the middle, cut out
    ((32, 40), 'L', (32, 32, 1), 1.0, 'bicubic'),
    ((1, 1), 'RGB', (28, 28, 1), 1.0, 'bicubic'),
    ((400, 3), 'RGBA', (16, 16, 3), 1.0, 'bicubic'),
  ]
  for _ in range(24):
    size = tuple(int(side) for side in rng.choice(sizes, 2))
    side = int(rng.choice([8, 28, 32, 48]))
    shape = (side, side + int(rng.choice([0, 0, 9])), int(rng.choice([1, 3])))
    mode = str(rng.choice(['RGB', 'RGBA', 'L', 'LA']))
    fraction = float(rng.choice([1.0, 0.875, 0.5]))
    cases.append(
      (size, mode, shape, fraction, str(rng.choice(['bilinear', 'bicubic'])))
    )
  for size, mode, shape, fraction, interpolation in cases:
    image = picture(rng, *size, mode)
    expected = decode_image(image, shape, fraction, interpolation)
    found = fit(image, shape, fraction, interpolation)
    if int(PIL.__version__.split('.')[0]) < 13 and size[1] > 2 * size[0]:
      continue  # it takes its passes in another order
    wrong = np.abs(found.astype(int) - expected).max()
    assert wrong == 0, (size, mode, shape, fraction, interpolation)


@pytest.mark.slow
def test_large_pictures_are_read_in_strips(browser, tmp_path):
  path = tmp_path / 'page.html'
  path.write_text(f'<!doctype html><script>{SCRIPT.read_text()}</script>')
  page = browser.open(path)
  # A ramp that is made as it is read: a photo of 12 megapixels is never in memory.
  taken = page.evaluate("""() => {
    let most = 0;
    const [width, height] = [4000, 3000];
    const read = (top, rows) => {
      most = Math.max(most, rows * width);
      const data = new Uint8ClampedArray(rows * width * 4).fill(255);
      const words = new Uint32Array(data.buffer);
      for (let y = 0; y < rows; y++) {
        const grey = Math.round((top + y) * 255 / height);
        words.fill((0xff000000 | (grey * 0x10101)) >>> 0, y * width, (y + 1) * width);
      }
      return data;
    };
    const signature = {image_shape: [12, 12, 1], crop_fraction: 1, interpolation: 'bilinear'};
    return [most, [...fitted({width, height, read}, signature)]];
  }""")
  assert taken[0] <= 2**22
  ramp = (np.arange(3000) * 255 / 3000).round().astype(np.uint8)
  image = Image.fromarray(np.repeat(ramp[:, None], 3000, axis=1))
  expected = decode_image(image, (12, 12, 1))
  assert np.abs(np.array(taken[1]).reshape(12, 12) - expected[..., 0]).max() <= 1
