"""`models`: trained classifiers of the package."""

import numpy as np
import pytest
from command_line import assert_refused
from PIL import Image

import jaxvision
from jaxvision.inference.trained import FOLDER, trained_models

NAMES = sorted(trained_models())


def test_they_are_listed_shown_and_copied(call, tmp_path):
  code, printed, _ = call('models')
  assert code == 0
  assert [line.split()[0] for line in printed.splitlines()] == ['name', *NAMES]
  code, printed, _ = call('models', 'digits_cnn')
  assert printed.startswith('# digits_cnn\n')
  assert '**Limits.**' in printed
  code, printed, _ = call('models', 'digits_cnn', f'--copy={tmp_path}/new')
  assert code == 0
  endings = ('.int8.onnx', '.md', '.safetensors')
  copied = sorted(p.name for p in (tmp_path / 'new').iterdir())
  assert copied == [f'digits_cnn{ending}' for ending in endings]
  assert_refused(call('models', 'digits_cmm'), 'did you mean "digits_cnn"')
  assert_refused(call('models', f'--copy={tmp_path}'), 'name the models to copy')


def test_every_one_has_all_its_files():
  assert 'digits_cnn' in NAMES
  endings = ('.safetensors', '.int8.onnx', '.md', '.json')
  known = {f'{name}{ending}' for name in NAMES for ending in endings}
  assert {path.name for path in FOLDER.iterdir()} == known


@pytest.mark.parametrize('variant', ['', '.int8'])
def test_digits_are_classified_by_name(call, tmp_path, variant):
  if variant:
    pytest.importorskip('onnxruntime')
  test = jaxvision.data.load('digits').splits['test']
  model = jaxvision.load_model(f'digits_cnn{variant}')
  accuracy = np.mean(model.predict(test.images).labels == test.labels)
  facts = trained_models()['digits_cnn'].facts
  key = 'int8_accuracy' if variant else 'test_accuracy'
  assert accuracy == pytest.approx(facts[key], abs=1e-6)
  Image.fromarray(test.images[0, :, :, 0]).save(tmp_path / 'one.png')
  code, printed, _ = call(
    'predict', f'--model=digits_cnn{variant}', tmp_path / 'one.png'
  )
  assert code == 0
  assert printed.startswith(f'{tmp_path / "one.png"}: {test.labels[0]} ')
