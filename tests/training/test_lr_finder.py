"""The learning-rate finder: its suggestions, its ramp, what it trains and refuses."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import jaxvision
from jaxvision import config as config_lib
from jaxvision.errors import TrainingDiverged, UserError
from jaxvision.training import lr_finder
from jaxvision.training.lr_finder import LearningRateCurve, find

ROOT = Path(__file__).resolve().parents[2]
TRAINED = ROOT / 'tests' / 'fixtures' / 'trained'

pytestmark = pytest.mark.usefixtures('quick_compile')


@pytest.fixture
def small(digits_config):
  """Digits in 44 steps an epoch, on a network that soon compiles."""
  digits_config.model = {'name': 'small_filters_cnn', 'features': (4, 4, 4)}
  digits_config.batch_size = 32
  return digits_config


def with_fields(config, *assignments):
  return config_lib.override(config, assignments)


def curve_of(losses, steps=None):
  rates = np.geomspace(1e-4, 10, steps or len(losses))[: len(losses)].tolist()
  losses = tuple(float(loss) for loss in losses)
  return LearningRateCurve(tuple(rates), losses, losses, steps or len(losses), 8)


def test_suggestions_are_where_the_loss_falls_and_before_it_is_lowest():
  place = np.linspace(-4, 1, 201)  # of log10 of the rate
  falls = 2.5 - 2 / (1 + np.exp(-6 * (place + 2)))  # most at 0.01
  curve = curve_of(falls + np.exp(8 * (place - 0.3)))
  assert curve.steepest == pytest.approx(0.01, rel=0.1)
  lowest = curve.rates[int(np.argmin(curve.smoothed))]
  assert curve.minimum_tenth == pytest.approx(lowest / 10)
  # What comes behind the lowest loss counts for nothing, however steep.
  bump = np.where(place > 0.5, 3 - 5 * (place - 0.5), 0)
  assert curve_of(falls + np.maximum(bump, 0)).steepest == curve.steepest


@pytest.mark.parametrize('losses', [np.linspace(1, 2, 50), [3.0], np.ones(50)])
def test_a_loss_that_does_not_fall_suggests_nothing(losses):
  curve = curve_of(losses, 50)
  assert curve.steepest is None
  assert curve.minimum_tenth is None


@pytest.mark.long
def test_ramp_stops_where_the_loss_diverges_and_compiles_one_step(small, monkeypatch):
  runs, build = [], lr_finder.Run.build
  monkeypatch.setattr(
    lr_finder.Run, 'build', lambda *a, **k: runs.append(build(*a, **k)) or runs[-1]
  )
  curve = find(small, minimum=1e-4, maximum=1e5)
  assert runs[0].compiler.programs == 2  # of the initial state, and of a step
  assert curve.steps == 44  # an epoch
  assert curve.batch_size == 32
  expected = np.geomspace(1e-4, 1e5, 44)[: len(curve.rates)]
  np.testing.assert_allclose(curve.rates, expected, rtol=1e-6)
  assert len(curve.losses) == len(curve.smoothed) == len(curve.rates) < 44
  assert curve.stopped
  best = min(curve.smoothed)
  assert all(value <= 4 * best for value in curve.smoothed[:-1])
  # The first loss is of the untrained network, and the average has no bias to 0.
  assert curve.losses[0] == pytest.approx(curve.smoothed[0])
  assert 2 < curve.losses[0] < 4
  assert best < 0.95 * curve.smoothed[0]
  assert 1e-4 < curve.steepest < curve.rates[curve.lowest]
  assert curve.minimum_tenth == curve.rates[curve.lowest] / 10


@pytest.mark.slow
def test_streaming_finds_the_same(small):
  resident = find(small, maximum=0.1, steps=15)
  small.data.pipeline, small.data.workers = 'streaming', 0
  streaming = find(small, maximum=0.1, steps=15)
  assert len(resident.rates) == resident.steps == 15
  np.testing.assert_allclose(streaming.losses, resident.losses, rtol=1e-4)
  # The loss falls, so that the rates of the ramp are in the steps.
  assert resident.losses[-1] < 0.99 * resident.losses[0]


@pytest.mark.long
def test_rates_of_groups_keep_their_ratios(small):
  def losses(base, head):
    config = with_fields(
      small,
      f'optimizer.learning_rate={base}',
      'optimizer.groups.head.match=head/.*',
      f'optimizer.groups.head.learning_rate={head}',
      'optimizer.groups.head.start=0.5',
      'schedule.name=one_cycle',
    )
    return find(config, minimum=1e-3, maximum=0.1, steps=12).losses

  ratio_of_ten = losses(0.1, 1.0)
  np.testing.assert_allclose(losses(0.01, 0.1), ratio_of_ten, rtol=1e-5)
  assert not np.allclose(losses(0.1, 0.1)[4:], ratio_of_ten[4:], rtol=1e-3)


@pytest.mark.slow
def test_it_begins_with_pretrained_weights(digits_config):
  weights = f'init.pretrained={TRAINED / "digits_cnn"}'
  config = with_fields(digits_config, weights)
  config.model = {'name': 'digits_cnn', 'features': (4, 8), 'hidden': 16}
  curve = find(config, steps=10, maximum=1e-5)
  # They are better than chance, as no untrained network is.
  assert np.mean(curve.losses) < np.log(10)


@pytest.mark.slow
def test_a_head_alone_trains_on_features(digits_config, monkeypatch):
  shapes = []
  precompute = lr_finder.precompute

  def recorded(*arguments):
    found = precompute(*arguments)
    shapes.append(found.splits['train'].images.shape)
    return found

  monkeypatch.setattr(lr_finder, 'precompute', recorded)
  config = with_fields(digits_config, 'augment.crop_padding=0', 'freeze=(?!head/).*')
  config.model = {'name': 'resnet20', 'width': 2}
  curve = find(config, steps=12, maximum=1e-2)
  assert shapes == [(1438, 8)]
  assert len(curve.losses) == 12
  assert np.isfinite(curve.losses).all()


def numbers():
  """Returns digits whose labels are values, as arrays."""
  train = jaxvision.data.load('digits').splits['train']
  values, half = (train.labels / 10).astype(np.float32), len(train) // 2
  return jaxvision.data.from_arrays(
    train=(train.images[:half], values[:half]),
    test=(train.images[half:], values[half:]),
  )


@pytest.mark.parametrize(
  ('fields', 'parts'),
  [
    (
      ('task=regression', 'grad_accumulation=2'),
      lambda: {
        'data': numbers(),
        'loss': lambda outputs, targets: jnp.square(outputs[:, 0] - targets) - 1,
      },
    ),
    ((f'task={ROOT}/examples/rotation_task.py:Rotation',), dict),
    (
      ('optimizer.schedule_free=True', 'schedule.name=constant', 'optimizer.sam=0.05'),
      dict,
    ),
  ],
  ids=['own loss', 'own task', 'schedule-free'],
)
@pytest.mark.long
def test_every_supervised_task_has_a_curve(small, fields, parts):
  config = with_fields(small, *fields)
  curve = find(config, steps=12, minimum=1e-4, maximum=1e-1, **parts())
  assert len(curve.rates) > 5
  assert np.isfinite(curve.losses).all()
  assert curve.smoothed[-1] < curve.smoothed[0]


@pytest.mark.parametrize(
  ('fields', 'options', 'wanted'),
  [
    ((), {'minimum': 0.0}, 'above 0'),
    ((), {'minimum': 1.0, 'maximum': 0.1}, 'from 1 to 0.1'),
    ((), {'maximum': float('inf')}, 'larger maximum'),
    ((), {'steps': 3}, 'at least 10 steps, not 3'),
    (('batch_size=1000',), {}, '1 steps of 1000 images'),
    (
      (
        'optimizer.learning_rate=0',
        'optimizer.groups.head.match=head/.*',
        'optimizer.groups.head.learning_rate=1',
      ),
      {},
      'optimizer.learning_rate is 0',
    ),
  ],
)
def test_what_is_no_ramp_is_refused(small, fields, options, wanted):
  with pytest.raises(UserError) as error:
    find(with_fields(small, *fields), **options)
  assert wanted in str(error.value)
  assert '\n' not in str(error.value)


def test_a_gan_is_refused():
  config = config_lib.load(ROOT / 'configs' / 'digits_dcgan.py', ['parallel.data=1'])
  with pytest.raises(UserError, match='task gan has not one loss'):
    find(config)


@pytest.mark.long
def test_a_loss_that_is_none_from_the_start_is_told(small):
  with pytest.raises(TrainingDiverged, match='before any step'):
    find(small, loss=lambda logits, labels: jnp.full(len(labels), jnp.nan))
