"""Exported networks in PyTorch: a module with the same attributes gives the same."""

import jax
import numpy as np
import pytest

from jaxvision import models, weights

torch = pytest.importorskip('torch')


class Unit(torch.nn.Module):
  def __init__(self, inputs, outputs):
    super().__init__()
    self.conv = torch.nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    self.bn = torch.nn.BatchNorm2d(outputs)

  def forward(self, x):
    return torch.relu(self.bn(self.conv(x)))


class DigitsNet(torch.nn.Module):
  """`digits_cnn`, as somebody would write it for the names of the file."""

  def __init__(self):
    super().__init__()
    self.conv1, self.conv2 = Unit(3, 32), Unit(32, 64)
    self.hidden = torch.nn.Linear(4096, 128)
    self.head = torch.nn.Linear(128, 10)

  def forward(self, x):
    for unit in (self.conv1, self.conv2):
      x = torch.nn.functional.max_pool2d(unit(x), 2)
    x = x.permute(0, 2, 3, 1).flatten(1)  # the order of NHWC
    return self.head(torch.relu(self.hidden(x)))


def test_a_module_with_the_same_attributes_loads_the_file(variables, tmp_path):
  from safetensors.torch import load_file

  drawn = jax.tree.map(lambda leaf: np.abs(leaf) / 10, variables('digits_cnn'))
  path = tmp_path / 'model.safetensors'
  style = weights.save(path, drawn, weights.Preprocessing(), 'digits_cnn')
  assert style == 'module'
  module = DigitsNet().eval()
  module.load_state_dict(load_file(path))
  images = np.random.default_rng(0).normal(size=(5, 32, 32, 3)).astype(np.float32)
  expected = models.create('digits_cnn', 10).apply(drawn, images)
  with torch.no_grad():
    found = module(torch.from_numpy(images.transpose(0, 3, 1, 2)))
  np.testing.assert_allclose(found.numpy(), np.asarray(expected), rtol=1e-4)
