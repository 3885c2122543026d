"""Graphs have the operators that somebody would write by hand."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import models
from jaxvision.deployment.onnx import to_bytes, to_graph

onnxruntime = pytest.importorskip('onnxruntime')


def drawn(model, shape):
  """Returns variables at random, running statistics too."""
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    name = str(path[-1])
    values = rng.normal(size=leaf.shape).astype(np.float32)
    if 'var' in name:
      return np.abs(values) + 0.5
    if 'scale' in name:
      return 1 + values / 10
    if 'kernel' in name:
      return values * np.sqrt(2 / np.prod(leaf.shape[:-1])).astype(np.float32)
    return values / 10

  images = jax.ShapeDtypeStruct((1, *shape), np.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), images)
  return jax.tree_util.tree_map_with_path(draw, variables)


def exported(name, shape, **fields):
  """Returns the operators, the file and the function of a network."""
  model = models.create(name, 10, **fields)
  variables = drawn(model, shape)

  def function(images):
    outputs = model.apply(variables, (images.astype(jnp.float32) / 255 - 0.5) / 0.25)
    return jax.nn.softmax(outputs), outputs

  inputs = [('images', shape, np.uint8)]
  graph, names = to_graph(function, inputs)
  outputs = [
    (n, inner, (10,), np.float32)
    for n, inner in zip(('probabilities', 'logits'), names)
  ]
  counts = collections.Counter(node.op for node in graph.nodes)
  return counts, to_bytes(graph, inputs, outputs, {}), function


def check(file, function, shape, batches):
  session = onnxruntime.InferenceSession(file)
  rng = np.random.default_rng(0)
  jitted = jax.jit(function)
  for batch in batches:
    images = rng.integers(0, 256, (batch, *shape)).astype(np.uint8)
    found = session.run(['probabilities', 'logits'], {'images': images})
    shares, logits = (np.asarray(x) for x in jitted(images))
    np.testing.assert_allclose(found[0], shares, atol=1e-4)
    np.testing.assert_allclose(found[1], logits, atol=1e-4 * np.abs(logits).max())


def test_batch_norm_goes_into_convolutions():
  shape = (8, 8, 1)
  counts, file, function = exported('digits_cnn', shape)
  assert counts == {
    **{'Cast': 1, 'Mul': 1, 'Add': 1, 'Transpose': 2, 'Conv': 2, 'Relu': 3},
    **{'MaxPool': 2, 'Reshape': 1, 'Gemm': 2, 'Softmax': 1},
  }
  check(file, function, shape, (1, 7))


@pytest.mark.long
@pytest.mark.parametrize(
  ('name', 'fields', 'whole'),
  [
    ('cct_2_3x2', {'depth': 1}, {'LayerNormalization': 3, 'Gelu': 1, 'Softmax': 3}),
    ('convnext_atto', {'depths': (1, 1, 1, 1)}, {'LayerNormalization': 9, 'Gelu': 4}),
    ('mobilenet_v2', {}, {'Clip': 35, 'Conv': 52}),
    ('resnet20', {}, {'Conv': 19, 'GlobalAveragePool': 1, 'Gemm': 1, 'Add': 10}),
    ('airbench94', {}, {'Gelu': 7, 'MaxPool': 3}),
  ],
)
def test_patterns_become_one_operator(name, fields, whole):
  shape = (32, 32, 3)
  known = models.fields(name)
  counts, file, function = exported(
    name, shape, **{k: v for k, v in fields.items() if k in known}
  )
  if all(field in known for field in fields):
    assert {op: counts[op] for op in whole} == whole
  assert not {'Erf', 'Exp', 'Sqrt', 'Min', 'Max'} & set(counts)
  check(file, function, shape, (2,))


# One of each family, and of each operator that only some sizes have.
FAMILIES = (
  'airbench96',
  'basic_cnn',
  'cct_7_3x1',
  'conv_mixer_256_8',
  'convnext_femto',
  'custom_cnn',
  'efficientnet_b0',
  'efficientnet_lite0',
  'original_cnn',
  'preact_resnet18',
  'resnet18',
  'resnet32',
  'resnet50',
  'small_filters_cnn',
  'vit_tiny',
  'wide_resnet16_8',
)


@pytest.mark.slow
@pytest.mark.parametrize('name', FAMILIES)
def test_every_family(name):
  shape = (32, 32, 3)
  _, file, function = exported(name, shape)
  large = len(file) > 60e6
  check(file, function, shape, (1, 5) if large else (1, 33))
