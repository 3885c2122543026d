"""Files of weights: what is read, what is taken off, and what is refused."""

import hashlib
import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from refusing import read_refused

from jaxvision import weights
from jaxvision.weights import naming, preprocessing


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
  read_refused(tmp_path / 'none', 'no such file')
  (tmp_path / 'empty').mkdir()
  read_refused(tmp_path / 'empty', 'directory without a run', 'has no weights')
  read_refused(tmp_path / 'none.pth', 'no such file')
  read_refused('none.safetensors', 'no such file')


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


B0, B1, B3 = (1, 2, 2, 3, 3, 4, 1), (2, 3, 3, 4, 4, 5, 2), (2, 3, 3, 5, 5, 6, 2)


def efficientnet(style, depths, width, attention):
  """Names and shapes that tell EfficientNets apart, in a style of names."""
  layers = {'stem_conv': (32, 3, 3, 3), 'last_conv': (width, 320, 1, 1)}
  for stage, depth in enumerate(depths, 1):
    for block in range(1, depth + 1):
      layers[f'stage{stage}_block{block}/depthwise_conv'] = (8, 1, 3, 3)
      if attention:
        layers[f'stage{stage}_block{block}/attention/squeeze'] = (2, 8, 1, 1)
  return {
    naming.to_theirs(f'params/{layer}/kernel', style): np.zeros(shape)
    for layer, shape in layers.items()
  }


@pytest.mark.parametrize(
  ('network', 'expected'),
  [
    (('efficientnet', B0, 1280, True), (0.485, 224, 0.875)),
    (('efficientnet', B1, 1280, True), (0.485, 240, 0.9375)),
    (('efficientnet', B1, 1408, True), (0.485, 288, 1.0)),
    (('efficientnet', B3, 1536, True), (0.485, 300, 0.9375)),
    (('efficientnet_pytorch', B0, 1280, False), (127 / 255, 224, 0.875)),
    # Of several kinds, or of none that is known.
    (('timm', B0, 1280, True), None),
    (('timm', B0, 1280, False), None),
    (('efficientnet_pytorch', B0, 1280, True), None),
    (('efficientnet_pytorch', B1, 1280, False), None),
    (('efficientnet', B0, 1280, False), None),
    (('efficientnet', B0, 1536, True), None),
  ],
)
def test_preprocessing_that_follows_from_the_names_of_an_efficientnet(
  network, expected
):
  found = preprocessing.of_names(efficientnet(*network))
  if expected is None:
    assert found == weights.Preprocessing()
  else:
    assert (found.mean[0], found.image_size, found.crop_fraction) == expected
    assert found.interpolation == 'bicubic'


def test_damaged_weights_of_an_efficientnet_have_no_preprocessing():
  tensors = efficientnet('efficientnet', B0, 1280, True)
  found = preprocessing.of_names(tensors | {'features.8.0.weight': np.float32(1)})
  assert found == weights.Preprocessing()


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


def test_metadata_that_nobody_writes_gives_nothing(tmp_path):
  path = tmp_path / 'some.safetensors'
  tensors = {'a': np.zeros(1, np.float32)}
  for own in (
    100_000 * '[',
    '{"a":' * 100_000 + '1' + '}' * 100_000,
    '{"mean": [NaN], "std": [0], "image_size": 1e999, "crop_fraction": NaN}',
    '{"mean": [Infinity], "image_size": 1e300, "channels": -1, "model": ["gan"]}',
  ):
    path.write_bytes(safetensors.numpy.save(tensors, {'jaxvision': own}))
    read = weights.read(str(path))
    assert (read.preprocessing, read.model) == (weights.Preprocessing(), None)


def test_a_folder_as_a_hub_has_it(tmp_path):
  data = safetensors.numpy.save({'conv1.weight': np.ones((4, 3, 3, 3), np.float32)})
  folder = tmp_path / 'resnet'
  folder.mkdir()
  (folder / 'UPPER.SAFETENSORS').write_bytes(data)
  assert list(weights.read(str(folder)).tensors) == ['conv1.weight']
  (folder / 'other.safetensors').write_bytes(data)
  read_refused(folder, 'has 2 files of weights', 'UPPER.SAFETENSORS')
  (folder / 'model.safetensors').write_bytes(data)
  (folder / 'config.json').write_text('{"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]}')
  read = weights.read(str(folder))
  assert read.preprocessing.mean == (0.1, 0.2, 0.3)
  assert read.origin == str(folder / 'model.safetensors')
  for damaged in ('{', 100_000 * '['):
    (folder / 'config.json').write_text(damaged)
    read_refused(folder, 'config.json is no JSON')


@pytest.mark.parametrize(
  ('start', 'told'),
  [
    (b'version https://git-lfs.github.com/spec/v1\noid sha256:', 'git lfs pull'),
    (b'\n<!DOCTYPE html><html>', 'web page'),
  ],
)
def test_what_a_download_may_leave_in_the_place_of_weights(start, told, tmp_path):
  for name in ('model.safetensors', 'model.pth'):
    (tmp_path / name).write_bytes(start)
    read_refused(tmp_path / name, told)


def test_without_pytorch(tmp_path, monkeypatch):
  monkeypatch.setitem(__import__('sys').modules, 'torch', None)
  path = tmp_path / 'model.pth'
  path.write_bytes(b'anything')
  read_refused(path, 'pip install torch', '.safetensors')
