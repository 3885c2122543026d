"""oneDNN's operators have the numbers and the gradients of XLA's; what is said without them."""

import contextlib
import functools
import os
import re
import stat
import subprocess
import sys

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.models.biases import spread
from jaxvision.models.cpu import (
  conv_general_dilated,
  conv_transpose,
  native,
  plain_convolutions,
  portable_operators,
)
from jaxvision.models.cpu.native import build
from jaxvision.models.layers import max_pool_2x2
from jaxvision.models.norms import training_norms
from jaxvision.training.mesh import make_mesh, over_batch

pytestmark = pytest.mark.long

NHWC = ('NHWC', 'HWIO', 'NHWC')
BFLOAT16 = pytest.param(jnp.bfloat16, id='bfloat16')
TYPES = [pytest.param(jnp.float32, id='float32'), BFLOAT16]
# Of the largest value: the rounding of one result, and of sums of some hundred.
TOLERANCES = {jnp.float32: 1e-5, jnp.bfloat16: 2e-2}


@pytest.fixture(autouse=True)
def at_hand(request):
  if 'without' not in request.node.name and not native.library():
    pytest.skip('the extra onednn is not installed, or there is no compiler')


def needs(dtype):
  if dtype == jnp.bfloat16 and not native.has_bfloat16():
    pytest.skip('this processor does not multiply bfloat16')


def draw(*shapes, dtype=jnp.float32):
  keys = jax.random.split(jax.random.key(0), len(shapes))
  return [jax.random.normal(key, shape, dtype) for key, shape in zip(keys, shapes)]


def check_close(ours, plain, tolerance):
  for mine, theirs in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
    chex.assert_equal_shape([mine, theirs])
    mine, theirs = (np.asarray(x, np.float32) for x in (mine, theirs))
    assert np.abs(mine - theirs).max() <= tolerance * np.abs(theirs).max()


def value_and_gradients(function, *arguments):
  value, pull = jax.vjp(function, *arguments)
  cotangent = jax.random.normal(jax.random.key(2), value.shape, value.dtype)
  return value, pull(cotangent)


@pytest.mark.parametrize('dtype', TYPES)
@pytest.mark.parametrize(
  ('size', 'channels', 'window', 'features', 'strides', 'padding', 'options'),
  [
    ((9, 8), 3, (3, 3), 5, (1, 1), 'SAME', {}),
    ((7, 7), 16, (3, 3), 24, (2, 2), ((1, 1), (1, 1)), {}),
    ((8, 8), 16, (1, 1), 32, (2, 2), 'VALID', {}),
    ((1, 5), 33, (1, 1), 17, (1, 1), 'SAME', {}),
    ((11, 6), 1, (5, 2), 8, (3, 1), ((0, 2), (1, 0)), {}),
    ((9, 9), 8, (3, 3), 8, (1, 1), 'SAME', {'rhs_dilation': (2, 3)}),
    ((8, 8), 12, (3, 3), 8, (1, 2), 'SAME', {'feature_group_count': 4}),
    ((9, 7), 32, (3, 3), 32, (1, 1), 'SAME', {'feature_group_count': 32}),
    ((4, 4), 512, (1, 1), 520, (1, 1), 'SAME', {}),  # a large kernel, on all threads
  ],
)
@pytest.mark.parametrize('batch', [3, 4])  # 3 is not shared among threads
def test_convolutions_equal_xla(
  batch, size, channels, window, features, strides, padding, options, dtype
):
  needs(dtype)
  groups = options.get('feature_group_count', 1)
  arrays = draw(
    (batch, *size, channels), (*window, channels // groups, features), dtype=dtype
  )

  def by(convolve):
    def function(images, kernel):
      return convolve(
        images, kernel, strides, padding, dimension_numbers=NHWC, **options
      )

    assert ('ffi_call' in str(jax.make_jaxpr(function)(*arrays))) == (
      convolve is conv_general_dilated
    )
    return value_and_gradients(function, *arrays)

  check_close(
    by(conv_general_dilated), by(jax.lax.conv_general_dilated), TOLERANCES[dtype]
  )


def of_kernels(function, *arrays):
  """Returns the names of the operators in a function and its gradients."""
  program = str(jax.make_jaxpr(lambda *a: value_and_gradients(function, *a))(*arrays))
  return sorted(re.findall('target_name=jaxvision_(\\w+)', program))


@pytest.mark.parametrize(
  ('shape', 'features'),
  [
    ((1, 16, 16, 48), 48),
    ((4, 9, 7, 64), 80),  # odd sides, and columns that do not fill a block
    ((70, 1, 2, 48), 112),
    ((3, 33, 12, 144), 64),
    ((64, 2, 2, 256), 528),  # several blocks of images
    ((2, 64, 64, 96), 48),  # several chunks of tiles
  ],
)
def test_convolutions_with_fewer_products_equal_xla(shape, features):
  needs(jnp.bfloat16)
  if native.has_amx():
    pytest.skip('AMX multiplies faster than fewer products save')
  arrays = draw(shape, (3, 3, shape[-1], features), dtype=jnp.bfloat16)

  def by(convolve):
    return functools.partial(
      convolve, window_strides=(1, 1), padding='SAME', dimension_numbers=NHWC
    )

  ours = by(conv_general_dilated)
  assert of_kernels(ours, *arrays) == [
    'winogradforward',
    'winogradimages',
    'winogradkernel',
  ]
  value, pull = jax.vjp(ours, *arrays)
  cotangent = jax.random.normal(jax.random.key(2), value.shape, value.dtype)
  found = value, *pull(cotangent)
  exact = [x.astype(jnp.float32) for x in (*arrays, cotangent)]
  value, pull = jax.vjp(by(jax.lax.conv_general_dilated), *exact[:2])
  for mine, theirs in zip(found, (value, *pull(exact[2])), strict=True):
    chex.assert_equal_shape([mine, theirs])
    assert mine.dtype == jnp.bfloat16
    wrong = np.asarray(mine, np.float32) - np.asarray(theirs)
    # A result that is rounded once is off by 0.0017 of the root mean square.
    assert np.sqrt((wrong**2).mean() / (theirs**2).mean()) < 0.006
    assert np.abs(wrong).max() < 0.02 * np.abs(theirs).max()


@pytest.mark.parametrize(
  ('shape', 'features', 'strides', 'padding'),
  [
    ((4, 16, 16, 40), 48, (1, 1), 'SAME'),  # lanes
    ((4, 16, 16, 32), 64, (1, 1), 'SAME'),  # channels
    ((4, 16, 16, 48), 48, (2, 2), 'SAME'),
    ((4, 16, 16, 48), 48, (1, 1), 'VALID'),
    ((1, 8, 8, 256), 256, (1, 1), 'SAME'),  # tiles
  ],
)
def test_other_convolutions_have_every_product(shape, features, strides, padding):
  needs(jnp.bfloat16)
  arrays = draw(shape, (3, 3, shape[-1], features), dtype=jnp.bfloat16)
  convolve = functools.partial(
    conv_general_dilated,
    window_strides=strides,
    padding=padding,
    dimension_numbers=NHWC,
  )
  assert of_kernels(convolve, *arrays) == ['forward', 'images', 'kernel']


@pytest.mark.parametrize('dtype', TYPES)
@pytest.mark.parametrize('transpose_kernel', [False, True])
@pytest.mark.parametrize(
  ('size', 'strides', 'padding'),
  [
    ((4, 4), (2, 2), 'SAME'),
    ((5, 3), (2, 1), 'VALID'),
    ((3, 3), (1, 1), 'SAME'),
    ((4, 4), (2, 2), ((2, 1), (1, 2))),
  ],
)
def test_transposed_convolutions_equal_xla(
  size, strides, padding, transpose_kernel, dtype
):
  needs(dtype)
  channels = (3, 8) if transpose_kernel else (8, 3)
  arrays = draw((2, 5, 6, 8), (*size, *channels), dtype=dtype)

  def by(convolve):
    return value_and_gradients(
      lambda images, kernel: convolve(
        images, kernel, strides, padding, transpose_kernel=transpose_kernel
      ),
      *arrays,
    )

  check_close(by(conv_transpose), by(jax.lax.conv_transpose), TOLERANCES[dtype])


def by_ours(images, kernel):
  return conv_general_dilated(images, kernel, (2, 1), 'SAME', dimension_numbers=NHWC)


def by_xla(images, kernel):
  return jax.lax.conv_general_dilated(
    images, kernel, (2, 1), 'SAME', dimension_numbers=NHWC
  )


ARRAYS = draw((8, 7, 6, 5), (3, 3, 5, 4))


def test_gradients_of_gradients_equal_xla():
  def penalty(convolve):
    def loss(images, kernel):
      return jnp.sin(convolve(images, kernel)).sum()

    def squares(images, kernel):
      return squared_norm(jax.grad(loss, (0, 1))(images, kernel))

    return jax.grad(squares, (0, 1))(*ARRAYS)

  def squared_norm(tree):
    return sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(tree))

  check_close(penalty(by_ours), penalty(by_xla), 1e-4)


@pytest.mark.parametrize('axes', [(0, None), (None, 0), (0, 0)])
def test_under_vmap_equal_xla(axes):
  several = [
    x if axis is None else jnp.stack([x, x + 1, x * 2]) for x, axis in zip(ARRAYS, axes)
  ]

  def by(convolve):
    def each(images, kernel):
      return value_and_gradients(convolve, images, kernel)

    return jax.vmap(each, axes)(*several)

  check_close(by(by_ours), by(by_xla), 1e-5)


@pytest.mark.parametrize('layout', ['whole', 'sharded'])
def test_each_device_convolves_its_part_of_the_batch(layout):
  mesh = make_mesh(data=4)
  images, kernel = ARRAYS
  images = jax.device_put(images, over_batch(mesh))
  whole = jax.sharding.PartitionSpec()
  split = jax.sharding.PartitionSpec(None, None, None, 'data')
  spec = whole if layout == 'whole' else split
  kernel = jax.device_put(kernel, jax.sharding.NamedSharding(mesh, spec))

  @jax.jit
  def ours(images, kernel):
    return value_and_gradients(by_ours, images, kernel)

  program = ours.lower(images, kernel).compile().as_text()
  calls = [line for line in program.splitlines() if 'custom_call_target' in line]
  calls = [line for line in calls if 'jaxvision_' in line]
  assert len(calls) == 3
  assert not any(f'f32[{len(images)},' in line for line in calls)
  assert ('all-gather' in program) == (layout == 'sharded')
  check_close(ours(images, kernel), value_and_gradients(by_xla, *ARRAYS), 1e-5)


@pytest.mark.parametrize('scope', [plain_convolutions, portable_operators])
def test_programs_that_are_counted_or_go_elsewhere_are_xlas(scope):
  with scope():
    program = str(jax.make_jaxpr(by_ours)(*ARRAYS))
  assert 'ffi_call' not in program


@pytest.mark.parametrize('dtype', TYPES)
@pytest.mark.parametrize(
  'options',
  [
    {},
    {'use_scale': False, 'use_bias': False, 'epsilon': 1e-3},
    {'use_fast_variance': False, 'momentum': 0.5},
  ],
)
@pytest.mark.parametrize('shape', [(6, 5, 7, 16), (32, 48)])
def test_batch_norms_equal_flax(shape, options, dtype, monkeypatch):
  needs(dtype)
  monkeypatch.setattr(jax, 'device_count', lambda: 1)
  norm = nn.BatchNorm(dtype=dtype, **options)
  (x,) = draw(shape, dtype=dtype)
  x = 3 * x + 1
  variables = norm.init(jax.random.key(1), x, use_running_average=True)
  variables = jax.tree.map(lambda v: v + 0.3, variables)
  params, stats = variables.get('params', {}), variables['batch_stats']

  def by(scope):
    def function(params, x):
      with scope:
        return norm.apply(
          {'params': params, 'batch_stats': stats},
          x,
          use_running_average=False,
          mutable=['batch_stats'],
        )

    value, pull, updated = jax.vjp(function, params, x, has_aux=True)
    cotangent = jax.random.normal(jax.random.key(2), value.shape, value.dtype)
    return value, pull(cotangent), updated

  ours, plain = by(training_norms(1)), by(contextlib.nullcontext())
  chex.assert_trees_all_equal_dtypes(ours, plain)
  check_close(ours, plain, TOLERANCES[dtype])


def test_gradients_of_gradients_of_batch_norms(monkeypatch):
  monkeypatch.setattr(jax, 'device_count', lambda: 1)
  x, scale, bias, weights = draw((6, 5, 16), (16,), (16,), (6, 5, 16))

  def plain(x, scale, bias, epsilon):
    mean, var = x.mean((0, 1)), x.var((0, 1))
    return ((x - mean) / jnp.sqrt(var + epsilon) * scale + bias,)

  def penalty(normalize):
    def loss(x, scale, bias):
      return (jnp.sin(normalize(x, scale, bias, 1e-5)[0]) * weights).sum()

    def squares(x, scale, bias):
      gradients = jax.grad(loss, (0, 1, 2))(x, scale, bias)
      return sum(jnp.square(gradient).sum() for gradient in gradients)

    return jax.grad(squares, (0, 1, 2))(x, scale, bias)

  check_close(penalty(native.normalize), penalty(plain), 1e-4)


def test_batch_norms_under_vmap(monkeypatch):
  monkeypatch.setattr(jax, 'device_count', lambda: 1)
  x, scale, bias = draw((3, 6, 16), (16,), (16,))

  def normalize(x):
    return native.normalize(x, scale, bias, 1e-5)

  each = [normalize(one) for one in x]
  check_close(
    jax.vmap(normalize)(x), jax.tree.map(lambda *v: jnp.stack(v), *each), 1e-5
  )


SCRIPT = """
import jax.numpy as jnp
from jaxvision.models.cpu import native, conv_general_dilated
conv_general_dilated(jnp.ones((1, 4, 4, 3)), jnp.ones((3, 3, 3, 4)), (1, 1), 'SAME',
                     dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
print(native.library() is not None, native.must_build(), native.problem(), sep='|')
"""


def said(**environment):
  """Returns what a new process says: (is there a library, must it be built, problem)."""
  done = subprocess.run(
    [sys.executable, '-c', SCRIPT],
    env={**os.environ, **environment},
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stdout.strip().split('|')


def test_a_process_goes_on_without_it(tmp_path):
  assert said(JAXVISION_ONEDNN='0') == ['False', 'False', 'None']
  if not native.library():
    pytest.skip('the extra onednn is not installed, or there is no compiler')
  empty = {'JAXVISION_CACHE': str(tmp_path / 'cache')}
  loaded, _, problem = said(**empty, CXX='no-such-compiler')
  assert loaded == 'False'
  assert problem == (
    'oneDNN is installed and not used: there is no C++ compiler on the PATH: install g++ '
    'or clang++, or set CXX'
  )
  fake = tmp_path / 'fake-compiler'
  fake.write_text('#!/bin/sh\necho "ffi.h: error: no" >&2\nexit 1\n')
  fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
  loaded, _, problem = said(**empty, CXX=str(fake))
  assert loaded == 'False'
  assert problem.endswith(
    'fake-compiler cannot compile its operators (ffi.h: error: no)'
  )
  (tmp_path / 'file').touch()
  loaded, _, problem = said(JAXVISION_CACHE=str(tmp_path / 'file'))
  assert (loaded, 'set JAXVISION_CACHE' in problem) == ('False', True)
  assert not list(tmp_path.glob('cache/native/*'))  # nothing half built


@pytest.mark.slow  # it builds
def test_a_damaged_library_is_built_anew(tmp_path, monkeypatch):
  monkeypatch.setenv('JAXVISION_CACHE', str(tmp_path))
  places = build._places()
  built = build._built(*places)
  built.parent.mkdir()
  built.write_bytes(b'')
  assert said(JAXVISION_CACHE=str(tmp_path)) == ['True', 'False', 'None']


def max_pool(x):
  return nn.max_pool(x, (2, 2), (2, 2))


@pytest.mark.parametrize('dtype', TYPES)
@pytest.mark.parametrize(
  'shape',
  [(3, 8, 6, 8), (2, 5, 7, 3), (1, 2, 2, 32), (2, 4, 3, 77), (2, 3, 4, 4, 16)],
)
def test_gradients_of_max_pooling_equal_xla(shape, dtype, monkeypatch):
  monkeypatch.setattr(jax, 'device_count', lambda: 1)
  # Few values, so that many are equal.
  (x,) = draw(shape, dtype=dtype)
  x = jnp.round(2 * x)
  program = str(jax.make_jaxpr(lambda x: value_and_gradients(max_pool_2x2, x))(x))
  assert 'jaxvision_maxpoolgradient' in program
  ours, plain = (value_and_gradients(pool, x) for pool in (max_pool_2x2, max_pool))
  chex.assert_trees_all_equal_shapes_and_dtypes(ours, plain)
  chex.assert_trees_all_equal(ours, plain)


def test_gradients_of_gradients_of_max_pooling_equal_xla(monkeypatch):
  monkeypatch.setattr(jax, 'device_count', lambda: 1)
  (x,) = draw((2, 5, 6, 3))

  def by(pool):
    def squares(x):
      return jnp.square(jax.grad(lambda x: jnp.sin(pool(x)).sum())(x)).sum()

    return jax.grad(squares)(x), jax.vmap(jax.grad(squares))(x[:, None])

  check_close(by(max_pool_2x2), by(max_pool), 1e-6)


def test_max_pooling_on_several_devices_is_xlas():
  (x,) = draw((4, 6, 6, 3))
  program = str(jax.make_jaxpr(jax.grad(lambda x: max_pool_2x2(x).sum()))(x))
  assert 'ffi_call' not in program


@pytest.mark.parametrize('dtype', TYPES)
@pytest.mark.parametrize(
  'shape', [(2, 1), (3, 5), (9, 7, 8), (40_001, 3), (3, 37, 41, 80), (5, 200)]
)
def test_gradients_of_biases_equal_xla(shape, dtype, monkeypatch):
  monkeypatch.setattr(jax, 'device_count', lambda: 1)
  (gradient,) = draw(shape, dtype=dtype)
  bias = jnp.zeros(shape[-1])

  def of_bias(gradient):
    return jax.vjp(lambda bias: spread(bias, shape, dtype), bias)[1](gradient)[0]

  assert 'jaxvision_sum' in str(jax.make_jaxpr(of_bias)(gradient))
  axes = tuple(range(len(shape) - 1))
  found, exact = of_bias(gradient), np.asarray(gradient, np.float64).sum(axes)
  chex.assert_shape(found, bias.shape)
  chex.assert_trees_all_close(found, exact.astype(np.float32), rtol=1e-5, atol=2e-3)
  several = jnp.stack([gradient, gradient + 1])
  each = jnp.stack([of_bias(part) for part in several])
  chex.assert_trees_all_close(jax.vmap(of_bias)(several), each, rtol=1e-5, atol=2e-2)
