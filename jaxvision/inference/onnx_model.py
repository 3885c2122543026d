"""Exported ONNX files as functions from images to classes, by onnxruntime."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from jaxvision.errors import UserError
from jaxvision.extras import require
from jaxvision.inference.classifier import Classifier
from jaxvision.inference.signature import (
  METADATA_KEY,
  GeneratorSignature,
  Signature,
  from_json,
)


class OnnxClassifier(Classifier):
  """A classifier in a file that `jaxvision export --format=onnx` wrote.

  Args:
    path: the file.
    session: of onnxruntime, with the file.
    signature: of the file.
  """

  def __init__(self, path: Path, session: Any, signature: Signature):
    self.path, self.session, self._signature = path, session, signature

  @property
  def signature(self) -> Signature:
    """The images that it takes and the names of its outputs."""
    return self._signature

  def probabilities(self, images: np.ndarray) -> np.ndarray:
    """Returns the outputs for one batch, see `Classifier.probabilities`."""
    return self.session.run([self._signature.output], {'images': images})[0]

  def last_output(self, images: np.ndarray) -> np.ndarray:
    """Returns the logits of one batch, float32 [n, K]; of a regression its values."""
    name = self.session.get_outputs()[-1].name
    return self.session.run([name], {'images': images})[0]


def load_onnx(path: str | Path, threads: int = 0) -> OnnxClassifier:
  """Returns the classifier in an ONNX file.

  Args:
    path: that `jaxvision export` or `jaxvision quantize` wrote.
    threads: of one call; 0: one for each core that the process may use.

  Raises:
    UserError: onnxruntime is not installed; no such file, a damaged one, one of another
      origin, or a generator.
  """
  signature, session = open_session(path, threads)
  if isinstance(signature, GeneratorSignature):
    raise UserError(
      f'{path} draws images and classifies none: `jaxvision sample` and `jaxvision '
      'serve` take it'
    )
  return OnnxClassifier(Path(path), session, signature)


def open_bytes(data: bytes, signature: Signature, threads: int = 0) -> OnnxClassifier:
  """Returns the classifier in a file that is not written yet."""
  return OnnxClassifier(Path(), _session(data, threads, 'the file'), signature)


def open_session(
  path: str | Path, threads: int = 0
) -> tuple[Signature | GeneratorSignature, Any]:
  """Returns the signature of an exported ONNX file and its session of onnxruntime.

  Args:
    path, threads: see `load_onnx`.

  Raises:
    UserError: see `load_onnx`.
  """
  try:
    data = Path(path).read_bytes()
  except OSError as error:
    raise UserError(f'{path} cannot be read: {error.strerror}') from error
  session = _session(data, threads, str(path))
  metadata = session.get_modelmeta().custom_metadata_map
  if METADATA_KEY not in metadata:
    raise UserError(
      f'{path} has no metadata of ours: export the run with '
      '`jaxvision export --workdir=RUN --output=FILE.onnx`'
    )
  return from_json(metadata[METADATA_KEY], str(path)), session


def _session(data: bytes, threads: int, origin: str) -> Any:
  onnxruntime = require('onnxruntime', 'onnx', 'an ONNX file')
  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
  options.inter_op_num_threads = 1
  options.log_severity_level = 3  # its warnings are of no use to who has only the file
  try:
    return onnxruntime.InferenceSession(
      data, options, providers=['CPUExecutionProvider']
    )
  except Exception as error:  # of its own kinds, which have no common base
    raise UserError(
      f'{origin} is no ONNX model that onnxruntime {onnxruntime.__version__} runs: '
      f'{str(error).splitlines()[0]}'
    ) from error
