"""What a server answers: predictions as offline, drawings, and what it says of itself."""

import asyncio
import io
import json
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from serving import Fake, grey, png

import jaxvision
from jaxvision.errors import UserError
from jaxvision.inference.loading import load_model
from jaxvision.reports import image_grid

TRAINED = Path(__file__).resolve().parents[2] / 'fixtures' / 'trained'


def images(answer):
  assert answer.status_code == 200, answer.text
  assert answer.text.count('\n') == 1
  return answer.json()['images']


def test_every_answer_is_the_offline_prediction(serve, classifier, digits):
  running = serve(classifier, batch=8)
  expected = classifier.predict(digits[:60])
  best = expected.top(10)

  async def ask(client, i):
    answer = await client.post(
      f'{running.url}/predict?top=10',
      content=png(digits[i]),
      headers={'content-type': 'image/png'},
    )
    return i, images(answer)

  async def all_of_them():
    async with httpx.AsyncClient(timeout=60) as client:
      return await asyncio.gather(*(ask(client, i) for i in range(60)))

  for i, entries in asyncio.run(all_of_them()):
    (entry,) = entries
    assert set(entry) == {'predictions'}
    found = {one['class']: one['probability'] for one in entry['predictions']}
    assert next(iter(found)) == best[i][0][0]
    assert list(found.values()) == sorted(found.values(), reverse=True)
    row = [found[name] for name in expected.class_names]
    np.testing.assert_allclose(row, expected.probabilities[i], rtol=1e-3, atol=1e-7)
  # One form of many files: in order, and by name.
  files = [('f', (f'{i}.png', png(digits[i]))) for i in range(20)]
  entries = images(httpx.post(f'{running.url}/predict?top=1', files=files, timeout=60))
  assert [entry['file'] for entry in entries] == [f'{i}.png' for i in range(20)]
  assert [entry['predictions'][0]['class'] for entry in entries] == expected.names[:20]


def test_batches_grow_with_the_load_and_are_counted(serve):
  model = Fake()
  running = serve(model, batch=16)
  model.batches.clear()
  entered, go_on = threading.Event(), threading.Event()

  def wait(images):
    entered.set()
    assert go_on.wait(30)

  model.before = wait
  rows = list(range(1, 10))
  found = []

  def ask(row):
    content = grey(row, 2 * row, 3 * row)
    headers = {'content-type': 'image/png'}
    answer = httpx.post(
      f'{running.url}/predict?top=3', content=content, headers=headers
    )
    found.append((row, images(answer)))

  threads = [threading.Thread(target=ask, args=(row,)) for row in rows]
  threads[0].start()
  assert entered.wait(30)
  for thread in threads[1:]:
    thread.start()
  while running.service.work.waiting < 9 or len(running.service.work._images) < 8:
    pass
  go_on.set()
  for thread in threads:
    thread.join()
  assert model.batches == [1, 8]
  for row, (entry,) in found:
    values = [(one['class'], one['probability']) for one in entry['predictions']]
    scaled = [
      (n, float(np.float32(k * row) / np.float32(255)))
      for n, k in zip('cba', (3, 2, 1))
    ]
    assert values == scaled
  text = httpx.get(f'{running.url}/metrics').text
  assert 'jaxvision_requests_total{route="/predict",status="200"} 9\n' in text
  assert 'jaxvision_images_total{outcome="predicted"} 9\n' in text
  assert 'jaxvision_batch_size_count 2\n' in text
  assert 'jaxvision_batch_size_bucket{le="8"} 2\n' in text
  assert 'jaxvision_queue_length 0\n' in text
  assert 'jaxvision_request_seconds_count{route="/predict"} 9\n' in text


def test_an_image_that_cannot_be_read_is_an_entry_among_others(serve):
  running = serve(Fake())
  files = [
    ('f', ('a', grey(9))),
    ('f', ('b', b'no image')),
    ('g', ('c', grey(3)[:45])),
  ]
  entries = images(httpx.post(f'{running.url}/predict', files=files))
  assert [set(entry) for entry in entries] == [
    {'file', 'predictions'},
    {'file', 'error'},
    {'file', 'error'},
  ]
  assert 'not an image of a known format' in entries[1]['error']
  for bad in (files[1:], files[1:2]):
    answer = httpx.post(f'{running.url}/predict', files=bad)
    assert answer.status_code == 400
    assert set(answer.json()) == {'error'}
  assert (
    'jaxvision_images_total{outcome="unreadable"} 5\n'
    in httpx.get(f'{running.url}/metrics').text
  )


@pytest.mark.parametrize('kind', ['multilabel', 'regression'])
def test_values_and_labels_are_answered_too(serve, kind):
  running = serve(Fake(('left', 'top'), kind))
  answer = httpx.post(f'{running.url}/predict', files={'f': ('a.png', grey(51, 102))})
  name = 'value' if kind == 'regression' else 'probability'
  (entry,) = images(answer)
  values = [('left', 0.2), ('top', 0.4)]
  if kind == 'multilabel':  # the best first; values are in their order
    values.reverse()
  assert [(p['class'], round(p[name], 4)) for p in entry['predictions']] == values


def test_wrong_values_in_the_query_are_told(serve):
  running = serve(Fake())
  for query in ('top=0', 'top=-1', 'top=x', 'top=1e3', 'top=%00', 'top=9999999999'):
    answer = httpx.post(f'{running.url}/predict?{query}', content=grey(1))
    assert answer.status_code == 400, query
    assert 'top is a whole number from 1 on' in answer.json()['error']
  entry = images(httpx.post(f'{running.url}/predict?top=99', content=grey(1)))[0]
  assert len(entry['predictions']) == 3


def test_it_is_ready_once_it_is_warm_and_lives_before(serve):
  model, go_on = Fake(), threading.Event()
  model.before = lambda images: go_on.wait(30)
  running = serve(model, warm=False)
  assert not running.server.wait_until_warm(0.05)
  early = httpx.get(f'{running.url}/healthz')
  assert (early.status_code, early.json()) == (503, {'status': 'starting'})
  assert httpx.get(f'{running.url}/livez').json() == {'status': 'alive'}
  refused = httpx.post(f'{running.url}/predict', content=grey(1))
  assert refused.status_code == 503
  assert refused.headers['retry-after'] == '1'
  go_on.set()
  assert running.server.wait_until_warm(30)
  ready = httpx.get(f'{running.url}/healthz')
  assert (ready.status_code, ready.json()) == (200, {'status': 'ready'})
  assert sorted(set(model.batches)) == [1, 2, 4, 8, 16, 32]


def test_a_model_of_other_outputs_ends_the_server(serve):
  model = Fake()
  model.probabilities = lambda images: np.zeros((len(images), 4, 4, 3), np.float32)
  running = serve(model, warm=False)
  with pytest.raises(UserError, match=r'outputs of shape \[4, 4, 3\]'):
    running.server.wait_until_warm(30)
  with pytest.raises(UserError):
    running.server.stop()
  running.server._error = None  # it has been told


def test_a_fault_of_the_model_is_a_500_that_only_the_log_explains(serve):
  model = Fake()
  running = serve(model)

  def fail(images):
    if images.any():
      raise RuntimeError('the secret path runs/model')

  model.before = fail
  answer = httpx.post(f'{running.url}/predict', content=grey(1))
  assert answer.status_code == 500
  assert 'secret' not in answer.text
  assert httpx.post(f'{running.url}/predict', content=grey(0)).status_code == 200
  running.server.stop()
  assert 'RuntimeError' in running.log.getvalue()


def test_nan_is_a_fault_and_no_json(serve):
  model = Fake()
  running = serve(model)
  model.probabilities = lambda images: np.full((len(images), 3), np.nan, np.float32)
  assert httpx.post(f'{running.url}/predict', content=grey(1)).status_code == 500


@pytest.fixture(scope='module')
def gan():
  return jaxvision.load_run(TRAINED / 'digits_dcgan')


def test_a_gan_draws_as_offline(serve, gan):
  running = serve(gan, images=4)
  for query, count, options in (
    ('count=3&seed=5', 3, {'seed': 5}),
    ('count=1', 1, {}),
    ('', 1, {}),
    ('class=3&seed=&count=4', 4, {'label': '3'}),
  ):
    answer = httpx.get(f'{running.url}/sample?{query}')
    assert answer.headers['content-type'] == 'image/png'
    found = np.asarray(Image.open(io.BytesIO(answer.content)).convert('RGB'))
    images = gan.sample(count, **options)
    if count == 1:
      grid = images[0].repeat(3, axis=-1)
    else:
      grid = image_grid.grid(images, scale=64 // images.shape[1])
    # A program of another size may round a pixel the other way.
    assert found.shape == grid.shape
    assert np.abs(found.astype(int) - grid).max() <= 1
  for query in ('count=0', 'count=5', 'seed=-1', 'seed=2147483648', 'class=nosuch'):
    answer = httpx.get(f'{running.url}/sample?{query}')
    assert answer.status_code == 400, query
    assert answer.text.count('\n') == 1
    assert str(TRAINED) not in answer.text
  assert httpx.post(f'{running.url}/predict', content=grey(1)).status_code == 404
  assert '/sample' in httpx.get(f'{running.url}/openapi.json').json()['paths']
  assert 'id="seed' in httpx.get(f'{running.url}/').text


def test_the_description_has_every_route_and_the_answers_fit_it(serve):
  running = serve(Fake(), images=7)
  described = httpx.get(f'{running.url}/openapi.json').json()
  assert described['openapi'].startswith('3.1')
  for path, methods in described['paths'].items():
    for method, operation in methods.items():
      answer = httpx.request(method, f'{running.url}{path}')
      assert str(answer.status_code) in operation['responses'], (path, method)
      kinds = operation['responses'][str(answer.status_code)]['content']
      assert answer.headers['content-type'].partition(';')[0] in kinds
  assert set(described['paths']) == {
    *('/', '/predict', '/healthz', '/livez', '/metrics', '/openapi.json')
  }
  schema = described['components']['schemas']['Answer']['properties']['images']['items']
  entry = images(httpx.post(f'{running.url}/predict', content=grey(1)))[0]
  assert set(entry) <= set(schema['properties'])
  one = schema['properties']['predictions']['items']
  assert set(entry['predictions'][0]) == set(one['required'])
  references = json.dumps(described).count('#/components/schemas/Error')
  assert references > 5
  assert 'Error' in described['components']['schemas']
  form = described['paths']['/predict']['post']['requestBody']['content'][
    'multipart/form-data'
  ]
  assert form['schema']['properties']['file']['maxItems'] == 7


def test_every_answer_has_the_headers_that_keep_browsers_safe(serve):
  running = serve(Fake())
  for method, path in (
    ('GET', '/'),
    ('GET', '/healthz'),
    ('GET', '/nothing'),
    ('PUT', '/predict'),
    ('POST', '/predict'),
  ):
    headers = httpx.request(method, running.url + path).headers
    assert headers['x-content-type-options'] == 'nosniff'
    assert headers['referrer-policy'] == 'no-referrer'
    assert headers['cache-control'] == 'no-store'
    assert "frame-ancestors 'none'" in headers['content-security-policy']
    if path != '/':  # whose policy stands in it
      assert "default-src 'none'" in headers['content-security-policy']
    assert 'unsafe' not in headers['content-security-policy']
    assert 'server' not in headers
    assert 'access-control-allow-origin' not in headers


def test_other_origins_ask_where_they_are_named(serve):
  origin = 'https://example.org'
  running = serve(Fake(), origins=(origin,))
  for path in ('/healthz', '/nothing'):
    answer = httpx.get(running.url + path, headers={'origin': origin})
    assert answer.headers['access-control-allow-origin'] == origin
    other = httpx.get(running.url + path, headers={'origin': 'https://evil.org'})
    assert 'access-control-allow-origin' not in other.headers
  preflight = httpx.options(
    f'{running.url}/predict',
    headers={
      'origin': origin,
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'content-type',
    },
  )
  assert preflight.status_code == 200


HOSTILE = '</script><script>window.hit=1</script>\n\x1b[31m\u202e'


def test_other_names_of_the_machine_are_refused_where_names_are_given(serve):
  running = serve(Fake(), hosts=('localhost', '::1', 'Example.org'))
  for host, status in {
    'localhost': 200,
    'LOCALHOST:80': 200,
    'example.org:8000': 200,
    '[::1]:8000': 200,
    'rebound.example': 421,
    'localhost.example.org': 421,
    '': 421,
  }.items():
    head = f'GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n'
    found, _, body = running.talk(head.encode())
    assert found == status, host
    if status == 421:
      assert b'--allowed-host' in body


def test_names_of_classes_and_files_are_data(serve):
  running = serve(Fake((HOSTILE, '"\'><img src=x onerror=alert(1)>', 'c')))
  page = httpx.get(f'{running.url}/').text
  assert '<script>window' not in page
  assert '<img src=x' not in page
  files = [('f', (HOSTILE, grey(9))), ('f', ('../../x', b''))]
  answer = httpx.post(f'{running.url}/predict', files=files)
  entries = images(answer)
  assert '<' not in answer.text
  assert '\x1b' not in answer.text
  assert '\u202e' not in entries[0]['file'] + entries[0]['predictions'][0]['class']
  assert entries[0]['predictions'][0]['class'].startswith('</script>')
  assert '<script>' not in httpx.get(f'{running.url}/openapi.json').text


def test_the_page_classifies_and_hostile_names_do_not_run(serve, browser):
  hostile = '<img src=x onerror="window.hit=1">'
  running = serve(Fake((HOSTILE, hostile, 'c')))
  page = browser.open(f'{running.url}/')
  file = {'name': HOSTILE, 'mimeType': 'image/png', 'buffer': grey(51, 102)}
  page.set_input_files('#choose', [file])
  page.wait_for_selector('body[data-done="1"]')
  assert page.texts('#best') == [hostile]
  assert page.texts('#confidence') == ['40.0%']
  assert page.evaluate('window.hit') is None


def test_the_page_draws(serve, browser, gan):
  page = browser.open(f'{serve(gan, images=1).url}/')
  page.fill('#seed-number', '77')
  page.press('#seed-number', 'Enter')
  page.wait_for_selector('#caption:text-is("0, seed 77")')
  pixels = page.evaluate(
    'Array.from(document.getElementById("sample").getContext("2d")'
    '.getImageData(0, 0, 16, 16).data)'
  )
  found = np.array(pixels).reshape(16, 16, 4)[..., :1]
  drawn = gan.sample(1, seed=77, label='0', batch_size=1)[0]
  assert np.abs(found - drawn.astype(int)).max() <= 1


def test_an_exported_file_answers_as_its_run(serve, classifier, digits, call, tmp_path):
  pytest.importorskip('onnxruntime')
  file = tmp_path / 'model.onnx'
  run = f'--workdir={TRAINED / "digits_cnn"}'
  assert call('export', run, f'--output={file}')[0] == 0
  running = serve(load_model(file))
  files = [('f', (f'{i}.png', png(digits[i]))) for i in range(10)]
  answer = httpx.post(f'{running.url}/predict?top=10', files=files)
  expected = classifier.predict(digits[:10])
  for entry, row in zip(images(answer), expected.probabilities):
    found = {one['class']: one['probability'] for one in entry['predictions']}
    values = [found[name] for name in expected.class_names]
    np.testing.assert_allclose(values, row, atol=1e-4)
