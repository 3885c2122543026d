"""Numbers of the config that are arguments of the compiled step."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import config as config_lib
from jaxvision import data, optim
from jaxvision.config.hparams import hparams, program_signature
from jaxvision.data.info import DatasetInfo
from jaxvision.optim import OPTIMIZERS
from jaxvision.tasks.base import with_numbers
from jaxvision.training.mesh import make_mesh
from jaxvision.training.run import Run

# It compiles much: not in `make test-fast`.
pytestmark = pytest.mark.long


@pytest.fixture(scope='module')
def digits():
  return data.load('digits')


def _config(base, **fields):
  config = config_lib.thaw(config_lib.validate(base))
  for path, value in fields.items():
    config_lib.put(config, path.replace('__', '.'), value)
  return config_lib.validate(config)


def _task(config, dataset):
  return Run.build(config, DatasetInfo.of(dataset), mesh=make_mesh(data=1)).task


def test_train_step_on_traced_hparams_matches_constants(
  digits_config, digits, quick_compile
):
  config = _config(
    digits_config,
    optimizer__learning_rate=0.01,
    optimizer__momentum=0.8,
    optimizer__weight_decay=0.02,
    label_smoothing=0.1,
    ema_decay=0.05,  # at most a few tenths count in the first steps
    grad_clip=1.0,
    model__dropout=0.3,
  )
  assert set(hparams(config)) == {
    'optimizer.learning_rate',
    'optimizer.momentum',
    'optimizer.weight_decay',
    'label_smoothing',
    'ema_decay',
    'grad_clip',
    'model.dropout',
  }
  task = _task(config, digits)
  train = digits.splits['train']
  batch = {
    'image': jnp.asarray(train.images[:32]),
    'label': jnp.asarray(train.labels[:32], jnp.int32),
  }
  state, key = task.init(jax.random.key(0)), jax.random.key(1)
  assert state.hparams == {}  # the step takes the numbers of the config as constants
  step = jax.jit(task.train_step)
  constant, _ = step(state, batch, key)
  given = with_numbers(state, config)
  traced, _ = step(given, batch, key)
  chex.assert_trees_all_close(constant.params, traced.params, atol=1e-6)
  chex.assert_trees_all_close(constant.ema, traced.ema, atol=1e-6)
  # Each of them counts; momentum from the second step on.
  second, _ = step(traced, batch, key)
  for path, value in given.hparams.items():
    changed = traced.replace(hparams={**given.hparams, path: value / 2})
    other, _ = step(changed, batch, key)
    moved = jax.tree.map(
      lambda a, b: float(jnp.abs(a - b).max()),
      (other.params, other.ema),
      (second.params, second.ema),
    )
    assert max(jax.tree.leaves(moved)) > 1e-7, path


@pytest.mark.long
def test_every_rate_of_a_model_may_be_traced(digits_config, digits, quick_compile):
  digits_config.model = {'name': 'cct_2_3x2', 'width': 8, 'convs': 1}
  rates = {'dropout': 0.2, 'attention_dropout': 0.3, 'drop_path': 0.4}
  config = _config(digits_config, **{f'model__{r}': v for r, v in rates.items()})
  assert {f'model.{rate}' for rate in rates} < set(hparams(config))
  task = _task(config, digits)
  train = digits.splits['train']
  batch = {
    'image': jnp.asarray(train.images[:32]),
    'label': jnp.asarray(train.labels[:32], jnp.int32),
  }
  state, key = jax.jit(task.init)(jax.random.key(0)), jax.random.key(1)
  # Weights of which each rate leaves something to be seen in the loss.
  state = state.replace(params=jax.tree.map(lambda leaf: 10 * leaf, state.params))
  loss = jax.jit(lambda state: task.loss(state.params, state, batch, key)[0])
  given = with_numbers(state, config)
  expected = float(loss(given))
  for rate in rates:
    path = f'model.{rate}'
    changed = given.replace(hparams={**given.hparams, path: given.hparams[path] / 2})
    assert float(loss(changed)) != pytest.approx(expected, rel=1e-4), rate


@pytest.mark.parametrize('name', sorted(OPTIMIZERS))
def test_every_optimizer_takes_its_numbers_as_traced_arguments(
  name, digits_config, digits
):
  config = _config(
    digits_config,
    optimizer__name=name,
    optimizer__momentum=0.8,
    optimizer__weight_decay=0.01,
  )
  task = _task(config, digits)
  params = {'kernel': jnp.linspace(-1, 1, 12).reshape(3, 4), 'bias': jnp.ones(4)}
  grads = jax.tree.map(lambda leaf: jnp.cos(3 * leaf), params)

  def step(rate, decay, momentum):
    rule = task.make_optimizer(
      {
        'optimizer.learning_rate': rate,
        'optimizer.weight_decay': decay,
        'optimizer.momentum': momentum,
      }
    )
    state = rule.init(params)
    for _ in range(2):
      updates, state = rule.update(grads, state, params)
    return updates

  constant = step(0.01, 0.02, 0.8)
  traced = jax.jit(step)(0.01, 0.02, 0.8)
  chex.assert_trees_all_close(constant, traced, rtol=1e-5, atol=1e-8)
  assert any(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(traced))


@pytest.mark.parametrize('name', ['constant', 'cosine', 'linear', 'step', 'one_cycle'])
def test_every_schedule_takes_its_peak_as_a_traced_argument(name, digits_config):
  schedule = _config(digits_config, schedule__name=name).schedule

  def rates(peak):
    rate = optim.make_schedule(schedule, peak, 20, 5)
    return jnp.stack([jnp.asarray(rate(step), jnp.float32) for step in range(21)])

  chex.assert_trees_all_close(rates(0.3), jax.jit(rates)(0.3), rtol=1e-6, atol=1e-9)
  assert float(rates(0.3).max()) == pytest.approx(0.3)


def test_rates_of_groups_are_traced_arguments_too(digits_config, digits):
  groups = {
    'biases': {'match': '.*/bias', 'weight_decay': 0.1},  # at the run's rate
    'head': {'match': 'head/kernel', 'learning_rate': 0.02},
  }
  one = _config(digits_config, optimizer__learning_rate=0.1)
  one.optimizer.groups = groups
  two = _config(one, optimizer__learning_rate=0.3)
  two.optimizer.groups.head.learning_rate = 0.5
  assert program_signature(one) == program_signature(two)
  assert hparams(two)['optimizer.groups.head.learning_rate'] == np.float32(0.5)
  task, other = (_task(config, digits) for config in (one, two))
  params = {
    layer: {'kernel': jnp.ones((2, 3)), 'bias': jnp.ones(3)} for layer in ('a', 'head')
  }
  grads = jax.tree.map(jnp.ones_like, params)

  def updates(task, numbers):
    rule = task.make_optimizer(numbers)
    return rule.update(grads, rule.init(params), params)[0]

  expected = updates(other, {})
  found = jax.jit(lambda numbers: updates(task, numbers))(hparams(two))
  chex.assert_trees_all_close(found, expected, rtol=1e-5)


def test_hparam_of_zero_is_structural(digits_config):
  on = _config(digits_config, label_smoothing=0.1)
  off = _config(digits_config, label_smoothing=0.0)
  assert 'label_smoothing' in hparams(on)
  assert 'label_smoothing' not in hparams(off)
  assert program_signature(on) != program_signature(off)
  other = _config(on, label_smoothing=0.2, seed=3)
  assert program_signature(on) == program_signature(other)
