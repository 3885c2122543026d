"""The HTML of the pages: what it says, and what it lets in."""

import base64
import hashlib
import html
import json
import re

import pytest
from web_models import generator_signature, png, small_signature

from jaxvision.deployment import web
from jaxvision.deployment.web import rendering

HOSTILE = (
  '</script><script>hit()</script>',
  '<img src=x onerror=hit()>',
  '\x1b[31m\u202e',
)


def _data(text):
  return json.loads(re.search(r'id="page">(.*?)</script>', text, re.S)[1])


def _policy(text):
  return html.unescape(re.search('Content-Security-Policy" content="(.*?)"', text)[1])


def _hashes(tag, text):
  contents = re.findall(f'<{tag}>(.*?)</{tag}>', text, re.S)
  return {
    f"'sha256-{base64.b64encode(hashlib.sha256(c.encode()).digest()).decode()}'"
    for c in contents
  }


def test_the_page_says_what_is_known_of_the_network():
  text = web.page(
    small_signature(
      facts={'dataset': 'cifar10', 'test_accuracy': 0.9125, 'params': 8192}
    )
  )
  for fact in ('tiny_cnn', 'cifar10', '91.25%', '8,192', 'The 5 most probable of 10'):
    assert fact in text
  assert '<title>tiny_cnn</title>' in text
  unknown = web.page(small_signature(facts={}, class_names=('a', 'b')))
  assert 'test accuracy' not in unknown
  assert 'None' not in unknown
  assert 'The 2 most probable of 2 classes' in unknown


def test_the_data_of_the_page():
  example = web.Example(png(rendering_pixels()), 'cat')
  data = _data(web.page(small_signature(crop_fraction=0.875), examples=[example]))
  assert data['crop_fraction'] == 0.875
  assert data['output'] == 'probabilities'
  assert base64.b64decode(data['examples'][0]['image']) == example.image
  assert data['engine'] == 'server'
  assert _data(web.page(small_signature(kind='regression')))['output'] == 'values'
  drawn = _data(web.page(generator_signature()))
  assert (drawn['kind'], drawn['latent']) == ('generator', 11)


def rendering_pixels():
  import numpy as np

  return np.zeros((8, 8, 3), np.uint8)


@pytest.mark.parametrize('make', [small_signature, generator_signature])
def test_names_that_are_markup_stay_out_of_it(make):
  signature = make(
    class_names=HOSTILE,
    model='</title><script>hit()</script>',
    facts={'dataset': '"><img src=x onerror=hit()>', 'config_name': HOSTILE[0]},
  )
  text = web.page(signature, title=HOSTILE[1])
  assert 'hit()</script>' not in text
  assert '<img' not in text
  assert _data(text)['class_names'] == [HOSTILE[0], HOSTILE[1], '\\x1b[31m\\u202e']
  assert '\x1b' not in text
  assert '\u202e' not in text


@pytest.mark.parametrize('make', [small_signature, generator_signature])
def test_only_its_own_script_and_style_are_let_in(make):
  text = web.page(make())
  policy = dict(part.split(' ', 1) for part in _policy(text).split('; '))
  assert policy['default-src'] == "'none'"
  assert {policy['script-src']} == _hashes('script', text)
  assert {policy['style-src']} == _hashes('style', text)
  assert policy['connect-src'] == "'self'"
  assert 'unsafe' not in _policy(text)
  assert not re.search(r'<[^>]*\s(on\w+|style)=', text.split('<script')[0])
  assert 'http' not in re.sub(
    'http-equiv|http://www.w3.org/2000/svg', '', text.split('<script')[0]
  )


def test_json_ends_no_script():
  names = ('<!--', '<script', '</SCRIPT>', '&lt;', '\u2028')
  text = rendering._json({'names': names})
  assert json.loads(text) == {'names': list(names)}
  assert not set('<>&\u2028') & set(text)
