"""One pass over every image of a source: to keep them, to count them, to measure them."""

import collections
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, TypeVar

import numpy as np

from jaxvision.data.dataset import Source, moments, read_many
from jaxvision.data.decode import UnreadableImage

_CHUNK_BYTES = 4 << 20  # decoded per task: large enough to hide the hand-over
_CHUNK_IMAGES = 1024

T = TypeVar('T')


def scan(
  source: Source,
  image_shape: tuple[int, int, int],
  file: BinaryIO | None = None,
  *,
  skip_unreadable: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
  """Decodes every image of `source`, in order; memory is bounded however many.

  Threads decode, since Pillow releases the interpreter; the caller's thread writes.

  Args:
    source: a split of n images.
    image_shape: (H, W, C) of each.
    file: takes the pixels one after another; None: they are dropped.
    skip_unreadable: leave out what raises UnreadableImage, or let it raise.

  Returns:
    kept, int64 [m]: indices of the images that could be read;
    sums, int64 [m, 2, C]: their `moments`.
  """

  def decode(indices: range) -> tuple[list[int], np.ndarray, np.ndarray]:
    kept = list(indices)
    try:
      examples = read_many(source, kept)
    except UnreadableImage:
      if not skip_unreadable:
        raise
      kept, examples = _readable(source, indices)
    images = [image for image, _ in examples]
    stacked = np.stack(images) if images else np.zeros((0, *image_shape), np.uint8)
    return kept, stacked, moments(stacked)

  size = max(1, min(_CHUNK_IMAGES, _CHUNK_BYTES // int(np.prod(image_shape))))
  chunks = [range(i, min(i + size, len(source))) for i in range(0, len(source), size)]
  kept: list[int] = []
  sums = [np.zeros((0, 2, image_shape[-1]), np.int64)]
  for positions, images, chunk_sums in in_order(decode, chunks):
    kept += positions
    sums.append(chunk_sums)
    if file and len(images):
      file.write(images.data)
  return np.asarray(kept, np.int64), np.concatenate(sums)


def _readable(
  source: Source, indices: range
) -> tuple[list[int], list[tuple[np.ndarray, int]]]:
  kept, examples = [], []
  for i in indices:
    try:
      examples.append(source[i])
    except UnreadableImage:
      continue
    kept.append(i)
  return kept, examples


def in_order(work: Callable[[range], T], chunks: list[range]) -> Iterator[T]:
  """Yields work(chunk) for each chunk in order; threads run a few chunks ahead."""
  threads = min(16, os.cpu_count() or 1)
  pending: collections.deque = collections.deque()
  with ThreadPoolExecutor(threads) as pool:
    try:
      for chunk in chunks:
        pending.append(pool.submit(work, chunk))
        if len(pending) > threads + 1:
          yield pending.popleft().result()
      while pending:
        yield pending.popleft().result()
    finally:  # an error, or the caller stopped: what waits is not begun
      pool.shutdown(cancel_futures=True)
