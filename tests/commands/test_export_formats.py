"""`export` by format, and `predict --model`."""

import json

import numpy as np
import pytest
from command_line import assert_refused

import jaxvision

pytest.importorskip('onnxruntime')


@pytest.mark.parametrize('suffix', ['onnx', 'stablehlo', 'safetensors'])
def test_a_suffix_says_the_format(call, finished, pictures, tmp_path, suffix):
  output = tmp_path / f'model.{suffix}'
  code, printed, errors = call(
    'export', f'--workdir={finished}', f'--output={output}', '--verify'
  )
  assert (code, printed) == (0, f'exported: {output}\n'), errors
  assert 'verified on 359 test images: 0 predictions differ; accuracy' in errors
  folder, _ = pictures
  (folder / '03.png').write_bytes(b'no image')
  rows = []
  for source in (f'--model={output}', f'--workdir={finished}'):
    code, printed, errors = call('predict', source, '--json', folder)
    assert code == 2
    assert errors.count('error: ') == 1
    rows.append(json.loads(printed))
  for ours, theirs in zip(*rows):
    assert ours.keys() == theirs.keys()
    assert ours['file'] == theirs['file']
    if 'error' not in ours:
      names, shares = (
        [[p[key] for p in row['predictions']] for row in (ours, theirs)]
        for key in ('class', 'probability')
      )
      assert names[0][0] == names[1][0]
      np.testing.assert_allclose(shares[0], shares[1], atol=1e-4)


def test_the_difference_from_the_run_is_told_and_stored(call, finished, tmp_path):
  import onnx

  output = tmp_path / 'model.onnx'
  code, _, errors = call('export', f'--workdir={finished}', f'--output={output}')
  assert code == 0
  assert 'largest difference from the run on 256 test images of digits' in errors
  model = onnx.load(output)
  metadata = {entry.key: entry.value for entry in model.metadata_props}
  assert metadata['class_names'].split('\n') == list('0123456789')
  facts = json.loads(metadata['jaxvision'])['facts']
  assert facts['compared_on'] == '256 test images of digits'
  assert 0 <= facts['largest_difference']['probabilities'] < 1e-4
  assert facts['config_name'] == 'digits_cnn'
  assert facts['test_accuracy'] > 0.9
  assert model.opset_import[0].version == 20
  assert [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [
    'batch', 8, 8, 1,
  ]  # fmt: skip


def test_what_export_refuses(call, finished, tmp_path):
  run = f'--workdir={finished}'
  assert_refused(call('export', run, f'--output={tmp_path}/m.pt'), 'says no format')
  assert_refused(call('export', run, f'--output={tmp_path}/m'), 'says no format')
  assert_refused(
    call('export', run, '--format=onnx', f'--output={tmp_path}/m.safetensors'),
    'the name of safetensors, and --format=onnx',
  )
  assert_refused(call('export', run, '--model=x.onnx'), '--model is of --format=web')
  assert_refused(call('export', '--format=web'), 'name the run with --workdir')
  assert_refused(
    call('export', run, run, '--format=onnx', f'--output={tmp_path}/no/m.onnx'),
    'there is no directory',
  )
  assert not list(tmp_path.iterdir())


def test_a_missing_package_names_its_extra(call, finished, tmp_path, monkeypatch):
  import sys

  monkeypatch.setitem(sys.modules, 'onnx', None)
  output = f'--output={tmp_path}/m.onnx'
  assert_refused(
    call('export', f'--workdir={finished}', output), "pip install 'jaxvision[onnx]'"
  )


def test_predict_takes_a_run_or_a_file(call, finished, pictures, tmp_path):
  folder, _ = pictures
  assert_refused(
    call('predict', f'--workdir={finished}', '--model=x.onnx', folder), 'either a run'
  )
  assert_refused(call('predict', '--model=x.onnx', folder), 'x.onnx cannot be read')


def test_predict_holds_one_batch_of_images(call, finished, pictures, monkeypatch):
  folder, labels = pictures
  held = []
  predict = jaxvision.inference.predictor.Predictor.predict

  def watched(self, images, batch_size=None):
    held.append(len(images))
    return predict(self, images, batch_size)

  monkeypatch.setattr('jaxvision.inference.predictor.Predictor.predict', watched)
  monkeypatch.setattr(
    'jaxvision.inference.predictor.Predictor.largest_batch', lambda self: 8
  )
  code, printed, _ = call('predict', f'--workdir={finished}', '--top=1', folder)
  assert (code, held) == (0, [8, 8, 4])
  lines = printed.splitlines()
  assert [line.split(': ')[0] for line in lines] == [
    str(folder / f'{i:02}.png') for i in range(20)
  ]
  assert np.mean([int(line.split(': ')[1][0]) for line in lines] == labels) > 0.8


NETS = """
import flax.linen as nn
import jax.numpy as jnp


class Sorting(nn.Module):
  num_classes: int

  @nn.compact
  def __call__(self, images, train=False):
    x = jnp.sort(images.reshape(images.shape[0], -1), -1)
    return nn.Dense(self.num_classes)(x)
"""


def test_networks_of_ones_own_are_exported_or_the_operator_is_named(
  call, pictures, tmp_path
):
  from pathlib import Path

  root = Path(__file__).resolve().parents[2]
  (tmp_path / 'nets.py').write_text(NETS)
  names = {'good': root / 'examples' / 'net.py', 'bad': tmp_path / 'nets.py'}
  for name, file in names.items():
    code, _, errors = call(
      'train',
      f'--config={root / "configs" / "digits_cnn.py"}',
      f'--config.model.name={file}:{"Net" if name == "good" else "Sorting"}',
      *('--config.steps=2', '--config.report=False', '--config.parallel.data=1'),
      f'--workdir={tmp_path / name}',
    )
    assert code == 0, errors
  folder, _ = pictures
  output = tmp_path / 'own.onnx'
  code, _, errors = call(
    'export', f'--workdir={tmp_path / "good"}', f'--output={output}', '--verify'
  )
  assert code == 0, errors
  assert '0 predictions differ' in errors
  code, printed, _ = call('predict', f'--model={output}', folder)
  assert (code, len(printed.splitlines())) == (0, 20)
  bad = f'--workdir={tmp_path / "bad"}'
  assert_refused(
    call('export', bad, f'--output={tmp_path / "bad.onnx"}'), 'the network uses sort'
  )
  code, printed, errors = call('export', bad, f'--output={tmp_path / "bad.stablehlo"}')
  assert code == 0, errors
  code, printed, _ = call('predict', f'--model={tmp_path / "bad.stablehlo"}', folder)
  assert (code, len(printed.splitlines())) == (0, 20)
  weights = tmp_path / 'bad.safetensors'
  assert call('export', bad, f'--output={weights}')[0] == 0
  assert_refused(call('predict', f'--model={weights}', folder), 'a network of your own')
