"""What `export` writes predicts as the run does, and what is not ours is refused."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jaxvision
from jaxvision.deployment import stablehlo
from jaxvision.deployment.onnx_file import OnnxFile
from jaxvision.deployment.program import program_of
from jaxvision.errors import UserError
from jaxvision.inference.classifier import Classifier
from jaxvision.inference.onnx_model import load_onnx
from jaxvision.inference.signature import (
  GeneratorSignature,
  Signature,
  from_json,
  to_json,
)
from jaxvision.inference.weights_model import save_weights

pytest.importorskip('onnxruntime')

TRAINED = Path(__file__).resolve().parents[1] / 'fixtures' / 'trained'


@pytest.fixture(scope='module')
def run():
  return jaxvision.load_run(TRAINED / 'digits_cnn')


@pytest.fixture(scope='module')
def generator():
  return jaxvision.load_run(TRAINED / 'digits_dcgan')


@pytest.fixture(scope='module')
def images():
  return np.random.default_rng(0).integers(0, 256, (33, 8, 8, 1), np.uint8)


@pytest.fixture(scope='module')
def files(run, tmp_path_factory):
  folder = tmp_path_factory.mktemp('exported')
  program = program_of(run)
  (folder / 'model.onnx').write_bytes(OnnxFile(program).to_bytes(program.signature))
  made = stablehlo.to_stablehlo(program)
  stablehlo.save(made, program, folder / 'model.stablehlo')
  save_weights(folder / 'model.safetensors', run, run.state.eval_variables)
  return folder


FORMATS = pytest.mark.parametrize('suffix', ['onnx', 'stablehlo', 'safetensors'])


@FORMATS
def test_predictions_are_those_of_the_run(suffix, files, run, images):
  model = jaxvision.load_model(files / f'model.{suffix}')
  assert isinstance(model, Classifier)
  assert model.signature == run.signature
  for count in (1, 2, 33):
    found, expected = (m.predict(images[:count], batch_size=8) for m in (model, run))
    assert found.class_names == expected.class_names
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
  assert model.predict([]).probabilities.shape == (0, 10)
  assert type(jaxvision.load_run(files / f'model.{suffix}')) is type(model)


@FORMATS
def test_files_of_any_size_are_brought_to_the_network(suffix, files, run, tmp_path):
  from PIL import Image

  rng = np.random.default_rng(1)
  paths = []
  for i, (size, mode) in enumerate(
    [((8, 8), 'L'), ((31, 20), 'RGB'), ((5, 9), 'RGBA')]
  ):
    channels = {'L': (), 'RGB': (3,), 'RGBA': (4,)}[mode]
    pixels = rng.integers(0, 256, (*size, *channels), np.uint8)
    paths.append(tmp_path / f'{i}.png')
    Image.fromarray(pixels).save(paths[-1])
  model = jaxvision.load_model(files / f'model.{suffix}')
  np.testing.assert_allclose(
    model.predict(paths).probabilities, run.predict(paths).probabilities, atol=1e-5
  )


def test_stablehlo_runs_without_the_library(files, run, images, tmp_path):
  np.save(tmp_path / 'images.npy', images)
  script = f"""
import sys
import jax, numpy as np
from safetensors.numpy import load_file
folder = {str(files / 'model.stablehlo')!r}
program = jax.export.deserialize(bytearray(open(folder + '/program.jax_export', 'rb').read()))
weights = load_file(folder + '/weights.safetensors')
images = np.load({str(tmp_path / 'images.npy')!r})
np.save({str(tmp_path / 'found.npy')!r}, program.call(weights, images)[0])
assert not any(name.startswith(('jaxvision', 'flax')) for name in sys.modules)
"""
  subprocess.run([sys.executable, '-c', script], check=True, cwd=tmp_path)
  found = np.load(tmp_path / 'found.npy')
  np.testing.assert_allclose(found, run.predict(images).probabilities, atol=1e-5)
  told = json.loads((files / 'model.stablehlo' / 'signature.json').read_text())
  assert told['inputs'] == [
    {'name': 'images', 'shape': ['batch', 8, 8, 1], 'dtype': 'uint8'}
  ]
  assert [output['name'] for output in told['outputs']] == ['probabilities', 'logits']
  assert {'cpu', 'cuda', 'tpu'} <= set(told['platforms'])
  assert told['weights']['params/head/bias'] == {'shape': [10], 'dtype': 'float32'}


def test_generators_are_exported(generator, tmp_path):
  import onnxruntime

  program = program_of(generator)
  assert isinstance(program.signature, GeneratorSignature)
  assert program.signature.image_shape == (16, 16, 1)
  data = OnnxFile(program).to_bytes(program.signature)
  noise = np.random.default_rng(0).standard_normal((3, 32), np.float32)
  labels = np.array([1, 0, 9], np.int32)
  session = onnxruntime.InferenceSession(data)
  (found,) = session.run(['images'], {'noise': noise, 'labels': labels})
  import jax

  expected = np.asarray(jax.jit(program.function)(program.variables, noise, labels)[0])
  assert found.dtype == np.uint8
  assert np.abs(found.astype(int) - expected).max() <= 1
  made = stablehlo.to_stablehlo(program)
  assert np.abs(made(noise, labels)[0].astype(int) - expected).max() <= 1
  (tmp_path / 'gan.onnx').write_bytes(data)
  again = jaxvision.load_model(tmp_path / 'gan.onnx')
  assert again.signature == generator.signature
  for label in (None, '7', 3):
    found, drawn = (x.sample(5, seed=2, label=label) for x in (again, generator))
    assert np.abs(found.astype(int) - drawn).max() <= 1
  found, drawn = (x.interpolate(2, 4) for x in (again, generator))
  assert found.shape == drawn.shape == (2, 4, 16, 16, 1)
  assert np.abs(found.astype(int) - drawn).max() <= 1
  with pytest.raises(UserError, match='there is no class "eleven"'):
    again.sample(1, label='eleven')
  with pytest.raises(UserError, match='draws images and classifies none'):
    load_onnx(tmp_path / 'gan.onnx')


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('a.onnx', b'', 'is no ONNX model'),
    ('a.onnx', b'no model', 'is no ONNX model'),
    ('a.safetensors', b'no weights', 'is no safetensors file'),
    ('a.txt', b'text', r'end in \.safetensors, \.onnx or \.stablehlo'),
    ('b.onnx', None, 'cannot be read'),
    ('b.stablehlo', None, 'cannot be read'),
    ('b', None, 'is no run'),
  ],
)
def test_what_is_no_model_is_refused(name, content, message, tmp_path):
  path = tmp_path / name
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(UserError, match=message) as caught:
    jaxvision.load_model(path)
  assert '\n' not in str(caught.value)


def test_damaged_folders_are_refused(files, tmp_path):
  for name in ('program.jax_export', 'weights.safetensors', 'signature.json'):
    folder = tmp_path / f'{name}.stablehlo'
    folder.mkdir()
    for file in (files / 'model.stablehlo').iterdir():
      (folder / file.name).write_bytes(file.read_bytes())
    (folder / name).write_bytes(b'damaged')
    with pytest.raises(UserError, match='is no program that jax'):
      jaxvision.load_model(folder)


def test_weights_of_elsewhere_name_no_network(tmp_path):
  import safetensors.numpy

  path = tmp_path / 'theirs.safetensors'
  safetensors.numpy.save_file({'fc.weight': np.zeros((10, 4), np.float32)}, path)
  with pytest.raises(UserError, match=r'names no network.*init.pretrained'):
    jaxvision.load_model(path)


GOOD = Signature((8, 8, 1), ('a', 'b'))


@pytest.mark.parametrize(
  ('changes', 'wrong'),
  [
    ({'kind': 'other'}, 'kind'),
    ({'image_shape': [8, 8]}, 'image_shape'),
    ({'image_shape': [8, 8, -1]}, 'image_shape'),
    ({'image_shape': None, 'class_names': []}, 'image_shape and class_names'),
    ({'class_names': [1, 2]}, 'class_names'),
    ({'kind': 'generator'}, 'latent'),
  ],
)
def test_signatures_are_checked(changes, wrong):
  text = json.dumps(json.loads(to_json(GOOD)) | changes)
  with pytest.raises(UserError, match=f'x: its metadata have no right {wrong}'):
    from_json(text, 'x')
  with pytest.raises(UserError, match='no JSON'):
    from_json('{', 'x')
