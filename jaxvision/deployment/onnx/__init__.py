"""ONNX files of trained networks: from the program that JAX traces to a graph.

`to_graph` reads the program of a function, `simplify` makes it smaller, `to_bytes` writes
it. No module of ours knows a network: what is covered are primitives of JAX, `OPERATORS`.
"""

from jaxvision.deployment.onnx.operators import OPERATORS
from jaxvision.deployment.onnx.tracing import to_graph
from jaxvision.deployment.onnx.writing import to_bytes

__all__ = ['OPERATORS', 'to_bytes', 'to_graph']
