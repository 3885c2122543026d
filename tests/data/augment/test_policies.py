"""What the policies draw, against their definition and torchvision's tables."""

import collections

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torchvision_parts import torchvision

from jaxvision.data.augment import operations, policies

# It compiles much: not in `make test-fast`.
pytestmark = pytest.mark.long

SIZE = (20, 30)
# Names of torchvision.
THEIRS = {
  'identity': 'Identity',
  'shear_x': 'ShearX',
  'shear_y': 'ShearY',
  'translate_x': 'TranslateX',
  'translate_y': 'TranslateY',
  'rotate': 'Rotate',
  'brightness': 'Brightness',
  'color': 'Color',
  'contrast': 'Contrast',
  'sharpness': 'Sharpness',
  'posterize': 'Posterize',
  'solarize': 'Solarize',
  'autocontrast': 'AutoContrast',
  'equalize': 'Equalize',
  'invert': 'Invert',
}


@pytest.fixture
def drawn(monkeypatch):
  """Records what `operations.apply` is asked for, in the place of doing it."""
  calls = []

  def record(images, which, values, names):
    calls.append((np.asarray(which), np.asarray(values), names))
    return images

  monkeypatch.setattr(operations, 'apply', record)
  return calls


def table_of(space, bins):
  """Returns name -> (value of each bin, signed)."""
  return {o.name: (o.bins(SIZE, bins), o.signed) for o in space}


def test_the_ranges_are_those_of_torchvision():
  transforms = torchvision('transforms')
  spaces = [
    (policies.RAND_AUGMENT, transforms.RandAugment()._augmentation_space, 31),
    (policies.TRIVIAL_AUGMENT, transforms.TrivialAugmentWide()._augmentation_space, 31),
    (policies.AUTO_AUGMENT, transforms.AutoAugment()._augmentation_space, 10),
  ]
  for space, theirs, bins in spaces:
    ours = table_of(space, bins)
    wide = 'TrivialAugmentWide' in repr(theirs)
    expected = theirs(bins) if wide else theirs(bins, SIZE)
    expected.setdefault('Identity', (np.zeros(bins), False))
    assert {THEIRS[name] for name in ours} == expected.keys()
    for name, (values, signed) in ours.items():
      magnitudes, negated = expected[THEIRS[name]]
      np.testing.assert_allclose(values, np.broadcast_to(magnitudes, bins), rtol=1e-6)
      assert signed == negated, name


@pytest.mark.parametrize(
  ('ours', 'policy'),
  [(policies.CIFAR10_POLICIES, 'CIFAR10'), (policies.IMAGENET_POLICIES, 'IMAGENET')],
)
def test_the_tables_of_auto_augment_are_those_of_torchvision(ours, policy):
  transforms = torchvision('transforms')
  theirs = transforms.AutoAugment(transforms.AutoAugmentPolicy[policy]).policies
  assert len(ours) == len(theirs) == 25
  for own, their in zip(ours, theirs):
    assert [(THEIRS[name], chance, bin_) for name, chance, bin_ in own] == list(their)


def test_rand_augment_draws_each_operation_equally_often(drawn):
  images = jnp.zeros((7000, *SIZE, 3), jnp.uint8)
  policies.rand_augment(jax.random.key(3), images, num_ops=3, magnitude=9)
  assert len(drawn) == 3
  expected = table_of(policies.RAND_AUGMENT, 31)
  for which, values, _ in drawn:
    counts = collections.Counter(operations.NAMES[n] for n in which)
    assert counts.keys() == expected.keys()
    # 500 of each are expected; the standard deviation is 21.5.
    assert all(abs(count - 500) < 5 * 21.5 for count in counts.values())
    for name, (bins, signed) in expected.items():
      own = values[which == operations.NAMES.index(name)]
      around = 1 if name in ('brightness', 'color', 'contrast', 'sharpness') else 0
      sides = {around + bins[9], around - bins[9]} if signed else {bins[9]}
      assert {round(float(v), 4) for v in own} == {round(v, 4) for v in sides}
      if signed:
        assert abs(np.mean(own > around) - 0.5) < 0.12
  assert not np.array_equal(drawn[0][0], drawn[1][0])


def test_trivial_augment_draws_every_magnitude(drawn):
  images = jnp.zeros((28_000, *SIZE, 3), jnp.uint8)
  policies.trivial_augment(jax.random.key(0), images)
  ((which, values, _),) = drawn
  bins, _ = table_of(policies.TRIVIAL_AUGMENT, 31)['rotate']
  turned = values[which == operations.NAMES.index('rotate')]
  assert abs(len(turned) - 2000) < 5 * 43
  counts = collections.Counter(np.round(np.abs(turned), 3))
  assert counts.keys() == set(np.round(bins, 3).astype(np.float32))
  assert all(abs(count - len(turned) / 31) < 5 * 8 for count in counts.values())


def test_auto_augment_draws_pairs_with_their_probabilities(drawn):
  images = jnp.zeros((25_000, *SIZE, 3), jnp.uint8)
  pairs = policies.CIFAR10_POLICIES
  policies.auto_augment(jax.random.key(0), images, pairs)
  assert len(drawn) == 2
  for place, (which, values, names) in enumerate(drawn):
    expected = collections.Counter()
    for pair in pairs:
      name, chance, _ = pair[place]
      expected[name] += 1000 * chance
      expected['identity'] += 1000 * (1 - chance)
    counts = collections.Counter(operations.NAMES[n] for n in which)
    for name in operations.NAMES:
      assert abs(counts[name] - expected[name]) < 5 * max(expected[name], 1) ** 0.5
    assert set(counts) - {'identity'} <= set(names)
    assert np.isfinite(values).all()
  # A pair is drawn, not two operations: rotate .7 2 is followed by translate_x .3 9.
  rotated = drawn[0][0] == operations.NAMES.index('rotate')
  after = {operations.NAMES[n] for n in drawn[1][0][rotated]}
  assert after == {'translate_x', 'identity'}


@pytest.mark.parametrize('channels', [pytest.param(1, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize('name', policies.POLICIES)
def test_policies_are_functions_of_the_key(name, channels):
  rng = np.random.default_rng(0)
  images = jnp.asarray(rng.integers(0, 256, (16, 12, 12, channels), np.uint8))
  augment = jax.jit(policies.POLICIES[name])
  one, again = augment(jax.random.key(1), images), augment(jax.random.key(1), images)
  other = augment(jax.random.key(2), images)
  chex.assert_equal_shape([one, images])
  assert one.dtype == jnp.uint8
  np.testing.assert_array_equal(one, again)
  assert (np.asarray(one) != np.asarray(other)).any()
  assert (np.asarray(one) != np.asarray(images)).any()
