"""Sharpness-aware minimisation: the gradient uphill, and what stays of the first pass."""

from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvision import config as config_lib
from jaxvision.config.hparams import hparams
from jaxvision.data.info import DatasetInfo
from jaxvision.tasks.gradients import ascended
from jaxvision.training import benchmark
from jaxvision.training.mesh import make_mesh
from jaxvision.training.run import Run

pytestmark = pytest.mark.usefixtures('quick_compile')

INFO = DatasetInfo(
  name='test',
  class_names=tuple('abcdefg'),
  image_shape=(8, 8, 1),
  mean=(0.4,),
  std=(0.3,),
  examples={'train': 64, 'test': 16},
)
RHO = 0.3


def task_of(*assignments):
  config = config_lib.override(
    config_lib.base_config(),
    [
      'batch_size=16',
      'steps=8',
      'model.features=(4,4)',
      'model.hidden=8',
      *assignments,
    ],
  )
  return Run.build(config, INFO, mesh=make_mesh(data=1)).task


def batch_of(size=16):
  rng = np.random.default_rng(0)
  return {
    'image': rng.integers(0, 256, (size, 8, 8, 1), np.uint8),
    'label': rng.integers(0, 7, size).astype(np.int32),
  }


def trained(task):
  """Returns the parameters after two steps."""
  state, step = task.init(jax.random.key(0)), jax.jit(task.train_step)
  for number in range(2):
    state, _ = step(state, batch_of(), jax.random.key(number))
  return state.params


def test_parameters_go_up_the_gradient_by_a_length_and_stay_without_one():
  rng = np.random.default_rng(0)
  grads = {'a': jnp.asarray(rng.normal(size=(3, 4))), 'b': jnp.zeros(5)}
  params = jax.tree.map(jnp.ones_like, grads)
  moved = jax.tree.map(jnp.subtract, ascended(params, grads, RHO), params)
  np.testing.assert_allclose(optax.global_norm(moved), RHO, rtol=1e-5)
  along = moved['a'] * optax.global_norm(grads) / RHO
  np.testing.assert_allclose(along, grads['a'], rtol=1e-4)
  assert not moved['b'].any()
  still = ascended(params, jax.tree.map(jnp.zeros_like, grads), RHO)
  chex.assert_trees_all_equal(still, params)


@pytest.mark.long
def test_steps_match_those_of_optax():
  # Both passes must draw the same, and what is frozen stays in both.
  fields = (
    'model.dropout=0.3',
    'augment.crop_padding=2',
    'optimizer.weight_decay=0.01',
    'freeze=("conv1",)',
  )
  task = task_of('optimizer.sam=0.1', *fields)
  ((_, train_step),) = task.phases()
  reference = optax.contrib.sam(
    task.make_optimizer({}),
    optax.chain(optax.contrib.normalize(), optax.sgd(RHO)),
    opaque_mode=True,
  )
  phase = train_step.keywords['phase']
  first = task.init(jax.random.key(0))

  @jax.jit
  def expected_step(params, opt_state, batch_stats, key):
    def grad(params):
      known = first.replace(batch_stats=batch_stats)
      return jax.grad(task.loss, has_aux=True)(params, known, batch_of(), key, phase)

    grads, (batch_stats, metrics) = grad(params)
    updates, opt_state = reference.update(
      grads, opt_state, params, grad_fn=lambda params, _: grad(params)[0]
    )
    return optax.apply_updates(params, updates), opt_state, batch_stats, metrics

  # The number that holds is that in the state.
  numbers = hparams(task_of(f'optimizer.sam={RHO}', *fields).config)
  state, step = first.replace(hparams=numbers), jax.jit(train_step)
  params, opt_state, stats = (
    first.params,
    reference.init(first.params),
    first.batch_stats,
  )
  for number in range(3):
    key = jax.random.key(number)
    params, opt_state, stats, expected = expected_step(params, opt_state, stats, key)
    state, metrics = step(state, batch_of(), key)
    chex.assert_trees_all_close(state.params, params, rtol=1e-4, atol=1e-6)
    # Those of the first pass.
    chex.assert_trees_all_close(state.batch_stats, stats, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(metrics.compute(), expected.compute(), rtol=1e-4)


@pytest.mark.long
def test_gradient_of_the_whole_batch_perturbs_where_it_comes_in_parts():
  # Without batch norm and dropout the parts see what the whole sees.
  fields = (f'optimizer.sam={RHO}', 'model.batch_norm=False', 'model.dropout=0')
  whole, parts = (
    trained(task_of(*fields, f'grad_accumulation={count}')) for count in (1, 4)
  )
  chex.assert_trees_all_close(whole, parts, rtol=1e-3, atol=1e-6)


def test_flops_count_both_passes():
  def flops(*assignments):
    task = task_of(*assignments)
    return benchmark.model_flops(SimpleNamespace(task=task, config=task.config))

  assert flops('optimizer.sam=0.05') == 2 * flops() > 0
