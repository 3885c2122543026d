"""Every operator of ONNX against the primitive of JAX that it stands for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxvision.deployment.onnx import to_bytes, to_graph
from jaxvision.errors import UserError

onnxruntime = pytest.importorskip('onnxruntime')

SHAPE = (6, 5, 4)  # of an image, height, width, channels


def run(function, inputs, batches=(1, 3)):
  """Returns the nodes of the graph, having compared it with JAX."""
  described = [(name, x.shape[1:], x.dtype) for name, x in inputs.items()]
  graph, names = to_graph(lambda *x: (function(*x),), described)
  for batch in batches:
    given = [np.concatenate([x] * batch)[:batch] for x in inputs.values()]
    expected = np.asarray(jax.jit(function)(*given))
    outputs = [('found', names[0], expected.shape[1:], expected.dtype)]
    session = onnxruntime.InferenceSession(to_bytes(graph, described, outputs, {}))
    (found,) = session.run(['found'], dict(zip(inputs, given)))
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
  return [node.op for node in graph.nodes]


def images(low=-2.0, high=2.0, batch=3):
  rng = np.random.default_rng(0)
  return rng.uniform(low, high, (batch, *SHAPE)).astype(np.float32)


ELEMENTWISE = {
  'abs': jnp.abs,
  'add': lambda x: x + 1.5,
  'arctan': jnp.arctan,
  'ceil': jnp.ceil,
  'clamp': lambda x: lax.clamp(-1.0, x, 0.5),
  'clip': lambda x: jnp.clip(x, -1, 1),
  'cos': jnp.cos,
  'cumsum': lambda x: jnp.cumsum(x, 2),
  'divide': lambda x: 2.0 / (x + 3),
  'erf': lax.erf,
  'erfc': lax.erfc,
  'exp': jnp.exp,
  'exp2': jnp.exp2,
  'expm1': jnp.expm1,
  'floor': jnp.floor,
  'gelu': jax.nn.gelu,
  'gelu of the error function': lambda x: jax.nn.gelu(x, approximate=False),
  'hard swish': jax.nn.hard_swish,
  'is finite': lambda x: jnp.where(jnp.isfinite(x), x, 0),
  'leaky relu': jax.nn.leaky_relu,
  'log': lambda x: jnp.log(x + 3),
  'log1p': lambda x: jnp.log1p(x + 2.5),
  'logical': lambda x: ((x > 0) & (x < 1)) | ~(x >= -1) ^ (x != 0),
  'maximum of both': lambda x: jnp.maximum(x, x[:, ::-1]),
  'minimum': lambda x: jnp.minimum(x, 0.3),
  'power': lambda x: (x + 3.0) ** 1.7,
  'power of three': lambda x: x**3,
  'reciprocal power': lambda x: (x + 3) ** -1,
  'relu': jax.nn.relu,
  'relu6': lambda x: jax.nn.relu6(x * 4),
  'remainder': lambda x: lax.rem(x, 0.7),
  'round to even': lambda x: jnp.round(x * 2),
  'round away': lambda x: lax.round(x * 2),
  'rsqrt': lambda x: lax.rsqrt(x + 3),
  'select': lambda x: jnp.where(x > 0, x, -2 * x),
  'sigmoid': jax.nn.sigmoid,
  'sign': jnp.sign,
  'sin': jnp.sin,
  'softplus': jax.nn.softplus,
  'sqrt': lambda x: jnp.sqrt(x + 3),
  'square': jnp.square,
  'swish': jax.nn.swish,
  'tanh': jnp.tanh,
}


@pytest.mark.parametrize('name', ELEMENTWISE)
def test_elementwise(name):
  run(ELEMENTWISE[name], {'x': images()})


REDUCTIONS = {
  'all': lambda x: jnp.all(x > -1.9, (1, 2)).astype(jnp.int32),
  'any': lambda x: jnp.any(x > 1.9, (1, 2)).astype(jnp.int32),
  'argmax': lambda x: jnp.argmax(x, -1),
  'argmin': lambda x: jnp.argmin(x, 1),
  'max': lambda x: x.max((1, 3)),
  'mean': lambda x: x.mean((1, 2)),
  'min': lambda x: x.min(-1),
  'product': lambda x: x.prod(1),
  'softmax': lambda x: jax.nn.softmax(x),
  'softmax of an inner axis': lambda x: jax.nn.softmax(x, 2),
  'sum': lambda x: x.sum((1, 2, 3)),
  'sum of a broadcast': lambda x: jnp.broadcast_to(x[:, :1], x.shape).sum(1),
  'variance': lambda x: x.var((1, 2)),
}


@pytest.mark.parametrize('name', REDUCTIONS)
def test_reductions(name):
  run(REDUCTIONS[name], {'x': images()})


MOVES = {
  'broadcast': lambda x: x + jnp.arange(4.0) * jnp.ones((6, 1, 1)),
  'broadcast of the batch': lambda x: jnp.concatenate(
    [jnp.broadcast_to(jnp.arange(4.0), (*x.shape[:2], 1, 4)), x], 2
  ),
  'concatenate': lambda x: jnp.concatenate([x, 2 * x, jnp.zeros_like(x[:, :1])], 1),
  'flatten': lambda x: x.reshape(x.shape[0], -1),
  'flip': lambda x: x[:, ::-1, :, ::-1],
  'gather': lambda x: jnp.take(x, jnp.array([3, 0, 0]), axis=2),
  'grid': lambda x: x[:, 1::2, ::3],
  'index': lambda x: x[:, 2],
  'negative pad': lambda x: lax.pad(
    x, 0.0, [(0, 0, 0), (-1, 2, 0), (1, -2, 0), (0, 0, 0)]
  ),
  'outer': lambda x: x[..., None] * x[..., None, :],
  'pad': lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)), constant_values=3),
  'repeat': lambda x: jnp.repeat(x, 2, axis=1),
  'roll': lambda x: jnp.roll(x, 2, axis=2),
  'slice': lambda x: lax.slice(x, (0, 1, 0, 0), (x.shape[0], 5, 5, 3), (1, 2, 1, 1)),
  'split': lambda x: jnp.split(x, 2, -1)[1],
  'squeeze': lambda x: x[:, :1].squeeze(1),
  'stack': lambda x: jnp.stack([x, -x], 2),
  'swap': lambda x: x.swapaxes(1, 3).transpose(0, 2, 1, 3),
  'tile': lambda x: jnp.tile(x, (1, 2, 1, 1)),
}


@pytest.mark.parametrize('name', MOVES)
def test_movement(name):
  run(MOVES[name], {'x': images()})


@pytest.mark.parametrize('padding', ['SAME', 'VALID', ((2, 0), (1, 3))])
@pytest.mark.parametrize(
  ('stride', 'dilation', 'groups'), [(1, 1, 1), (2, 1, 1), (1, 2, 1), (2, 1, 4)]
)
def test_convolutions(padding, stride, dilation, groups):
  kernel = np.random.default_rng(1).normal(size=(3, 2, 4 // groups, 8))
  ops = run(
    lambda x: lax.conv_general_dilated(
      x,
      kernel.astype(np.float32),
      (stride, stride),
      padding,
      rhs_dilation=(dilation, dilation),
      feature_group_count=groups,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    ),
    {'x': images()},
  )
  assert ops == ['Transpose', 'Conv', 'Transpose']


@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
@pytest.mark.parametrize('size', [2, 3, 4])
@pytest.mark.parametrize('turned', [False, True])
def test_transposed_convolutions(padding, size, turned):
  kernel = np.random.default_rng(1).normal(size=(size, size, 4, 4)).astype(np.float32)
  ops = run(
    lambda x: lax.conv_transpose(x, kernel, (2, 2), padding, transpose_kernel=turned),
    {'x': images()},
  )
  assert 'ConvTranspose' in ops


PRODUCTS = {
  'dense': lambda x, y: x.reshape(x.shape[0], -1) @ np.ones((120, 3), np.float32),
  'last axis': lambda x, y: x @ np.arange(12, dtype=np.float32).reshape(4, 3),
  'attention': lambda x, y: jnp.einsum('bqhd,bkhd->bhqk', x, y),
  'values': lambda x, y: jnp.einsum(
    'bhqk,bqhd->bkdh', jnp.einsum('bqhd,bkhd->bhqk', x, y), x
  ),
  'two axes': lambda x, y: jnp.einsum('bhwc,bhwd->bcd', x, y),
  'constant first': lambda x, y: jnp.einsum('th,bhwc->btwc', np.eye(6)[:3], x),
  'resize': lambda x, y: jax.image.resize(x, (x.shape[0], 9, 7, 4), 'cubic'),
}


@pytest.mark.parametrize('name', PRODUCTS)
def test_products(name):
  run(PRODUCTS[name], {'x': images(), 'y': images()[::-1].copy()})


@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
def test_pooling(padding):
  import flax.linen as nn

  ops = run(lambda x: nn.max_pool(x, (3, 2), (2, 1), padding), {'x': images()})
  assert 'MaxPool' in ops
  ops = run(lambda x: nn.avg_pool(x, (2, 2), (2, 2), padding), {'x': images()})
  assert 'AveragePool' in ops


def test_rows_of_a_table():
  table = np.arange(12, dtype=np.float32).reshape(4, 3)
  labels = np.array([3, 0, 2], np.int32)
  run(lambda y: jnp.asarray(table)[y], {'labels': labels})
  run(lambda y: jax.nn.one_hot(y, 4) @ table, {'labels': labels})


def test_loops_are_written_out():
  def function(x):
    def body(carry, row):
      carry = carry * 0.5 + row
      return carry, carry.sum(-1)

    last, rows = lax.scan(body, x[:, 0], jnp.moveaxis(x, 1, 0))
    backwards = lax.fori_loop(0, 3, lambda i, y: y + i, last)
    return backwards + rows.sum(0)[..., None]

  run(function, {'x': images()})


def test_weights_are_computed_when_the_file_is_made():
  scale = jnp.arange(1.0, 5.0)

  def function(x):
    factor = lax.rsqrt(scale + 1e-5) * scale
    return (x - scale) * factor + scale

  assert run(function, {'x': images()}) == ['Mul', 'Add']


def test_what_is_folded_keeps_the_shape_and_the_rank():
  # A number after a product of three axes has no bias to go into.
  matrix = np.arange(12, dtype=np.float32).reshape(4, 3)
  ops = run(lambda x: (x[:, 0] @ matrix) * 2 + 0.5, {'x': images()})
  assert 'Gemm' not in ops

  def broadcasts(x):  # the ones have no effect but on the shape
    wide = x[:, :1, :1] * np.ones((1, 6, 5, 1), np.float32) * 1.0
    return wide.reshape(x.shape[0], -1)

  run(broadcasts, {'x': images()})


def test_an_operator_that_is_missing_is_named():
  with pytest.raises(UserError, match=r'the network uses sort.*--format=stablehlo'):
    to_graph(lambda x: (jnp.sort(x),), [('x', SHAPE, np.float32)])
  with pytest.raises(UserError, match='uses while'):
    to_graph(
      lambda x: (lax.while_loop(lambda y: y.sum() > 1, lambda y: y / 2, x),),
      [('x', SHAPE, np.float32)],
    )
  kernel = np.ones((3, 3, 4, 4), np.float32)
  with pytest.raises(UserError, match=r'dot_general with two sizes|conv.* with'):
    to_graph(
      lambda x: (
        lax.conv_general_dilated(
          x,
          kernel,
          (1, 1),
          [(-1, 0), (0, 0)],
          dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        ),
      ),
      [('x', SHAPE, np.float32)],
    )
