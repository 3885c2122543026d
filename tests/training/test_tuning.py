"""Runs that share a program: the same as runs with programs of their own."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxvision.training.build import DataFacts, fresh_state, make_task, make_trainer
from jaxvision.training.slots import Slots, share_programs

from jaxvision import config as config_lib
from jaxvision import data, optim
from jaxvision.optim import OPTIMIZERS
from jaxvision.training import tuning
from jaxvision.training.mesh import make_mesh
from jaxvision.training.step import Compiler


@pytest.fixture(scope='module')
def digits():
  return data.load('digits', train_fraction=0.9)


def _config(base, **fields):
  config = config_lib.validate(base)
  for path, value in fields.items():
    config_lib.put(config, path.replace('__', '.'), value)
  return config_lib.validate(config)


def _batch(dataset, count=32):
  train = dataset.splits['train']
  return {
    'image': jnp.asarray(train.images[:count]),
    'label': jnp.asarray(train.labels[:count], jnp.int32),
  }


def test_numbers_as_arguments_change_nothing(digits_config, digits, quick_compile):
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
  assert set(tuning.numbers(config)) == {
    'optimizer.learning_rate',
    'optimizer.momentum',
    'optimizer.weight_decay',
    'label_smoothing',
    'ema_decay',
    'grad_clip',
    'model.dropout',
  }
  facts = DataFacts.of(digits)
  task, _ = make_task(config, facts)
  state, key, batch = task.init(jax.random.key(0)), jax.random.key(1), _batch(digits)
  plain, _ = jax.jit(task.train_step)(state, batch, key)
  shared = jax.jit(tuning.tuned_task(config, facts).train_step)
  given = tuning.tune(config, state)
  tuned, _ = shared(given, batch, key)
  chex.assert_trees_all_close(plain.params, tuned.state.params, atol=1e-6)
  chex.assert_trees_all_close(plain.ema, tuned.state.ema, atol=1e-6)
  # Each of them counts; momentum from the second step on.
  second, _ = shared(tuned, batch, key)
  for path, value in given.numbers.items():
    numbers = {**given.numbers, path: value / 2}
    other, _ = shared(tuned.replace(numbers=numbers), batch, key)
    moved = jax.tree.map(
      lambda a, b: float(jnp.abs(a - b).max()), other.state, second.state
    )
    assert max(jax.tree.leaves((moved.params, moved.ema))) > 1e-7, path


@pytest.mark.parametrize('name', sorted(OPTIMIZERS))
def test_every_optimiser_takes_its_numbers_as_arguments(name, digits_config):
  config = _config(digits_config, optimizer__name=name, optimizer__momentum=0.8)
  params = {'kernel': jnp.linspace(-1, 1, 12).reshape(3, 4), 'bias': jnp.ones(4)}
  grads = jax.tree.map(lambda leaf: jnp.cos(3 * leaf), params)

  def step(rate, decay, momentum):
    changed = config_lib.validate(config)
    config_lib.put(changed, 'optimizer.weight_decay', decay)
    config_lib.put(changed, 'optimizer.momentum', momentum)
    rule = optim.make_optimizer(
      changed.optimizer, optim.make_schedule(config.schedule, rate, 9, 3)
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
def test_every_schedule_takes_its_peak_as_an_argument(name, digits_config):
  schedule = _config(digits_config, schedule__name=name).schedule

  def rates(peak):
    rate = optim.make_schedule(schedule, peak, 20, 5)
    return jnp.stack([jnp.asarray(rate(step), jnp.float32) for step in range(21)])

  chex.assert_trees_all_close(rates(0.3), jax.jit(rates)(0.3), rtol=1e-6, atol=1e-9)
  assert float(rates(0.3).max()) == pytest.approx(0.3)


def test_a_number_that_switches_off_stays_a_constant(digits_config):
  on = _config(digits_config, label_smoothing=0.1)
  off = _config(digits_config, label_smoothing=0.0)
  assert 'label_smoothing' in tuning.numbers(on)
  assert 'label_smoothing' not in tuning.numbers(off)
  assert tuning.signature(on) != tuning.signature(off)
  other = _config(on, label_smoothing=0.2, seed=3)
  assert tuning.signature(on) == tuning.signature(other)


@pytest.fixture(scope='module')
def mesh():
  return make_mesh(data=1)


def _alone(config, dataset, mesh, steps):
  """Trains as the train command does; returns the state and accuracy by the log."""
  facts = DataFacts.of(dataset)
  task, plan = make_task(config, facts)
  compiler = Compiler()
  state = fresh_state(task, mesh, config.seed, dataset.splits['train'], compiler)
  trainer = make_trainer(config, plan, task, mesh, dataset, state, None, compiler)
  metrics, done = trainer.empty_metrics(), 0
  while done < steps:
    state, metrics, _, taken = trainer.run(state, metrics, steps - done)
    done += taken
  return state, metrics.compute()


@pytest.mark.parametrize('count', [1, 3])
def test_slots_train_what_single_runs_train(
  count, digits_config, digits, mesh, quick_compile
):
  configs = [
    _config(
      digits_config,
      seed=2**40 + seed,
      optimizer__learning_rate=rate,
      model__dropout=drop,
    )
    for seed, rate, drop in ((1, 0.05, 0.1), (2, 0.02, 0.4), (3, 0.1, 0.2))
  ][:count]
  facts = DataFacts.of(digits)
  task, plan = make_task(configs[0], facts)
  assert share_programs(configs[0], task, digits)
  slots = Slots(configs[0], facts, plan, digits, mesh, count, Compiler())
  for slot, config in enumerate(configs):
    slots.put(slot, config, slots.fresh(config))
  taken, finite = slots.advance(7, lambda: False)
  assert taken == 7
  assert finite.all()
  measured = slots.evaluate('test')
  for slot, config in enumerate(configs):
    state, metrics = _alone(config, digits, mesh, 7)
    found, _ = slots.read(slot)
    chex.assert_trees_all_close(jax.device_get(state), found, atol=2e-5)
    logged = slots.take_metrics(slot)
    assert logged['loss'] == pytest.approx(float(metrics['loss']), abs=1e-4)
    assert slots.take_metrics(slot)['loss'] != logged['loss']  # begun anew: NaN or 0
    assert 0 <= measured[slot]['accuracy'] <= 1


def test_slots_evaluate_every_example(digits_config, digits, mesh):
  config = _config(digits_config, eval_batch_size=100)
  facts = DataFacts.of(digits)
  task, plan = make_task(config, facts)
  slots = Slots(config, facts, plan, digits, mesh, 1, Compiler())
  state = slots.fresh(config)
  slots.put(0, config, state)
  test = digits.splits['test']
  batch = {
    'image': jnp.asarray(test.images),
    'label': jnp.asarray(test.labels, jnp.int32),
    'mask': jnp.ones(len(test), bool),
  }
  expected, _ = task.eval_step(state, batch)
  (found,) = slots.evaluate('test')
  assert found['accuracy'] == pytest.approx(float(expected.compute()['accuracy']))
  assert found['loss'] == pytest.approx(float(expected.compute()['loss']), rel=1e-5)


def test_a_slot_whose_loss_is_not_finite_is_told_from_its_neighbours(
  digits_config, digits, mesh, quick_compile
):
  configs = [_config(digits_config, optimizer__learning_rate=r) for r in (0.05, 1e30)]
  facts = DataFacts.of(digits)
  _, plan = make_task(configs[0], facts)
  slots = Slots(configs[0], facts, plan, digits, mesh, 2, Compiler())
  for slot, config in enumerate(configs):
    slots.put(slot, config, slots.fresh(config))
  _, finite = slots.advance(6, lambda: False)
  assert finite.tolist() == [True, False]
  found, _ = slots.read(0)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found.params))


@pytest.mark.parametrize(
  'fields', [{'freeze': ('conv1/.*',)}, {'parallel__fsdp': 2, 'parallel__data': 1}]
)
def test_runs_that_cannot_share_are_known(fields, digits_config, digits):
  config = _config(digits_config, **fields)
  task, _ = make_task(config, DataFacts.of(digits))
  assert not share_programs(config, task, digits)
