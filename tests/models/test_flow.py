"""Flows: the solvers against closed forms, guidance, the section of a config in a file."""

import functools
import json

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.config import base_config
from jaxvision.errors import UserError
from jaxvision.models.flow import EVALUATIONS, Flow, checked_settings, integrate

MEAN, DEVIATION = 0.4, 0.5


def gaussian_velocity(x, t):
  """The velocity from standard normal noise to N(MEAN, DEVIATION**2), in closed form.

  On the line (1 - t) z + t y, the mean of y - z where the point is x.
  """
  variance = (1 - t) ** 2 + t**2 * DEVIATION**2
  return MEAN + (t * DEVIATION**2 - (1 - t)) / variance * (x - t * MEAN)


@functools.cache
def error_of(solver, steps):
  noise = jnp.linspace(-2.0, 2.0, 9)
  found = integrate(gaussian_velocity, noise, steps, solver)
  return float(jnp.abs(found - (MEAN + DEVIATION * noise)).max())


# Midpoint has one order more on this problem than in general.
@pytest.mark.parametrize(
  ('solver', 'order', 'error'),
  [('euler', 1, 0.06), ('heun', 2, 7e-4), ('midpoint', 3, 2e-5)],
)
def test_noise_becomes_the_gaussian_at_the_order_of_the_solver(solver, order, error):
  assert error_of(solver, 25) < error
  ratio = error_of(solver, 10) / error_of(solver, 20)
  assert ratio == pytest.approx(2**order, rel=0.25)


@pytest.mark.parametrize(('solver', 'order'), [('heun', 2), ('midpoint', 2)])
def test_two_evaluations_a_step_are_of_second_order(solver, order):
  def error(steps):
    found = integrate(lambda x, t: (1 + t) * x, jnp.ones(()), steps, solver)
    return abs(float(found) - np.exp(1.5))

  assert error(10) / error(20) == pytest.approx(2**order, rel=0.25)


@pytest.mark.parametrize('solver', EVALUATIONS)
def test_a_straight_line_takes_one_step(solver):
  start, end = jnp.array([0.5, -1.0]), jnp.array([2.0, 3.0])
  found = integrate(lambda x, t: end - start, start, 1, solver)
  chex.assert_trees_all_close(found, end)


class Straight(nn.Module):
  """A velocity that is the class, or -1 for any, whatever the image and the time."""

  @nn.compact
  def __call__(self, images, times, labels=None, train=False):
    del times, train
    scale = self.param('scale', nn.initializers.ones, ())
    value = (
      jnp.zeros(len(images)) if labels is None else jnp.where(labels == 3, -1, labels)
    )
    return scale * jnp.broadcast_to(value[:, None, None, None], images.shape)


def flow_of(classes=3, **settings):
  section = base_config().flow.to_dict() | settings
  return Flow(Straight(), (2, 2, 1), classes, section)


@pytest.mark.parametrize(
  ('guidance', 'expected', 'evaluations'),
  [(0.0, [-1, -1, -1], 40), (1.0, [0, 1, 2], 40), (2.0, [1, 3, 5], 80)],
)
def test_guidance_goes_from_any_class_through_the_class(
  guidance, expected, evaluations
):
  flow = flow_of(guidance=guidance)
  variables = flow.init(jax.random.key(0))
  noise = np.zeros((3, flow.latent), np.float32)
  drawn = flow.draw(variables, noise, jnp.arange(3))
  chex.assert_shape(drawn, (3, 2, 2, 1))
  np.testing.assert_allclose(drawn[:, 0, 0, 0], expected, atol=1e-5)
  assert flow.evaluations == evaluations
  assert flow_of(guidance=guidance, sampler='euler').evaluations == evaluations // 2


def test_without_classes_labels_are_of_no_account():
  flow = flow_of(classes=0)
  noise = np.ones((2, 4), np.float32)
  drawn = flow.draw(flow.init(jax.random.key(0)), noise, jnp.array([5, 7]))
  np.testing.assert_array_equal(drawn, 1)


def test_other_settings_leave_the_rest():
  flow = flow_of().with_settings({'steps': 3})
  assert flow.settings == base_config().flow.to_dict() | {'steps': 3}
  assert flow.with_settings({}) == flow


def test_guidance_needs_classes_and_training_without_them():
  with pytest.raises(UserError, match=r'no classes.*model\.conditional'):
    flow_of(classes=0, guidance=2.0)
  with pytest.raises(UserError, match=r'flow\.label_dropout is above 0'):
    flow_of().with_settings({'guidance': 2.0, 'label_dropout': 0.0})


def test_settings_survive_a_file_and_defaults_hold_for_what_is_missing():
  section = base_config().flow.to_dict() | {'steps': 7, 'sampler': 'euler'}
  assert checked_settings(json.loads(json.dumps(section)), 'file') == section
  assert checked_settings({'guidance': 2}, 'file')['guidance'] == 2.0
  for nothing in (None, [], 'heun'):
    assert checked_settings(nothing, 'file') == base_config().flow.to_dict()


@pytest.mark.parametrize(
  'wrong',
  [
    {'steps': 0},
    {'steps': 10**9},
    {'steps': True},
    {'steps': 2.5},
    {'sampler': 'rk4'},
    {'sampler': ['heun']},
    {'guidance': float('nan')},
    {'guidance': '2'},
    {'label_dropout': 1},
  ],
)
def test_impossible_settings_of_a_file_are_refused(wrong):
  (name,) = wrong
  with pytest.raises(UserError, match=rf'^file: flow\.{name} must be'):
    checked_settings(wrong, 'file')
