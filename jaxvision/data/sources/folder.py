"""Image folders: ROOT/{train,test}/CLASS/*.png, or ROOT/CLASS/* without a test split."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from jaxvision.data.dataset import Example
from jaxvision.data.decode import (
  PLAIN,
  BoxOf,
  Resizing,
  UnreadableImage,
  decode_image,
  image_header,
)
from jaxvision.data.sources.source import DatasetSource, Decoding, OpenedDataset
from jaxvision.errors import UserError

EXTENSIONS = ('.png', '.jpg', '.jpeg', '.webp', '.bmp')
TEST_FOLDERS = ('test', 'validation', 'valid', 'val')  # the first that is there

_LAYOUT = 'ROOT/{train,test}/CLASS/*.png|jpg|jpeg|webp|bmp, or ROOT/CLASS/*'


@dataclasses.dataclass(frozen=True, eq=False)
class FolderSource:
  """Image files decoded on access.

  Attributes:
    root: folder that `paths` are relative to.
    paths: n relative paths.
    labels: int32 [n].
    image_shape: (H, W, C) to decode to.
    resizing: how images of another size are brought to `image_shape`.
  """

  root: str
  paths: tuple[str, ...]
  labels: np.ndarray
  image_shape: tuple[int, int, int]
  resizing: Resizing = PLAIN

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, index: int) -> Example:
    return self._decoded(index), int(self.labels[index])

  def crops(self, indices: Sequence[int], boxes: Sequence[BoxOf]) -> list[Example]:
    """See `dataset.read_crops`."""
    return [(self._decoded(i, b), int(self.labels[i])) for i, b in zip(indices, boxes)]

  def _decoded(self, index: int, box: BoxOf | None = None) -> np.ndarray:
    path = os.path.join(self.root, self.paths[index])
    return decode_image(path, self.image_shape, *self.resizing, box)


@dataclasses.dataclass(frozen=True)
class _Listing:
  """Files of every pool in order, found without opening one.

  Attributes:
    classes: names of the class folders.
    paths: pool -> paths relative to the root.
    labels: pool -> int32 [n].
    stamp: names, sizes and modification times of all files.
    content: names and sizes of all files, which stay the same in another place.
    origin: see `OpenedDataset`.
  """

  classes: tuple[str, ...]
  paths: Mapping[str, tuple[str, ...]]
  labels: Mapping[str, np.ndarray]
  stamp: str
  content: str
  origin: str


def locate(root: str, decoding: Decoding) -> DatasetSource:
  """Lists the files under `root` and returns how to cache and to open them.

  Args:
    root: the folder.
    decoding: how the images are decoded; by default grey where all of them are, and RGB
      otherwise.

  Raises:
    UserError: no such folder; no images; fewer than two classes; a class without
      training images; a test class that train lacks.
  """
  folder = Path(root).expanduser()
  listing = _list(folder)
  settings = (
    f'{folder.resolve()} {decoding.image_size} {decoding.channels} '
    f'{decoding.skip_unreadable}{decoding.resizing.key}'
  )
  digest = hashlib.sha256(f'{settings}\n{listing.stamp}'.encode()).hexdigest()[:16]
  return DatasetSource(
    name='folder',
    # Without the files: where these have changed, their copy takes the former one's place.
    key=f'folder-{_slug(folder)}-{hashlib.sha256(settings.encode()).hexdigest()[:16]}',
    fingerprint=digest,
    open=functools.partial(_open, folder, listing, digest, decoding),
    content=hashlib.sha256(listing.content.encode()).hexdigest(),
  )


def _slug(folder: Path) -> str:
  name = folder.resolve().name[:32]
  return ''.join(c if c.isalnum() else '-' for c in name) or 'root'


def _list(folder: Path) -> _Listing:
  if not folder.is_dir():
    what = 'is a file, not a folder' if folder.exists() else 'is not there'
    raise UserError(f'data.root: {folder} {what} (expected {_LAYOUT})')
  train, test, origin = folder, None, f'{folder}/CLASS'
  if _subfolders(folder / 'train'):
    train, origin = folder / 'train', f'{folder}/train'
    test = next((folder / t for t in TEST_FOLDERS if _subfolders(folder / t)), None)
    if test:
      origin += f', test = {test}'
  elif _subfolders(folder / 'test') and not (set(_subfolders(folder)) - {'test'}):
    raise UserError(f'data.root: {folder} has test/ but no train/ with class folders')
  classes = _subfolders(train)
  paths, labels = {}, {}
  files: list[tuple[str, int, int]] = []
  for pool, base in {'train': train, 'test': test}.items():
    if base is None:
      continue
    if unknown := sorted(set(_subfolders(base)) - set(classes)):
      raise UserError(
        f'data.root: class "{unknown[0]}" is in {base} but not in {train}'
      )
    paths[pool], labels[pool] = _files(folder, base, classes, files)
  _check(folder, train, test, classes, labels)
  stamp = '\n'.join(f'{path} {size} {time}' for path, size, time in files)
  content = '\n'.join(f'{path} {size}' for path, size, _ in files)
  return _Listing(tuple(classes), paths, labels, stamp, content, origin)


def _subfolders(folder: Path) -> list[str]:
  """Returns the sorted names of the folders in `folder`, without hidden ones."""
  try:
    with os.scandir(folder) as entries:
      names = [e.name for e in entries if e.is_dir()]
  except (FileNotFoundError, NotADirectoryError):
    return []
  except OSError as error:
    raise UserError(f'data.root: cannot list {folder}: {error.strerror}') from error
  return sorted(n for n in names if not n.startswith(('.', '__MACOSX')))


def _files(
  root: Path, base: Path, classes: list[str], files: list[tuple[str, int, int]]
) -> tuple[tuple[str, ...], np.ndarray]:
  """Lists the images of every class under `base`, sorted.

  Appends (path, bytes, modification time) of each to `files`.
  """
  paths, labels = [], []
  for label, name in enumerate(classes):
    if not (base / name).is_dir():
      continue
    try:
      with os.scandir(base / name) as entries:
        found = sorted(
          (e.name, e.stat().st_size, e.stat().st_mtime_ns)
          for e in entries
          if e.name.lower().endswith(EXTENSIONS)
          and not e.name.startswith('.')
          and e.is_file()
        )
    except OSError as error:
      raise UserError(
        f'data.root: cannot list {base / name}: {error.strerror}'
      ) from error
    prefix = (base / name).relative_to(root)
    paths += [str(prefix / file) for file, _, _ in found]
    labels += [label] * len(found)
    files += [(str(prefix / file), size, time) for file, size, time in found]
  return tuple(paths), np.asarray(labels, np.int32)


def _check(
  folder: Path,
  train: Path,
  test: Path | None,
  classes: list[str],
  labels: Mapping[str, np.ndarray],
) -> None:
  if not len(labels['train']):
    raise UserError(f'data.root: no images in {train} (expected {_LAYOUT})')
  if len(classes) < 2:
    raise UserError(
      f'data.root: {train} has one class only ("{classes[0]}"): classification needs '
      f'two or more (expected {_LAYOUT})'
    )
  counts = np.bincount(labels['train'], minlength=len(classes))
  if not counts.all():
    empty = classes[int(np.argmin(counts))]
    raise UserError(
      f'data.root: class "{empty}" has no images in {train / empty}: add some or '
      'remove the folder'
    )
  if test is not None and not len(labels['test']):
    raise UserError(f'data.root: no images in {test} (expected {_LAYOUT})')
  if test is None and counts.min() < 2:
    single = classes[int(np.argmin(counts))]
    raise UserError(
      f'data.root: class "{single}" has one image, too few for a train and a test '
      f'split: add some, or make {folder}/test'
    )


def _open(
  folder: Path,
  listing: _Listing,
  fingerprint: str,
  decoding: Decoding,
  image_shape: tuple[int, int, int] | None = None,
  labels: Mapping[str, np.ndarray] | None = None,
) -> OpenedDataset:
  """Returns the set; reads the header of every file where the shape is not known."""
  del labels  # the listing has them
  if image_shape is None:
    image_shape = _shape(folder, listing, decoding)
  pools = {
    pool: FolderSource(
      str(folder), paths, listing.labels[pool], image_shape, decoding.resizing
    )
    for pool, paths in listing.paths.items()
  }
  return OpenedDataset(
    'folder', listing.classes, image_shape, pools, listing.origin, fingerprint
  )


def _shape(folder: Path, listing: _Listing, decoding: Decoding) -> tuple[int, int, int]:
  """Returns the shape to decode to, from the headers of the files."""
  image_size, channels = decoding.image_size, decoding.channels
  if image_size and channels:
    return image_size, image_size, channels

  def header(path: str) -> tuple[int, int, bool] | None:
    try:
      return image_header(folder / path)
    except UnreadableImage:
      if not decoding.skip_unreadable:
        raise
      return None

  paths = [path for pool in listing.paths.values() for path in pool]
  sizes: dict[tuple[int, int], str] = {}
  grey = True
  with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as threads:
    for path, found in zip(paths, threads.map(header, paths)):
      if found is not None:
        sizes.setdefault(found[:2], path)
        grey &= found[2]
  if not sizes:
    raise UserError(f'data.root: all {len(paths)} images in {folder} are unreadable')
  if not image_size and len(sizes) > 1:
    ((h1, w1), first), ((h2, w2), second) = list(sizes.items())[:2]
    raise UserError(
      f'data.root: {folder / first} is {w1}x{h1} pixels and {folder / second} is '
      f'{w2}x{h2}: set data.image_size to resize all images to one size'
    )
  height, width = (image_size, image_size) if image_size else next(iter(sizes))
  return height, width, channels or (1 if grey else 3)
