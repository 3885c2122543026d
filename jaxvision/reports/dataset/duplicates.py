"""Images that are there twice: identical, nearly so, or mirrored.

Images with the same pixels are found by a hash. For the others, every image becomes a
small standardised thumbnail, and all thumbnails are compared with all by products of
matrices; what comes near is looked at pixel by pixel.

That look is at the detail of both images, what a blur of five pixels takes away. Two
photographs of ships have the same sky above the same sea, and thumbnails that correlate
by 0.95; their details do not. Differences d are bent to d / (|d| + contrast + 10 levels),
the contrast being their root mean square, so that one strong edge (the frame of a picture,
the rim of a plate) does not outweigh all others. The correlation is taken in each of 4 x 4
cells, and the lower quartile of the cells counts: the same bottle with another label
differs in a few of them.

How close is close enough depends on how much there is to agree in. By Fisher's
transformation, atanh(r) of n unrelated pixels has the deviation 1 / sqrt(n), and so the
evidence is atanh(r) * sqrt(n), with n the pixels that carry detail (their participation
ratio). `EVIDENCE` was set by looking at pairs. At 16, nearly all of CIFAR-10 and CIFAR-100
are the same photograph, but for some clocks and plates of one make, and 80 pairs of MNIST
are strokes that fall on each other; at 17, 20 of those are left, and of the pairs of CIFAR
seven in eight; at 14 there would be hundreds. It is set to be right about what it names: a
copy that is shifted by some pixels, turned or cropped otherwise is not found. Barz and
Denzler, "Do We Train on Test Data? Purging CIFAR of Near-Duplicates", 2020, who search by
the features of a network and by eye, and count such copies and other photographs of the
same scene too, name 3.3 % of the test images of CIFAR-10 and 10 % of CIFAR-100; this finds
0.8 % and 1.0 %.
"""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

KINDS = ('identical', 'near', 'mirrored')
SIDE = 32  # pixels a side, at most, at which details are compared
CANDIDATE = 0.9  # correlation of thumbnails from which on details are compared
EVIDENCE = 17.0

_NUMBERS = 192  # in a thumbnail, about: 8 x 8 of three channels, 14 x 14 of one
_SOFTNESS = 10.0  # levels of 255 at which differences are bent by half
_BLUR = (1 / 9, 2 / 9, 3 / 9, 2 / 9, 1 / 9)
_CELLS = 4  # a side
_FLOOR = 0.01  # of detail in a cell that says nothing, as a share of the largest
_PAIRS = 4096  # compared in detail at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Signatures:
  """What is kept of n images to find duplicates by.

  Attributes:
    digests: [n] bytes, of 16 bytes each; equal where all pixels are.
    thumbnails: float32 [n, m, m, C], without their means over the pixels.
    details: int8 [n, h, w, C], h and w at most `SIDE`: differences to a blur, bent.
  """

  digests: np.ndarray
  thumbnails: np.ndarray
  details: np.ndarray

  @classmethod
  def joined(cls, parts: Sequence['Signatures']) -> 'Signatures':
    """Returns the signatures of all images of the parts, which are at least one."""
    return cls(
      np.concatenate([part.digests for part in parts]),
      np.concatenate([part.thumbnails for part in parts]),
      np.concatenate([part.details for part in parts]),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Duplicates:
  """Pairs of images, sorted, and the clusters that they make.

  Of images that are identical, each is paired with the first, which alone is compared
  with all others: of m of them there are m - 1 pairs.

  Attributes:
    first, second: int64 [p], first < second.
    kind: int8 [p], places in `KINDS`; a pair is of one kind only, the closest.
    evidence: float32 [p], at least `EVIDENCE`; infinite where identical.
    cluster: int64 [n], of every image; images that pairs join have the same.
  """

  first: np.ndarray
  second: np.ndarray
  kind: np.ndarray
  evidence: np.ndarray
  cluster: np.ndarray

  def __len__(self) -> int:
    return len(self.first)

  def clusters(self) -> list[np.ndarray]:
    """Returns the images, int64, of every cluster of two or more, by their first."""
    order = np.argsort(self.cluster, kind='stable')
    _, starts = np.unique(self.cluster[order], return_index=True)
    groups = [group for group in np.split(order, starts[1:]) if len(group) > 1]
    return sorted(groups, key=lambda group: int(group[0]))


def area_weights(size: int, parts: int) -> np.ndarray:
  """Returns float32 [parts, size]: rows that average `size` pixels into `parts`.

  >>> area_weights(3, 2).round(2).tolist()
  [[0.6700000166893005, 0.33000001311302185, 0.0], [0.0, 0.33000001311302185, 0.6700000166893005]]
  """
  edges = np.linspace(0, size, parts + 1)
  pixel = np.arange(size)
  upper = np.minimum(edges[1:, None], pixel + 1)
  lower = np.maximum(edges[:-1, None], pixel)
  return (np.clip(upper - lower, 0, None) * parts / size).astype(np.float32)


def reduced(images: np.ndarray, height: int, width: int) -> np.ndarray:
  """Averages images over areas.

  Args:
    images: [n, H, W, C], any dtype.
    height, width: at most H and W.

  Returns:
    float32 [n, height, width, C].
  """
  _, high, wide, _ = images.shape
  result = images.astype(np.float32)
  if high != height:
    result = np.einsum('ah,nhwc->nawc', area_weights(high, height), result)
  if wide != width:
    result = np.einsum('bw,nhwc->nhbc', area_weights(wide, width), result)
  return result


def _blurred(images: np.ndarray, axis: int) -> np.ndarray:
  size = images.shape[axis]
  padding = [(0, 0)] * images.ndim
  padding[axis] = (2, 2)
  padded = np.pad(images, padding, mode='edge')
  total = np.zeros_like(images)
  for offset, weight in enumerate(_BLUR):
    part = [slice(None)] * images.ndim
    part[axis] = slice(offset, offset + size)
    total += np.float32(weight) * padded[tuple(part)]
  return total


def signatures(images: np.ndarray) -> Signatures:
  """Returns the signatures of images.

  Args:
    images: uint8 [n, H, W, C].
  """
  n, height, width, channels = images.shape
  digests = np.array(
    [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images],
    dtype='S16',
  )
  small = reduced(images, min(height, SIDE), min(width, SIDE))
  difference = small - _blurred(_blurred(small, 1), 2)
  contrast = np.sqrt(np.square(difference).mean((1, 2, 3), keepdims=True))
  details = np.rint(127 * difference / (np.abs(difference) + contrast + _SOFTNESS))
  side = round((_NUMBERS / channels) ** 0.5)
  thumbnails = reduced(small, min(height, side), min(width, side))
  thumbnails -= thumbnails.mean((1, 2), keepdims=True)
  return Signatures(digests.reshape(n), thumbnails, details.astype(np.int8))


def evidence(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """Returns how surely images are the same, by their details; see the module.

  Args:
    first, second: int8 [n, h, w, C], from `signatures`.

  Returns:
    float32 [n]; 0 where the details do not agree.
  """
  a, b = (details.astype(np.float32) / 127 for details in (first, second))
  energy, other, product = (a * a).sum(3), (b * b).sum(3), (a * b).sum(3)
  carried = np.sqrt(energy * other)
  pixels = carried.sum((1, 2)) ** 2 / np.maximum((carried**2).sum((1, 2)), 1e-12)
  left, right, both = (_cells(values) for values in (energy, other, product))
  floor = _FLOOR * np.prod(a.shape[1:]) / _CELLS**2
  correlation = both / (np.sqrt(left * right) + floor)
  most = np.maximum(left, right)
  # A cell that neither has detail in (a plain background) says nothing.
  telling = most > 0.25 * most.mean(1, keepdims=True)
  ranked = np.sort(np.where(telling, correlation, np.inf), axis=1)
  place = np.maximum(telling.sum(1) - 1, 0) // 4
  quartile = ranked[np.arange(len(ranked)), place]
  quartile = np.where(telling.any(1), quartile, 0).clip(0, 0.9999)
  return (np.arctanh(quartile) * np.sqrt(pixels)).astype(np.float32)


def _cells(values: np.ndarray) -> np.ndarray:
  """Sums [n, h, w] over cells: [n, cells]."""
  _, height, width = values.shape
  rows = np.unique(np.arange(_CELLS) * height // _CELLS)
  columns = np.unique(np.arange(_CELLS) * width // _CELLS)
  sums = np.add.reduceat(np.add.reduceat(values, rows, axis=1), columns, axis=2)
  return sums.reshape(len(values), len(rows) * len(columns))


def find(signed: Signatures, rows: int = 2048, columns: int = 8192) -> Duplicates:
  """Finds the duplicates among n images.

  Costs n^2 products of thumbnails, twice; memory does not grow with n^2.

  Args:
    signed: of the images.
    rows, columns: thumbnails compared at a time.
  """
  n = len(signed.digests)
  _, leaders, group = np.unique(signed.digests, return_index=True, return_inverse=True)
  leader = leaders[group]  # the first of the images with the same pixels
  copies = np.flatnonzero(leader != np.arange(n))
  single = np.sort(leaders)
  found = [(leader[copies], copies, 0, np.full(len(copies), np.inf, np.float32))]
  upright = np.empty((0,), np.int64)
  for kind in (1, 2):
    first, second, sure = _alike(signed, single, kind == 2, rows, columns)
    if kind == 1:
      upright = first * n + second
    else:  # what is its own mirror image is found both ways
      new = ~np.isin(first * n + second, upright)
      first, second, sure = first[new], second[new], sure[new]
    found.append((first, second, kind, sure))
  first, second = (np.concatenate([part[i] for part in found]) for i in (0, 1))
  kinds = np.concatenate([np.full(len(part[0]), part[2], np.int8) for part in found])
  sure = np.concatenate([part[3] for part in found])
  order = np.lexsort((second, first, kinds))
  links = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(n, n))
  _, cluster = connected_components(links, directed=False)
  return Duplicates(
    first[order], second[order], kinds[order], sure[order], cluster.astype(np.int64)
  )


def _alike(
  signed: Signatures, single: np.ndarray, mirrored: bool, rows: int, columns: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns first, second and evidence of the pairs among the images `single`."""
  left = signed.thumbnails[single]
  length, pixels = _extent(signed.details)
  right = _unit(left[:, :, ::-1] if mirrored else left)
  left = _unit(left)
  count = len(single)
  found = []
  for top in range(0, count, rows):
    for start in range(top // columns * columns, count, columns):
      near = left[top : top + rows] @ right[start : start + columns].T > CANDIDATE
      one, two = np.nonzero(near)
      one, two = one + top, two + start
      one, two = one[one < two], two[one < two]
      for begin in range(0, len(one), _PAIRS):
        first = single[one[begin : begin + _PAIRS]]
        second = single[two[begin : begin + _PAIRS]]
        a, b = signed.details[first], signed.details[second]
        if mirrored:
          b = b[:, :, ::-1]
        # The lower quartile of the cells is hardly ever above the whole, which costs
        # a fraction: of MNIST, where all strokes are alike, there are millions.
        whole = _dot(a, b) / np.maximum(length[first] * length[second], 1e-3)
        most = np.maximum(pixels[first], pixels[second])
        likely = np.arctanh(whole.clip(0, 0.9999)) * np.sqrt(most) >= EVIDENCE
        first, second = first[likely], second[likely]
        sure = evidence(a[likely], b[likely])
        keep = sure >= EVIDENCE
        found.append((first[keep], second[keep], sure[keep]))
  if not found:
    empty = np.empty(0, np.int64)
    return empty, empty, np.empty(0, np.float32)
  return tuple(np.concatenate(part) for part in zip(*found))


def _dot(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """Returns float32 [n], sums of products of int8 [n, ...]."""
  n = len(first)
  a, b = (details.reshape(n, -1).astype(np.float32) for details in (first, second))
  return np.einsum('nd,nd->n', a, b)


def _extent(details: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns float32 [n] twice: length of the details, pixels that carry them."""
  length, pixels = [np.empty(0, np.float32)], [np.empty(0, np.float32)]
  for start in range(0, len(details), _PAIRS):
    values = details[start : start + _PAIRS].astype(np.float32)
    energy = (values * values).sum(3)
    total, squares = energy.sum((1, 2)), (energy * energy).sum((1, 2))
    length.append(np.sqrt(total))
    pixels.append(total**2 / np.maximum(squares, 1e-12))
  return np.concatenate(length), np.concatenate(pixels)


def _unit(thumbnails: np.ndarray) -> np.ndarray:
  """Returns [n, d] of length 1, or 0 where an image is of one colour."""
  flat = thumbnails.reshape(len(thumbnails), -1)
  length = np.linalg.norm(flat, axis=1, keepdims=True)
  return np.where(length > 1e-3, flat / np.maximum(length, 1e-3), 0)
