"""Which tensors of a file are the network: one of its state dicts, under one prefix."""

import collections
import re
from collections.abc import Iterable, Mapping
from typing import Any

from jaxvision import models
from jaxvision.errors import UserError, short
from jaxvision.weights import naming

_SHOWN = 4  # keys in a message
_STEM = 'params/stem_conv/kernel'

# Wrappers add these to every name: DataParallel, torch.compile, Lightning and scripts.
_PREFIXES = ('module.', '_orig_mod.', 'model.', 'net.', 'network.', 'backbone.')
_DEEPEST = 8  # parts of a prefix

# `nn.Sequential(*resnet.children())`, as fastai cuts a ResNet, numbers its layers.
_NUMBERED = {0: 'conv1', 1: 'bn1', 4: 'layer1', 5: 'layer2', 6: 'layer3', 7: 'layer4'}
_FEWEST = 20  # names that must then be known: a number alone says little

# efficientnet_pytorch numbers the blocks of all stages in a row: their number says how
# many there are in each.
_IN_A_ROW = re.compile(r'(|.*\.)_blocks\.(\d{1,3})\.(.*)', re.ASCII)
_DEPTHS: dict[int, tuple[int, ...]] = {
  sum(depths): depths
  for name in models.MODELS
  if name.startswith('efficientnet_')
  for depths in [models.fields(name)['depths']]
}

# A loss beside the network, whose weights are those of the classes.
_LOSS = re.compile(r'(module\.|_orig_mod\.)*(criterion|loss\w*)\.', re.IGNORECASE)


def choose(
  found: Mapping[str, Mapping[str, Any]],
  sizes: Mapping[str, int],
  key: str | None,
  origin: str,
) -> tuple[str, str | None]:
  """Returns the key of the state dict to take, and a prefix where `key` says one.

  Args:
    found: state dicts by their keys.
    sizes: numbers of floats in each.
    key: what follows the # in a source: a key, a prefix of names, or both, joined by a
      dot; None: the file has to be clear by itself.
    origin: the file, for messages.

  Raises:
    UserError: the file has no such key, or several state dicts and no key was given.
  """
  if key is not None:
    if key in found:
      return key, None
    prefix = key.removesuffix('.') + '.'
    hits = [
      (name, prefix.removeprefix(start))
      for name in found
      for start in dict.fromkeys([f'{name}.' if name else '', ''])
      if prefix.startswith(start)
      and any(n.startswith(prefix.removeprefix(start)) for n in found[name])
    ]
    if len(hits) > 1:
      raise _several(origin, [f'{name}.{inner}' for name, inner in hits])
    if hits:
      return hits[0]
    raise UserError(
      f'weights {origin}: has no "{short(key)}" in it: it has '
      f'{_listed(filter(None, found))}'
    )
  # A table of class weights, or the centre of a loss, is not a second network.
  large = [name for name in found if sizes[name] * 10 >= max(sizes.values())]
  if len(large) > 1:
    raise _several(origin, large)
  return large[0], None


def _several(origin: str, keys: Iterable[str]) -> UserError:
  keys = [key.removesuffix('.') for key in keys]
  last = next(key for key in reversed(keys) if key)
  return UserError(
    f'weights {origin}: has several sets of weights ({_listed(keys)}): choose one with '
    f'its key behind a #, as in {origin}#{short(last)}'
  )


def _listed(keys: Iterable[str]) -> str:
  keys = list(keys)
  rest = len(keys) - _SHOWN
  names = ', '.join(short(key) or 'the file itself' for key in keys[:_SHOWN])
  return (names or 'one set of weights') + (f' and {rest} more' if rest > 0 else '')


def network(
  names: Iterable[str], origin: str, prefix: str | None = None
) -> dict[str, str]:
  """Returns the names of the network's tensors without what wrappers put before them.

  The prefix is that under which the names are those of a network in `naming`; names
  outside of it stay as they are. Where there is none, a prefix of a wrapper that all names
  share is removed. Blocks that are numbered in a row are numbered by stages.

  Args:
    names: names of the tensors.
    origin: the file, for messages.
    prefix: take what lies under this one and nothing else.

  Returns:
    Name in the file -> name, without those of losses.

  Raises:
    UserError: there are several networks under prefixes of their own.

  >>> network(['model.conv1.weight', 'criterion.weight'], 'a file')
  {'model.conv1.weight': 'conv1.weight'}
  """
  staged = _by_stages(names)
  chosen = _network(list(staged.values()), origin, prefix)
  return {name: chosen[new] for name, new in staged.items() if new in chosen}


def _by_stages(names: Iterable[str]) -> dict[str, str]:
  """Returns name -> name with '_blocks.STAGE.BLOCK' where it was '_blocks.NUMBER'.

  >>> names = [f'_blocks.{i}._bn1.weight' for i in range(16)]
  >>> _by_stages(names)['_blocks.5._bn1.weight']
  '_blocks.3.0._bn1.weight'
  """
  matches = {name: _IN_A_ROW.fullmatch(name) for name in names}
  counts: collections.Counter[str] = collections.Counter()
  for found in filter(None, matches.values()):
    counts[found[1]] = max(counts[found[1]], int(found[2]) + 1)
  places = {
    count: [f'{stage}.{i}' for stage, depth in enumerate(depths) for i in range(depth)]
    for count, depths in _DEPTHS.items()
  }

  def staged(name: str, match: re.Match[str] | None) -> str:
    if match is None or counts[match[1]] not in places:
      return name
    place = places[counts[match[1]]][int(match[2])]
    return f'{match[1]}_blocks.{place}.{match[3]}'

  return {name: staged(name, match) for name, match in matches.items()}


def _network(names: list[str], origin: str, prefix: str | None) -> dict[str, str]:
  """Returns what `network` does, of names in which blocks are numbered by stages."""
  if prefix is not None:
    inner = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    return {prefix + name: new for name, new in _network(inner, origin, None).items()}
  names = [name for name in names if not _LOSS.match(name)] or names
  for table in (None, _NUMBERED):
    counts, stems = _prefixes(names, table)
    best = max((counts[stem] for stem in stems), default=0)
    if best < (_FEWEST if table else 1):
      continue
    good = sorted(stem for stem in stems if 2 * counts[stem] >= best)
    if len(good) > 1:
      raise _several(origin, good)
    return _renamed(names, good[0], table)
  for shared in _PREFIXES:
    if all(name.startswith(shared) for name in names):
      return _network(names, origin, shared)
  return {name: name for name in names}


def _prefixes(
  names: Iterable[str], table: Mapping[int, str] | None
) -> tuple[collections.Counter[str], set[str]]:
  """Returns how many names of a network are under each prefix, and which are prefixes.

  A block of a ResNet has a conv1 too: a network has a stem and a stage.
  """
  counts: collections.Counter[str] = collections.Counter()
  stems, stages = set(), set()
  for name in names:
    parts = name.split('.', _DEEPEST + 1)
    for i in range(len(parts)):
      ours = naming.to_ours(_from_number('.'.join(parts[i:]), table))
      if ours:
        start = '.'.join([*parts[:i], ''])
        counts[start] += 1
        if ours == _STEM:
          stems.add(start)
        elif ours.startswith('params/stage'):
          stages.add(start)
  return counts, stems & stages


def _from_number(name: str, table: Mapping[int, str] | None) -> str:
  if not table:
    return name
  match = re.fullmatch(r'(\d)(\..*)', name, re.ASCII)
  return table.get(int(match[1]), '') + match[2] if match else ''


def _renamed(
  names: Iterable[str], prefix: str, table: Mapping[int, str] | None
) -> dict[str, str]:
  new: dict[str, str] = {}
  taken: set[str] = set()
  for name in names:
    short = name
    if name.startswith(prefix):
      short = name.removeprefix(prefix)
      numbered = _from_number(short, table)
      short = numbered if naming.to_ours(numbered) else short
    new[name] = name if short in taken else short
    taken.add(new[name])
  return new


def one_line(error: BaseException, most: int = 160) -> str:
  """Returns the first line of what an error says, for a message."""
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return short(lines[0], most)
