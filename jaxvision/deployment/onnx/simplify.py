"""A graph of fewer operators with the same result, up to rounding.

Batch norm and biases go into the weights of the convolution or product before them, zero
padding into the convolution after it, and what several operators compute becomes the one
that ONNX has for it: softmax, GELU, layer norm, the mean over all pixels.
"""

import numpy as np

from jaxvision.deployment.onnx import patterns as p
from jaxvision.deployment.onnx.editing import Editor, bypass, everywhere
from jaxvision.deployment.onnx.graph import Graph, Node

_PRODUCTS = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul')
_AFFINE = ('Add', 'Sub', 'Mul', 'Div')


def simplify(graph: Graph, outputs: list[str]) -> None:
  """Simplifies a graph in place.

  Args:
    graph: to change.
    outputs: names of the values that it returns.
  """
  editor = Editor(graph, outputs)
  found = (p.softmax, p.gelu, p.layer_norm, p.clip, p.fold_padding, p.unmoved)
  for rule in (_join_affine, *found, _fold_after, _join_affine, _biased_product):
    everywhere(editor, rule)
    _drop_unused(graph, outputs)
    editor.index()


def _drop_unused(graph: Graph, outputs: list[str]) -> None:
  wanted = set(outputs)
  kept = []
  for node in reversed(graph.nodes):
    if wanted.intersection(node.outputs):
      kept.append(node)
      wanted.update(node.inputs)
  graph.nodes = kept[::-1]
  graph.arrays = {name: a for name, a in graph.arrays.items() if name in wanted}


def _per_channel(
  array: np.ndarray, rank: int, axis: int, channels: int
) -> np.ndarray | None:
  """Returns an array as one number for each channel, or None where it is no such one."""
  shape = (1,) * (rank - array.ndim) + array.shape
  if array.ndim > rank or any(n != 1 for i, n in enumerate(shape) if i != axis):
    return None
  return np.broadcast_to(array.reshape(-1), (channels,)).astype(np.float32)


def _affine(node: Node, computed: str, known: np.ndarray) -> tuple | None:
  """Returns (factor, term) of an operator as x * factor + term; 1.0 and 0.0 for none."""
  first = node.inputs[0] == computed
  if node.op == 'Add':
    return 1.0, known
  if node.op == 'Mul':
    return known, 0.0
  if node.op == 'Sub':
    return (1.0, -known) if first else (-1.0, known)
  if node.op == 'Div' and first:
    return 1 / known, 0.0
  return None


def _fold_after(editor: Editor, node: Node) -> bool:
  """Scales and shifts the weights of a product by what follows it."""
  graph = editor.graph
  if node.op not in _PRODUCTS:
    return False
  after = editor.only_user(node.outputs[0])
  weights = graph.arrays.get(node.inputs[1])
  if after is None or after.op not in _AFFINE or weights is None:
    return False
  operands = editor.operands(after)
  if operands is None or operands[0] != node.outputs[0] or weights.dtype != np.float32:
    return False
  change = _affine(after, *operands)
  rank = graph.ranks[node.outputs[0]]
  if change is None:
    return False
  # Where the channels are in the result and in the weights.
  axis, place = {'Conv': (1, 0), 'ConvTranspose': (1, 1)}.get(
    node.op, (rank - 1, weights.ndim - 1)
  )
  has_bias = node.op != 'MatMul' or (rank == 2 and weights.ndim == 2)
  if not has_bias and (np.any(change[1]) or weights.ndim != 2):
    return False
  channels = weights.shape[place]
  factor, term = (_per_channel(np.asarray(c), rank, axis, channels) for c in change)
  if factor is None or term is None:
    return False
  old_bias = graph.arrays.get(node.inputs[2]) if len(node.inputs) > 2 else None
  if len(node.inputs) > 2 and old_bias is None:
    return False
  bias = (0 if old_bias is None else old_bias) * factor + term
  shape = [channels if i == place else 1 for i in range(weights.ndim)]
  inputs = [node.inputs[0], graph.array(weights * factor.reshape(shape), 'weights')]
  op = node.op
  if bias.any() or old_bias is not None:
    inputs.append(graph.array(bias.astype(np.float32), 'bias'))
    op = 'Gemm' if op == 'MatMul' else op
  new = Node(op, inputs, after.outputs, node.attributes)
  editor.replace([node, after], new)
  return True


def _join_affine(editor: Editor, node: Node) -> bool:
  """Makes one scale and one shift of several in a row."""
  graph = editor.graph
  chain: list[Node] = []
  factor, term = np.float32(1), np.float32(0)
  start, last = '', node
  while last is not None and last.op in _AFFINE:
    operands = editor.operands(last)
    if operands is None or operands[1].dtype != np.float32:
      break
    if chain and operands[0] != chain[-1].outputs[0]:
      break
    change = _affine(last, *operands)
    if change is None:
      break
    start = start or operands[0]
    factor, term = factor * change[0], term * change[0] + change[1]
    chain.append(last)
    last = editor.only_user(last.outputs[0])
  # A division by a count undoes a product with it up to rounding. Arrays of ones and of
  # zeros stay, for what they broadcast.
  scales = np.size(factor) > 1 or not np.isclose(factor, 1, rtol=1e-6, atol=0).all()
  shifts = np.size(term) > 1 or bool(np.any(term))
  if len(chain) <= scales + shifts or not start:
    return False
  if not scales and not shifts:
    return bypass(editor, chain, start)
  rank = graph.ranks[chain[-1].outputs[0]]
  if scales and shifts:
    scaled = graph.new_name('mul')
    graph.ranks[scaled] = rank
    known = graph.array(np.asarray(factor, np.float32))
    first = Node('Mul', [start, known], [scaled])
    place = next(i for i, n in enumerate(graph.nodes) if n is chain[0])
    graph.nodes.insert(place, first)
    start = scaled
  known = graph.array(np.asarray(term if shifts else factor, np.float32))
  new = Node('Add' if shifts else 'Mul', [start, known], chain[-1].outputs)
  editor.replace(chain, new)
  return True


def _biased_product(editor: Editor, node: Node) -> bool:
  """Makes a Gemm of every product of matrices with weights, for those who quantise it."""
  graph = editor.graph
  weights = graph.arrays.get(node.inputs[1]) if node.op == 'MatMul' else None
  if weights is None or weights.ndim != 2 or graph.ranks[node.outputs[0]] != 2:
    return False
  bias = graph.array(np.zeros(weights.shape[1], np.float32), 'bias')
  editor.replace([node], Node('Gemm', [*node.inputs, bias], node.outputs))
  return True
