"""Inception-v3 and its file, beside torch-fidelity's network on the same random weights."""

import hashlib
import urllib.error
import urllib.request

import fidelity
import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxvision.data import resizing
from jaxvision.errors import UserError
from jaxvision.models.inception import InceptionV3
from jaxvision.weights import inception

pytestmark = pytest.mark.long

NAMES = ('2048', 'logits', 'logits_unbiased')


@pytest.fixture(scope='module')
def peer():
  """torch-fidelity's network, drawn such that activations keep their scale."""
  module = fidelity.load('feature_extractor_inceptionv3')
  import torch

  class Drawn(module.FeatureExtractorInceptionV3):
    def load_state_dict(self, state_dict):
      """It has nothing to load: what would be downloaded is drawn below."""

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(module, 'load_state_dict_from_url', lambda *_, **__: {})
    network = Drawn('drawn', list(NAMES))
  random = torch.Generator().manual_seed(0)
  for layer in network.modules():
    if isinstance(layer, torch.nn.Conv2d):
      torch.nn.init.kaiming_normal_(layer.weight, generator=random)
    elif isinstance(layer, torch.nn.BatchNorm2d):
      for tensor in (layer.weight, layer.running_var):
        tensor.data.uniform_(0.7, 1.4, generator=random)
      for tensor in (layer.bias, layer.running_mean):
        tensor.data.normal_(0, 0.2, generator=random)
  network.fc.bias.data.normal_(0, 1, generator=random)
  return network


@pytest.fixture(scope='module')
def tensors(peer):
  """As they would lie in a file, by name."""
  return {name: tensor.numpy() for name, tensor in peer.state_dict().items()}


def saved(path, tensors):
  path.write_bytes(safetensors.numpy.save(tensors))
  return path


def refused(source, *expected):
  with pytest.raises(UserError) as caught:
    inception.load(str(source))
  message = str(caught.value)
  assert '\n' not in message
  for text in expected:
    assert text in message


@pytest.mark.slow
def test_outputs_are_those_of_torch_fidelity(peer, tmp_path, quick_compile):
  import torch

  path = tmp_path / 'drawn.pth'
  torch.save(peer.state_dict(), path)
  variables, sha256 = inception.load(str(path))
  assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()

  @jax.jit
  def outputs(variables, images):
    return InceptionV3().apply(variables, resizing.resize(images, 'tensorflow'))

  random = np.random.default_rng(0)
  images = random.integers(0, 256, (3, 32, 32, 3), np.uint8)
  # Smooth ones too, so that the images differ in more than their noise.
  images[1] //= 8
  images[2] = np.arange(32)[:, None] * 8
  found = outputs(variables, images)
  expected = peer(torch.from_numpy(images).permute(0, 3, 1, 2))
  for ours, theirs in zip(found, expected):
    theirs = theirs.numpy()
    assert ours.dtype == np.float32
    assert 0.1 < theirs.std() < 10
    assert np.abs(theirs[0] - theirs[1]).max() > 0.1
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_batch_norms_are_folded(peer, tensors, tmp_path):
  variables, _ = inception.load(str(saved(tmp_path / 'some.safetensors', tensors)))
  folded = sum(array.size for array in jax.tree.leaves(variables))
  assert folded == 23_833_744
  # Of a batch norm's scale and shift, one is left.
  norms = sum(array.size for name, array in tensors.items() if name.endswith('bn.bias'))
  assert folded + norms == sum(parameter.numel() for parameter in peer.parameters())


@pytest.mark.slow
def test_a_file_of_another_network_is_told(tensors, tmp_path):
  path = tmp_path / 'some.safetensors'
  lost = dict(tensors)
  del lost['Mixed_6c.branch7x7dbl_4.bn.running_var']
  refused(saved(path, lost), str(path), 'lacks Mixed_6c.branch7x7dbl_4.bn.running_var')
  zoo = tensors | {'fc.bias': np.zeros(1000, np.float32)}
  refused(saved(path, zoo), 'fc.bias ((1000,), not (1008,))')
  zoo = {'AuxLogits.fc.bias': np.zeros(1000, np.float32)}
  refused(saved(path, tensors | zoo), 'has, beyond it, AuxLogits.fc.bias')
  refused(saved(path, zoo), 'lacks Conv2d_1a_3x3.bn.bias', ' and ')
  refused(tmp_path / 'none.pth', 'no such file', inception.URL)


def test_a_name_that_states_another_sha256(tensors, tmp_path):
  import torch

  path = tmp_path / 'pt_inception-2015-12-05-6726825d.pth'
  torch.save({'fc.bias': torch.zeros(1008)}, path)
  digits = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
  refused(path, str(path), digits, '6726825d')


def test_download(tensors, tmp_path, monkeypatch):
  monkeypatch.setenv('JAXVISION_CACHE', str(tmp_path / 'cache'))
  folder = tmp_path / 'cache' / 'weights'
  there = saved(tmp_path / 'published.safetensors', tensors)
  monkeypatch.setattr(inception, 'URL', there.as_uri())
  refused('', there.as_uri(), 'SHA-256', inception.SHA256[:8])
  assert not list(folder.iterdir())
  sha256 = hashlib.sha256(there.read_bytes()).hexdigest()
  monkeypatch.setattr(inception, 'SHA256', sha256)
  assert inception.load()[1] == sha256
  there.unlink()
  variables, found = inception.load()
  assert found == sha256
  np.testing.assert_array_equal(variables['params']['head_bias'], tensors['fc.bias'])
  assert [path.name for path in folder.iterdir()] == ['published.safetensors']


def test_no_network(tmp_path, monkeypatch):
  def unreachable(*_, **__):
    raise urllib.error.URLError(OSError(101, 'Network is unreachable'))

  monkeypatch.setenv('JAXVISION_CACHE', str(tmp_path))
  monkeypatch.setattr(urllib.request, 'urlopen', unreachable)
  refused('', inception.URL, 'Network is unreachable', 'evaluation.features=PATH')
  monkeypatch.setenv('JAXVISION_CACHE', str(tmp_path / 'file' / 'cache'))
  (tmp_path / 'file').touch()
  refused('', 'cannot be downloaded', 'evaluation.features=PATH')
