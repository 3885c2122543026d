"""The names and layouts of PyTorch's ResNets beside ours, in one table.

Ours are 'params/PATH' and 'batch_stats/PATH', PATH as in `models.paths`. Kernels are
[out, in, height, width] and [out, in] in PyTorch, [height, width, in, out] and
[in, out] here; everything else is the same numbers under another name.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable

import numpy as np


@dataclasses.dataclass(frozen=True)
class _Rule:
  """A layer's name here, in torchvision and timm, and in the networks for CIFAR.

  {s}, {b} and {i} are numbers, of the stage, the block in it (from 1 here, from 0
  there) and the layer in it. The last column holds for the 6n+2 family and for the
  ResNet-18 with a 3x3 stem that CIFAR's PyTorch scripts share.
  """

  kind: str
  ours: str
  torchvision: str
  cifar: str


_RULES = (
  _Rule('conv', 'stem_conv', 'conv1', 'conv1'),
  _Rule('norm', 'stem_bn', 'bn1', 'bn1'),
  _Rule('conv', 'stage{s}_block{b}/conv{i}', *2 * ['layer{s}.{b}.conv{i}']),
  _Rule('norm', 'stage{s}_block{b}/bn{i}', *2 * ['layer{s}.{b}.bn{i}']),
  _Rule(
    'conv',
    'stage{s}_block{b}/shortcut_conv',
    'layer{s}.{b}.downsample.0',
    'layer{s}.{b}.shortcut.0',
  ),
  _Rule(
    'norm',
    'stage{s}_block{b}/shortcut_bn',
    'layer{s}.{b}.downsample.1',
    'layer{s}.{b}.shortcut.1',
  ),
  _Rule('dense', 'head', 'fc', 'linear'),
)

# Of each kind of layer: PyTorch's name of a tensor -> (collection, name) here.
_LEAVES = {
  'conv': {'weight': ('params', 'kernel')},
  'dense': {'weight': ('params', 'kernel'), 'bias': ('params', 'bias')},
  'norm': {
    'weight': ('params', 'scale'),
    'bias': ('params', 'bias'),
    'running_mean': ('batch_stats', 'mean'),
    'running_var': ('batch_stats', 'var'),
  },
}

COLLECTIONS = ('params', 'batch_stats')
STYLES = ('torchvision', 'cifar')


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
  return re.compile(re.sub(r'\\{(\w)\\}', r'(?P<\1>\\d{1,4})', re.escape(template)))


def _renamed(name: str, source: str, target: str, shift: int) -> str | None:
  """Returns `name`, of the template `source`, in `target`, or None if it is not."""
  match = _pattern(source).fullmatch(name)
  if match is None:
    return None
  found = {key: int(value) for key, value in match.groupdict().items()}
  if 'b' in found:
    found['b'] += shift
  return target.format(**found)


@functools.lru_cache(4096)
def to_ours(name: str) -> str | None:
  """Returns our name of a tensor in any of the namings, or None if none has it.

  >>> to_ours('layer1.0.bn2.running_var'), to_ours('linear.weight')
  ('batch_stats/stage1_block1/bn2/var', 'params/head/kernel')
  >>> to_ours('params/conv1/kernel'), to_ours('conv1.0.weight')
  ('params/conv1/kernel', None)
  """
  if name.startswith(tuple(f'{collection}/' for collection in COLLECTIONS)):
    return name
  layer, _, leaf = name.rpartition('.')
  for rule in _RULES:
    for style in STYLES:
      path = _renamed(layer, getattr(rule, style), rule.ours, shift=1)
      if path and leaf in _LEAVES[rule.kind]:
        collection, ours = _LEAVES[rule.kind][leaf]
        return f'{collection}/{path}/{ours}'
  return None


@functools.lru_cache(4096)
def to_theirs(name: str, style: str) -> str | None:
  """Returns the name in one of `STYLES` of a tensor of ours, or None if it has none.

  >>> to_theirs('params/stage1_block2/shortcut_conv/kernel', 'torchvision')
  'layer1.1.downsample.0.weight'
  >>> to_theirs('params/head/bias', 'cifar')
  'linear.bias'
  """
  collection, _, path = name.partition('/')
  layer, _, leaf = path.rpartition('/')
  for rule in _RULES:
    theirs = _renamed(layer, rule.ours, getattr(rule, style), shift=-1)
    for there, here in _LEAVES[rule.kind].items():
      if theirs and here == (collection, leaf):
        return f'{theirs}.{there}'
  return None


def is_ours(name: str) -> bool:
  """Returns whether a name is one of ours already."""
  return to_ours(name) == name


def style_of(names: Iterable[str]) -> str:
  """Returns the one of `STYLES` that names are in; torchvision where they are alike."""
  for name in names:
    ours = to_ours(name)
    if ours and name == to_theirs(ours, 'cifar') != to_theirs(ours, 'torchvision'):
      return 'cifar'
  return 'torchvision'


def stage_sizes(names: Iterable[str]) -> tuple[int, ...]:
  """Returns the number of blocks in each stage of a ResNet; () if it is none.

  >>> stage_sizes(['layer1.0.conv1.weight', 'layer1.1.conv1.weight', 'fc.weight'])
  (2,)
  """
  blocks: dict[int, set[str]] = {}
  for name in names:
    if match := re.match(r'params/stage(\d+)_block(\d+)/', to_ours(name) or ''):
      blocks.setdefault(int(match[1]), set()).add(match[2])
  return tuple(len(blocks[stage]) for stage in sorted(blocks))


def layout_to_ours(name: str, array: np.ndarray) -> np.ndarray:
  """Returns a tensor that PyTorch calls `name` in our layout; a view."""
  if is_ours(name) or not (to_ours(name) or '').endswith('/kernel'):
    return array
  return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def layout_to_theirs(array: np.ndarray) -> np.ndarray:
  """Returns a tensor of ours in PyTorch's layout; a view."""
  return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
