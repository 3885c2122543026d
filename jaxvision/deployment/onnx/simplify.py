"""A graph of fewer operators with the same result, up to rounding.

Batch norm and biases go into the weights of the convolution or product before them, zero
padding into the convolution after it, and what several operators compute becomes the one
that ONNX has for it: softmax, GELU, layer norm, the mean over all pixels.
"""

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from jaxvision.deployment.onnx.graph import Graph, Node

_PRODUCTS = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul')
_AFFINE = ('Add', 'Sub', 'Mul', 'Div')


class _Editor:
  """A graph by its values: which node makes each, and which nodes read it."""

  def __init__(self, graph: Graph, outputs: Iterable[str]):
    self.graph, self.outputs = graph, set(outputs)
    self.index()

  def index(self) -> None:
    """Looks up the nodes anew."""
    self.maker: Mapping[str, Node] = {
      name: node for node in self.graph.nodes for name in node.outputs
    }
    self.users = self.graph.uses()

  def only_user(self, name: str) -> Node | None:
    """Returns the one node that reads a value, None where others do or it is an output."""
    users = self.users.get(name, [])
    alone = len(users) == 1 and name not in self.outputs
    return users[0] if alone and users[0].inputs.count(name) == 1 else None

  def made_by(self, name: str, *ops: str) -> Node | None:
    """Returns the node of one of the types that makes a value, if it does."""
    node = self.maker.get(name)
    return node if node and node.op in ops else None

  def number(self, name: str) -> float | None:
    """Returns the single number of an array, None where it is something else."""
    array = self.graph.arrays.get(name)
    return float(array.ravel()[0]) if array is not None and array.size == 1 else None

  def operands(self, node: Node) -> tuple[str, np.ndarray] | None:
    """Returns the computed and the known input of an operator of two, if that they are."""
    if len(node.inputs) != 2:
      return None
    for computed, known in (node.inputs, node.inputs[::-1]):
      if known in self.graph.arrays and computed not in self.graph.arrays:
        return computed, self.graph.arrays[known]
    return None

  def replace(self, old: Iterable[Node], new: Node) -> None:
    """Puts a node in the place of others, of which the last one makes its output."""
    old = list(old)
    nodes = self.graph.nodes
    place = next(i for i, node in enumerate(nodes) if node is old[-1])
    nodes[place] = new
    gone = {id(node) for node in old[:-1]}
    self.graph.nodes = [node for node in nodes if id(node) not in gone]
    self.index()


def simplify(graph: Graph, outputs: list[str]) -> None:
  """Simplifies a graph in place.

  Args:
    graph: to change.
    outputs: names of the values that it returns.
  """
  editor = _Editor(graph, outputs)
  rules = (_join_affine, _softmax, _gelu, _layer_norm, _clip, _fold_padding)
  for rule in (*rules, _unmoved, _fold_after, _join_affine, _biased_product):
    _everywhere(editor, rule)
    _drop_unused(graph, outputs)
    editor.index()


def _everywhere(editor: _Editor, rule: Callable[[_Editor, Node], bool]) -> None:
  """Applies a rule wherever it can be, until it can nowhere."""
  done: set[int] = set()
  while True:
    node = next((n for n in editor.graph.nodes if id(n) not in done), None)
    if node is None:
      return
    if not rule(editor, node):
      done.add(id(node))


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


def _fold_after(editor: _Editor, node: Node) -> bool:
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
  if not has_bias and (np.ndim(change[1]) or weights.ndim != 2):
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


def _join_affine(editor: _Editor, node: Node) -> bool:
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
  # A division by a count undoes a product with it up to rounding.
  scales = not np.allclose(factor, 1, rtol=1e-6, atol=0)
  shifts = bool(np.any(term))
  if len(chain) <= scales + shifts or not start:
    return False
  if not scales and not shifts:
    return _bypass(editor, chain, start)
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


def _bypass(editor: _Editor, chain: list[Node], start: str) -> bool:
  """Lets those that read the end of a chain read its start."""
  end = chain[-1].outputs[0]
  if end in editor.outputs:
    return False
  for user in editor.users.get(end, []):
    user.inputs = [start if name == end else name for name in user.inputs]
  gone = {id(node) for node in chain}
  editor.graph.nodes = [node for node in editor.graph.nodes if id(node) not in gone]
  editor.index()
  return True


def _biased_product(editor: _Editor, node: Node) -> bool:
  """Makes a Gemm of every product of matrices with weights, for those who quantise it."""
  graph = editor.graph
  weights = graph.arrays.get(node.inputs[1]) if node.op == 'MatMul' else None
  if weights is None or weights.ndim != 2 or graph.ranks[node.outputs[0]] != 2:
    return False
  bias = graph.array(np.zeros(weights.shape[1], np.float32), 'bias')
  editor.replace([node], Node('Gemm', [*node.inputs, bias], node.outputs))
  return True


def _softmax(editor: _Editor, node: Node) -> bool:
  """exp(x - max(x)) / sum(exp(x - max(x))) over the last axis."""
  if node.op != 'Div':
    return False
  exp = editor.made_by(node.inputs[0], 'Exp')
  scaled = _behind_unsqueeze(editor, node.inputs[1])
  product = editor.operands(scaled) if scaled and scaled.op == 'Mul' else None
  moved = editor.made_by(exp.inputs[0], 'Sub') if exp else None
  if moved is None or product is None or product[1].size != 1:
    return False
  total = editor.made_by(product[0], 'ReduceMean')
  if total is None or total.inputs[0] != exp.outputs[0]:
    return False
  highest = _behind_unsqueeze(editor, moved.inputs[1])
  while highest is not None and highest.op == 'Max':  # with -inf, as of `initial`
    known = [name for name in highest.inputs if name in editor.graph.arrays]
    if not known or np.isfinite(editor.graph.arrays[known[0]]).any():
      return False
    rest = next(name for name in highest.inputs if name not in known)
    highest = _behind_unsqueeze(editor, rest)
  if highest is None or highest.op != 'ReduceMax':
    return False
  rank = editor.graph.ranks[node.outputs[0]]
  axes = [editor.graph.arrays[n.inputs[1]].tolist() for n in (total, highest)]
  if axes != [[rank - 1]] * 2 or highest.inputs[0] != moved.inputs[0]:
    return False
  editor.replace([node], Node('Softmax', [moved.inputs[0]], node.outputs, {'axis': -1}))
  return True


def _behind_unsqueeze(editor: _Editor, name: str) -> Node | None:
  """Returns the node that makes a value before it got axes of size 1."""
  node = editor.maker.get(name)
  while node is not None and node.op in ('Unsqueeze', 'Transpose'):
    node = editor.maker.get(node.inputs[0])
  return node


def _clip(editor: _Editor, node: Node) -> bool:
  """min(max(x, 0), bound)."""
  operands = editor.operands(node) if node.op == 'Min' else None
  if operands is None or operands[1].size != 1:
    return False
  relu = editor.made_by(operands[0], 'Relu')
  if relu is None or editor.only_user(relu.outputs[0]) is not node:
    return False
  array = editor.graph.array
  bounds = [array(np.zeros((), np.float32)), array(operands[1].reshape(()))]
  editor.replace([relu, node], Node('Clip', [*relu.inputs, *bounds], node.outputs))
  return True


def _unmoved(editor: _Editor, node: Node) -> bool:
  """Joins two moves of axes; two that undo one another vanish."""
  before = (
    editor.made_by(node.inputs[0], 'Transpose') if node.op == 'Transpose' else None
  )
  if before is None:
    return False
  axes = [before.attributes['perm'][axis] for axis in node.attributes['perm']]
  if axes == sorted(axes) and node.outputs[0] not in editor.outputs:
    return _bypass(editor, [node], before.inputs[0])
  if editor.only_user(before.outputs[0]) is not node:
    return False
  new = Node('Transpose', before.inputs, node.outputs, {'perm': axes})
  editor.replace([before, node], new)
  return True


def _gelu(editor: _Editor, node: Node) -> bool:
  """x * (1 - erf(-x / sqrt(2))) / 2, in any order of its factors."""
  if node.op != 'Sub' or editor.number(node.inputs[0]) != 1:
    return False
  erf = editor.made_by(node.inputs[1], 'Erf')
  inner, scale = (erf.inputs[0], 1.0) if erf else ('', 1.0)
  x = ''
  while erf:
    made = editor.maker.get(inner)
    if made is not None and made.op == 'Neg':
      inner, scale = made.inputs[0], -scale
    elif made is not None and made.op == 'Mul' and editor.operands(made):
      computed, known = editor.operands(made)
      if known.size != 1 or abs(abs(scale * float(known.ravel()[0])) - 0.5**0.5) > 1e-6:
        return False
      scale *= float(known.ravel()[0])
      inner = computed
    else:
      x = inner
      break
  if not x or abs(scale + 0.5**0.5) > 1e-6:
    return False
  # The product of the gate with x and with one half, whichever comes first.
  product = editor.only_user(node.outputs[0])
  chain, factor, seen = [node], 1.0, False
  while product is not None and product.op == 'Mul' and not (seen and factor == 0.5):
    other = next(n for n in product.inputs if n != chain[-1].outputs[0])
    number = editor.number(other)
    half = editor.maker.get(other)
    if number is not None:
      factor *= number
    elif other == x:
      seen = True
    elif half is not None and half.op == 'Mul' and editor.operands(half):
      computed, known = editor.operands(half)
      if computed != x or known.size != 1:
        return False
      seen, factor = True, factor * float(known.ravel()[0])
    else:
      return False
    chain.append(product)
    if seen and factor == 0.5:
      break
    product = editor.only_user(product.outputs[0])
  if not seen or factor != 0.5:
    return False
  editor.replace(chain, Node('Gelu', [x], chain[-1].outputs))
  return True


def _fold_padding(editor: _Editor, node: Node) -> bool:
  """Zeros around an image, given to the convolution that reads it."""
  graph = editor.graph
  if node.op != 'Pad' or graph.ranks[node.outputs[0]] != 4:
    return False
  after = editor.only_user(node.outputs[0])
  pads = graph.arrays[node.inputs[1]].tolist()
  zero = editor.number(node.inputs[2]) == 0
  if (
    after is None
    or after.op != 'Conv'
    or not zero
    or any(pads[i] for i in (0, 1, 4, 5))
  ):
    return False
  both = [a + b for a, b in zip(after.attributes['pads'], pads[2:4] + pads[6:8])]
  inputs = [node.inputs[0], *after.inputs[1:]]
  new = Node('Conv', inputs, after.outputs, {**after.attributes, 'pads': both})
  editor.replace([node, after], new)
  return True


def _layer_norm(editor: _Editor, node: Node) -> bool:
  """(x - mean) * (scale / sqrt(variance + epsilon)) + shift over the channels.

  They are the last axis, or the second one of an array in NCHW.
  """
  if node.op != 'Mul':
    return False
  return any(
    _layer_norm_of(editor, node, *names) for names in (node.inputs, node.inputs[::-1])
  )


def _layer_norm_of(editor: _Editor, node: Node, centred: str, factor: str) -> bool:
  graph = editor.graph
  difference = editor.made_by(centred, 'Sub')
  product = _behind_unsqueeze(editor, factor)
  found = editor.operands(product) if product and product.op == 'Mul' else None
  inverse = editor.made_by(found[0] if found else factor, 'Reciprocal')
  root = editor.made_by(inverse.inputs[0], 'Sqrt') if inverse else None
  total = editor.made_by(root.inputs[0], 'Add') if root else None
  epsilon = editor.operands(total) if total else None
  if difference is None or found is None or epsilon is None or epsilon[1].size != 1:
    return False
  x, scale = difference.inputs[0], found[1]
  mean = _behind_unsqueeze(editor, difference.inputs[1])
  variance = _behind_unsqueeze(editor, epsilon[0])
  square = editor.made_by(variance.inputs[0], 'Mul') if variance else None
  if square is None or square.inputs[0] != square.inputs[1]:
    return False
  squared = editor.made_by(square.inputs[0], 'Sub')
  rank = graph.ranks[node.outputs[0]]
  channels = 1 if rank == 4 and _is_mean(editor, mean, 1, x) else rank - 1
  means = [(mean, x), (variance, square.outputs[0])]
  if not all(_is_mean(editor, made, channels, of) for made, of in means):
    return False
  if squared is None or squared.inputs[0] != x:
    return False
  after = editor.only_user(node.outputs[0])
  shift = editor.operands(after) if after and after.op == 'Add' else None
  if _behind_unsqueeze(editor, squared.inputs[1]) is not mean or shift is None:
    return False
  if not scale.size == shift[1].size == max(scale.shape):
    return False
  arrays = [graph.array(array.reshape(-1)) for array in (scale, shift[1])]
  attributes = {'axis': -1, 'epsilon': float(epsilon[1].ravel()[0])}
  if channels == rank - 1:
    new = Node('LayerNormalization', [x, *arrays], after.outputs, attributes)
    editor.replace([node, after], new)
    return True
  inner, outer = graph.new_name('transpose'), graph.new_name('layernormalization')
  graph.ranks[inner] = graph.ranks[outer] = rank
  editor.replace([node], Node('Transpose', [x], [inner], {'perm': [0, 2, 3, 1]}))
  place = graph.nodes.index(after)
  norm = Node('LayerNormalization', [inner, *arrays], [outer], attributes)
  graph.nodes.insert(place, norm)
  back = Node('Transpose', [outer], after.outputs, {'perm': [0, 3, 1, 2]})
  editor.replace([after], back)
  return True


def _is_mean(editor: _Editor, node: Node | None, axis: int, x: str) -> bool:
  """Whether a node is the mean of x along an axis."""
  if node is None or node.op != 'ReduceMean' or node.inputs[0] != x:
    return False
  return editor.graph.arrays[node.inputs[1]].tolist() == [axis]
