"""What several operators compute where ONNX has one: rules for `simplify`.

Each rule looks at one node and returns whether it changed the graph there.
"""

import numpy as np

from jaxvision.deployment.onnx.editing import Editor, bypass
from jaxvision.deployment.onnx.graph import Node


def softmax(editor: Editor, node: Node) -> bool:
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


def _behind_unsqueeze(editor: Editor, name: str) -> Node | None:
  """Returns the node that makes a value before it got axes of size 1."""
  node = editor.maker.get(name)
  while node is not None and node.op in ('Unsqueeze', 'Transpose'):
    node = editor.maker.get(node.inputs[0])
  return node


def clip(editor: Editor, node: Node) -> bool:
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


def unmoved(editor: Editor, node: Node) -> bool:
  """Joins two moves of axes; two that undo one another vanish."""
  before = (
    editor.made_by(node.inputs[0], 'Transpose') if node.op == 'Transpose' else None
  )
  if before is None:
    return False
  axes = [before.attributes['perm'][axis] for axis in node.attributes['perm']]
  if axes == sorted(axes) and node.outputs[0] not in editor.outputs:
    return bypass(editor, [node], before.inputs[0])
  if editor.only_user(before.outputs[0]) is not node:
    return False
  new = Node('Transpose', before.inputs, node.outputs, {'perm': axes})
  editor.replace([before, node], new)
  return True


def gelu(editor: Editor, node: Node) -> bool:
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


def fold_padding(editor: Editor, node: Node) -> bool:
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


def layer_norm(editor: Editor, node: Node) -> bool:
  """(x - mean) * (scale / sqrt(variance + epsilon)) + shift over the channels.

  They are the last axis, or the second one of an array in NCHW.
  """
  if node.op != 'Mul':
    return False
  return any(
    _layer_norm_of(editor, node, *names) for names in (node.inputs, node.inputs[::-1])
  )


def _layer_norm_of(editor: Editor, node: Node, centred: str, factor: str) -> bool:
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


def _is_mean(editor: Editor, node: Node | None, axis: int, x: str) -> bool:
  """Whether a node is the mean of x along an axis."""
  if node is None or node.op != 'ReduceMean' or node.inputs[0] != x:
    return False
  return editor.graph.arrays[node.inputs[1]].tolist() == [axis]
