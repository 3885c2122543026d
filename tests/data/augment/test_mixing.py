import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.data.augment import mixing
from jaxvision.tasks import losses

# It compiles much: not in `make test-fast`.
pytestmark = pytest.mark.long

COUNT = 5


@pytest.fixture
def images():
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.normal(size=(COUNT, 16, 12, 3)), jnp.float32)


@pytest.mark.parametrize('alpha', [0.2, 1.0])
def test_mixup_mixes_by_one_share(images, alpha):
  mixup = jax.jit(mixing.mixup, static_argnames='alpha')
  shares = []
  for seed in range(60):
    mixed, share = mixup(jax.random.key(seed), images, alpha=alpha)
    expected = share * images + (1 - share) * jnp.roll(images, 1, axis=0)
    np.testing.assert_allclose(mixed, expected, atol=1e-5)
    shares.append(share)
  # Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1)).
  assert abs(np.mean(shares) - 0.5) < 0.2
  assert np.var(shares) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.4)


def test_cutmix_pastes_a_box_and_counts_its_area(images):
  cutmix = jax.jit(mixing.cutmix, static_argnames='alpha')
  partner = np.roll(np.asarray(images), 1, axis=0)
  areas = []
  for seed in range(40):
    mixed, share = cutmix(jax.random.key(seed), images, alpha=1.0)
    pasted = np.asarray(mixed) != np.asarray(images)
    box = pasted.any((0, 3))
    rows, columns = np.flatnonzero(box.any(1)), np.flatnonzero(box.any(0))
    if box.any():  # it is one box, the same in every image
      assert box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
      assert (pasted.any(-1) == box).all()
      np.testing.assert_array_equal(np.asarray(mixed)[:, box], partner[:, box])
    np.testing.assert_allclose(share, 1 - box.mean(), atol=1e-6)
    areas.append(box.mean())
  assert min(areas) < 0.1 < 0.4 < max(areas)


def test_the_border_cuts_a_box():
  def length(centre, share):
    return int(mixing._around(jnp.array(centre), jnp.array(share), 12).sum())

  assert [length(c, 0.5) for c in (5, 0, 11)] == [6, 3, 4]
  assert length(5, 0.0) == 0


def test_one_of_both_is_taken_with_its_probability(images):
  mix = jax.jit(lambda key: mixing.mix(key, images, 1.0, 1.0, 0.8, cutmix_share=0.25))
  partner = np.roll(np.asarray(images), 1, axis=0)
  kinds = {'none': 0, 'mixup': 0, 'cutmix': 0}
  for seed in range(200):
    mixed, share = mix(jax.random.key(seed))
    kept = (np.asarray(mixed) == np.asarray(images)) | (np.asarray(mixed) == partner)
    kinds['none' if share == 1 else 'cutmix' if kept.all() else 'mixup'] += 1
  # 40, 120 and 40 of 200 are expected; a box of CutMix may be empty.
  assert 20 < kinds['none'] < 70
  assert 90 < kinds['mixup'] < 150
  assert 15 < kinds['cutmix'] < 65


@pytest.mark.parametrize(('mixup', 'cutmix'), [(0.0, 0.0), (0.4, 0.0), (0.0, 1.0)])
def test_what_is_off_is_not_computed(images, mixup, cutmix):
  mixed, share = mixing.mix(jax.random.key(0), images, mixup, cutmix)
  chex.assert_equal_shape([mixed, images])
  off = not mixup and not cutmix
  assert (bool((mixed == images).all()), bool(share == 1)) == (off, off)


def test_the_dtype_stays(images):
  mixed, share = mixing.mixup(jax.random.key(0), images.astype(jnp.bfloat16), 1.0)
  assert (mixed.dtype, share.dtype) == (jnp.bfloat16, jnp.float32)


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
@pytest.mark.parametrize('name', ['cross_entropy', 'binary_cross_entropy'])
def test_a_loss_of_mixed_targets_is_that_of_soft_labels(name, smoothing):
  rng = np.random.default_rng(0)
  logits = jnp.asarray(rng.normal(size=(COUNT, 4)), jnp.float32)
  labels = jnp.array([0, 3, 1, 1, 2])
  targets = mixing.MixedTargets.of(labels, jnp.array(0.7))

  def loss(targets):
    return losses.LOSSES[name](logits, targets, label_smoothing=smoothing)

  one_hot = jax.nn.one_hot(labels, 4)
  soft = 0.7 * one_hot + 0.3 * jnp.roll(one_hot, 1, axis=0)
  np.testing.assert_allclose(
    mixing.mean_over_targets(loss, targets), loss(soft), rtol=1e-5
  )
  np.testing.assert_array_equal(mixing.mean_over_targets(loss, labels), loss(labels))


def test_a_squared_error_has_the_gradient_of_the_mixed_value():
  rng = np.random.default_rng(0)
  outputs, values = (jnp.asarray(rng.normal(size=(COUNT, 2))) for _ in range(2))
  targets = mixing.MixedTargets.of(values, jnp.array(0.3))
  mixed = 0.3 * values + 0.7 * jnp.roll(values, 1, axis=0)

  def loss(outputs, targets):
    each = mixing.mean_over_targets(
      lambda t: losses.mean_squared_error(outputs, t), targets
    )
    return each.sum()

  np.testing.assert_allclose(
    jax.grad(loss)(outputs, targets), jax.grad(loss)(outputs, mixed), rtol=1e-5
  )
