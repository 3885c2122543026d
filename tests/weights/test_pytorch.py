"""PyTorch checkpoints as people have them, and files that only look like one."""

import argparse
import pathlib
import pickle
import zipfile

import numpy as np
import pytest
from refusing import read_refused

from jaxvision import weights
from jaxvision.errors import UserError

torch = pytest.importorskip('torch')


def test_checkpoints(tmp_path):
  path = tmp_path / 'model.pth'
  tensors = {
    'conv1.weight': torch.randn(4, 3, 3, 3, dtype=torch.float64),
    'bn1.weight': torch.randn(4).to(torch.bfloat16),
  }
  counter = {'bn1.num_batches_tracked': torch.tensor(3)}
  parallel = {f'module.{name}': tensor for name, tensor in (tensors | counter).items()}
  best = torch.tensor(91.5)
  for content in (
    tensors,
    {**tensors, 'epoch': 3},
    {'state_dict': parallel, 'best_prec1': 91.5, 'epoch': 200},
    {'model': tensors | counter, 'optimizer': {'state': {}}, 'args': None},
    {'net': {f'_orig_mod.{k}': v for k, v in parallel.items()}, 'acc': 93.0},
  ):
    torch.save(content, path)
    read = weights.read(str(path))
    assert list(read.tensors) == ['bn1.weight', 'conv1.weight']
    for name, array in read.tensors.items():
      assert array.dtype == np.float32
      np.testing.assert_array_equal(array, tensors[name].float().numpy())
  torch.save({'a': best.to(torch.int32)}, path)
  read_refused(path, 'a is int32')
  torch.save({'epoch': 3}, path)
  read_refused(path, 'no tensor')
  torch.save(tensors, path)
  path.write_bytes(path.read_bytes()[:300])
  read_refused(path, 'damaged')


class Trap:
  """Makes a file when it is unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return open, (str(self.path), 'w')


def test_code_in_a_pickle_is_refused_and_never_run(tmp_path, monkeypatch):
  # It would make `torch.load` unpickle anything where a call does not forbid it.
  monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
  sprung, path = tmp_path / 'sprung', tmp_path / 'model.pth'
  trap = {'state_dict': {'fc.bias': torch.zeros(2)}, 'args': Trap(sprung)}
  torch.save(trap, path)
  message = read_refused(path, 'refused', 'none of it was run', '.open')
  assert 'add_safe_globals' not in message
  for protocol in (2, 4):
    path.write_bytes(pickle.dumps(trap['args'], protocol))
    read_refused(path, 'refused')
  assert not sprung.exists()
  pickle.loads(path.read_bytes())
  assert sprung.exists()  # the trap would have worked


RESNET = {
  'conv1.weight': torch.arange(9.0).reshape(1, 1, 3, 3),
  'bn1.weight': torch.ones(1),
  'bn1.running_mean': torch.zeros(1),
  'bn1.num_batches_tracked': torch.tensor(3),
  'layer1.0.conv1.weight': torch.ones(1, 1, 3, 3),
  'layer1.0.downsample.0.weight': torch.ones(1, 1, 1, 1),
  'fc.weight': torch.ones(2, 1),
  'fc.bias': torch.ones(2),
}
FLOATS = sorted(name for name in RESNET if not name.endswith('tracked'))


def under(prefix, tensors=None):
  tensors = RESNET if tensors is None else tensors
  return {prefix + name: tensor for name, tensor in tensors.items()}


@pytest.fixture
def saved(tmp_path):
  path = tmp_path / 'model.pth'

  def save(content, **options):
    torch.save(content, path, **options)
    return path

  return save


IMAGENET_EXAMPLE = {
  'epoch': 90,
  'arch': 'resnet18',
  'state_dict': under('module.'),
  'best_acc1': torch.tensor(69.7),
  'optimizer': {'state': {0: {'momentum_buffer': torch.ones(9)}}, 'param_groups': []},
  'scheduler': {'last_epoch': 90, '_last_lr': [0.1]},
}


@pytest.mark.parametrize(
  'content',
  [
    IMAGENET_EXAMPLE,
    *(
      {key: RESNET, 'epoch': 1}
      for key in [
        'ema',
        'state_dict_ema',
        'params',
        'weights',
        'model_state',
        'network',
        'teacher',
        'model_ema',
      ]
    ),
    {'state_dict': {**under('model.'), 'criterion.weight': torch.ones(10)}},
    {'state_dict': {**under('net.'), 'loss_fn.pos_weight': torch.ones(10)}},
    *(under(prefix) for prefix in ('net.', 'backbone.', 'resnet.encoder.', '0.')),
    {'model': {'net': under('_orig_mod.module.encoder.')}},
    {**under('module.'), 'n_averaged': torch.tensor(7)},
    {**RESNET, 'mask': torch.tensor([True]), 'index': torch.zeros(2, 2).long()},
    {'model': RESNET, 'opt': {'exp_avg': torch.ones(99)}, 'loss': {'c': torch.ones(1)}},
    {'model': RESNET, 'acc': np.float64(93.1), 'n': np.int64(3), 'b': np.bool_(True)},
    {
      'model': RESNET,
      'losses': np.arange(3.0),
      'rng': np.random.default_rng(0).random(4),
    },
    {'model': RESNET, 'args': argparse.Namespace(lr=0.1, out=pathlib.Path('a'))},
  ],
  ids=lambda content: '-'.join(content)[:40],
)
@pytest.mark.parametrize('old', [False, True])
def test_checkpoints_as_people_have_them(content, old, saved):
  read = weights.read(str(saved(content, _use_new_zipfile_serialization=not old)))
  assert list(read.tensors) == FLOATS
  np.testing.assert_array_equal(read.tensors['conv1.weight'], RESNET['conv1.weight'])


def test_layers_that_a_sequential_has_numbered(saved):
  numbers = {'conv1': 0, 'bn1': 1, 'layer1': 4, 'layer2': 5, 'layer3': 6, 'layer4': 7}
  body = {}
  for layer, number in numbers.items():
    names = ['weight'] if number == 0 else ['weight', 'bias', 'running_mean']
    if number > 1:
      names = [f'{block}.conv1.weight' for block in range(6)]
    body |= {f'{layer}.{name}': f'{number}.{name}' for name in names}
  content = {f'0.{numbered}': torch.ones(1, 1, 3, 3) for numbered in body.values()}
  read = weights.read(
    str(saved({'model': {**content, '1.8.weight': torch.ones(2, 2)}}))
  )
  assert sorted(read.tensors) == sorted([*body, '1.8.weight'])


def test_what_is_beside_the_network_is_named(saved):
  content = {'state_dict': {**under('model.'), 'criterion.weight': torch.ones(10)}}
  read = weights.read(str(saved(content)))
  assert (read.key, read.left_out) == ('state_dict', ('criterion.weight',))


@pytest.mark.parametrize(
  ('content', 'keys'),
  [
    ({'model': RESNET, 'model_ema': RESNET | {'fc.bias': torch.zeros(2)}}, 'model_ema'),
    ({'student': under('module.'), 'teacher': under('module.')}, 'teacher'),
    ({'nets': {'a': dict(RESNET), 'b.c': dict(RESNET)}}, 'nets.b.c'),
    (under('student.') | under('teacher.'), 'teacher'),
    ({'state_dict': under('m.encoder_q.') | under('m.encoder_k.')}, 'm.encoder_q'),
    ({**RESNET, 'ema': dict(RESNET)}, 'ema'),
  ],
  ids=lambda value: value if isinstance(value, str) else '',
)
def test_one_of_several_sets_of_weights_is_chosen_by_its_key(content, keys, saved):
  path = saved(content)
  read_refused(path, 'several sets of weights', keys, f'as in {path}#')
  read = weights.read(f'{path}#{keys}')
  assert list(read.tensors) == FLOATS
  assert read.origin == f'{path}#{keys}'
  with pytest.raises(UserError, match='has no "none" in it'):
    weights.read(f'{path}#none')


def test_a_file_with_a_number_sign_in_its_name_is_that_file(saved):
  path = saved(RESNET)
  path = path.rename(path.with_name('of#ema.PTH'))
  assert list(weights.read(str(path)).tensors) == FLOATS


def itself():
  content = {'epoch': 1}
  content['model'] = content['state_dict'] = content
  return content


def archive(path, data):
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr('a/data.pkl', data)
    file.writestr('a/version', '3\n')
    file.writestr('a/byteorder', 'little')
  return path


@pytest.mark.parametrize(
  'tensor',
  [
    lambda: torch.ones(3, 3).to_sparse(),
    lambda: torch.ones(3, 3).to_sparse_csr(),
    lambda: torch.ones(3, 3, device='meta'),
    lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    lambda: torch.ones(3, dtype=torch.complex64),
    lambda: torch.ones(3, dtype=torch.int8),
    lambda: torch.ones(3).to(torch.float8_e4m3fn),
    lambda: torch.ones(1).expand(1 << 40),
  ],
  ids=['sparse', 'csr', 'meta', 'quantised', 'complex', 'int8', 'float8', 'expanded'],
)
@pytest.mark.filterwarnings('ignore')
def test_tensors_that_are_no_dense_floats_are_named(tensor, saved):
  path = saved({**RESNET, 'fc.weight': tensor()})
  message = read_refused(path)
  assert 'fc.weight' in message or 'larger than the file' in message


@pytest.mark.parametrize(
  ('opening', 'closing'),
  [
    (b'}X\x01\x00\x00\x00a', b's'),  # dicts
    (b']', b'a'),  # lists
    (b'', b'\x85'),  # tuples
  ],
)
def test_contents_however_deep_are_one_line(opening, closing, tmp_path):
  data = b'\x80\x02' + 100_000 * opening + b'N' + 100_000 * closing + b'.'
  read_refused(archive(tmp_path / 'deep.pth', data), 'no tensor')


def test_contents_that_contain_themselves(saved):
  read_refused(saved(itself()), 'no tensor')
  read = weights.read(str(saved({**itself(), 'net': RESNET})))
  assert list(read.tensors) == FLOATS


def test_contents_larger_than_the_file_are_refused(saved, tmp_path):
  path = tmp_path / 'packed.pth'
  packed = zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED)
  with zipfile.ZipFile(saved({'a': torch.zeros(100_000)})) as whole, packed:
    for entry in whole.infolist():
      packed.writestr(entry.filename, whole.read(entry))
  read_refused(path, 'larger than the file')


def test_a_flipped_bit_is_found_by_its_checksum(saved):
  path = saved({'fc.weight': torch.full((64, 64), 0.125)})
  data = bytearray(path.read_bytes())
  where = data.index(torch.full((4,), 0.125).numpy().tobytes())
  data[where + 8] ^= 1
  path.write_bytes(data)
  read_refused(path, 'damaged', 'checksum')


def test_names_that_are_no_text(saved):
  message = read_refused(saved({'a\nb' * 99 + '.weight': torch.ones(3).int()}))
  assert len(message) < 400
  read_refused(saved({'a\ud800': torch.ones(3)}), 'no text')
