"""Rounding in training is the rounding of int8 files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvision
from jaxvision import models
from jaxvision.models.fake_quantization import (
  fake_quantize_activations,
  fake_quantize_kernel,
  fake_quantize_params,
  fake_quantized_inputs,
)


def test_kernels_have_255_levels_of_each_channel():
  kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 8)).astype(np.float32)
  rounded = np.asarray(fake_quantize_kernel(kernel))
  scale = np.abs(kernel).max((0, 1, 2)) / 127
  levels = rounded / scale
  np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)
  assert np.abs(levels).max() == pytest.approx(127, abs=1e-3)
  assert (np.abs(rounded - kernel) <= scale * 0.5001).all()
  assert not fake_quantize_kernel(jnp.zeros((2, 3))).any()


def test_gradients_pass():
  x = jnp.linspace(-1.0, 2.0, 7)
  for function in (fake_quantize_activations, fake_quantize_kernel):
    gradient = jax.grad(lambda x, f=function: jnp.sum(f(x[:, None]) ** 2))(x)
    np.testing.assert_allclose(gradient, 2 * function(x[:, None])[:, 0], rtol=1e-6)


def test_zero_stays_zero_and_levels_are_256():
  x = jax.random.normal(jax.random.key(0), (1000,)) + 0.3
  rounded = fake_quantize_activations(x)
  assert len(np.unique(np.asarray(rounded))) <= 256
  assert fake_quantize_activations(jnp.array([0.0, 5.0, -1.0]))[0] == 0
  assert float(jnp.abs(rounded - x).max()) <= float(x.max() - x.min()) / 255 * 1.01
  np.testing.assert_array_equal(fake_quantize_activations(jnp.zeros(3)), jnp.zeros(3))


def test_every_layer_is_rounded_as_in_the_file():
  model = models.create('digits_cnn', 10)
  images = jax.random.normal(jax.random.key(1), (4, 8, 8, 1))
  variables = model.init(jax.random.key(0), images)
  plain = model.apply(variables, images)
  rounded = {**variables, 'params': fake_quantize_params(variables['params'])}
  with fake_quantized_inputs():
    found = model.apply(rounded, images)
  change = float(jnp.abs(found - plain).max() / jnp.abs(plain).max())
  assert 1e-4 < change < 0.1
  same = model.apply(variables, images)
  np.testing.assert_array_equal(same, plain)
  np.testing.assert_array_equal(
    rounded['params']['head']['bias'], variables['params']['head']['bias']
  )


@pytest.mark.long
def test_a_run_is_fine_tuned(digits_config, short_run, tmp_path):
  jaxvision.train(digits_config, tmp_path / 'float', quiet=True)
  config = short_run()
  config.quantization_aware = True
  config.init.pretrained = str(tmp_path / 'float')
  summary = jaxvision.train(config, tmp_path / 'aware', quiet=True)
  before, after = (
    jaxvision.load_run(tmp_path / name).state.params for name in ('float', 'aware')
  )
  changed = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), before, after)
  assert min(jax.tree.leaves(changed)) > 0
  assert summary['test_accuracy'] > 0.5
