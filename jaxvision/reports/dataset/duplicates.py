"""Search for duplicate images: identical, nearly identical, or mirrored.

Images with equal pixels have equal hashes. For the others, small standardised thumbnails
of all images are correlated with each other by matrix products. A pair of thumbnails that
correlates by `CANDIDATE` is compared in detail, because two photographs of ships on the
sea can correlate by 0.95 and be different photographs.

The detail of an image is its difference d to a blurred copy, compressed to
d / (|d| + contrast + 10 grey levels), so that one strong edge, such as the frame of a
picture, does not outweigh all others. Its correlation r over n independent pixels has
evidence atanh(r) * sqrt(n): by Fisher's transformation, atanh(r) of unrelated pixels has
standard deviation 1 / sqrt(n). n is the participation ratio of the pixels with detail.

`EVIDENCE` was chosen by looking at pairs, for few false positives: at 25, nearly all pairs
of CIFAR-10 and CIFAR-100 show the same photograph, except for some clocks and plates of
one make, and 19 pairs of MNIST are digits whose strokes coincide. Copies that are cropped,
rotated or shifted by more than a pixel are not found. Barz and Denzler, "Do We Train on Test Data? Purging
CIFAR of Near-Duplicates", 2020, count such copies and other photographs of the same scene
too, which they searched by the features of a network and by eye: they report 3.3 % of the
test images of CIFAR-10 and 10 % of CIFAR-100, this search 0.8 % and 1.1 %.
"""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

KINDS = ('identical', 'near', 'mirrored')
SIDE = 32  # pixels a side, at most, at which details are compared
CANDIDATE = 0.9  # correlation of thumbnails from which on details are compared
EVIDENCE = 25.0

_NUMBERS = 192  # in a thumbnail, about: 8 x 8 of three channels, 14 x 14 of one
_SOFTNESS = 10.0  # grey levels
_BLUR = np.array([1, 2, 3, 2, 1], np.float32) / 9
_PAIRS = 4096  # compared in detail at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Signatures:
  """What is kept of n images to find duplicates.

  Attributes:
    digests: [n] bytes, hashes of the pixels.
    thumbnails: float32 [n, m, m, C] of mean 0 and length 1; 0 for a uniform image.
    details: int8 [n, h, w, C], h and w at most `SIDE`, compressed differences to a blur.
  """

  digests: np.ndarray
  thumbnails: np.ndarray
  details: np.ndarray

  @classmethod
  def joined(cls, parts: Sequence['Signatures']) -> 'Signatures':
    """Concatenates the signatures of one part or more."""
    fields = [field.name for field in dataclasses.fields(cls)]
    return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in fields))


@dataclasses.dataclass(frozen=True, eq=False)
class Duplicates:
  """Pairs of images, sorted, and the clusters that they make.

  Of m identical images the first is paired with each of the others, and it alone is
  compared with the rest of the set.

  Attributes:
    first, second: int64 [p], first < second.
    kind: int8 [p], indices into `KINDS`; a pair is of one kind only, the closest.
    evidence: float32 [p], at least `EVIDENCE`; infinite for identical images.
    cluster: int64 [n], connected component of every image.
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


def _area_weights(size: int, parts: int) -> np.ndarray:
  """Returns float32 [parts, size]: rows that average `size` pixels into `parts`."""
  edges, pixel = np.linspace(0, size, parts + 1), np.arange(size)
  overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
  return (overlap.clip(0) * parts / size).astype(np.float32)


def _reduced(images: np.ndarray, side: int) -> np.ndarray:
  """Averages images [n, H, W, C] over areas, to at most `side` rows and columns."""
  images, (_, height, width, _) = images.astype(np.float32), images.shape
  if height > side:
    images = np.einsum('ah,nhwc->nawc', _area_weights(height, side), images)
  if width > side:
    images = np.einsum('bw,nawc->nabc', _area_weights(width, side), images)
  return images


def _blurred(images: np.ndarray, axis: int) -> np.ndarray:
  """Convolves images with `_BLUR` along an axis; the border pixels are repeated."""
  padding = [(2, 2) if place == axis else (0, 0) for place in range(4)]
  padded, size = np.pad(images, padding, 'edge'), images.shape[axis]
  parts = (padded.take(range(i, i + size), axis) for i in range(len(_BLUR)))
  return sum(weight * part for weight, part in zip(_BLUR, parts))


def signatures(images: np.ndarray) -> Signatures:
  """Computes the signatures of images, uint8 [n, H, W, C]."""
  hashes = [hashlib.blake2b(image.tobytes(), digest_size=16) for image in images]
  small = _reduced(images, SIDE)
  difference = small - _blurred(_blurred(small, 1), 2)
  contrast = np.sqrt(np.square(difference).mean((1, 2, 3), keepdims=True))
  details = np.rint(127 * difference / (np.abs(difference) + contrast + _SOFTNESS))
  thumbnails = _reduced(small, round((_NUMBERS / images.shape[3]) ** 0.5))
  thumbnails -= thumbnails.mean((1, 2), keepdims=True)
  length = np.sqrt(np.square(thumbnails).sum((1, 2, 3), keepdims=True))
  thumbnails = np.where(length > 1e-3, thumbnails / np.maximum(length, 1e-3), 0)
  digests = np.array([one.digest() for one in hashes], 'S16')
  return Signatures(digests, thumbnails, details.astype(np.int8))


def evidence(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """Computes the evidence that images show the same, see the module.

  Args:
    first, second: int8 [n, h, w, C], details of the images of each pair.

  Returns:
    float32 [n].
  """
  shape = len(first), -1, first.shape[-1]
  a, b = (details.reshape(shape).astype(np.float32) for details in (first, second))
  energies = [np.einsum('npc,npc->np', x, x) for x in (a, b)]
  product = np.einsum('npc,npc->n', a, b)
  lengths = np.sqrt(energies[0].sum(1) * energies[1].sum(1))
  correlation = product / np.maximum(lengths, 1)
  shared = np.sqrt(energies[0] * energies[1])
  pixels = shared.sum(1) ** 2 / np.maximum(np.square(shared).sum(1), 1)
  return np.arctanh(correlation.clip(0, 0.9999)) * np.sqrt(pixels)


def find(signed: Signatures, rows: int = 2048, columns: int = 8192) -> Duplicates:
  """Finds the duplicates among n images.

  Time grows with n^2, memory does not.

  Args:
    signed: signatures of the images.
    rows, columns: thumbnails compared at a time.
  """
  from scipy.sparse import coo_array
  from scipy.sparse.csgraph import connected_components

  n = len(signed.digests)
  _, leaders, group = np.unique(signed.digests, return_index=True, return_inverse=True)
  leader = leaders[group]  # the first of the images with the same pixels
  copies = np.flatnonzero(leader != np.arange(n))
  found = [(leader[copies], copies, np.full(len(copies), np.inf, np.float32))]
  single = np.sort(leaders)
  found += [_near(signed, single, mirror, rows, columns) for mirror in (False, True)]
  kinds = np.repeat(np.arange(3, dtype=np.int8), [len(part[0]) for part in found])
  first, second, sure = (np.concatenate(part) for part in zip(*found))
  # A symmetric image is found as near and as mirrored: the first kind counts.
  _, once = np.unique(first * n + second, return_index=True)
  order = once[np.argsort(kinds[once], kind='stable')]
  first, second, kinds, sure = (x[order] for x in (first, second, kinds, sure))
  links = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(n, n))
  _, cluster = connected_components(links, directed=False)
  return Duplicates(first, second, kinds, sure, cluster.astype(np.int64))


def _near(
  signed: Signatures, single: np.ndarray, mirror: bool, rows: int, columns: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns first, second and evidence of the pairs among the images `single`."""
  thumbnails = signed.thumbnails[single]
  left = thumbnails.reshape(len(single), -1)
  right = thumbnails[:, :, ::-1].reshape(left.shape) if mirror else left
  found = [(single[:0], single[:0], np.empty(0, np.float32))]
  for top in range(0, len(single), rows):
    for start in range(top // columns * columns, len(single), columns):
      near = left[top : top + rows] @ right[start : start + columns].T > CANDIDATE
      one, two = np.nonzero(near)
      below = one + top < two + start
      one, two = single[one[below] + top], single[two[below] + start]
      for begin in range(0, len(one), _PAIRS):
        a, b = one[begin : begin + _PAIRS], two[begin : begin + _PAIRS]
        other = signed.details[b]
        sure = evidence(signed.details[a], other[:, :, ::-1] if mirror else other)
        keep = sure >= EVIDENCE
        found.append((a[keep], b[keep], sure[keep]))
  first, second, sure = (np.concatenate(part) for part in zip(*found))
  return first, second, sure
