"""Images that are resized in the step, and sizes that grow over the run."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvision
from jaxvision import config as config_lib
from jaxvision.data.info import DatasetInfo
from jaxvision.errors import UserError
from jaxvision.training.mesh import make_mesh
from jaxvision.training.run import Run

INFO = DatasetInfo(
  name='test',
  class_names=tuple('abc'),
  image_shape=(16, 16, 3),
  mean=(0.4, 0.5, 0.6),
  std=(0.3, 0.2, 0.1),
  examples={'train': 64, 'test': 16},
)


def task_of(*overrides):
  config = config_lib.override(
    config_lib.base_config(),
    ['batch_size=4', 'steps=8', 'model.name=resnet20', *overrides],
  )
  return Run.build(config, INFO, mesh=make_mesh(data=1)).task


def batch_of():
  rng = np.random.default_rng(0)
  return {
    'image': jnp.asarray(rng.integers(0, 256, (4, 16, 16, 3), np.uint8)),
    'label': jnp.asarray([0, 1, 2, 0], jnp.int32),
    'mask': jnp.ones(4, bool),
  }


def test_the_model_sees_the_size_that_the_config_says(monkeypatch):
  task = task_of('resize.size=24')
  assert task.input_shape == (24, 24, 3)
  seen = []
  original = type(task.model).resizes.__call__

  def record(self, images, train=False):
    seen.append(images.shape)
    return original(self, images, train=train)

  monkeypatch.setattr(type(task.model).resizes, '__call__', record)
  state = jax.eval_shape(task.init, jax.random.key(0))
  jax.eval_shape(task.train_step, state, batch_of(), jax.random.key(1))
  jax.eval_shape(task.eval_step, state, batch_of())
  assert {shape[1:3] for shape in seen} == {(24, 24)}


def test_each_phase_trains_at_its_size(monkeypatch):
  task = task_of('resize.progressive=(8, 12)', 'resize.until=0.5')
  phases = task.phases()
  assert [first for first, _ in phases] == [0, 2, 4]
  seen = []
  original = type(task.model).__call__

  def record(self, images, train=False):
    seen.append(images.shape[1])
    return original(self, images, train=train)

  monkeypatch.setattr(type(task.model), '__call__', record)
  state = jax.eval_shape(task.init, jax.random.key(0))
  del seen[:]
  for _, step in phases:
    jax.eval_shape(step, state, batch_of(), jax.random.key(1))
  assert seen == [8, 12, 16]


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    (['model.name=sim_cnn', 'resize.progressive=(8,)'], 'sim_cnn cannot see images of'),
    (['model.name=vit_tiny', 'model.patch=4', 'resize.progressive=(10,)'], '10x10'),
    (['model.name=vit_tiny', 'model.patch=5', 'resize.size=24'], 'patch'),
    (['resize.progressive=(0,)'], 'whole numbers from 1'),
    (['resize.until=1.0'], 'between 0 and 1'),
    (['resize.interpolation=nearest'], 'one of bilinear, bicubic'),
  ],
)
def test_sizes_that_do_not_fit_are_refused(overrides, message):
  with pytest.raises(UserError, match=message):
    task_of(*overrides)


def test_a_gan_is_not_resized():
  config = config_lib.override(
    config_lib.base_config(),
    ['task=gan', 'model.name=dcgan', 'batch_size=8', 'resize.size=16'],
  )
  with pytest.raises(UserError, match='resize does not hold for task gan'):
    Run.build(config, INFO)


@pytest.mark.slow
@pytest.mark.parametrize('pipeline', ['resident', 'streaming'])
def test_a_run_resumes_in_another_phase_to_the_same_bits(
  digits_config, tmp_path, pipeline, quick_compile
):
  config = config_lib.override(
    digits_config,
    [
      'model.name=conv_mixer_256_8',
      'model.width=8',
      'model.depth=1',
      'model.patch=2',
      'batch_size=16',
      'steps=6',
      'checkpoint.every_steps=2',
      'eval_every_steps=6',
      'log_every_steps=1',
      'resize.size=12',
      'resize.progressive=(6, 8)',
      'resize.until=0.7',
      'augment.crop_padding=1',
      f'data.pipeline={pipeline}',
      'data.workers=0',
      'checkpoint.keep=9',
    ],
  )
  whole = jaxvision.train(config, tmp_path / 'whole', quiet=True)

  class Stop(jaxvision.Callback):
    def on_log(self, step, measures):
      if step == 3:
        raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    jaxvision.train(config, tmp_path / 'parts', quiet=True, callbacks=[Stop()])
  parts = jaxvision.train(config, tmp_path / 'parts', quiet=True)
  for name in ('train_loss', 'test_loss', 'test_accuracy'):
    assert whole[name] == parts[name]
  one, other = (
    jaxvision.load_run(tmp_path / name).state.params for name in ('whole', 'parts')
  )
  chex.assert_trees_all_equal(one, other)
  predictor = jaxvision.load_run(tmp_path / 'whole')
  assert predictor.input_shape == (12, 12, 1)
  assert predictor.grad_cam(np.zeros((2, 8, 8, 1), np.uint8)).shape == (2, 8, 8)
