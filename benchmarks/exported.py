"""Networks of the table with random weights, as programs that are exported.

As a script, a process that answers the requests of `latency.py`: how long a network takes
does not depend on its weights.
"""

import time
from typing import Any

import jax
import numpy as np
from sides import serve
from table import versions

from jaxvision import models
from jaxvision.data.augment import normalize
from jaxvision.deployment.onnx_file import OnnxFile
from jaxvision.deployment.program import Program
from jaxvision.deployment.quantization import Quantizer
from jaxvision.inference.onnx_model import open_bytes
from jaxvision.inference.signature import Signature

_SHAPE = (32, 32, 3)
_CALIBRATED = 64


def random_program(name: str, classes: int, scaled: bool = False) -> Program:
  """Returns a network of the table, of uint8 images, with random weights.

  Every weight and statistic is drawn, so that no layer is the identity and no bias zero.

  Args:
    name: of the network.
    classes: that it tells apart.
    scaled: divide the logits by their deviation: those of a deep network at random are so
      large that one class has all of the probability.
  """
  model = models.create(name, classes)
  variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, *_SHAPE), np.float32))
  rng = np.random.default_rng(0)

  def moved(path: Any, leaf: jax.Array) -> np.ndarray:
    array = np.asarray(leaf)
    if path[-1].key == 'var':
      return array * rng.uniform(0.5, 1.5, array.shape).astype(array.dtype)
    spread = 0.02 if array.ndim > 1 else 0.1
    return array + spread * rng.standard_normal(array.shape).astype(array.dtype)

  variables = jax.tree_util.tree_map_with_path(moved, variables)

  def logits_of(variables: Any, images: jax.Array) -> jax.Array:
    return model.apply(variables, normalize(images, (0.5,) * 3, (0.25,) * 3))

  scale = 1.0
  if scaled:
    images = rng.integers(0, 256, (16, *_SHAPE), np.uint8)
    scale = float(jax.jit(logits_of)(variables, images).std())

  def function(variables: Any, images: jax.Array) -> tuple:
    logits = logits_of(variables, images) / scale
    return jax.nn.softmax(logits), logits

  outputs = tuple((n, (classes,), np.float32) for n in ('probabilities', 'logits'))
  signature = Signature(_SHAPE, tuple(map(str, range(classes))), model=name)
  inputs = (('images', _SHAPE, np.uint8),)
  return Program(function, jax.device_get(variables), inputs, outputs, signature)


class _Requests:
  """What the parent may ask for."""

  def __init__(self):
    self._files: dict[str, bytes] = {}
    self._call: Any = None
    self._images: Any = None
    self._call_seconds = 0.0

  def hello(self) -> dict[str, Any]:
    """Returns what runs here."""
    import onnxruntime

    return {'versions': {**versions(), 'onnxruntime': onnxruntime.__version__}}

  def prepare(self, model: str, classes: int, batch_size: int, type: str) -> int:
    """Makes ready a model in 'float32', in 'int8' or by 'jax'; returns its bytes."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (_CALIBRATED, *_SHAPE), np.uint8)
    program = random_program(model, classes)
    self._images = images[:batch_size]
    size = 0
    if type == 'jax':
      jitted = jax.jit(program.function)
      variables = jax.device_put(program.variables)
      self._call = lambda x: jax.block_until_ready(jitted(variables, x))
    else:
      data = OnnxFile(program).to_bytes(program.signature)
      if type == 'int8':
        data = Quantizer(data, images).quantize()
      size = len(data)
      self._call = open_bytes(data, program.signature).probabilities
    for _ in range(5):
      self._call(self._images)
    self._call_seconds = 0.0
    return size

  def run(self, seconds: float) -> float:
    """Predicts for about `seconds` and returns the images per second."""
    if not self._call_seconds:
      self._call_seconds = self._timed(3) / 3
    count = max(3, round(seconds / self._call_seconds))
    spent = self._timed(count)
    self._call_seconds = spent / count
    return count * len(self._images) / spent

  def _timed(self, count: int) -> float:
    begun = time.perf_counter()
    for _ in range(count):
      self._call(self._images)
    return time.perf_counter() - begun


def main() -> None:
  """Answers the parent's requests."""
  requests = _Requests()
  serve({name: getattr(requests, name) for name in ('hello', 'prepare', 'run')})


if __name__ == '__main__':
  main()
