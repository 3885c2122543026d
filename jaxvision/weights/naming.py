"""The names and layouts of PyTorch's networks beside ours, in tables.

Ours are 'params/PATH' and 'batch_stats/PATH', PATH as in `models.paths`. Kernels are
[out, in, height, width] and [out, in] in PyTorch, [height, width, in, out] and
[in, out] here; everything else is the same numbers under another name.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np


class _Layer(NamedTuple):
  """A layer's kind, its name here and its name in one style.

  {s}, {b} and {i} are numbers, of the stage, the block in it and the layer in it. They
  are the same on both sides, where it is {s} or {b}; {s-1} and {b-1} count from 0.
  """

  kind: str
  ours: str
  theirs: str


_Row = tuple[str, ...]  # kind, name here, names in each style


def _within(layers: _Row, *rows: _Row) -> Iterator[_Row]:
  """Yields rows with what the names of their layers begin with put before these."""
  for kind, *names in rows:
    yield kind, *(start + name for start, name in zip(layers, names, strict=True))


# torchvision and timm; and the networks for CIFAR, which are the 6n+2 family and the
# ResNet-18 with a 3x3 stem that CIFAR's PyTorch scripts share.
_RESNETS: tuple[_Row, ...] = (
  ('conv', 'stem_conv', 'conv1', 'conv1'),
  ('norm', 'stem_bn', 'bn1', 'bn1'),
  *_within(
    ('stage{s}_block{b}/', *2 * ['layer{s}.{b-1}.']),
    ('conv', 'conv{i}', 'conv{i}', 'conv{i}'),
    ('norm', 'bn{i}', 'bn{i}', 'bn{i}'),
    ('conv', 'shortcut_conv', 'downsample.0', 'shortcut.0'),
    ('norm', 'shortcut_bn', 'downsample.1', 'shortcut.1'),
  ),
  ('dense', 'head', 'fc', 'linear'),
)

# torchvision; timm, whose MobileNetV2 has the same names; and efficientnet_pytorch, with
# the packages that were made of it, which number all blocks in a row: `choosing` makes
# '_blocks.STAGE.BLOCK' of that. In the first stage nothing is expanded, and what follows
# has other numbers.
_EFFICIENTNETS: tuple[_Row, ...] = (
  ('conv', 'stem_conv', 'features.0.0', 'conv_stem', '_conv_stem'),
  ('norm', 'stem_bn', 'features.0.1', 'bn1', '_bn0'),
  *_within(
    (
      'stage1_block{b}/',
      'features.1.{b-1}.block.',
      'blocks.0.{b-1}.',
      '_blocks.0.{b-1}.',
    ),
    ('conv', 'depthwise_conv', '0.0', 'conv_dw', '_depthwise_conv'),
    ('norm', 'depthwise_bn', '0.1', 'bn1', '_bn1'),
    ('gate', 'attention/squeeze', '1.fc1', 'se.conv_reduce', '_se_reduce'),
    ('gate', 'attention/excite', '1.fc2', 'se.conv_expand', '_se_expand'),
    ('conv', 'project_conv', '2.0', 'conv_pw', '_project_conv'),
    ('norm', 'project_bn', '2.1', 'bn2', '_bn2'),
  ),
  *_within(
    (
      'stage{s}_block{b}/',
      'features.{s}.{b-1}.block.',
      'blocks.{s-1}.{b-1}.',
      '_blocks.{s-1}.{b-1}.',
    ),
    ('conv', 'expand_conv', '0.0', 'conv_pw', '_expand_conv'),
    ('norm', 'expand_bn', '0.1', 'bn1', '_bn0'),
    ('conv', 'depthwise_conv', '1.0', 'conv_dw', '_depthwise_conv'),
    ('norm', 'depthwise_bn', '1.1', 'bn2', '_bn1'),
    ('gate', 'attention/squeeze', '2.fc1', 'se.conv_reduce', '_se_reduce'),
    ('gate', 'attention/excite', '2.fc2', 'se.conv_expand', '_se_expand'),
    ('conv', 'project_conv', '3.0', 'conv_pwl', '_project_conv'),
    ('norm', 'project_bn', '3.1', 'bn3', '_bn2'),
  ),
  ('conv', 'last_conv', 'features.8.0', 'conv_head', '_conv_head'),
  ('norm', 'last_bn', 'features.8.1', 'bn2', '_bn1'),
  ('dense', 'head', 'classifier.1', 'classifier', '_fc'),
)


def _styles(rows: Iterable[_Row], *styles: str) -> Iterator[tuple[str, list[_Layer]]]:
  for column, style in enumerate(styles, 2):
    yield style, [_Layer(row[0], row[1], row[column]) for row in rows]


# The layers of each style of names, in the order in which their rules are tried.
STYLES: Mapping[str, list[_Layer]] = dict(
  [
    *_styles(_RESNETS, 'torchvision', 'cifar'),
    *_styles(_EFFICIENTNETS, 'efficientnet', 'timm', 'efficientnet_pytorch'),
  ]
)

# Of each kind of layer: PyTorch's name of a tensor -> (collection, name) here. A gate is
# a dense layer here, and a 1x1 convolution of one pixel in PyTorch.
_DENSE = {'weight': ('params', 'kernel'), 'bias': ('params', 'bias')}
_LEAVES = {
  'conv': {'weight': ('params', 'kernel')},
  'dense': _DENSE,
  'gate': _DENSE,
  'norm': {
    'weight': ('params', 'scale'),
    'bias': ('params', 'bias'),
    'running_mean': ('batch_stats', 'mean'),
    'running_var': ('batch_stats', 'var'),
  },
}

COLLECTIONS = ('params', 'batch_stats')

_NUMBER = re.compile(r'\{(\w)(-1)?\}')


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
  parts = _NUMBER.split(template)  # text, letter, '-1' or None, text, ...
  for i in range(0, len(parts), 3):
    parts[i] = re.escape(parts[i])
  for i in range(1, len(parts), 3):
    parts[i : i + 2] = f'(?P<{parts[i]}>', r'\d{1,4})'
  return re.compile(''.join(parts))


def _renamed(name: str, source: str, target: str) -> str | None:
  """Returns `name`, of the template `source`, in `target`, or None if it is not."""
  match = _pattern(source).fullmatch(name)
  if match is None:
    return None
  from_zero = {letter for letter, shift in _NUMBER.findall(source) if shift}

  def number(place: re.Match[str]) -> str:
    letter, shift = place.groups()
    return str(int(match[letter]) + (letter in from_zero) - bool(shift))

  return _NUMBER.sub(number, target)


@functools.lru_cache(4096)
def to_ours(name: str) -> str | None:
  """Returns our name of a tensor in any of the namings, or None if none has it.

  >>> to_ours('layer1.0.bn2.running_var'), to_ours('linear.weight')
  ('batch_stats/stage1_block1/bn2/var', 'params/head/kernel')
  >>> to_ours('params/conv1/kernel'), to_ours('conv1.0.weight')
  ('params/conv1/kernel', None)
  >>> to_ours('features.2.0.block.2.fc1.weight'), to_ours('blocks.0.0.conv_pw.weight')
  ('params/stage2_block1/attention/squeeze/kernel', 'params/stage1_block1/project_conv/kernel')
  """
  if name.startswith(tuple(f'{collection}/' for collection in COLLECTIONS)):
    return name
  path, _, leaf = name.rpartition('.')
  for layers in STYLES.values():
    for layer in layers:
      ours = _renamed(path, layer.theirs, layer.ours)
      if ours and leaf in _LEAVES[layer.kind]:
        collection, inner = _LEAVES[layer.kind][leaf]
        return f'{collection}/{ours}/{inner}'
  return None


@functools.lru_cache(8192)
def to_theirs(name: str, style: str) -> str | None:
  """Returns the name in one of `STYLES` of a tensor of ours, or None if it has none.

  >>> to_theirs('params/stage1_block2/shortcut_conv/kernel', 'torchvision')
  'layer1.1.downsample.0.weight'
  >>> to_theirs('params/head/bias', 'cifar')
  'linear.bias'
  """
  collection, path, inner = _parts(name)
  for layer in STYLES[style]:
    theirs = _renamed(path, layer.ours, layer.theirs)
    for there, here in _LEAVES[layer.kind].items():
      if theirs and here == (collection, inner):
        return f'{theirs}.{there}'
  return None


def _parts(ours: str) -> tuple[str, str, str]:
  """Returns the collection, the path of the layer and the rest of a name of ours."""
  collection, _, path = ours.partition('/')
  layer, _, inner = path.rpartition('/')
  return collection, layer, inner


def is_ours(name: str) -> bool:
  """Returns whether a name is one of ours already."""
  return to_ours(name) == name


def all_to_theirs(names: Iterable[str], style: str) -> dict[str, str] | None:
  """Returns our name -> the name in one of `STYLES`; None if two share one, or have none."""
  found = {name: to_theirs(name, style) or '' for name in names}
  unique = set(found.values())
  return None if '' in unique or len(unique) < len(found) else found


def style_of(names: Iterable[str]) -> str:
  """Returns the one of `STYLES` that most of the names are in; the first, where alike."""
  ours = {name: to_ours(name) for name in names}
  return max(
    STYLES,
    key=lambda style: sum(
      new is not None and to_theirs(new, style) == name for name, new in ours.items()
    ),
  )


def stage_sizes(names: Iterable[str]) -> tuple[int, ...]:
  """Returns the number of blocks in each stage of a network; () if it has no stages.

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
  ours = to_ours(name) or ''
  if is_ours(name) or not ours.endswith('/kernel'):
    return array
  if _is_gate(ours) and array.shape[2:] == (1, 1):
    return array[:, :, 0, 0].T
  return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def layout_to_theirs(name: str, array: np.ndarray) -> np.ndarray:
  """Returns the tensor of ours that is called `name` in PyTorch's layout; a view."""
  if _is_gate(name) and array.ndim == 2:
    return array.T[:, :, None, None]
  return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


@functools.lru_cache(4096)
def _is_gate(ours: str) -> bool:
  _, path, _ = _parts(ours)
  return any(
    layer.kind == 'gate' and _pattern(layer.ours).fullmatch(path)
    for layers in STYLES.values()
    for layer in layers
  )
