"""The folder and the single file of a network."""

import base64
import gzip
import re

import pytest
from web_models import generator_signature, small_signature

from jaxvision.deployment import web
from jaxvision.errors import UserError


def test_a_folder_has_all_that_the_page_names(tmp_path, tiny_runtime):
  page = web.write_web(
    tmp_path / 'site', b'a model', small_signature(), runtime=tiny_runtime
  )
  assert page == tmp_path / 'site' / 'index.html'
  text = page.read_text()
  named = set(re.findall('(?:src|href)="([^:"]+)"', text))
  named |= set(re.findall('"name": "([^"]+)"', text))
  files = {path.name for path in page.parent.iterdir()}
  assert named | {'index.html', 'LICENSE-onnxruntime-web.txt'} == files
  assert (page.parent / 'model.onnx').read_bytes() == b'a model'
  wasm = gzip.decompress((page.parent / 'ort-wasm-simd-threaded.wasm.gz').read_bytes())
  assert wasm == (tiny_runtime / 'ort-wasm-simd-threaded.wasm').read_bytes()
  assert 'sourceMappingURL' not in (page.parent / 'ort.wasm.min.js').read_text()
  assert 'Permission is hereby granted' in text


def test_writing_again_replaces_the_page_and_keeps_what_is_not_ours(
  tmp_path, tiny_runtime
):
  (tmp_path / 'mine.txt').write_text('mine')
  for model in (b'one', b'other'):
    web.write_web(tmp_path, model, small_signature(), runtime=tiny_runtime)
  assert (tmp_path / 'model.onnx').read_bytes() == b'other'
  assert (tmp_path / 'mine.txt').read_text() == 'mine'


def test_the_same_network_gives_the_same_bytes(tmp_path, tiny_runtime):
  written = [
    web.write_web(
      tmp_path / name,
      b'a model',
      small_signature(),
      runtime=tiny_runtime,
      single_file=True,
    ).read_bytes()
    for name in ('one.html', 'other.html')
  ]
  assert written[0] == written[1]


@pytest.mark.parametrize('make', [small_signature, generator_signature])
def test_a_single_file_holds_everything(tmp_path, tiny_runtime, make):
  page = web.write_web(
    tmp_path / 'page.html', b'a model', make(), runtime=tiny_runtime, single_file=True
  )
  assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ['page.html']
  text = page.read_text()
  assert not re.search('<(script|link)[^>]*(src|href)="(?!data:)', text)
  blocks = dict(re.findall('type="application/base64" id="(.*?)">(.*?)</script>', text))
  assert sorted(blocks) == ['glue', 'model', 'wasm']
  assert gzip.decompress(base64.b64decode(blocks['model'])) == b'a model'
  assert 'connect-src &#39;none&#39;' in text
  # The runtime's script holds a string that would end it.
  assert 'var ort = "<\\/script>"' in text


@pytest.mark.parametrize('single_file', [False, True])
def test_a_place_that_cannot_be_written_is_one_line(
  tmp_path, tiny_runtime, single_file
):
  (tmp_path / 'taken').write_text('a file')
  with pytest.raises(UserError, match='export: --output: .*taken.* cannot be written'):
    web.write_web(
      tmp_path / 'taken' / 'page',
      b'',
      small_signature(),
      runtime=tiny_runtime,
      single_file=single_file,
    )
