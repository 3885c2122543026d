"""The headers of image files, read without decoding: size, grey or colour."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxvision.data.decode import UnreadableImage, image_header
from jaxvision.data.scan import in_order
from jaxvision.errors import printable

_CHUNK = 256  # files per task


@dataclasses.dataclass(frozen=True, eq=False)
class Headers:
  """The sizes of n files whose header could be read.

  Attributes:
    heights, widths: int64 [n], pixels, after the EXIF orientation is applied.
    grey: bool [n].
    unreadable: paths of the files whose header could not be read, as they may be shown.
  """

  heights: np.ndarray
  widths: np.ndarray
  grey: np.ndarray
  unreadable: tuple[str, ...]

  def __len__(self) -> int:
    return len(self.heights)


def read_headers(paths: Sequence[str | Path]) -> Headers:
  """Reads the headers of image files, without their pixels."""

  def read(chunk: range) -> list[tuple[int, int, bool] | None]:
    found: list[tuple[int, int, bool] | None] = []
    for i in chunk:
      try:
        found.append(image_header(paths[i]))
      except UnreadableImage:
        found.append(None)
    return found

  chunks = [range(i, min(i + _CHUNK, len(paths))) for i in range(0, len(paths), _CHUNK)]
  headers = [header for part in in_order(read, chunks) for header in part]
  known = [header for header in headers if header is not None]
  table = np.array(known, np.int64).reshape(-1, 3)
  return Headers(
    heights=table[:, 0],
    widths=table[:, 1],
    grey=table[:, 2].astype(bool),
    unreadable=tuple(
      printable(p) for p, header in zip(paths, headers) if header is None
    ),
  )
