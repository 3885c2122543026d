"""Frozen layers: what stays, what is not computed, what starts late, cached features."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxvision import config as config_lib
from jaxvision.data.info import DatasetInfo
from jaxvision.errors import UserError
from jaxvision.tasks import freezing
from jaxvision.training.run import Run

INFO = DatasetInfo(
  name='test',
  class_names=tuple('abcdefg'),
  image_shape=(8, 8, 1),
  mean=(0.4,),
  std=(0.3,),
  examples={'train': 64, 'test': 16},
)
BODY = '(?!head/).*'


def make(*overrides):
  config = config_lib.override(
    config_lib.base_config(),
    ['batch_size=16', 'steps=8', 'optimizer.weight_decay=0.01', *overrides],
  )
  return Run.build(config, INFO).task


def batch_of(size=16, seed=0):
  rng = np.random.default_rng(seed)
  return {
    'image': jnp.asarray(rng.integers(0, 256, (size, 8, 8, 1), np.uint8)),
    'label': jnp.asarray(rng.integers(0, 7, size), jnp.int32),
    'mask': jnp.ones(size, bool),
  }


def train(task, state, steps, batch=None):
  """Takes steps as a trainer does: each by the phase that it belongs to."""
  batch = batch_of() if batch is None else batch
  programs = [(first, jax.jit(step)) for first, step in task.phases()]
  for number in range(steps):
    step = max((p for p in programs if p[0] <= int(state.step)), key=lambda p: p[0])[1]
    state, _ = step(state, batch, jax.random.key(number))
  return state


def changed(before, after, part):
  """Returns the layers of which anything differs, and of which everything does."""
  names = set(getattr(before, part))
  differs = {
    name: [
      bool((np.asarray(a) != np.asarray(b)).any())
      for a, b in zip(
        jax.tree.leaves(getattr(before, part)[name]),
        jax.tree.leaves(getattr(after, part)[name]),
      )
    ]
    for name in names
  }
  assert all(all(d) or not any(d) for d in differs.values())
  return {name for name, d in differs.items() if any(d)}


@pytest.mark.usefixtures('quick_compile')
def test_frozen_layers_keep_parameters_and_running_statistics():
  task = make('freeze=("conv1","hidden")')
  before = task.init(jax.random.key(0))
  after = train(task, before, 2)
  assert changed(before, after, 'params') == {'conv2', 'head'}
  with_norm = set(before.batch_stats)
  assert 'conv1' in with_norm
  assert changed(before, after, 'batch_stats') == with_norm - {'conv1', 'hidden'}


@pytest.mark.usefixtures('quick_compile')
def test_norm_with_only_its_scale_frozen_keeps_training():
  task = make('freeze=("conv1/.*/scale",)')
  before = task.init(jax.random.key(0))
  after = train(task, before, 1)
  assert 'conv1' in changed(before, after, 'batch_stats')
  before, after = before.params['conv1']['bn'], after.params['conv1']['bn']
  chex.assert_trees_all_equal(before['scale'], after['scale'])
  assert (before['bias'] != after['bias']).any()


def test_frozen_norms_normalise_by_their_running_statistics():
  norm = nn.BatchNorm(name=None)
  images = 3 + 2 * jax.random.normal(jax.random.key(0), (16, 4))
  variables = norm.init(jax.random.key(0), images, use_running_average=True)
  with freezing.frozen_norms({'scale': True, 'bias': True}):
    frozen, _ = norm.apply(
      variables, images, use_running_average=False, mutable=['batch_stats']
    )
  chex.assert_trees_all_close(frozen, images, rtol=1e-4)
  trained, _ = norm.apply(
    variables, images, use_running_average=False, mutable=['batch_stats']
  )
  assert abs(trained.mean()) < 1e-5


def test_frozen_layers_need_no_backward_pass_and_no_optimizer_state():
  def flops(task):
    state = jax.eval_shape(task.init, jax.random.key(0))
    lowered = jax.jit(task.train_step).lower(state, batch_of(), jax.random.key(0))
    return lowered.compile().cost_analysis()['flops']

  def memory(task):
    state = jax.eval_shape(task.init, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(state.opt_state))

  whole, linear = make(), make(f'freeze=("{BODY}",)')
  # Forward alone instead of forward and twice as much backward.
  assert flops(linear) < 0.45 * flops(whole)
  head = jax.eval_shape(whole.init, jax.random.key(0)).params['head']
  size = sum(leaf.size for leaf in jax.tree.leaves(head))
  assert size <= memory(linear) <= size + 2  # the optimiser's counters
  assert memory(whole) > 10 * memory(linear)


@pytest.mark.usefixtures('quick_compile')
def test_group_is_frozen_until_its_start():
  task = make(
    'optimizer.groups.body.match=(conv|hidden).*',
    'optimizer.groups.body.start=0.5',
  )
  assert [first for first, _ in task.phases()] == [0, 4]
  start = task.init(jax.random.key(0))
  head_only = train(task, start, 4)
  assert changed(start, head_only, 'params') == {'head'}
  assert changed(start, head_only, 'batch_stats') == set()
  everything = train(task, head_only, 1)
  assert changed(head_only, everything, 'params') == set(start.params)
  assert changed(head_only, everything, 'batch_stats') == set(start.batch_stats)
  frozen = make(f'freeze=("{BODY}",)')
  chex.assert_trees_all_close(
    head_only.params, train(frozen, frozen.init(jax.random.key(0)), 4).params, rtol=1e-6
  )


@pytest.mark.usefixtures('quick_compile')
def test_training_the_head_on_features_matches_training_on_images():
  arguments = ('model.name=resnet20', 'model.width=2', f'freeze=("{BODY}",)')
  task = make(*arguments)
  state = task.init(jax.random.key(0))
  features = jax.jit(task.features)(state, batch_of()['image'])
  chex.assert_shape(features, (16, 8))
  chex.assert_type(features, jnp.float32)
  cached = {**batch_of(), 'image': features}
  by_images, by_features = train(task, state, 3), train(task, state, 3, cached)
  chex.assert_trees_all_close(
    by_images.params, by_features.params, rtol=1e-4, atol=1e-6
  )
  measured, logits = task.eval_step(by_images, batch_of())
  again, same = task.eval_step(by_images, cached)
  chex.assert_trees_all_close(logits, same, rtol=1e-4, atol=1e-5)
  assert measured.compute()['accuracy'] == again.compute()['accuracy']


@pytest.mark.parametrize(
  'more',
  [
    ['augment.flip=True'],
    ['evaluation.tta=flip'],
    ['freeze=("stem_.*",)'],
    ['optimizer.groups.body.match=stage3.*', 'optimizer.groups.body.start=0.5']
    + ['freeze=("(stem|stage[12]).*",)'],
  ],
)
def test_no_features_where_augmentation_tta_or_training_changes_them(more):
  base = ['model.name=resnet20', 'model.width=2', f'freeze=("{BODY}",)']
  assert make(*base).features is not None
  assert make(*base, *more).features is None


@pytest.mark.parametrize('rate', ['dropout', 'attention_dropout', 'drop_path'])
def test_no_features_where_training_drops_some(rate):
  base = ['model.name=cct_2_3x2', 'model.width=8', f'freeze=("{BODY}",)']
  base += ['model.attention_dropout=0', 'model.drop_path=0']
  assert make(*base).features is not None
  assert make(*base, f'model.{rate}=0.1').features is None


def test_freezing_every_parameter_is_refused():
  with pytest.raises(UserError, match='every parameter'):
    make('freeze=(".*",)')
