"""Runs that share their compiled programs train as runs with programs of their own."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvision
from jaxvision import config as config_lib
from jaxvision import data
from jaxvision.data import resident
from jaxvision.data.info import DatasetInfo
from jaxvision.errors import UserError
from jaxvision.training.compiler import Compiler
from jaxvision.training.mesh import make_mesh, replicated
from jaxvision.training.run import Run
from jaxvision.training.step import resident_steps

pytestmark = pytest.mark.usefixtures('quick_compile')


@pytest.fixture(scope='module')
def digits():
  return data.load('digits', train_fraction=0.9)


def _config(base, **fields):
  config = config_lib.thaw(config_lib.validate(base))
  for path, value in fields.items():
    config_lib.put(config, path.replace('__', '.'), value)
  return config_lib.validate(config)


def _build(config, dataset, compiler=None):
  info = DatasetInfo.of(dataset)
  return Run.build(config, info, mesh=make_mesh(data=1), compiler=compiler)


def _train(config, dataset, compiler, steps=7):
  """Takes steps; returns the state and the metrics."""
  run = _build(config, dataset, compiler)
  state = run.init(dataset.splits['train'])
  trainer = run.trainer(dataset, state)
  metrics, done = trainer.empty_metrics(), 0
  while done < steps:
    state, metrics, _, taken = trainer.run(state, metrics, steps - done)
    done += taken
  return jax.device_get(state), metrics.compute()


def test_runs_that_differ_in_numbers_share_their_programs(digits_config, digits):
  configs = [
    _config(
      digits_config,
      seed=2**40 + seed,
      optimizer__learning_rate=rate,
      model__dropout=dropout,
    )
    for seed, rate, dropout in ((1, 0.05, 0.1), (2, 0.02, 0.4), (3, 0.1, 0.2))
  ]
  compiler = Compiler()
  shared = [_train(config, digits, compiler) for config in configs]
  assert compiler.programs == 2  # init and the step, for all three
  for config, (state, metrics) in zip(configs, shared):
    own_state, own_metrics = _train(config, digits, Compiler())
    chex.assert_trees_all_equal(state, own_state)
    chex.assert_trees_all_equal(metrics, own_metrics)
  kernels = [state.params['head']['kernel'] for state, _ in shared]
  assert (kernels[0] != kernels[1]).any()
  assert (kernels[0] != kernels[2]).any()


def test_sweep_trial_matches_single_run(digits_config, tmp_path):
  # As a sweep trains its trials: in one process, with one compiler.
  compiler = Compiler()
  for seed in (0, 1):
    config = _config(digits_config, seed=seed)
    jaxvision.train(config, tmp_path / f'seed{seed}', quiet=True, compiler=compiler)
    if seed == 0:
      compiled = compiler.programs
  assert compiler.programs == compiled  # the second seed compiled nothing
  single = jaxvision.train(
    _config(digits_config, seed=1), tmp_path / 'single', quiet=True
  )
  trial, alone = (jaxvision.load_run(tmp_path / name) for name in ('seed1', 'single'))
  chex.assert_trees_all_equal(trial.state, alone.state)
  assert single['seconds_compile'] > 0


@pytest.mark.parametrize(
  'fields',
  [
    {'freeze': ('conv1/.*',)},
    {'label_smoothing': 0.1},
    {'batch_size': 32},
    {'model__features': (4, 8)},
  ],
)
def test_runs_that_compute_otherwise_share_no_program(fields, digits_config, digits):
  run = _build(digits_config, digits)
  other = _build(_config(digits_config, **fields), digits)
  assert run.signature != other.signature
  same = _build(_config(digits_config, seed=5, optimizer__learning_rate=0.2), digits)
  assert run.signature == same.signature


def test_numbers_are_no_part_of_a_checkpoint(digits_config, digits):
  run = _build(digits_config, digits)
  state = run.init()
  tree = run.checkpoint_tree()
  assert not {'hparams', 'order_seed'} & tree['state'].keys()
  assert state.hparams['optimizer.learning_rate'] == np.float32(
    digits_config.optimizer.learning_rate
  )
  assert state.order_seed.tolist() == [digits_config.seed, 0]


def _uneven(sizes=(40, 4)):
  labels = np.repeat([0, 1], sizes).astype(np.int32)
  images = np.random.default_rng(0).integers(0, 256, (len(labels), 8, 8, 1), np.uint8)
  return data.from_arrays(
    train=(images, labels), test=(images, labels), class_names=('many', 'few')
  )


def test_balanced_batches_hold_every_class_equally_often(digits_config):
  config = _config(digits_config, data__balanced=True, batch_size=16)
  dataset = _uneven()
  run = _build(config, dataset)

  def count(state, batch, key):
    del key
    counts = state.ema['counts'] + jnp.bincount(batch['label'], length=2)
    return state.replace(step=state.step + 1, ema={'counts': counts}), metrics

  state = run.init().replace(ema={'counts': jnp.zeros(2, jnp.int32)})
  metrics = run.task.metrics.empty()
  split = resident.put(dataset.splits['train'], replicated(run.mesh), 2)
  one, scan = resident_steps(run, count, steps=9)
  state, *_ = jax.jit(one)(state, metrics, split)
  state, *_ = jax.jit(scan)(state, metrics, split)
  assert state.ema['counts'].tolist() == [80, 80]


def test_balanced_needs_images_of_every_class(digits_config):
  config = _config(digits_config, data__balanced=True)
  dataset = _uneven((8, 8))
  info = DatasetInfo.of(dataset)
  with pytest.raises(UserError, match='class "few" of arrays has no training images'):
    Run.build(config, dataclasses.replace(info, class_counts=(16, 0)))
  with pytest.raises(UserError, match='the labels of arrays are no classes'):
    Run.build(config, dataclasses.replace(info, label_kind='multilabel'))


@pytest.mark.parametrize(
  ('fields', 'words'),
  [
    ({'model__hidden': 65_536}, ['model.name digits_cnn', 'GiB of memory']),
    ({'batch_size': 1024}, ['batch of 1,024 images', 'batch_size']),
  ],
)
def test_what_fits_no_memory_is_told_before_compiling(
  fields, words, digits_config, digits, monkeypatch
):
  config = _config(digits_config, parallel__data=1)
  info = DatasetInfo.of(digits)
  monkeypatch.setattr('jaxvision.training.runtime.memory_bytes', lambda: 2**17)
  if 'model__hidden' not in fields:  # the state fits, and a batch does not
    monkeypatch.setattr('jaxvision.training.run._check_state_memory', lambda run: None)
  else:
    Run.build(_config(config, model__features=(1, 1), model__hidden=1), info)
  with pytest.raises(UserError) as error:
    Run.build(_config(config, **fields), info)
  for word in words:
    assert word in str(error.value)
