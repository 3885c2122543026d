"""Lookahead, freezing, alternating flips and weights that begin from the data."""

import chex
import jax
import numpy as np
import pytest

from jaxvision import config as config_lib
from jaxvision.data.info import DatasetInfo
from jaxvision.errors import UserError
from jaxvision.training.mesh import make_mesh
from jaxvision.training.run import Run

pytestmark = pytest.mark.usefixtures('quick_compile')

INFO = DatasetInfo(
  name='test',
  class_names=tuple('abcde'),
  image_shape=(8, 8, 1),
  mean=(0.4,),
  std=(0.3,),
  examples={'train': 64, 'test': 16},
)


def batch_of(size=8, epoch=0):
  rng = np.random.default_rng(0)
  return {
    'image': rng.integers(0, 256, (size, 8, 8, 1), np.uint8),
    'label': rng.integers(0, 5, size).astype(np.int32),
    'index': np.arange(size, dtype=np.int32),
    'epoch': np.full(size, epoch, np.int32),
  }


def task_of(*assignments):
  config = config_lib.override(
    config_lib.base_config(),
    ['batch_size=8', 'steps=12', 'model.name=airbench94', 'model.widths=(4,6)']
    + list(assignments),
  )
  return Run.build(config, INFO, mesh=make_mesh(data=1)).task


@pytest.mark.slow
def test_train_step_pulls_lookahead_and_evaluation_uses_it():
  task = task_of('lookahead.every=2', 'lookahead.decay=0.5')
  plain = task_of()
  step, plain_step = jax.jit(task.train_step), jax.jit(plain.train_step)
  state, other = task.init(jax.random.key(0)), plain.init(jax.random.key(0))
  begun = state.ema
  chex.assert_trees_all_equal(begun['params'], state.params)
  state, _ = step(state, batch_of(), jax.random.key(1))
  other, _ = plain_step(other, batch_of(), jax.random.key(1))
  chex.assert_trees_all_equal(state.ema, begun)  # no pull yet
  chex.assert_trees_all_close(state.params, other.params, rtol=1e-6)
  state, _ = step(state, batch_of(), jax.random.key(2))
  other, _ = plain_step(other, batch_of(), jax.random.key(2))
  kept = 0.5 * (2 / 12) ** 3
  new = {'params': other.params, 'batch_stats': other.batch_stats}
  expected = jax.tree.map(lambda s, f: kept * s + (1 - kept) * f, begun, new)
  chex.assert_trees_all_close(state.ema, expected, rtol=1e-5, atol=1e-6)
  chex.assert_trees_all_equal(state.ema['params'], state.params)
  chex.assert_trees_all_equal(state.ema['batch_stats'], state.batch_stats)
  chex.assert_trees_all_equal(state.eval_variables, state.ema)


@pytest.mark.slow
def test_frozen_weights_do_not_change_and_the_others_train_as_without():
  patterns = 'freeze=("whiten/.*", "group1/conv1/kernel")'
  task = task_of(patterns, 'optimizer.weight_decay=0.1')
  state = task.init(jax.random.key(0))
  new, _ = jax.jit(task.train_step)(state, batch_of(), jax.random.key(1))
  chex.assert_trees_all_equal(new.params['whiten'], state.params['whiten'])
  kernel = state.params['group1']['conv1']['kernel']
  chex.assert_trees_all_equal(new.params['group1']['conv1']['kernel'], kernel)
  assert all(leaf.shape != kernel.shape for leaf in jax.tree.leaves(state.opt_state))
  free = task_of('optimizer.weight_decay=0.1')
  moved, _ = jax.jit(free.train_step)(
    free.init(jax.random.key(0)), batch_of(), jax.random.key(1)
  )
  assert (moved.params['group1']['conv1']['kernel'] != kernel).any()
  for name in ('group2', 'head'):
    chex.assert_trees_all_close(
      new.params[name], moved.params[name], rtol=1e-5, atol=1e-6
    )
  with pytest.raises(UserError, match='matches no parameter'):
    task_of('freeze=("nothing",)')


def test_alternating_flips_mirror_every_other_epoch():
  # Without crops, an epoch's images are the other's mirrored: same loss if mirrored.
  task = task_of('augment.flip=True', 'augment.flip_mode=alternating')
  plain = task_of()
  state = task.init(jax.random.key(0))
  step, plain_step = jax.jit(task.train_step), jax.jit(plain.train_step)

  def loss(step, batch):
    return float(step(state, batch, jax.random.key(1))[1].compute()['loss'])

  first, mirrored = batch_of(epoch=0), batch_of(epoch=1)
  mirrored['image'] = mirrored['image'][:, :, ::-1]
  # Two turns are none, whatever an example began with.
  np.testing.assert_allclose(loss(step, first), loss(step, mirrored), rtol=1e-6)
  assert loss(step, batch_of(epoch=0)) != loss(step, batch_of(epoch=1))
  assert loss(plain_step, batch_of(epoch=0)) == loss(plain_step, batch_of(epoch=1))


@pytest.mark.parametrize('lookahead', [0, 5])
def test_init_from_data_sets_the_whitening_kernel_only(lookahead):
  task = task_of(f'lookahead.every={lookahead}')
  assert task.needs_data_to_init
  state = task.init(jax.random.key(0))
  images = batch_of(64)['image']
  new = jax.jit(task.init_from_data)(state, images)
  before, after = state.params['whiten'], new.params['whiten']
  assert (before['kernel'] != after['kernel']).any()
  chex.assert_trees_all_equal(before['bias'], after['bias'])
  chex.assert_trees_all_equal(state.params['head'], new.params['head'])
  chex.assert_trees_all_equal(new.eval_variables['params'], new.params)


def test_models_without_whitening_need_no_data_to_init():
  config = config_lib.base_config()
  config.batch_size = 8
  assert not Run.build(config, INFO, mesh=make_mesh(data=1)).task.needs_data_to_init
