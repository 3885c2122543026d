"""Trained networks in the page: a run on digits, in float32 and in int8, and a GAN."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from web_models import png

import jaxvision
from jaxvision.deployment import web
from jaxvision.deployment.onnx_file import OnnxFile
from jaxvision.deployment.program import program_of
from jaxvision.inference.onnx_model import load_onnx, open_session

ROOT = Path(__file__).parent.parent.parent.parent

pytestmark = pytest.mark.slow
pytest.importorskip('onnx', reason='onnx comes with the extra "onnx"')
pytest.importorskip('onnxruntime', reason='onnxruntime comes with the extra "onnx"')


@pytest.fixture(scope='module')
def workdir(tmp_path_factory, short_run):
  path = tmp_path_factory.mktemp('run')
  config = short_run()
  config.steps = 200
  jaxvision.train(config, path)
  return path


def _hundred():
  """The last hundred digits, enlarged to sizes of their own."""
  images = (load_digits().images[-100:] * (255 / 16)).round().astype(np.uint8)
  rng = np.random.default_rng(0)
  files = []
  for i, image in enumerate(images):
    size = tuple(int(side) for side in rng.integers(8, 200) + rng.integers(0, 20, 2))
    picture = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    files.append((f'{i}.png', png(picture)))
  return files


@pytest.mark.parametrize('kind', ['float32', 'int8'])
def test_a_run_predicts_in_the_page_as_anywhere(
  browser, serve, runtime, workdir, tmp_path, kind
):
  from jaxvision.commands.quantize import quantize

  path = tmp_path / 'model.onnx'
  if kind == 'int8':
    quantize(workdir, path)
  else:
    program = program_of(jaxvision.load_run(workdir))
    path.write_bytes(OnnxFile(program).to_bytes(program.signature))
  signature, _ = open_session(path)
  web.write_web(tmp_path / 'site', path.read_bytes(), signature, runtime=runtime)
  page = browser.open(serve(tmp_path / 'site'))
  files = _hundred()
  page.set_input_files(
    '#choose',
    [{'name': n, 'mimeType': 'image/png', 'buffer': content} for n, content in files],
  )
  page.wait_for_selector('body[data-done="100"]', timeout=60_000)
  found = page.texts('#earlier-list .name')[::-1]
  pictures = [Image.open(io.BytesIO(content)) for _, content in files]
  expected = load_onnx(path).predict(pictures).names
  # Sums of int8 are the same everywhere; what is computed between them in float32 is not.
  assert sum(a == b for a, b in zip(found, expected)) >= (99 if kind == 'int8' else 100)
  if kind == 'float32':
    assert jaxvision.load_run(workdir).predict(pictures).names == expected
  assert len(set(found)) > 4  # the network has learnt something


def test_a_gan_draws_in_the_page(browser, serve, runtime, tmp_path):
  file = ROOT / 'experiments' / 'generators' / 'cifar100_dcgan_plus.safetensors'
  program = program_of(jaxvision.load_generator(file))
  content = OnnxFile(program).to_bytes(program.signature)
  web.write_web(tmp_path / 'site', content, program.signature, runtime=runtime)
  page = browser.open(serve(tmp_path / 'site'))
  page.wait_for_selector('body[data-samples="0"]', timeout=60_000)
  pixels = page.eval_on_selector_all(
    '#samples canvas',
    '(all) => all.map((one) => [...one.getContext("2d").getImageData(0, 0, 32, 32).data])',
  )
  images = np.array(pixels).reshape(24, 32, 32, 4)[..., :3]
  # Twenty-four pictures, none of them noise: neighbouring pixels are alike.
  assert len(np.unique(images.reshape(24, -1), axis=0)) == 24
  steps = np.abs(np.diff(images, axis=2)).mean()
  assert steps < 0.7 * np.abs(images - images.mean()).mean()
