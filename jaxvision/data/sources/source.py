"""What a source module hands to the loader: a set as it lies on the disk."""

import dataclasses
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from jaxvision.data.dataset import Source


@dataclasses.dataclass(frozen=True)
class RawSet:
  """A set whose images are decoded on access, before any split is carved.

  Attributes:
    name: as the config asked for it.
    class_names: class k is called class_names[k].
    image_shape: (height, width, channels) that every image decodes to.
    pools: 'train', and 'test' where the set has one.
    origin: one line for the index and the report: which set, where its splits
      come from.
    fingerprint: of its files; see `Located`.
    synthetic: whether the images are made up.
  """

  name: str
  class_names: tuple[str, ...]
  image_shape: tuple[int, int, int]
  pools: Mapping[str, Source]
  origin: str
  fingerprint: str = ''
  synthetic: bool = False

  @property
  def decoded_bytes(self) -> int:
    """Bytes of all images of all pools, decoded."""
    return sum(map(len, self.pools.values())) * int(np.prod(self.image_shape))


class Opener(Protocol):
  """Opens a set; what is known of it from the cache saves looking at its images."""

  def __call__(
    self,
    image_shape: tuple[int, int, int] | None = None,
    labels: Mapping[str, np.ndarray] | None = None,
  ) -> RawSet: ...


@dataclasses.dataclass(frozen=True)
class Located:
  """A set that is decoded once and cached.

  Attributes:
    name: as the config asked for it.
    key: name of its folder in the cache; differs where the decoded images differ.
    fingerprint: changes when the files do; None: they are not here, and a cached
      copy is taken at its word.
    open: opens the files; may prepare them first; raises UserError.
  """

  name: str
  key: str
  fingerprint: str | None
  open: Opener
