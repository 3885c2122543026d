"""`quantize`: smaller files, and what they cost."""

import numpy as np
import pytest
from command_line import assert_refused

import jaxvision
from jaxvision.commands import quantize as quantize_command
from jaxvision.commands.quantize import Quantization, quantize

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')


def stored(path):
  """Returns the kinds of the weights in a file."""
  model = onnx.load(path)
  names = {v: k for k, v in onnx.TensorProto.DataType.items()}
  large = [a for a in model.graph.initializer if np.prod(a.dims, dtype=int) > 300]
  return {names[array.data_type] for array in large}


def test_int8(call, finished, tmp_path):
  output = tmp_path / 'small.onnx'
  code, printed, errors = call(
    'quantize', f'--workdir={finished}', f'--output={output}'
  )
  assert code == 0, errors
  lines = printed.splitlines()
  assert [line.split()[0] for line in lines] == [
    'type',
    'float32',
    'int8',
    'quantized:',
  ]
  assert stored(output) == {'INT8'}
  model = jaxvision.load_model(output)
  told = model.signature.facts['quantization']
  assert (told['type'], told['images'], told['kept_in_float32']) == ('int8', 512, [])
  run = jaxvision.load_run(finished)
  test = jaxvision.data.load('digits').splits['test']
  found, expected = (m.predict(test.images) for m in (model, run))
  assert np.mean(found.labels == expected.labels) == pytest.approx(told['agreement'])
  assert told['agreement'] > 0.98
  assert np.abs(found.probabilities - expected.probabilities).max() > 1e-6


@pytest.mark.parametrize('type', ['float16', 'bfloat16'])
def test_halves(finished, tmp_path, type):
  path, rows = quantize(finished, tmp_path / 'half.onnx', how=Quantization(type))
  assert stored(path) == {type.upper()}
  assert rows[0]['bytes'] / rows[1]['bytes'] > 1.9
  assert rows[1]['agreement'] > 0.99


@pytest.mark.parametrize('method', ['percentile', 'entropy'])
def test_methods(finished, tmp_path, method):
  how = Quantization(method=method, images=64)
  _, rows = quantize(finished, tmp_path / 'x.onnx', how=how)
  assert rows[1]['agreement'] > 0.95


def test_layers_that_cost_most_stay_in_float32(finished, tmp_path, monkeypatch):
  losses = iter([5.0, 0.1])
  monkeypatch.setattr(quantize_command, '_lost', lambda *_: next(losses))
  path, rows = quantize(finished, tmp_path / 'x.onnx')
  (kept,) = rows[1]['kept']
  model = onnx.load(path)
  (node,) = [node for node in model.graph.node if node.name == kept]
  makers = {name: n.op_type for n in model.graph.node for name in n.output}
  assert makers.get(node.input[1]) != 'DequantizeLinear'
  facts = jaxvision.load_model(path).signature.facts['quantization']
  assert facts['kept_in_float32'] == [kept]


def test_what_is_refused(call, finished, tmp_path):
  run = f'--workdir={finished}'
  for option, message in {
    '--type=int4': '--type must be one of int8, float16, bfloat16',
    '--method=best': '--method must be one of minmax',
    '--images=0': '--images must be at least 1',
    '--max-loss=-1': 'from 0 to 100 points',
    f'--output={tmp_path}/x.bin': 'must end in .onnx',
    f'--output={tmp_path}/no/x.onnx': 'there is no directory',
  }.items():
    assert_refused(call('quantize', run, option), message)
  gan = 'tests/fixtures/trained/digits_dcgan'
  assert_refused(call('quantize', f'--workdir={gan}'), 'only classifiers are quantized')
  assert not list(tmp_path.iterdir())
