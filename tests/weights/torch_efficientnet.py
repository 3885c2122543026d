"""EfficientNet-B0 in PyTorch, under torchvision's names: what to agree with."""

import pytest

torch = pytest.importorskip('torch')  # doctests are looked for in this file too
from torch import nn  # noqa: E402

# Expansion, channels, stride and kernel of each stage.
STAGES = (
  (1, 16, 1, 3),
  (6, 24, 2, 3),
  (6, 40, 2, 5),
  (6, 80, 2, 3),
  (6, 112, 1, 5),
  (6, 192, 2, 5),
  (6, 320, 1, 3),
)
DEPTHS = (1, 2, 2, 3, 3, 4, 1)


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


class EfficientNetB0(nn.Module):
  """Logits of images [B, 3, H, W]; without dropout and stochastic depth.

  Args:
    classes: number of logits.
    depths: blocks in each stage.
  """

  def __init__(self, classes=1000, depths=DEPTHS):
    super().__init__()
    layers, channels = [unit(3, 32, 3, 2)], 32
    for (expansion, features, stride, kernel), count in zip(STAGES, depths):
      blocks = []
      for i in range(count):
        step = 1 if i else stride
        blocks.append(MBConv(channels, features, expansion, step, kernel))
        channels = features
      layers.append(nn.Sequential(*blocks))
    self.features = nn.Sequential(*layers, unit(channels, 1280))
    self.classifier = nn.Sequential(nn.Dropout(0.0), nn.Linear(1280, classes))

  def forward(self, x):
    return self.classifier(self.features(x).mean((2, 3)))
