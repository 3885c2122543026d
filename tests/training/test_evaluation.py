"""Evaluation of a split: every example counts once, whatever the batches."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import data
from jaxvision.data.info import DatasetInfo
from jaxvision.training.evaluation import SplitEvaluator
from jaxvision.training.mesh import make_mesh
from jaxvision.training.run import Run


@pytest.mark.parametrize('devices', [1, 8])
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
