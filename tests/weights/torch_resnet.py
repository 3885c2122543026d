"""Residual networks in PyTorch, under the names that checkpoints use: what to agree with.

Bottlenecks stride in their 3x3 convolution, as the published weights do.
"""

import pytest

torch = pytest.importorskip('torch')  # doctests are looked for in this file too
from torch import nn  # noqa: E402
from torch.nn.functional import max_pool2d, pad, relu  # noqa: E402


def norm_after(conv: nn.Conv2d) -> nn.BatchNorm2d:
  return nn.BatchNorm2d(conv.out_channels)


class Block(nn.Module):
  """Two or three convolutions and a shortcut.

  `projection` is the name of the shortcut's module; '' is option A, which pads with
  channels of zeros and has no parameters.
  """

  def __init__(self, channels, width, stride, bottleneck, projection):
    super().__init__()
    features = 4 * width if bottleneck else width
    if bottleneck:
      self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
      self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
      self.conv3 = nn.Conv2d(width, features, 1, bias=False)
    else:
      self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
      self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
    self.depth = 3 if bottleneck else 2
    for i in range(1, self.depth + 1):
      setattr(self, f'bn{i}', norm_after(getattr(self, f'conv{i}')))
    self.stride, self.projection = stride, projection
    self.missing = features - channels
    if projection and (stride != 1 or self.missing):
      conv = nn.Conv2d(channels, features, 1, stride, bias=False)
      setattr(self, projection, nn.Sequential(conv, norm_after(conv)))

  def forward(self, x):
    if hasattr(self, self.projection or '-'):
      shortcut = getattr(self, self.projection)(x)
    else:
      half = self.missing // 2
      shortcut = pad(x[:, :, :: self.stride, :: self.stride], (0, 0) * 2 + (half,) * 2)
    for i in range(1, self.depth + 1):
      x = getattr(self, f'bn{i}')(getattr(self, f'conv{i}')(x))
      x = x + shortcut if i == self.depth else x
      x = relu(x)
    return x


class ResNet(nn.Module):
  """Logits of images [B, 3, H, W].

  Args:
    sizes: blocks in each stage.
    classes: number of logits.
    bottleneck: kind of block.
    imagenet: 7x7 stem and max pool, or 3x3.
    width: of the stem and the first stage.
    head: name of the classifier.
    projection: see `Block`.
  """

  def __init__(
    self,
    sizes,
    classes,
    bottleneck=False,
    imagenet=True,
    width=64,
    head='fc',
    projection='downsample',
  ):
    super().__init__()
    size, self.imagenet, self.head = (7 if imagenet else 3), imagenet, head
    stride = 2 if imagenet else 1
    self.conv1 = nn.Conv2d(3, width, size, stride, size // 2, bias=False)
    self.bn1 = norm_after(self.conv1)
    channels = width
    for k, count in enumerate(sizes):
      blocks = []
      for j in range(count):
        stride = 2 if k and not j else 1
        blocks.append(Block(channels, width * 2**k, stride, bottleneck, projection))
        channels = width * 2**k * (4 if bottleneck else 1)
      setattr(self, f'layer{k + 1}', nn.Sequential(*blocks))
    self.stages = len(sizes)
    setattr(self, head, nn.Linear(channels, classes))

  def forward(self, x):
    x = relu(self.bn1(self.conv1(x)))
    if self.imagenet:
      x = max_pool2d(x, 3, 2, 1)
    for k in range(self.stages):
      x = getattr(self, f'layer{k + 1}')(x)
    return getattr(self, self.head)(x.mean((2, 3)))


def resnet18(classes=1000, **fields):
  return ResNet((2, 2, 2, 2), classes, **fields)


def resnet50(classes=1000, **fields):
  return ResNet((3, 4, 6, 3), classes, bottleneck=True, **fields)


def cifar_resnet20(classes=10, projection=''):
  """The 6n+2 family of the paper's section 4.2, n = 3."""
  return ResNet((3, 3, 3), classes, False, False, 16, 'linear', projection)


def drawn(model, seed=0):
  """Returns `model` in eval mode with random statistics and affines of batch norm."""
  generator = torch.Generator().manual_seed(seed)

  def normal(tensor):
    return torch.randn(tensor.shape, generator=generator)

  with torch.no_grad():
    for module in model.modules():
      if isinstance(module, nn.BatchNorm2d):
        module.weight.copy_(1 + 0.2 * normal(module.weight))
        module.bias.copy_(0.2 * normal(module.bias))
        module.running_mean.copy_(0.2 * normal(module.running_mean))
        module.running_var.copy_((0.3 * normal(module.running_var)).exp())
      elif isinstance(module, (nn.Conv2d, nn.Linear)):
        fan_in = module.weight[0].numel()
        module.weight.copy_(normal(module.weight) * (2 / fan_in) ** 0.5)
        if module.bias is not None:
          module.bias.copy_(0.2 * normal(module.bias))
    # As in trained networks, a block adds to its shortcut and does not drown it: with
    # scales near one here, 50 layers blow a rounding up ten times as much, and float32
    # misses float64 by over 1e-4 in PyTorch itself.
    for module in model.modules():
      if isinstance(module, Block):
        getattr(module, f'bn{module.depth}').weight.mul_(0.3)
  return model.eval()
