"""Views of an image at test time: the mean over them, in evaluation and prediction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.tasks.tta import mean_logits, views

pytestmark = pytest.mark.usefixtures('quick_compile')


def network(images):
  """Any function of single images that tells their pixels apart."""
  pixels = images.reshape(len(images), -1)
  weights = np.random.default_rng(0).standard_normal((pixels.shape[1], 3))
  return jnp.tanh(pixels @ weights.astype(np.float32))


def images(batch=4):
  rng = np.random.default_rng(1)
  return rng.standard_normal((batch, 5, 6, 2)).astype(np.float32)


def shifted(x, by):
  padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), 'reflect')
  return padded[:, 1 + by : 6 + by, 1 + by : 7 + by]


def mirrored(x):
  return 0.5 * network(x) + 0.5 * network(x[:, :, ::-1])


def test_mean_logits_match_their_definition():
  x = images()
  np.testing.assert_allclose(mean_logits(network, x, 'none'), network(x))
  np.testing.assert_allclose(mean_logits(network, x, 'flip'), mirrored(x), atol=1e-5)
  moved = 0.5 * mirrored(shifted(x, -1)) + 0.5 * mirrored(shifted(x, 1))
  np.testing.assert_allclose(
    mean_logits(network, x, 'flip_shift'), 0.5 * mirrored(x) + 0.5 * moved, atol=1e-5
  )


@pytest.mark.parametrize(('mode', 'count'), [('flip', 2), ('flip_shift', 6)])
def test_views_keep_the_dtype_and_their_weights_sum_to_one(mode, count):
  seen, weights = views(jnp.asarray(images(), jnp.bfloat16), mode)
  assert seen.shape == (4, count, 5, 6, 2)
  assert seen.dtype == jnp.bfloat16
  assert weights.sum() == 1


@pytest.mark.slow
@pytest.mark.parametrize('mode', ['flip', 'flip_shift'])
def test_evaluation_and_prediction_average_over_the_views(
  mode, digits_config, tmp_path
):
  import jaxvision

  digits_config.evaluation.tta = mode
  digits_config.steps = 2
  jaxvision.train(digits_config, tmp_path / 'run', quiet=True)
  run = jaxvision.load_run(tmp_path / 'run')
  plain = jaxvision.load_run(tmp_path / 'run')
  shown = jaxvision.data.load('digits').splits['test'].images[:8]
  got = run.predict(shown).probabilities

  from jaxvision import models
  from jaxvision.data.augment import normalize

  fields = dict(run.config.model)
  model = models.create(fields.pop('name'), 10, run.config.dtype, **fields)
  normal = normalize(shown, run.info.mean, run.info.std)
  seen, weights = views(normal, mode)
  logits = sum(
    w * model.apply(plain.state.eval_variables, seen[:, i], train=False)
    for i, w in enumerate(weights)
  )
  np.testing.assert_allclose(got, jax.nn.softmax(logits), rtol=1e-4, atol=1e-6)
  batch = {'image': shown, 'label': np.zeros(8, np.int32), 'mask': np.ones(8, bool)}
  _, evaluated = run.task.eval_step(run.state, batch)
  np.testing.assert_allclose(evaluated, logits, rtol=1e-4, atol=1e-4)
