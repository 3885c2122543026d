"""How a folder of images is to be read: which folders are splits, and which classes."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxvision.data.image_files import count_images, subfolders
from jaxvision.errors import UserError

EXPECTED = 'expected ROOT/{train,test}/CLASS/*.jpg|png|..., or ROOT/CLASS/*'

_ROLES = {
  'train': 'train|training',
  'test': 'test|testing',
  'validation': 'validation|valid|val',
}
_TEST_ORDER = ('test', 'validation', 'valid', 'val')  # the first that is there


@dataclasses.dataclass(frozen=True)
class Layout:
  """The reading of a folder.

  Attributes:
    root: the folder that holds the splits or the classes.
    pools: 'train', and 'test' where there is one -> the folder of its classes.
    classes: names of the class folders; () where the images lie in no class folders.
    not_used: what lies beside and is not read.
  """

  root: Path
  pools: Mapping[str, Path]
  classes: tuple[str, ...]
  not_used: tuple[str, ...]


def role(name: str) -> str | None:
  """Returns which split the name of a folder speaks of, or None.

  >>> role('Train'), role('training_set'), role('val'), role('trains')
  ('train', 'train', 'validation', None)
  """
  for split, names in _ROLES.items():
    if re.fullmatch(f'({names})([-_ ]?(set|data|images?))?', name.lower()):
      return split
  return None


def read_layout(folder: Path, to_train: bool = True) -> Layout:
  """Reads how a folder is laid out, from the names of the folders in it.

  ROOT/{train,test}/CLASS or ROOT/CLASS, with other usual names for the splits, or one
  folder deeper than named; or images without class folders, in ROOT or in ROOT/train.

  Args:
    folder: ROOT.
    to_train: whether a model is to be trained on it; to evaluate one, a test folder
      without a train folder will do, and classes that the training split lacks.

  Raises:
    UserError: it can be read in two ways, both of which the message names, or in none.
  """
  root = _descend(folder)
  names = subfolders(root)
  roles = {name: role(name) for name in names}
  split = [name for name in names if roles[name] and subfolders(root / name)]
  train = [name for name in split if roles[name] == 'train']
  if len(train) > 1:
    raise UserError(
      f'data.root: {root} has {_folders(train)}: each may be the training split; keep '
      'one of them'
    )
  if train:
    layout = _with_splits(root, names, split, train[0])
  elif split and not to_train and all(roles.values()):
    tests = sorted(split, key=_test_rank)
    layout = Layout(root, {'train': root / tests[0]}, (), tuple(tests[1:]))
  else:
    return _without_splits(root, names, split)
  if to_train:
    return layout
  classes = {name for base in layout.pools.values() for name in subfolders(base)}
  return dataclasses.replace(layout, classes=tuple(sorted(classes)))


def _with_splits(root: Path, names: list[str], split: list[str], train: str) -> Layout:
  """Reads ROOT/train/CLASS; `names` are all folders, `split` the splits with classes."""
  base = _descend(root / train)
  classes = subfolders(base)
  tests = sorted((n for n in split if n != train), key=_test_rank)
  if sum(role(n) == 'test' for n in tests) > 1:
    raise UserError(
      f'data.root: {root} has {_folders(tests)}: each may be the test split; keep one '
      'of them'
    )
  pools = {'train': base}
  if tests:
    pools['test'] = _descend(root / tests[0], classes)
  confirmed = bool(tests) and not set(classes).isdisjoint(subfolders(pools['test']))
  beside = [n for n in names if not role(n) and count_images(root / n)]
  if beside and not confirmed:
    raise UserError(
      f'data.root: {root} can be read in two ways: {train}/ as the training split, with '
      f'the classes {_listed(classes)}, or {_listed(sorted([*beside, train]))} as the '
      f'classes: move {_folders(beside)} elsewhere, or rename {train}/'
    )
  not_used = []
  for name in names:
    if name not in (train, *tests[:1]):
      images = count_images(root / name)
      flat = f' ({_images(images)} without class folders)' if images else ''
      not_used.append(f'{name}/{flat}')
  not_used += _loose((root, *pools.values()))
  return Layout(root, pools, tuple(classes), tuple(not_used))


def _test_rank(name: str) -> tuple:
  """Returns what sorts a test split before others, and the usual names first."""
  usual = _TEST_ORDER.index(name) if name in _TEST_ORDER else len(_TEST_ORDER)
  return role(name) != 'test', usual, name


def _without_splits(root: Path, names: list[str], split: list[str]) -> Layout:
  """Reads ROOT/CLASS, or images without class folders."""
  flat = [n for n in names if role(n) and n not in split]
  others = [n for n in names if not role(n)]
  if split and not others:
    raise UserError(
      f'data.root: {root} has {_folders(split)} but no train/ with class folders '
      f'({EXPECTED})'
    )
  held = [n for n in (*split, *flat) if role(n) != 'train']
  if others and held and not any(role(n) == 'train' for n in flat):
    raise UserError(
      f'data.root: {root} can be read in two ways: {_folders(held)} as a split beside '
      f'the training images of the classes {_listed(others)}, or '
      f'{_listed(sorted([*others, *held]))} as the classes: make train/ and move the '
      f'classes into it, or rename {_folders(held)}'
    )
  train = [n for n in flat if role(n) == 'train']
  if train and not others and not split:  # splits of images without classes
    base = root / train[0]
    not_used = [f'{n}/ (images without class folders)' for n in flat if n != train[0]]
    return Layout(root, {'train': base}, (), tuple(not_used))
  if len(names) < 2 and count_images(root):
    return Layout(root, {'train': root}, (), ())
  return Layout(root, {'train': root}, tuple(names), _loose((root,)))


def _descend(folder: Path, known: Sequence[str] = ()) -> Path:
  """Enters a folder that holds one folder only, which holds folders: one too deep.

  `known` are class names, which are never entered.
  """
  seen = set()
  while folder.resolve() not in seen:
    seen.add(folder.resolve())
    names = subfolders(folder)
    if len(names) != 1 or role(names[0]) or names[0] in known or count_images(folder):
      break
    inner = folder / names[0]
    if count_images(inner) or not subfolders(inner):
      break
    folder = inner
  return folder


def _loose(folders: Sequence[Path]) -> tuple[str, ...]:
  """Names the images that lie beside the folders of the classes or splits."""
  counts = {folder: count_images(folder) for folder in folders}
  return tuple(
    f'{_images(count)} directly in {folder}'
    for folder, count in counts.items()
    if count
  )


def check_depth(base: Path, classes: Sequence[str], direct: bool) -> None:
  """Raises UserError where classes may be what lies below the class folders.

  Args:
    base: the folder of the classes.
    classes: names of the class folders.
    direct: whether any image lies directly in one of them.
  """
  if direct:
    return
  for name in classes:
    inner = subfolders(base / name)
    if any(role(n) == 'train' for n in inner):
      raise UserError(
        f'data.root: {base / name} has {_folders(inner)} within it: put the classes '
        f'into the splits, not the splits into the classes ({EXPECTED})'
      )
    if len(inner) > 1:
      raise UserError(
        f'data.root: {base} can be read in two ways: {_listed(classes)} as the classes, '
        f'with images in sub-folders, or {_listed(inner)}, ... as the classes, one '
        f'folder too deep: put the images of a class directly into its folder'
      )


def _images(count: int) -> str:
  return f'{count:,} image{"s" * (count > 1)}'


def _listed(names: Sequence[str], most: int = 6) -> str:
  more = f' and {len(names) - most} more' if len(names) > most else ''
  return ', '.join(names[:most]) + more


def _folders(names: Sequence[str]) -> str:
  return _listed([f'{name}/' for name in names])
