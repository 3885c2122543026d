"""Image folders: ROOT/{train,test}/CLASS/*.png, or ROOT/CLASS/* without a test split."""

import collections
import dataclasses
import functools
import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from jaxvision.data.dataset import Example, Files
from jaxvision.data.decode import (
  PLAIN,
  BoxOf,
  Resizing,
  UnreadableImage,
  decode_image,
  image_header,
)
from jaxvision.data.image_files import describe_others, find_in, subfolders
from jaxvision.data.sources.folder_layout import EXPECTED, check_depth, read_layout
from jaxvision.data.sources.source import DatasetSource, Decoding, OpenedDataset
from jaxvision.errors import UserError, printable

_ONE_CLASS = 'images'  # the name of the class of images without class folders

_log = logging.getLogger(__name__)


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
    root: the folder that the paths are relative to.
    classes: names of the classes.
    paths: pool -> paths relative to the root.
    labels: pool -> int32 [n].
    stamp: names, sizes and modification times of all files.
    sizes: pool -> bytes of each file, int64 [n].
    origin: see `OpenedDataset`.
    not_used: one line on what lies there and is not read; '' where all is.
  """

  root: Path
  classes: tuple[str, ...]
  paths: Mapping[str, tuple[str, ...]]
  labels: Mapping[str, np.ndarray]
  stamp: str
  sizes: Mapping[str, np.ndarray]
  origin: str
  not_used: str


def locate(root: str, decoding: Decoding, to_train: bool = True) -> DatasetSource:
  """Lists the files under `root` and returns how to cache and to open them.

  Args:
    root: the folder.
    decoding: how the images are decoded; by default grey where all of them are, and RGB
      otherwise.
    to_train: whether a model is to be trained on it; to evaluate one, one class will do,
      and a test folder without a train folder.

  Raises:
    UserError: no such folder; no images; a class without training images; a test class
      that train lacks; a layout that can be read in two ways.
  """
  folder = Path(root).expanduser()
  listing = _list(folder, to_train)
  if listing.not_used:
    _tell(f'{printable(folder)}: {listing.not_used}')
  settings = (
    f'{listing.root.resolve()} {decoding.image_size} {decoding.channels} '
    f'{decoding.skip_unreadable}{decoding.resizing.key}'
  )
  digest = _sha256(f'{settings}\n{listing.stamp}')[:16]
  return DatasetSource(
    name='folder',
    # Without the files: where these have changed, their copy takes the former one's place.
    key=f'folder-{_slug(folder)}-{hashlib.sha256(settings.encode()).hexdigest()[:16]}',
    fingerprint=digest,
    open=functools.partial(_open, listing, digest, decoding),
    files={
      pool: Files(paths, listing.sizes[pool]) for pool, paths in listing.paths.items()
    },
  )


def list_images(root: str) -> list[Path]:
  """Returns the paths of all image files of a folder set, those of every split."""
  listing = _list(Path(root).expanduser())
  return [listing.root / path for pool in listing.paths.values() for path in pool]


@functools.cache
def _tell(line: str) -> None:
  """Logs a line once, however often a set is opened in this process."""
  _log.info('%s', line)


def _sha256(text: str) -> str:
  # A path may hold bytes that are not UTF-8; the digest is of the bytes.
  return hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()


def _slug(folder: Path) -> str:
  name = folder.resolve().name[:32]
  return ''.join(c if c.isalnum() else '-' for c in name) or 'root'


def _list(folder: Path, to_train: bool = True) -> _Listing:
  if not folder.is_dir():
    what = 'is a file, not a folder' if folder.exists() else 'is not there'
    raise UserError(f'data.root: {folder} {what} ({EXPECTED})')
  layout = read_layout(folder, to_train)
  root, train = layout.root, layout.pools['train']
  files: list[tuple[str, int, int]] = []
  others: collections.Counter[str] = collections.Counter()
  nested: collections.Counter[str] = collections.Counter()
  paths, labels, sizes = {}, {}, {}
  for pool, base in layout.pools.items():
    unknown = set(subfolders(base)) - set(layout.classes)
    if layout.classes and unknown:
      raise UserError(
        f'data.root: class "{min(unknown)}" is in {base} but not in {train}'
      )
    first, direct = len(files), False
    labels_of_pool: list[int] = []
    for label, name in enumerate(layout.classes or ('.',)):
      if not (base / name).is_dir():
        continue
      found = find_in(base / name)
      others += found.others
      prefix = (base / name).relative_to(root)
      files += [(str(prefix / f.path), f.size, f.time) for f in found.images]
      labels_of_pool += [label] * len(found.images)
      below = sum(f.nested for f in found.images)
      nested[name] += below
      direct |= below < len(found.images)
    paths[pool] = tuple(path for path, _, _ in files[first:])
    sizes[pool] = np.array([size for _, size, _ in files[first:]], np.int64)
    labels[pool] = np.asarray(labels_of_pool, np.int32)
    if paths[pool]:
      check_depth(base, layout.classes, direct)
  for pool, base in layout.pools.items():
    if not len(labels[pool]):
      raise UserError(f'data.root: no images in {base} ({EXPECTED})')
  if to_train:
    _check(layout.pools, layout.classes, labels)
  origin = f'{train}/CLASS' if train == root and layout.classes else str(train)
  if 'test' in layout.pools:
    origin += f', test = {layout.pools["test"]}'
  within = [f'{name} {n}' for name, n in nested.items() if n and layout.classes]
  line = describe_others(others, layout.not_used)
  if within:
    line += '; ' * bool(line) + printable(
      f'images in sub-folders count for their class: {", ".join(within)}'
    )
  return _Listing(
    root=root,
    classes=layout.classes or (_ONE_CLASS,),
    paths=paths,
    labels=labels,
    stamp='\n'.join(f'{path} {size} {time}' for path, size, time in files),
    sizes=sizes,
    origin=printable(origin),
    not_used=line,
  )


def _check(
  pools: Mapping[str, Path], classes: Sequence[str], labels: Mapping[str, np.ndarray]
) -> None:
  train = pools['train']
  counts = np.bincount(labels['train'], minlength=len(classes))
  rarest = int(np.argmin(counts))
  name = classes[rarest] if classes else _ONE_CLASS
  if not counts.all():
    raise UserError(
      f'data.root: class "{name}" has no images in {train / name}: add some or remove '
      'the folder'
    )
  if 'test' not in pools and counts.min() < 2:
    raise UserError(
      f'data.root: class "{name}" has one image, too few for a train and a test split: '
      f'add some, or make test/ beside train/ ({EXPECTED})'
    )


def _open(
  listing: _Listing,
  fingerprint: str,
  decoding: Decoding,
  image_shape: tuple[int, int, int] | None = None,
  labels: Mapping[str, np.ndarray] | None = None,
) -> OpenedDataset:
  """Returns the set; reads the header of every file where the shape is not known."""
  del labels  # the listing has them
  if image_shape is None:
    image_shape = _shape(listing, decoding)
  pools = {
    pool: FolderSource(
      str(listing.root), paths, listing.labels[pool], image_shape, decoding.resizing
    )
    for pool, paths in listing.paths.items()
  }
  return OpenedDataset(
    'folder', listing.classes, image_shape, pools, listing.origin, fingerprint
  )


def _shape(listing: _Listing, decoding: Decoding) -> tuple[int, int, int]:
  """Returns the shape to decode to, from the headers of the files."""
  folder = listing.root
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
