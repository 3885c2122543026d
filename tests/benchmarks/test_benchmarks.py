"""What the benchmarks share: turns, ratios, tables, processes; the twins' parameters."""

import json
import math
import platform
import re
import sys

import jax
import numpy as np
import pytest

from jaxvision import models


def test_sides_take_turns_and_a_ratio_is_of_one_pair(module, monkeypatch):
  sides = module('sides')
  monkeypatch.setattr(sides, '_REST_SECONDS', 0)
  order = []
  speeds = {'ours': iter([2.0, 30.0, 4.0]), 'peer': iter([1.0, 10.0, 4.0])}

  def side(name):
    order.append(name)
    return next(speeds[name])

  measured = sides.alternate(lambda: side('ours'), lambda: side('peer'), 3)
  assert order == ['ours', 'peer'] * 3
  assert measured['ratio'] == {'n': 3, 'min': 1.0, 'median': 2.0, 'max': 3.0}
  assert measured['pairs'] == [[2.0, 1.0], [30.0, 10.0], [4.0, 4.0]]


def test_a_side_answers_and_tells_its_errors(module, monkeypatch, tmp_path, request):
  sides = module('sides')
  (tmp_path / 'side.py').write_text(
    'import sys\n'
    f'sys.path.insert(0, {str(request.config.rootpath / "benchmarks")!r})\n'
    'from sides import serve\n'
    'def double(x):\n'
    '  print("a library that prints")\n'
    '  return 2 * x\n'
    'serve({"double": double})\n'
  )
  monkeypatch.setattr(sides, 'HERE', tmp_path)
  with sides.Side('side.py', sys.executable) as side:
    assert side.ask('double', x=21) == 42
    with pytest.raises(sides.SideFailed, match='TypeError'):
      side.ask('double', x=None)
    assert side.ask('double', x=1) == 2
  missing = sides.Side('nothing.py', sys.executable)
  with pytest.raises(sides.SideFailed, match='ended with code'):
    missing.ask('double', x=1)
  missing.close()


def test_a_result_is_on_disk_after_each_row(module, tmp_path):
  table = module('table')
  result = table.Result('trial', tmp_path / 'results' / 'trial.json', rounds=5)
  result.note(peer='none')
  for n in (1, 2):
    result.add({'n': n})
    written = json.loads((tmp_path / 'results' / 'trial.json').read_text())
    assert [row['n'] for row in written['rows']] == list(range(1, n + 1))
  assert written['rounds'] == 5
  assert written['peer'] == 'none'
  assert written['versions']['jax'] == jax.__version__
  assert written['machine']['cores'] >= 1
  text = table.table(('model', 'ratio'), [('small', 1.2345), ('large', None)])
  assert [len(line) for line in text.splitlines()] == [17] * 4
  assert '| small | 1.23  |' in text
  assert '| large | -     |' in text


def test_no_result_names_the_build_of_a_kernel(module, pytestconfig):
  assert platform.release() not in json.dumps(module('table').machine())
  results = [
    *pytestconfig.rootpath.glob('benchmarks/results/*.json'),
    *pytestconfig.rootpath.glob('experiments/results/*.json'),
  ]
  assert len(results) > 10
  for path in results:
    # As in Linux-6.1.0-18-amd64.
    build = re.search(r'(Linux|Darwin|Windows)-\d|glibc', path.read_text())
    assert not build, path.name


def test_the_twins_have_the_parameters_of_the_models(module):
  pytest.importorskip('torch')
  peers, cases = module('peers'), module('models').CASES
  assert set(peers.MODELS) == {
    name for name, case in cases.items() if case.task == 'classification'
  }
  for name, twin in peers.MODELS.items():
    classes = cases[name].classes
    model = models.create(name, classes, **cases[name].fields)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), 'float32')
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)['params']
    ours = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    assert sum(p.numel() for p in twin(classes).parameters()) == ours, name


@pytest.mark.usefixtures('quick_compile')
def test_the_twin_of_the_transformer_computes_what_the_model_does(module):
  torch = pytest.importorskip('torch')
  sizes = {'patch': 16, 'width': 24, 'depth': 2, 'heads': 3}
  twin = module('peer_vit').ViT(5, **sizes).eval()
  rng = np.random.default_rng(0)
  with torch.no_grad():
    for parameter in twin.parameters():  # the norms and the classifier too
      parameter.copy_(torch.from_numpy(rng.normal(0.0, 0.3, parameter.shape)))
  values = {name: p.detach().numpy() for name, p in twin.named_parameters()}

  def layer(name):
    weight, bias = values[f'{name}.weight'], values[f'{name}.bias']
    if weight.ndim == 1:
      return {'scale': weight, 'bias': bias}
    axes = (2, 3, 1, 0) if weight.ndim == 4 else (1, 0)
    return {'kernel': weight.transpose(axes), 'bias': bias}

  params = {'norm': layer('norm'), 'head': layer('head')}
  params['embed'] = {
    'conv': layer('embed'),
    'token': values['token'][0, 0],
    'positions': values['positions'][0],
  }
  for i in range(2):
    at = f'blocks.{i}'
    params[f'block{i + 1}'] = {
      'attention': {name: layer(f'{at}.{name}') for name in ('qkv', 'proj')},
      **{
        name: layer(f'{at}.{name}') for name in ('norm1', 'norm2', 'dense1', 'dense2')
      },
    }
  images = rng.normal(size=(3, 32, 32, 3)).astype(np.float32)
  model = models.create('vit_small', 5, **sizes)
  shapes = jax.eval_shape(model.init, jax.random.key(0), images)['params']
  assert jax.tree.structure(shapes) == jax.tree.structure(params)
  ours = jax.jit(model.apply)({'params': params}, images)
  with torch.no_grad():
    theirs = twin(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
  np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
