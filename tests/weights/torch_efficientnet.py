"""EfficientNet in PyTorch, under torchvision's names: what to agree with."""

import pytest

torch = pytest.importorskip('torch')  # doctests are looked for in this file too
from torch import nn  # noqa: E402

# Blocks, expansion, channels, stride and kernel of each stage.
STAGES = (
  (1, 1, 16, 1, 3),
  (2, 6, 24, 2, 3),
  (2, 6, 40, 2, 5),
  (3, 6, 80, 2, 3),
  (3, 6, 112, 1, 5),
  (4, 6, 192, 2, 5),
  (1, 6, 320, 1, 3),
)


def unit(channels, features, kernel=1, stride=1, groups=1, act=True):
  padding = (kernel - 1) // 2
  layers = [
    nn.Conv2d(channels, features, kernel, stride, padding, groups=groups, bias=False),
    nn.BatchNorm2d(features),
  ]
  return nn.Sequential(*layers, *([nn.SiLU()] if act else []))


class SqueezeExcitation(nn.Module):
  def __init__(self, channels, squeezed):
    super().__init__()
    self.fc1 = nn.Conv2d(channels, squeezed, 1)
    self.fc2 = nn.Conv2d(squeezed, channels, 1)

  def forward(self, x):
    means = x.mean((2, 3), keepdim=True)
    return x * torch.sigmoid(self.fc2(nn.functional.silu(self.fc1(means))))


class MBConv(nn.Module):
  def __init__(self, channels, features, expansion, stride, kernel):
    super().__init__()
    wide = channels * expansion
    layers = [unit(channels, wide)] if expansion > 1 else []
    layers += [
      unit(wide, wide, kernel, stride, wide),
      SqueezeExcitation(wide, channels // 4),
      unit(wide, features, act=False),
    ]
    self.block = nn.Sequential(*layers)
    self.joins = stride == 1 and channels == features

  def forward(self, x):
    return x + self.block(x) if self.joins else self.block(x)


class EfficientNet(nn.Module):
  """Logits of images [B, 3, H, W]; without dropout and stochastic depth.

  Args:
    classes: number of logits.
    stages: those of B0, or other ones.
  """

  def __init__(self, classes=1000, stages=STAGES):
    super().__init__()
    self.features, channels = nn.Sequential(unit(3, 32, 3, 2)), 32
    for count, expansion, features, stride, kernel in stages:
      blocks = []
      for i in range(count):
        step = 1 if i else stride
        blocks.append(MBConv(channels, features, expansion, step, kernel))
        channels = features
      self.features.append(nn.Sequential(*blocks))
    self.features.add_module('8', unit(channels, 1280))
    self.classifier = nn.Sequential(nn.Dropout(0.0), nn.Linear(1280, classes))

  def forward(self, x):
    return self.classifier(self.features(x).mean((2, 3)))
