"""What a source module hands to `data.load`: a data set before its splits are made."""

import dataclasses
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from jaxvision.data.dataset import Files, Source
from jaxvision.data.decode import PLAIN, Resizing


@dataclasses.dataclass(frozen=True)
class Decoding:
  """How the images of a data set are decoded.

  Attributes:
    image_size: side in pixels to resize to; 0: as stored.
    channels: 1 (grey), 3 (RGB), or 0: as stored.
    resizing: how pictures of other sizes become images of this one.
    skip_unreadable: whether unreadable images are left out, or are an error.
  """

  image_size: int = 0
  channels: int = 0
  resizing: Resizing = PLAIN
  skip_unreadable: bool = False


@dataclasses.dataclass(frozen=True)
class OpenedDataset:
  """A data set whose images can be read.

  Attributes:
    name: as in the config.
    class_names: see `Dataset`.
    image_shape: (height, width, channels) that every image is decoded to.
    pools: 'train', and 'test' and 'validation' where the set has them.
    origin: one line for the index and the report: which set, where its splits come
      from.
    fingerprint: identifies the files, see `DatasetSource`, or the pixels of arrays.
    synthetic: whether the images are made up.
    label_kind: 'class', 'multilabel' or 'regression'.
  """

  name: str
  class_names: tuple[str, ...]
  image_shape: tuple[int, int, int]
  pools: Mapping[str, Source]
  origin: str
  fingerprint: str = ''
  synthetic: bool = False
  label_kind: str = 'class'

  @property
  def decoded_bytes(self) -> int:
    """Bytes of all images of all pools, decoded."""
    return sum(map(len, self.pools.values())) * int(np.prod(self.image_shape))


class Opener(Protocol):
  """Opens a data set. A cached shape and cached labels make reading files unnecessary."""

  def __call__(
    self,
    image_shape: tuple[int, int, int] | None = None,
    labels: Mapping[str, np.ndarray] | None = None,
  ) -> OpenedDataset: ...


@dataclasses.dataclass(frozen=True)
class DatasetSource:
  """A data set that is decoded once and cached.

  Attributes:
    name: as in the config.
    key: name of its folder in the cache; differs where the decoded images differ.
    fingerprint: changes when the files do; None: the files are not here, and a cached
      copy is used unchecked.
    open: opens the files, which may prepare them first; raises UserError.
    files: pool -> the files of its images, where they have files of their own.
  """

  name: str
  key: str
  fingerprint: str | None
  open: Opener
  files: Mapping[str, Files] = dataclasses.field(default_factory=dict)
