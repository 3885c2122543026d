"""Whether data are those of a run: what is stored of its images, and what has changed.

Data are the same where their contents are, not where their paths are: a set that was
moved or copied to another folder is still the data of the run.
"""

import dataclasses
import hashlib
import io
from collections.abc import Mapping

import numpy as np

from jaxvision.data.dataset import Dataset, Files
from jaxvision.data.info import DatasetInfo
from jaxvision.data.splitting import path_hashes

_SPLITS = ('train', 'test', 'validation')
_SAME_PIXELS = 1e-4  # decoders differ by less in the mean of a channel, in [0, 1]


@dataclasses.dataclass(frozen=True, eq=False)
class ImageTable:
  """The images of all splits of a set with names, in the order of `names`.

  Attributes:
    names: 64-bit hashes of the relative paths, uint64 [n], rising.
    sizes: bytes of the files, int64 [n].
    labels: class numbers, int32 [n].
    splits: 0: train, 1: test, 2: validation; uint8 [n].
  """

  names: np.ndarray
  sizes: np.ndarray
  labels: np.ndarray
  splits: np.ndarray

  @classmethod
  def of(
    cls, files: Mapping[str, Files], labels: Mapping[str, np.ndarray]
  ) -> 'ImageTable':
    """Returns the table of splits.

    Args:
      files: split -> its files.
      labels: split -> its labels.
    """
    present = [split for split in _SPLITS if split in files]
    names = np.concatenate([path_hashes(files[split].names) for split in present])
    splits = [np.full(len(labels[s]), _SPLITS.index(s), np.uint8) for s in present]
    order = np.argsort(names, kind='stable')
    return cls(
      names[order],
      np.concatenate([files[split].sizes for split in present])[order],
      np.concatenate([labels[split] for split in present]).astype(np.int32)[order],
      np.concatenate(splits)[order],
    )

  def __len__(self) -> int:
    return len(self.names)

  def digest(self) -> str:
    """Returns the SHA-256 of the table, in hexadecimal."""
    digest = hashlib.sha256()
    for column in dataclasses.astuple(self):
      digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()

  def to_bytes(self) -> bytes:
    """Returns the table as a compressed .npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **vars(self))
    return buffer.getvalue()

  @classmethod
  def from_bytes(cls, content: bytes) -> 'ImageTable':
    """Returns the table that `to_bytes` wrote; raises an error of NumPy for others."""
    with np.load(io.BytesIO(content), allow_pickle=False) as columns:
      return cls(**columns)

  def changes(self, now: 'ImageTable') -> str:
    """Returns in words what changed, and how many test images were trained on."""
    _, before, after = np.intersect1d(
      self.names, now.names, assume_unique=False, return_indices=True
    )
    changed = (self.sizes[before] != now.sizes[after]) | (
      self.labels[before] != now.labels[after]
    )
    counts = {
      'added': len(now) - len(after),
      'removed': len(self) - len(before),
      'changed': int(changed.sum()),
      'in another split': int((self.splits[before] != now.splits[after]).sum()),
    }
    seen = self.trained_on(now, now.splits == _SPLITS.index('test'))
    trained = f'{seen:,}' if seen else 'none'
    test = int((now.splits == _SPLITS.index('test')).sum())
    found = [
      f'{count:,} {"image" if count == 1 else "images"} {what}'
      for what, count in counts.items()
      if count
    ]
    return (
      f'{", ".join(found)}; {trained} of the {test:,} test images '
      f'{"was" if seen < 2 else "were"} trained on'
    )

  def trained_on(self, now: 'ImageTable', chosen: np.ndarray | bool = True) -> int:
    """Returns how many images of `now` have name and size of training images of this.

    Args:
      now: other images.
      chosen: bool [n] which of them count; True: all.
    """
    _, before, after = np.intersect1d(self.names, now.names, return_indices=True)
    seen = (self.splits[before] == 0) & (self.sizes[before] == now.sizes[after])
    return int((seen & np.broadcast_to(chosen, len(now))[after]).sum())


def table_of(dataset: Dataset) -> ImageTable | None:
  """Returns the table of a data set; None where its images have no names."""
  labels = {split: source.labels for split, source in dataset.splits.items()}
  return ImageTable.of(dataset.files, labels) if dataset.files else None


def difference(
  known: DatasetInfo, info: DatasetInfo, tables: tuple[ImageTable | None, ...]
) -> str:
  """Returns in words how data differ from those of a run, '' where they are the same.

  Args:
    known: what the run stored of its data; one of an earlier version has no fingerprint,
      and counts of its splits have to do.
    info: of the data now.
    tables: of the images then and now, where they are known.
  """
  if known.class_names != info.class_names:
    return _classes(known.class_names, info.class_names)
  for what in ('label_kind', 'image_shape', 'split_rule'):
    before, after = getattr(known, what), getattr(info, what)
    if before != after:
      return f'{what} was {before} and is {after}'
  if known.fingerprint and known.fingerprint != info.fingerprint:
    then, now = tables
    if then and now and then.digest() != now.digest():
      return then.changes(now)
    return f'sha256 was {known.fingerprint[:12]} and is {info.fingerprint[:12]}'
  if known.examples != info.examples:
    return '; '.join(
      f'{known.examples.get(s, 0):,} {s} images before and {info.examples.get(s, 0):,} now'
      for s in {**known.examples, **info.examples}
      if known.examples.get(s) != info.examples.get(s)
    )
  resized = lambda i: (i.crop_fraction, i.interpolation)  # noqa: E731
  if resized(known) == resized(info) and not np.allclose(
    (known.mean, known.std), (info.mean, info.std), rtol=0, atol=_SAME_PIXELS
  ):
    return 'the pixels of some images changed: mean or deviation of a channel differs'
  return ''


def _classes(before: tuple[str, ...], now: tuple[str, ...]) -> str:
  """Returns in words how classes differ."""
  gone = [f'"{name}"' for name in before if name not in now]
  new = [f'"{name}"' for name in now if name not in before]
  if not gone and not new:
    return 'the order of the classes differs'
  words = [f'class {", ".join(gone[:3])} is gone'] if gone else []
  words += [f'class {", ".join(new[:3])} is new'] if new else []
  return ' and '.join(words) + f' ({len(before)} classes before, {len(now)} now)'
