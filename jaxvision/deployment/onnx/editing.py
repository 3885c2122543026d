"""Changing an ONNX graph by its values: which node makes each, and which nodes read it."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from jaxvision.deployment.onnx.graph import Graph, Node


class Editor:
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


def everywhere(editor: Editor, rule: Callable[[Editor, Node], bool]) -> None:
  """Applies a rule wherever it can be, until it can nowhere."""
  done: set[int] = set()
  while True:
    node = next((n for n in editor.graph.nodes if id(n) not in done), None)
    if node is None:
      return
    if not rule(editor, node):
      done.add(id(node))


def bypass(editor: Editor, chain: list[Node], start: str) -> bool:
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
