"""Which files of a folder are images: one list of rules for every command."""

import collections
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxvision.data.decode import readable_suffixes
from jaxvision.errors import UserError, printable


class ImageFile(NamedTuple):
  """An image file in a folder.

  Attributes:
    path: relative to the folder.
    size: in bytes.
    time: of its last change, in nanoseconds.
  """

  path: str
  size: int
  time: int

  @property
  def nested(self) -> bool:
    """Whether it lies in a sub-folder."""
    return os.sep in self.path


@dataclasses.dataclass(frozen=True)
class FolderContents:
  """What lies in a folder, at any depth.

  Attributes:
    images: the image files, sorted by the parts of their paths.
    others: what kind of file that is not used -> how many there are.
  """

  images: tuple[ImageFile, ...]
  others: collections.Counter[str]


def find_in(folder: str | os.PathLike[str]) -> FolderContents:
  """Finds the image files in a folder and in the folders in it.

  A file is an image by its ending, in either case, where Pillow reads that format. What
  is hidden (`.DS_Store`, `._x.jpg`, `.git/`) or was left by an archiver (`__MACOSX/`)
  is passed over. Links to files and folders are followed, a folder once, and never one
  that the search is within already. A file is a regular one: not a pipe, not a device.

  Raises:
    UserError: a folder cannot be listed.
  """
  suffixes = readable_suffixes()
  images, others = [], collections.Counter[str]()
  top = Path(os.path.abspath(folder))
  seen = {_identity(p) for path in (top, top.resolve()) for p in path.parents}
  left = ['']
  while left:
    inner = left.pop()
    place = os.path.join(folder, inner)
    if (identity := _identity(place)) in seen:
      continue
    seen.add(identity)
    for entry in visible(place):
      path = os.path.join(inner, entry.name)
      suffix = os.path.splitext(entry.name)[1].lower()
      if os.path.isdir(entry):
        left.append(path)
      elif not os.path.isfile(entry):
        others['broken links' if entry.is_symlink() else 'no regular files'] += 1
      elif suffix in suffixes:
        found = entry.stat()
        images.append(ImageFile(path, found.st_size, found.st_mtime_ns))
      else:
        others[suffix or 'without an ending'] += 1
  images.sort(key=lambda image: image.path.split(os.sep))
  return FolderContents(tuple(images), others)


def _identity(path: str | os.PathLike[str]) -> tuple[int, int]:
  found = os.stat(path)
  return found.st_dev, found.st_ino


def visible(folder: str | os.PathLike[str]) -> Iterator[os.DirEntry[str]]:
  """Yields what lies directly in a folder, sorted by name, without what is hidden.

  `os.path.isdir` and `isfile` tell what an entry is: its own methods raise for a link
  to itself.

  Raises:
    UserError: it cannot be listed.
  """
  try:
    with os.scandir(os.fspath(folder)) as entries:
      found = [e for e in entries if not e.name.startswith('.')]
  except OSError as error:
    raise UserError(f'cannot list the folder {folder}: {error.strerror}') from error
  yield from sorted(
    (e for e in found if e.name != '__MACOSX'), key=lambda entry: entry.name
  )


def subfolders(folder: str | os.PathLike[str]) -> list[str]:
  """Returns the sorted names of the folders directly in `folder`, without hidden ones."""
  return [entry.name for entry in visible(folder) if os.path.isdir(entry)]


def count_images(folder: str | os.PathLike[str]) -> int:
  """Returns how many images lie directly in `folder`."""
  suffixes = readable_suffixes()
  return sum(
    e.name.lower().endswith(suffixes) and os.path.isfile(e) for e in visible(folder)
  )


def describe_others(
  others: collections.Counter[str], places: Sequence[str] = ()
) -> str:
  """Returns a line on what lies in a folder and is not used, '' where all is.

  Args:
    others: as in `FolderContents`.
    places: what else is not used.

  >>> describe_others(collections.Counter({'.gif': 2, '.txt': 1}), ['val/'])
  'not used: 3 files (.gif 2, .txt 1), val/'
  """
  parts = []
  if total := others.total():
    kinds = ', '.join(f'{kind} {count}' for kind, count in others.most_common(8))
    parts.append(f'{total:,} file{"s" * (total > 1)} ({kinds})')
  parts += places
  return printable('not used: ' + ', '.join(parts)) if parts else ''
