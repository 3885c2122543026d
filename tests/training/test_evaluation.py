"""Evaluation of a split: every example counts once, whatever the batches."""

import gc
import multiprocessing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import data
from jaxvision.data import streaming
from jaxvision.data.info import DatasetInfo
from jaxvision.training import evaluation
from jaxvision.training.evaluation import SplitEvaluator, images_per_batch
from jaxvision.training.mesh import make_mesh
from jaxvision.training.run import Run


@pytest.mark.parametrize('devices', [pytest.param(1, marks=pytest.mark.slow), 8])
@pytest.mark.parametrize('pipeline', ['resident', 'streaming'])
def test_split_evaluator_evaluates_every_example_once(
  digits_config, devices, pipeline, quick_compile
):
  # 359 images in batches of 100 or 104: the last batch is padded.
  digits_config.eval_batch_size = 100
  digits_config.data.workers = 0
  dataset = data.load(digits_config.data)
  info = DatasetInfo.of(dataset)
  run = Run.build(digits_config, info, mesh=make_mesh(data=devices))
  state = run.init()
  test = dataset.splits['test']
  batch = {
    'image': jnp.asarray(test.images),
    'label': jnp.asarray(test.labels, jnp.int32),
    'mask': jnp.ones(len(test), bool),
  }
  expected, logits = run.task.eval_step(state, batch)
  evaluator = SplitEvaluator(run, test, pipeline, state)
  places = [0, 7, 103, 104, 358]
  found, outputs = evaluator.measure(state, places)
  assert found['accuracy'] == pytest.approx(float(expected.compute()['accuracy']))
  assert found['loss'] == pytest.approx(float(expected.compute()['loss']), rel=1e-5)
  np.testing.assert_allclose(outputs, logits[jnp.array(places)], rtol=1e-4, atol=1e-5)
  again, outputs, labels = evaluator.outputs(state)
  assert again == found
  np.testing.assert_allclose(outputs, logits, rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(labels, test.labels)


def _streaming_evaluator(config, workers):
  config.eval_batch_size = 100
  config.data.workers = workers
  dataset = data.load(config.data)
  run = Run.build(config, DatasetInfo.of(dataset), mesh=make_mesh(data=1))
  state = run.init()
  return SplitEvaluator(run, dataset.splits['test'], 'streaming', state), state


@pytest.mark.long
def test_evaluation_keeps_its_worker_processes(
  digits_config, monkeypatch, quick_compile
):
  started = []
  start = multiprocessing.process.BaseProcess.start

  def counted(process):
    started.append(process)
    start(process)

  monkeypatch.setattr(multiprocessing.process.BaseProcess, 'start', counted)
  monkeypatch.setattr(streaming, '_SMALL_SPLIT', 0)
  evaluator, state = _streaming_evaluator(digits_config, workers=1)
  found = [evaluator.measure(state)[0] for _ in range(3)]
  assert found[0] == found[1] == found[2]
  assert len(started) == 1
  assert started[0].is_alive()
  del evaluator
  gc.collect()
  assert not started[0].is_alive()


def test_an_evaluation_that_is_broken_off_leaves_the_next_one_whole(
  digits_config, quick_compile
):
  evaluator, state = _streaming_evaluator(digits_config, workers=0)
  expected = evaluator.measure(state)[0]
  batches = evaluator._batches()
  next(batches)
  batches.close()
  assert evaluator.measure(state)[0] == expected


def _convolved(images):
  small = images[:, ::2, ::2, :1].astype(jnp.float32)
  return jax.nn.relu(small * jnp.ones(64)).mean((1, 2))  # 64 channels: 16 times RGB


def test_large_images_are_evaluated_in_smaller_batches(monkeypatch):
  def most(side, function=_convolved):
    arguments = lambda n: (jax.ShapeDtypeStruct((n, side, side, 3), jnp.uint8),)  # noqa: E731
    return images_per_batch(function, arguments, (side, side, 3), 500)

  each = 112 * 112 * 64 * 4  # bytes of the largest array for one image
  assert most(224) == 2**30 // (6 * each)
  assert most(224, jax.jit(_convolved)) == most(224)
  # Weights, however large, are no part of it.
  assert most(224, lambda x: _convolved(x) * jnp.ones((10**7, 64)).mean(0)) == most(224)
  assert most(20_000) == 1
  assert most(64) == most(8) == 500
  monkeypatch.setattr(evaluation.jax, 'default_backend', lambda: 'gpu')
  assert most(224) == 500


@pytest.mark.parametrize('wish', [500, 400])
def test_a_wish_for_a_batch_size_is_kept(digits_config, wish, monkeypatch):
  monkeypatch.setattr(evaluation, '_SMALL', 1)
  monkeypatch.setattr(evaluation, '_HELD_BYTES', 2**20)
  digits_config.eval_batch_size = wish  # 500 is the default
  dataset = data.load(digits_config.data)
  run = Run.build(digits_config, DatasetInfo.of(dataset), mesh=make_mesh(data=1))
  size = evaluation._batch_size(
    run, dataset.splits['test'], run.task.eval_step, run.abstract_state()
  )
  assert size == 400 if wish == 400 else 1 <= size < 100
