"""Exported ONNX files that draw images, by onnxruntime."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxvision.errors import UserError
from jaxvision.inference.generator import class_numbers
from jaxvision.inference.onnx_model import open_session
from jaxvision.inference.signature import GeneratorSignature
from jaxvision.training.sampler import noise_of, slerp


class OnnxGenerator:
  """A generator in a file that `jaxvision export --format=onnx` wrote.

  It draws what the run draws of the same seed, but for rounding.

  Args:
    path: the file.
    session: of onnxruntime, with the file.
    signature: of the file.

  Attributes:
    signature: see above.
    class_names: of the classes to choose from; empty: it draws without.
    origin: the file, for messages.
  """

  def __init__(self, path: Path, session: Any, signature: GeneratorSignature):
    self._session, self.signature = session, signature
    self.class_names, self.origin = signature.class_names, str(path)

  def sample(
    self,
    count: int,
    seed: int = 0,
    label: str | int | None = None,
    batch_size: int = 256,
  ) -> np.ndarray:
    """Draws images, see `GeneratorRun.sample`: uint8 [count, H, W, C]."""
    labels = class_numbers(count, label, self.class_names, self.origin)
    noise = self._noise(count, seed)
    parts = [
      self._draw(noise[first : first + batch_size], labels[first : first + batch_size])
      for first in range(0, count, batch_size)
    ]
    return np.concatenate(parts)

  def interpolate(self, rows: int, columns: int = 10, seed: int = 0) -> np.ndarray:
    """Draws rows from one sample to another, see `GeneratorRun.interpolate`."""
    if rows < 1 or columns < 2:
      raise UserError('sample: an interpolation has at least 1 row and 2 columns')
    ends = self._noise(2 * rows, seed)
    classes = np.arange(0, 2 * rows, 2, dtype=np.int32) % max(1, len(self.class_names))
    pairs = zip(ends[::2], ends[1::2], classes)
    return np.stack(
      [self._draw(slerp(a, b, columns), np.repeat(c, columns)) for a, b, c in pairs]
    )

  def _noise(self, count: int, seed: int) -> np.ndarray:
    noise = noise_of(jax.random.key(seed), 0, count, self.signature.latent)
    return np.asarray(noise)

  def _draw(self, noise: np.ndarray, labels: np.ndarray) -> np.ndarray:
    given = {'noise': noise}
    if self.class_names:
      given['labels'] = labels
    return self._session.run(['images'], given)[0]


def load_onnx_generator(path: str | Path) -> OnnxGenerator:
  """Returns the generator in an ONNX file.

  Raises:
    UserError: see `load_onnx`; or it is a classifier.
  """
  signature, session = open_session(path)
  if not isinstance(signature, GeneratorSignature):
    raise UserError(
      f'{path} classifies images and draws none: `jaxvision predict` takes it'
    )
  return OnnxGenerator(Path(path), session, signature)
