"""The page of a generator, beside onnxruntime in this process."""

import json

import numpy as np
import pytest
from web_models import CLASSES, generator_signature
from web_pages import HOSTILE, canvas

from jaxvision.inference.onnx_model import open_session
from jaxvision.training.sampler import slerp

pytest.importorskip('onnx', reason='onnx comes with the extra "onnx"')
pytest.importorskip('onnxruntime', reason='onnxruntime comes with the extra "onnx"')


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
    return canvas(page, selector).astype(int)

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
