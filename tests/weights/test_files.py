"""Files of weights: what is read, what is taken off, and what is refused."""

import hashlib
import json
import pickle

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from jaxvision import weights
from jaxvision.errors import UserError
from jaxvision.weights import preprocessing


def read_refused(path, *expected):
  with pytest.raises(UserError) as caught:
    weights.read(str(path))
  message = str(caught.value)
  assert '\n' not in message
  for text in (str(path), *expected):
    assert text in message
  return message


def test_safetensors(tmp_path):
  path = tmp_path / 'some.safetensors'
  half = np.arange(6, dtype=ml_dtypes.bfloat16).reshape(2, 3)
  tensors = {
    'module.model.b.weight': np.float16([1.5]),
    'module.model.a.weight': half,
    'module.model.a.num_batches_tracked': np.array(7),
  }
  path.write_bytes(safetensors.numpy.save(tensors))
  read = weights.read(str(path))
  assert list(read.tensors) == ['a.weight', 'b.weight']
  assert all(array.dtype == np.float32 for array in read.tensors.values())
  np.testing.assert_array_equal(read.tensors['a.weight'], half.astype(np.float32))
  assert read.origin == str(path)
  assert read.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
  assert (read.revision, read.preprocessing) == (None, weights.Preprocessing())


@pytest.mark.parametrize('kept', [0, 4, 40, -1])
def test_a_truncated_file_is_told(tmp_path, kept):
  whole = safetensors.numpy.save({'a': np.zeros(9, np.float32)})
  path = tmp_path / 'some.safetensors'
  path.write_bytes(whole[:kept])
  read_refused(path, 'damaged' if kept else 'empty')


def test_what_is_no_weights_file(tmp_path):
  path = tmp_path / 'photo.safetensors'
  path.write_bytes(b'\x89PNG\r\n' * 50)
  read_refused(path, 'no safetensors file')
  path.write_bytes(safetensors.numpy.save({'codes': np.zeros(3, np.int8)}))
  read_refused(path, 'codes is I8', 'floating point')
  path.write_bytes(safetensors.numpy.save({}))
  read_refused(path, 'holds no tensor')
  path = tmp_path / 'photo.png'
  path.touch()
  read_refused(path, 'must end in .safetensors')
  read_refused(tmp_path, 'directory without a run')
  read_refused(tmp_path / 'none.pth', 'no such file')
  read_refused('none.safetensors', 'no such file')


def test_checkpoints(tmp_path):
  torch = pytest.importorskip('torch')
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
  torch = pytest.importorskip('torch')
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


def test_without_pytorch(tmp_path, monkeypatch):
  monkeypatch.setitem(__import__('sys').modules, 'torch', None)
  path = tmp_path / 'model.pth'
  path.write_bytes(b'anything')
  read_refused(path, 'pip install torch', '.safetensors')


def test_preprocessing_that_follow_from_the_names():
  def of(**shapes):
    names = {name.replace('__', '.'): np.zeros(s) for name, s in shapes.items()}
    return preprocessing.of_names(names)

  block = {'layer1__0__conv1__weight': (4, 4, 3, 3)}
  imagenet = of(conv1__weight=(64, 3, 7, 7), **block)
  assert imagenet == preprocessing.IMAGENET
  assert (imagenet.image_size, imagenet.crop_fraction) == (224, 0.875)
  stages = {f'layer{k}__0__conv1__weight': (4, 4, 3, 3) for k in (1, 2, 3)}
  head = {'linear__weight': (10, 64)}
  cifar = of(conv1__weight=(16, 3, 3, 3), **stages, **head)
  assert (cifar.image_size, cifar.mean) == (32, imagenet.mean)
  for other in (
    of(conv1__weight=(64, 3, 3, 3), **stages, **head),
    of(conv1__weight=(64, 1, 7, 7), **block),
    of(conv1__weight=(64, 3, 7, 7)),
    of(**stages, **head),
  ):
    assert other == weights.Preprocessing()


def test_preprocessing_of_timm():
  cfg = {
    'input_size': [3, 160, 160],
    'test_input_size': [3, 224, 224],
    'crop_pct': 0.95,
    'test_crop_pct': 1.0,
    'interpolation': 'bicubic',
    'mean': [0.5, 0.5, 0.5],
    'std': [0.25, 0.25, 0.25],
    'num_classes': 2,
  }
  names = {'label_names': ['cat', 'dog']}
  expected = weights.Preprocessing(
    (0.5,) * 3, (0.25,) * 3, 160, 0.95, 'bicubic', ('cat', 'dog')
  )
  assert preprocessing.of_timm({'pretrained_cfg': cfg} | names) == expected
  assert preprocessing.of_timm(cfg | names) == expected
  del cfg['input_size']
  assert preprocessing.of_timm(cfg).image_size == 224
  assert preprocessing.of_timm(cfg).crop_fraction == 1.0
  for strange in (None, [], {'mean': 'x', 'pretrained_cfg': 3, 'input_size': [1]}):
    assert preprocessing.of_timm(strange) == weights.Preprocessing()


def test_metadata_of_others_is_no_matter(tmp_path):
  path = tmp_path / 'some.safetensors'
  for own in ('{', '[]', json.dumps({'mean': ['a'], 'image_size': -1, 'model': 'x'})):
    tensors = {'a': np.zeros(1, np.float32)}
    path.write_bytes(safetensors.numpy.save(tensors, {'jaxvision': own}))
    assert weights.read(str(path)).preprocessing == weights.Preprocessing()
