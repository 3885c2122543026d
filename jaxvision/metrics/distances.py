"""Distances between generated and real images, as pure functions of their features.

Features are [n, D], from any network. Results can be compared only if the network, its
weights, the resizing and n are equal. The definitions are those of torch-fidelity and, for
density and coverage, of the authors' code.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from jaxvision.errors import UserError

_ROWS = 1024  # features centred at a time
_BLOCK = 2**24  # pairwise distances held at a time: 64 MiB in float32


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
  """Mean and covariance of features, which the Frechet distance compares.

  Attributes:
    count: number of samples.
    mean: float64 [D]; NaN without a sample.
    covariance: float64 [D, D], unbiased (divided by count - 1, as in `numpy.cov`);
      NaN with fewer than two samples.
  """

  count: int
  mean: np.ndarray
  covariance: np.ndarray

  @classmethod
  def of(cls, features: np.ndarray) -> 'Moments':
    """Computes the moments of features, float [n, D].

    >>> Moments.of(np.array([[0.0, 1.0], [2.0, 1.0]])).covariance
    array([[2., 0.],
           [0., 0.]])
    """
    features = _as_features(features)
    running = RunningMoments(features.shape[1])
    for start in range(0, len(features), _ROWS):
      running.add(features[start : start + _ROWS])
    return running.result()


class RunningMoments:
  """Moments of features that come in batches, in O(D^2) memory.

  Sums of squares about the means of the batches are merged in float64, which is accurate
  also where the mean is much larger than the deviation.

  Args:
    dimension: D.

  References:
    Chan, Golub and LeVeque, "Algorithms for Computing the Sample Variance", The
    American Statistician 1983, equation 2.1.

  >>> moments = RunningMoments(1)
  >>> for batch in ([[1.0], [2.0]], [[6.0]]):
  ...   moments.add(np.array(batch))
  >>> moments.result().mean, moments.result().covariance
  (array([3.]), array([[7.]]))
  """

  def __init__(self, dimension: int):
    self.count = 0
    self._mean = np.zeros(dimension)
    self._squares = np.zeros((dimension, dimension))

  def add(self, features: np.ndarray) -> None:
    """Adds features, float [n, D] with n of 0 or more.

    Raises:
      ValueError: another shape.
    """
    features = _as_features(features).astype(np.float64)
    added, dimension = features.shape
    if dimension != len(self._mean):
      raise ValueError(f'features of dimension {dimension}, not {len(self._mean)}')
    if not added:
      return
    # Values that are not finite stay so; the distance functions refuse them.
    with np.errstate(invalid='ignore', over='ignore'):
      mean = features.mean(axis=0)
      features -= mean
      shift = mean - self._mean
      total = self.count + added
      self._squares += features.T @ features
      self._squares += np.outer(shift * (self.count * added / total), shift)
      self._mean += shift * (added / total)
    self.count = total

  def result(self) -> Moments:
    """Returns the moments of all features added so far."""
    covariance = np.full_like(self._squares, np.nan)
    if self.count > 1:
      covariance = self._squares / (self.count - 1)
    mean = self._mean.copy() if self.count else np.full_like(self._mean, np.nan)
    return Moments(self.count, mean, covariance)


def frechet_distance(a: Moments, b: Moments) -> float:
  """Computes the squared Frechet distance between two normal distributions.

      |mean_a - mean_b|^2 + tr(S_a) + tr(S_b) - 2 tr((S_a^1/2 S_b S_a^1/2)^1/2)

  With features of Inception-v3 it is the FID. The last trace is computed as the sum of
  the singular values of L_a^T L_b, where S = L L^T. It is exact to rounding also for
  covariances without full rank (fewer samples than dimensions).

  Args:
    a, b: of at least two samples each.

  Returns:
    float, at least 0; 0 where the moments are equal.

  Raises:
    UserError: fewer than two samples, or moments that are not finite.
    ValueError: the dimensions differ.

  References:
    Dowson and Landau, "The Frechet distance between multivariate normal
    distributions", Journal of Multivariate Analysis 1982.
    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local
    Nash Equilibrium", NeurIPS 2017, equation 6.

  >>> unit = Moments(10, np.zeros(2), np.eye(2))
  >>> frechet_distance(unit, Moments(10, np.array([3.0, 0.0]), 4 * np.eye(2)))
  11.0
  """
  if a.mean.shape != b.mean.shape:
    raise ValueError(f'moments of dimensions {len(a.mean)} and {len(b.mean)}')
  if min(a.count, b.count) < 2:
    raise UserError(
      f'too few samples for a Frechet distance: {a.count} and {b.count}, at least 2 of'
      ' each are needed (and thousands for a number that means something)'
    )
  _require_finite('Frechet distance', a.mean, b.mean, a.covariance, b.covariance)
  cross = _factor(a.covariance).T @ _factor(b.covariance)
  # A covariance of zeros has a factor without columns, which LAPACK refuses.
  shared = np.linalg.svd(cross, compute_uv=False).sum() if cross.size else 0.0
  shift = a.mean - b.mean
  distance = shift @ shift + np.trace(a.covariance) + np.trace(b.covariance)
  return max(0.0, float(distance - 2 * shared))


def _factor(covariance: np.ndarray) -> np.ndarray:
  """Returns L [D, rank] with covariance = L L^T."""
  values, vectors = np.linalg.eigh(covariance)
  # Smaller eigenvalues are rounding errors; their roots would be 1e-8 of the largest.
  noise = len(values) * np.finfo(np.float64).eps * max(values[-1], 0.0)
  some = values > noise
  return vectors[:, some] * np.sqrt(values[some])


def kernel_distance(
  real: np.ndarray,
  fake: np.ndarray,
  subsets: int = 100,
  subset_size: int = 1000,
  seed: int = 0,
) -> tuple[float, float]:
  """Computes the squared maximum mean discrepancy with a cubic kernel.

      mean k(x, x') + mean k(y, y') - 2 mean k(x, y),  k(x, y) = (x . y / D + 1)^3

  With features of Inception-v3 it is the KID. The estimate is unbiased (x and x' differ)
  and may therefore be negative for equal distributions.

  Args:
    real, fake: float32 or float64 [n, D], [m, D].
    subsets: number of pairs of subsets.
    subset_size: samples in a subset, drawn without replacement.
    seed: seed of the draws, which equal those of torch-fidelity with `rng_seed` and the
      fake images as its first input.

  Returns:
    (mean, standard deviation) over the subsets.

  Raises:
    UserError: fewer samples than `subset_size`, or features that are not finite.
    ValueError: the dimensions differ, or there is nothing to draw.

  References:
    Binkowski et al., "Demystifying MMD GANs", ICLR 2018, section 4.
  """
  real, fake = _as_pair(real, fake)
  if subset_size < 2 or subsets < 1:
    raise ValueError(f'{subsets} subsets of {subset_size}: at least 1 of 2')
  if min(len(real), len(fake)) < subset_size:
    raise UserError(
      f'too few samples for a kernel distance: {len(real)} real and {len(fake)}'
      f' generated, subsets take {subset_size} of each; generate more or make the'
      ' subsets smaller'
    )
  _require_finite('kernel distance', real, fake)
  if len(real) == len(fake) == subset_size:
    subsets = 1  # every subset is the whole set
  random = np.random.RandomState(seed)
  estimates = []
  for _ in range(subsets):
    y = fake[random.choice(len(fake), subset_size, replace=False)]
    x = real[random.choice(len(real), subset_size, replace=False)]
    pairs = subset_size * (subset_size - 1)
    within = sum(
      (kernel.sum() - np.trace(kernel)) / pairs
      for kernel in (_cubic(x, x), _cubic(y, y))
    )
    estimates.append(within - 2 * _cubic(x, y).mean())
  return float(np.mean(estimates)), float(np.std(estimates))


def _cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Returns float64 [n, m]; in float64 as the three means nearly cancel."""
  base = (x @ y.T).astype(np.float64) / x.shape[1] + 1
  return base * base * base


def inception_score(
  probabilities: np.ndarray, splits: int = 10, seed: int = 0
) -> tuple[float, float]:
  """Computes the exponential of the mutual information of image and class.

      exp(mean_x KL(p(y | x) || p(y))),  from 1 (worst) to K

  Args:
    probabilities: float [n, K], rows that sum to 1.
    splits: number of parts that are scored separately.
    seed: seed of the shuffle before the set is split, which equals that of
      torch-fidelity with `rng_seed`.

  Returns:
    (mean, standard deviation) over the splits.

  Raises:
    UserError: fewer samples than splits, or probabilities that are not finite.
    ValueError: rows do not sum to 1, or `splits` is below 1.

  References:
    Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016, section 4.

  >>> round(inception_score(np.tile(np.eye(4), (100, 1)), splits=1)[0], 6)
  4.0
  """
  probabilities = _as_features(probabilities).astype(np.float64)
  count = len(probabilities)
  if splits < 1:
    raise ValueError(f'{splits} splits: at least 1')
  if count < splits:
    raise UserError(
      f'too few samples for an Inception Score: {count}, in {splits} splits; generate'
      ' more or take fewer splits'
    )
  _require_finite('Inception Score', probabilities)
  if probabilities.min() < 0 or abs(probabilities.sum(axis=1) - 1).max() > 1e-3:
    raise ValueError('probabilities must be at least 0 and sum to 1 in every row')
  shuffled = probabilities[np.random.RandomState(seed).permutation(count)]
  scores = []
  for i in range(splits):
    part = shuffled[i * count // splits : (i + 1) * count // splits]
    divergence = part * (_log(part) - _log(part.mean(axis=0)))
    scores.append(np.exp(divergence.sum(axis=1).mean()))
  return float(np.mean(scores)), float(np.std(scores))


def _log(probabilities: np.ndarray) -> np.ndarray:
  """Returns a logarithm that is finite at 0, where its weight is 0."""
  return np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))


def precision_recall(
  real: np.ndarray, fake: np.ndarray, k: int = 3
) -> tuple[float, float]:
  """Computes the share of either set that lies in the manifold of the other.

  The manifold of a set is the union of balls about its points, each reaching to the
  k-th nearest other point of the set. Precision is the share of the fake points in the
  manifold of the real points, recall the share of the real points in that of the fake
  points. Distances are computed in blocks in float32, which takes about 150 MB and a copy
  of both sets, and again in float64 where neighbours are too close for float32.

  Args:
    real, fake: float32 or float64 [n, D], [m, D].
    k: neighbours.

  Returns:
    (precision, recall), each from 0 to 1.

  Raises:
    UserError: k or fewer points in a set, or features that are not finite.
    ValueError: the dimensions differ, or k below 1.

  References:
    Kynkaanniemi et al., "Improved Precision and Recall Metric for Assessing Generative
    Models", NeurIPS 2019, equations 1 and 2.

  >>> real, fake = np.arange(4.0)[:, None], np.array([[0.5], [1.5], [9.0], [8.0]])
  >>> precision_recall(real, fake, k=1)
  (0.5, 0.75)
  """
  (real, fake), (real_radii, fake_radii) = _manifolds(
    'precision and recall', (real, fake), k, balls=2
  )
  precise = np.zeros(len(fake), bool)
  recalled = np.zeros(len(real), bool)
  for rows, squared in _squared_distances(real, fake):
    precise |= (squared <= real_radii[rows, None]).any(axis=0)
    recalled[rows] = (squared <= fake_radii).any(axis=1)
  return float(precise.mean()), float(recalled.mean())


def density_coverage(
  real: np.ndarray, fake: np.ndarray, k: int = 5
) -> tuple[float, float]:
  """Computes density and coverage, which are robust variants of precision and recall.

  Balls reach from each real point to its k-th nearest other real point. Density is the
  mean number of balls around a fake point, divided by k. Coverage is the share of balls
  that contain a fake point. Outliers raise neither. Memory is as in `precision_recall`.

  Args:
    real, fake: float32 or float64 [n, D], [m, D].
    k: neighbours.

  Returns:
    (density, coverage); density is 1 in expectation where the distributions are equal,
    and may be above; coverage is from 0 to 1.

  Raises:
    UserError: k or fewer real points, no fake one, or features that are not finite.
    ValueError: the dimensions differ, or k below 1.

  References:
    Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models", ICML
    2020, equations 4 and 5. Balls are open, as in the authors' code.

  >>> real, fake = np.arange(4.0)[:, None], np.array([[0.5], [1.5], [9.0], [8.0]])
  >>> density_coverage(real, fake, k=1)
  (1.0, 0.75)
  """
  (real, fake), (radii,) = _manifolds('density and coverage', (real, fake), k, balls=1)
  inside, covered = 0, 0
  for rows, squared in _squared_distances(real, fake):
    held = (squared < radii[rows, None]).sum(axis=1)
    inside += int(held.sum())
    covered += int((held > 0).sum())
  return inside / (k * len(fake)), covered / len(real)


def _manifolds(
  measure: str, sets: tuple[np.ndarray, np.ndarray], k: int, balls: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
  """Returns both sets, centred, and squared radii [n] about the first `balls` of them."""
  real, fake = _as_pair(*sets)
  if k < 1:
    raise ValueError(f'{k} neighbours: at least 1')
  fewest_fake = k + 1 if balls > 1 else 1
  if len(real) <= k or len(fake) < fewest_fake:
    raise UserError(
      f'too few samples for {measure}: {len(real)} real and {len(fake)} generated, with'
      f' {k} neighbours at least {k + 1} and {fewest_fake} are needed'
    )
  _require_finite(measure, real, fake)
  # Centred points have equal distances, and |x|^2 + |y|^2 - 2 x . y cancels less.
  centre = real.mean(axis=0, dtype=np.float64).astype(np.float32)
  points: list[np.ndarray] = []
  radii: list[np.ndarray] = []
  for dtype in (np.float32, np.float64):
    points = [
      np.subtract(features, centre, dtype=np.result_type(features, dtype)).astype(
        dtype, copy=False
      )
      for features in (real, fake)
    ]
    radii = [_squared_radii(some, k) for some in points[:balls]]
    # Rounding in float32 is about 1e-6 of |x|^2, and so 1e-4 of a radius that passes.
    if all((r > 0.01 * _squared(x)).all() for r, x in zip(radii, points)):
      break
  return points, radii


def _squared_distances(
  x: np.ndarray, y: np.ndarray
) -> Iterator[tuple[slice, np.ndarray]]:
  """Yields (rows of x, squared distances [rows, m] to all of y) block by block."""
  x_squared, y_squared = _squared(x), _squared(y)
  step = max(1, _BLOCK // len(y))
  for start in range(0, len(x), step):
    rows = slice(start, min(start + step, len(x)))
    squared = x[rows] @ y.T
    squared *= -2
    squared += x_squared[rows, None]
    squared += y_squared
    yield rows, np.maximum(squared, 0, out=squared)


def _squared(points: np.ndarray) -> np.ndarray:
  return np.einsum('nd,nd->n', points, points)


def _squared_radii(points: np.ndarray, k: int) -> np.ndarray:
  """Returns [n], squared distances of each point to its k-th nearest other point."""
  radii = np.empty(len(points), points.dtype)
  for rows, squared in _squared_distances(points, points):
    own = np.arange(rows.start, rows.stop)
    squared[own - rows.start, own] = np.inf
    squared.partition(k - 1, axis=1)
    radii[rows] = squared[:, k - 1]
  return radii


def _as_features(features: np.ndarray) -> np.ndarray:
  """Returns [n, D] in its own precision, at least float32."""
  features = np.asarray(features)
  if features.ndim != 2:
    raise ValueError(f'features must be [n, D], not {list(features.shape)}')
  return features.astype(np.result_type(features.dtype, np.float32), copy=False)


def _as_pair(real: np.ndarray, fake: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  real, fake = _as_features(real), _as_features(fake)
  if real.shape[1] != fake.shape[1]:
    raise ValueError(f'features of dimensions {real.shape[1]} and {fake.shape[1]}')
  return real, fake


def _require_finite(measure: str, *arrays: np.ndarray) -> None:
  if not all(np.isfinite(array).all() for array in arrays):
    raise UserError(
      f'{measure}: the features hold NaN or infinity, a sign of mode collapse or of a'
      ' diverged generator; look at its samples and go back to an earlier checkpoint'
    )
