"""Distances between sets against closed forms, brute force and torch-fidelity."""

import fidelity
import numpy as np
import pytest

from jaxvision.errors import UserError
from jaxvision.metrics import distances
from jaxvision.metrics.distances import Moments, RunningMoments


def _features(count, dimension, seed, shift=0.0, scale=1.0):
  """Features like those of a network: all positive, some far wider than others."""
  rng = np.random.default_rng(seed)
  widths = scale / np.sqrt(np.arange(1, dimension + 1))
  values = rng.normal(size=(count, dimension)) * widths + 0.4 + shift
  return np.maximum(values, 0).astype(np.float32)


REAL = _features(600, 48, seed=0)
FAKE = _features(500, 48, seed=1, shift=0.05, scale=0.9)
LINE = np.random.default_rng(6)
SETS = {
  'more samples than dimensions': (REAL, FAKE),
  'fewer samples than dimensions': (REAL[:30], FAKE[:20]),
  # Neighbours a thousand times nearer than the spread, more than float32 tells apart.
  'one dimension': (LINE.normal(size=(600, 1)), LINE.normal(size=(500, 1)) + 0.3),
}


@pytest.fixture(params=SETS.values(), ids=SETS)
def sets(request):
  return request.param


@pytest.fixture
def small_blocks(monkeypatch):
  """Blocks of 7 rows, the last of them short."""
  monkeypatch.setattr(distances, '_BLOCK', 7 * 600)
  monkeypatch.setattr(distances, '_ROWS', 7)


@pytest.mark.parametrize('sizes', [(1, 1, 1, 297), (150, 0, 150), (300,)])
def test_streamed_moments_equal_the_whole(sizes):
  # A mean that leaves a sum of squares about zero two digits.
  features = np.random.default_rng(0).normal(size=(300, 5)) * [1, 2, 3, 4, 5] + 1e7
  running = RunningMoments(5)
  for part in np.split(features, np.cumsum(sizes)[:-1]):
    before = part.copy()
    running.add(part)
    np.testing.assert_array_equal(part, before)
  moments = running.result()
  assert moments.count == running.count == 300
  np.testing.assert_allclose(moments.mean, features.mean(axis=0), rtol=1e-15)
  covariance = np.cov(features, rowvar=False)
  np.testing.assert_allclose(moments.covariance, covariance, rtol=1e-6, atol=1e-6)


def test_moments_of_a_set_equal_numpy_in_double_precision(small_blocks):
  moments = Moments.of(REAL)
  exact = REAL.astype(np.float64)
  assert moments.mean.dtype == moments.covariance.dtype == np.float64
  np.testing.assert_allclose(moments.mean, exact.mean(axis=0), rtol=1e-13)
  np.testing.assert_allclose(
    moments.covariance, np.cov(exact, rowvar=False), rtol=1e-11, atol=1e-14
  )


def test_a_result_does_not_change_with_what_is_added_after():
  running = RunningMoments(2)
  running.add(np.eye(2))
  first = running.result()
  running.add(np.full((1, 2), 9.0))
  np.testing.assert_array_equal(first.mean, [0.5, 0.5])
  np.testing.assert_array_equal(first.covariance, [[0.5, -0.5], [-0.5, 0.5]])


def test_moments_of_too_little_are_nan_and_of_another_shape_refused():
  assert np.isnan(Moments.of(np.zeros((0, 2))).mean).all()
  one = Moments.of(np.ones((1, 2)))
  np.testing.assert_array_equal(one.mean, [1, 1])
  assert np.isnan(one.covariance).all()
  for shape in ((3,), (3, 4), (3, 2, 1)):
    with pytest.raises(ValueError):
      RunningMoments(2).add(np.zeros(shape))


def _rotation(dimension, seed=0):
  rng = np.random.default_rng(seed)
  return np.linalg.qr(rng.normal(size=(dimension, dimension)))[0]


def test_frechet_distance_of_diagonal_covariances_is_the_closed_form():
  # Variances over ten orders of magnitude, seen along axes of no special direction.
  a, b = np.logspace(-9, 1, 40), np.logspace(-9, 1, 40)[::-1]
  shift = np.linspace(-1, 1, 40)
  turn = _rotation(40)
  distance = distances.frechet_distance(
    Moments(100, turn @ shift, turn @ np.diag(a) @ turn.T),
    Moments(100, np.zeros(40), turn @ np.diag(b) @ turn.T),
  )
  expected = shift @ shift + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
  assert distance == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_without_full_rank_equals_that_of_fewer_dimensions():
  # Eight dimensions placed in 300, five of them varying in either set: the distance is
  # the same to rounding, though most eigenvalues are 0 and come out as 1e-17.
  low = [_features(200, 8, seed=2), _features(200, 8, seed=3, shift=1e-3)]
  low[0][:, 5:] = 0
  low[1][:, :3] = 0
  place = _rotation(300)[:, :8]
  high = [Moments.of(features @ place.T) for features in low]
  expected = distances.frechet_distance(*map(Moments.of, low))
  assert distances.frechet_distance(*high) == pytest.approx(expected, abs=1e-11)


def test_frechet_distance_of_covariances_that_share_no_direction():
  flat = [Moments(9, np.zeros(2), np.diag(d)) for d in ([1.0, 0], [0, 4.0], [0.0, 0])]
  assert distances.frechet_distance(flat[0], flat[1]) == 5
  # All samples the same: the generator has collapsed to one image.
  assert distances.frechet_distance(flat[0], flat[2]) == 1
  assert distances.frechet_distance(flat[2], flat[2]) == 0


def test_frechet_distance_of_equal_sets_is_zero_and_never_below(sets):
  for features in sets:
    forward, backward = Moments.of(features), Moments.of(features[::-1])
    assert 0 <= distances.frechet_distance(forward, forward) < 1e-12
    assert 0 <= distances.frechet_distance(forward, backward) < 1e-12


def test_frechet_distance_is_symmetric(sets):
  a, b = map(Moments.of, sets)
  forward = distances.frechet_distance(a, b)
  assert forward == pytest.approx(distances.frechet_distance(b, a), rel=1e-10)


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_frechet_distance_names_what_is_wrong(bad):
  good = Moments.of(FAKE)
  broken = FAKE.copy()
  broken[3, 2] = bad
  with pytest.raises(UserError, match='mode collapse'):
    distances.frechet_distance(Moments.of(broken), good)
  for count in (0, 1):
    with pytest.raises(UserError, match=f'too few samples.* {count} and 500'):
      distances.frechet_distance(Moments.of(FAKE[:count]), good)
  with pytest.raises(ValueError, match='47 and 48'):
    distances.frechet_distance(Moments.of(FAKE[:, 1:]), good)


def test_frechet_distance_equals_torch_fidelity():
  theirs, torch = fidelity.load('metric_fid'), pytest.importorskip('torch')
  for real, fake in SETS.values():
    if real.shape[1] == 1:
      continue  # numpy.cov gives them a scalar
    statistics = [
      theirs.fid_features_to_statistics(torch.from_numpy(features))
      for features in (fake, real)
    ]
    expected = theirs.fid_statistics_to_metric(*statistics, verbose=False)
    ours = distances.frechet_distance(Moments.of(fake), Moments.of(real))
    assert ours == pytest.approx(expected['frechet_inception_distance'], rel=1e-3)


def _cubic(x, y):
  return (np.dot(x, y) / len(x) + 1) ** 3


def test_kernel_distance_is_the_unbiased_estimate():
  x, y = REAL[:6].astype(np.float64), FAKE[:6].astype(np.float64)
  others = [(i, j) for i in range(6) for j in range(6) if i != j]
  expected = np.mean([_cubic(x[i], x[j]) + _cubic(y[i], y[j]) for i, j in others])
  expected -= 2 * np.mean([_cubic(a, b) for a in x for b in y])
  mean, deviation = distances.kernel_distance(x, y, subset_size=6)
  assert mean == pytest.approx(expected, rel=1e-10)
  assert deviation == 0


def test_kernel_distance_of_one_distribution_is_near_zero():
  real, fake = _features(2000, 16, seed=4), _features(2000, 16, seed=5)
  mean, deviation = distances.kernel_distance(real, fake, subset_size=200)
  assert 0 < deviation < 0.02
  assert abs(mean) < deviation / 2
  moved, _ = distances.kernel_distance(real, fake + 0.1, subset_size=200)
  assert moved > 5 * deviation


def test_kernel_distance_equals_torch_fidelity():
  theirs, torch = fidelity.load('metric_kid'), pytest.importorskip('torch')
  expected = theirs.kid_features_to_metric(
    torch.from_numpy(FAKE),
    torch.from_numpy(REAL),
    kid_subsets=20,
    kid_subset_size=100,
    rng_seed=7,
    verbose=False,
  )
  mean, deviation = distances.kernel_distance(REAL, FAKE, 20, 100, seed=7)
  assert mean == pytest.approx(expected['kernel_inception_distance_mean'], rel=1e-3)
  assert deviation == pytest.approx(expected['kernel_inception_distance_std'], rel=1e-3)


def test_kernel_distance_keeps_its_digits_where_features_are_large():
  real, fake = REAL * 40, _features(500, 48, seed=1) * 40
  ours = distances.kernel_distance(real, fake, 3, 300)
  exact = distances.kernel_distance(real.astype(float), fake.astype(float), 3, 300)
  np.testing.assert_allclose(ours, exact, rtol=2e-5)


def test_inception_score_of_known_cases():
  uniform = np.full((50, 7), 1 / 7)
  assert distances.inception_score(uniform) == pytest.approx((1, 0), abs=1e-12)
  certain = np.eye(5, dtype=np.float32)[np.arange(100) % 5]
  assert distances.inception_score(certain, splits=1) == pytest.approx((5, 0))
  # One class only, however certain: no variety.
  assert distances.inception_score(certain[::5], splits=2) == pytest.approx((1, 0))


def test_inception_score_does_not_depend_on_the_order_of_classes():
  by_class = np.repeat(np.eye(10), 200, axis=0)
  mean, _ = distances.inception_score(by_class)
  assert mean > 9.5


def test_inception_score_equals_torch_fidelity():
  theirs, torch = fidelity.load('metric_isc'), pytest.importorskip('torch')
  logits = np.random.default_rng(0).normal(size=(203, 20)).astype(np.float32) * 3
  logits[0, 0] = 200  # the other probabilities of the row are 0 in float32
  tensor = torch.from_numpy(logits)
  expected = theirs.isc_features_to_metric(tensor, splits=10, shuffle=True, rng_seed=5)
  ours = distances.inception_score(tensor.softmax(dim=1).numpy(), splits=10, seed=5)
  names = ('inception_score_mean', 'inception_score_std')
  np.testing.assert_allclose(ours, [expected[name] for name in names], rtol=1e-5)


def test_manifolds_on_a_line():
  # Balls of the real points: [-1, 1], [0, 2], [1, 3], [2, 18]; of the fake ones: half
  # a unit to either side of the first two and the last two, 0.75 of those between.
  real = np.array([[0.0], [1], [2], [10]])
  fake = np.array([[-1.0], [-1.5], [2.5], [3.25], [18], [18.5]])
  # Inside are -1, 2.5, 3.25 and 18; of the real points only 2 is.
  assert distances.precision_recall(real, fake, k=1) == (4 / 6, 1 / 4)
  # Without their ends, the third ball holds 2.5 and the fourth 2.5 and 3.25.
  assert distances.density_coverage(real, fake, k=1) == (3 / 6, 2 / 4)


def _neighbourhoods(real, fake, k):
  """All distances in float64 by plain differences, and the radii of either set."""
  real, fake = real.astype(np.float64), fake.astype(np.float64)

  def between(x, y):
    return np.array([np.linalg.norm(y - point, axis=1) for point in x])

  # The nearest of all is the point itself.
  radii = [np.sort(between(x, x), axis=1)[:, k] for x in (real, fake)]
  return between(real, fake), *radii


@pytest.mark.parametrize('k', [1, 3, 5])
def test_manifolds_equal_brute_force(sets, k, small_blocks):
  real, fake = sets
  across, real_radii, fake_radii = _neighbourhoods(real, fake, k)
  inside = across < real_radii[:, None]
  ours = distances.precision_recall(real, fake, k)
  expected = inside.any(axis=0).mean(), (across <= fake_radii).any(axis=1).mean()
  assert ours == pytest.approx(expected, abs=1e-12)
  ours = distances.density_coverage(real, fake, k)
  expected = inside.sum(axis=0).mean() / k, inside.any(axis=1).mean()
  assert ours == pytest.approx(expected, abs=1e-12)


def test_precision_and_recall_equal_torch_fidelity():
  theirs, torch = fidelity.load('metric_prc'), pytest.importorskip('torch')
  for k in (1, 3):
    expected = theirs.prc_features_to_metric(
      torch.from_numpy(FAKE), torch.from_numpy(REAL), prc_neighborhood=k, verbose=False
    )
    ours = distances.precision_recall(REAL, FAKE, k)
    assert ours == pytest.approx((expected['precision'], expected['recall']), rel=1e-3)


def test_manifolds_of_equal_sets_are_one(small_blocks):
  assert distances.precision_recall(REAL, REAL.copy()) == (1, 1)
  density, coverage = distances.density_coverage(REAL, REAL.copy())
  assert (density, coverage) == (pytest.approx(1, abs=1e-3), 1)


def test_manifolds_do_not_change_with_the_place_of_the_features():
  far = [features.astype(np.float64) + 1e7 for features in (REAL, FAKE)]
  for measure in (distances.precision_recall, distances.density_coverage):
    assert measure(*far) == pytest.approx(measure(REAL, FAKE), abs=1e-12)


def test_a_collapsed_generator_has_precision_and_neither_recall_nor_coverage():
  collapsed = np.repeat(REAL[:1] + 1e-3, 100, axis=0)
  assert distances.precision_recall(REAL, collapsed) == (1, 0)
  assert distances.density_coverage(REAL, collapsed)[1] < 0.05


MEASURES = {
  'kernel distance': lambda real, fake: distances.kernel_distance(
    real, fake, subset_size=20
  ),
  'precision and recall': distances.precision_recall,
  'density and coverage': distances.density_coverage,
}


@pytest.mark.parametrize('name', MEASURES)
def test_measures_of_sets_refuse_what_cannot_be_measured(name):
  measure = MEASURES[name]
  with pytest.raises(UserError, match=f'too few samples for .*{name}.* 3 real and 500'):
    measure(REAL[:3], FAKE)
  with pytest.raises(UserError, match='600 real and 0 generated'):
    measure(REAL, FAKE[:0])
  broken = FAKE.copy()
  broken[0, 0] = np.nan
  with pytest.raises(UserError, match='mode collapse'):
    measure(REAL, broken)
  with pytest.raises(ValueError, match='48 and 47'):
    measure(REAL, FAKE[:, 1:])


def test_numbers_that_make_no_sense_are_refused():
  with pytest.raises(UserError, match='7, in 10 splits'):
    distances.inception_score(np.eye(7))
  with pytest.raises(UserError, match='mode collapse'):
    distances.inception_score(np.full((20, 3), np.nan))
  with pytest.raises(ValueError, match='sum to 1'):
    distances.inception_score(np.ones((20, 3)))
  with pytest.raises(UserError, match='4 are needed'):
    distances.precision_recall(REAL, FAKE[:3])
  # Only the real points have balls here.
  distances.density_coverage(REAL, FAKE[:1])
  for call in (
    lambda: distances.inception_score(np.eye(3), splits=0),
    lambda: distances.kernel_distance(REAL, FAKE, subset_size=1),
    lambda: distances.kernel_distance(REAL, FAKE, subsets=0, subset_size=9),
    lambda: distances.precision_recall(REAL, FAKE, k=0),
  ):
    with pytest.raises(ValueError, match='at least 1'):
      call()
