"""`jaxvision quantize`: a run as a smaller ONNX file, and what that costs."""

import argparse
import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxvision.commands.measuring import measure
from jaxvision.commands.run_data import data_of_run, read, test_or_train
from jaxvision.commands.workdir import data_overrides, workdir_of
from jaxvision.data.dataset import Dataset
from jaxvision.deployment.onnx_file import OnnxFile
from jaxvision.deployment.program import program_of
from jaxvision.deployment.quantization import (
  METHODS,
  Quantizer,
  half_weights,
  with_signature,
)
from jaxvision.errors import UserError
from jaxvision.inference.loading import load_run
from jaxvision.inference.onnx_model import open_bytes
from jaxvision.inference.signature import Signature
from jaxvision.io import local_path, output_file, write_whole, writing

_log = logging.getLogger('jaxvision')

TYPES = ('int8', 'float16', 'bfloat16')
# Images that decide which layers stay in float32, beside those of the calibration.
_HELD_OUT = 1000
_BATCHES = (1, 8, 32)  # whose latency is measured
_CALLS = 100  # of each


@dataclasses.dataclass(frozen=True)
class Quantization:
  """How a file is made smaller.

  Attributes:
    type: 'int8', 'float16' or 'bfloat16'.
    method: of `METHODS`, by which int8 finds the ranges of activations.
    images: training images that int8 is calibrated on.
    seed: of their choice.
    max_loss: percentage points of accuracy that int8 may lose on other training images; the
      layers that cost most stay in float32 until it loses no more.
  """

  type: str = 'int8'
  method: str = 'minmax'
  images: int = 512
  seed: int = 0
  max_loss: float = 0.3

  def __post_init__(self):
    for name, value, known in (
      ('type', self.type, TYPES),
      ('method', self.method, METHODS),
    ):
      if value not in known:
        raise UserError(
          f'quantize: --{name} must be one of {", ".join(known)}: {value}'
        )
    if self.images < 1:
      raise UserError(f'quantize: --images must be at least 1, not {self.images}')
    if not 0 <= self.max_loss <= 100:
      raise UserError(
        f'quantize: --max-loss is from 0 to 100 points, not {self.max_loss}'
      )


def command(options: argparse.Namespace, config: ConfigDict | None) -> int:
  """Writes the file and prints a table of its size, accuracy and speed."""
  how = Quantization(
    options.type, options.method, options.images, options.seed, options.max_loss
  )
  path, rows = quantize(
    workdir_of(options, config),
    options.output,
    options.checkpoint,
    how=how,
    overrides=data_overrides(options),
  )
  for line in table(rows):
    print(line)
  print(f'quantized: {path}')
  return 0


def quantize(
  workdir: str | Path,
  output: str | Path | None = None,
  checkpoint: str | int = 'last',
  *,
  how: Quantization | None = None,
  overrides: Sequence[str] = (),
) -> tuple[Path, list[dict[str, Any]]]:
  """Writes a classifier as a smaller ONNX file, and measures it beside float32.

  Args:
    workdir: of a training run.
    output: file to write; None: model.TYPE.onnx in the workdir.
    checkpoint: 'last', 'best', or a step.
    how: None: int8 with its defaults.
    overrides: 'data.dir=DIR' and the like: where the data are now.

  Returns:
    The path, and for float32 and the new type {'type', 'bytes', 'accuracy' (of one class
    for each image), 'agreement' (share of the test images with the prediction of float32),
    'latency' (batch size -> milliseconds of a call, 'p50' and 'p99'), 'kept' (the layers
    in float32)}.

  Raises:
    UserError: no run, no classifier, an operator that ONNX does not have, no data, or a
      package that is not installed.
  """
  how = how or Quantization()
  workdir = local_path(workdir, 'quantize: workdir')
  if output and Path(output).suffix != '.onnx':
    raise UserError(f'quantize: --output={output} must end in .onnx')
  path = output_file(output, 'quantize: --output') if output else None
  path = path or workdir / f'model.{how.type}.onnx'
  program = program_of(load_run(workdir, checkpoint, dtype='float32'))
  signature = program.signature
  if not isinstance(signature, Signature):
    raise UserError(f'quantize: {workdir} draws images: only classifiers are quantized')
  plain = OnnxFile(program).to_bytes(signature)
  data = data_of_run(workdir, overrides)
  kept: list[str] = []
  if how.type == 'int8':
    small, kept = _int8(plain, signature, data, how)
  else:
    small = half_weights(plain, how.type)
  rows = _compared({'float32': plain, how.type: small}, signature, data)
  rows[1]['kept'] = kept
  facts = dataclasses.asdict(how) | {'kept_in_float32': kept}
  measured = {
    k: rows[1][k] for k in ('accuracy', 'agreement') if rows[1][k] is not None
  }
  signature = dataclasses.replace(
    signature, facts={**signature.facts, 'quantization': facts | measured}
  )
  with writing(path, 'quantize: --output'):
    write_whole(path, with_signature(small, signature))
  return path, rows


def _int8(
  plain: bytes, signature: Signature, data: Dataset, how: Quantization
) -> tuple[bytes, list[str]]:
  """Returns the file in int8, and the names of the layers that stay in float32."""
  train = data.splits['train']
  order = np.random.default_rng(how.seed).permutation(len(train))
  chosen, others = order[: how.images], order[how.images : how.images + _HELD_OUT]
  if not len(others):  # all are calibrated on
    others = chosen[:_HELD_OUT]
  images, _ = read(train, chosen)
  quantizer = Quantizer(plain, images, how.method)
  seen, labels = read(train, others)

  def logits(file: bytes) -> np.ndarray:
    model = open_bytes(file, signature)
    return model.apply(model.last_output, seen, 64, 'quantize')

  expected = logits(plain)

  kept: list[str] = []
  small = quantizer.quantize()
  lost = _lost(logits(small), expected, labels, signature)
  if lost <= how.max_loss:
    return small, kept
  best = lost, small, list(kept)
  ranked = quantizer.sensitivities(logits, expected)
  for layer in ranked[: len(ranked) // 2]:
    kept.append(layer.node)
    small = quantizer.quantize(kept)
    now = _lost(logits(small), expected, labels, signature)
    _log.info(
      '%s stays in float32 (error %.3f alone): %.2f points lost, %.2f before',
      *(layer.node, layer.error, now, lost),
    )
    lost = now
    if lost < best[0]:
      best = lost, small, list(kept)
    if lost <= how.max_loss:
      break
  return best[1:]  # not the last: layers that stay in float32 may help nothing


def _lost(
  found: np.ndarray, expected: np.ndarray, labels: np.ndarray, signature: Signature
) -> float:
  """Returns the accuracy that logits lose against those of float32, in points.

  Where images have no one class, it is the share of labels that change.
  """
  if signature.kind != 'class':
    return 100 * float(((found > 0) != (expected > 0)).mean())
  right, before = (logits.argmax(-1) == labels for logits in (found, expected))
  return 100 * float(before.mean() - right.mean())


def _compared(
  files: dict[str, bytes], signature: Signature, data: Dataset
) -> list[dict[str, Any]]:
  """Returns a row of measures for each file, the first being what others agree with."""
  models = {name: open_bytes(file, signature) for name, file in files.items()}
  _, source = test_or_train(data)
  measured = measure(models, source, 64)
  image, _ = read(source, np.arange(1))
  latency = _latency(
    {name: model.probabilities for name, model in models.items()}, image
  )
  return [
    {
      'type': name,
      'bytes': len(file),
      'accuracy': measured[name].accuracy,
      'agreement': 1 - measured[name].differing / len(source),
      'latency': latency[name],
      'kept': [],
    }
    for name, file in files.items()
  ]


def _latency(
  calls: dict[str, Callable[[np.ndarray], Any]], image: np.ndarray
) -> dict[str, dict[int, dict[str, float]]]:
  """Returns the milliseconds of a call by batch size, all files in turn."""
  found: dict[str, dict[int, dict[str, float]]] = {name: {} for name in calls}
  for batch in _BATCHES:
    images = np.repeat(image, batch, 0)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(_CALLS + 5):
      for name, call in calls.items():
        start = time.perf_counter()
        call(images)
        if repeat >= 5:  # the first calls find caches cold
          times[name].append(1000 * (time.perf_counter() - start))
    for name, values in times.items():
      p50, p99 = np.percentile(values, [50, 99]).tolist()
      found[name][batch] = {'p50': p50, 'p99': p99}
  return found


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
  """Returns the rows of `quantize` as lines of text."""
  latencies = [f'batch {batch}: p50, p99 ms' for batch in _BATCHES]
  lines = [['type', 'size', 'accuracy', 'agreement', *latencies]]
  for row in rows:
    accuracy = f'{row["accuracy"]:.2%}' if row['accuracy'] is not None else '-'
    size = f'{row["bytes"] / 1e6:.2f} MB'
    if row is not rows[0]:
      size += f' (1/{rows[0]["bytes"] / row["bytes"]:.2f})'
    times = [f'{t["p50"]:.2f}, {t["p99"]:.2f}' for t in row['latency'].values()]
    lines.append([row['type'], size, accuracy, f'{row["agreement"]:.2%}', *times])
  widths = [max(map(len, column)) for column in zip(*lines)]
  text = [
    '  '.join(c.ljust(w) for c, w in zip(line, widths)).rstrip() for line in lines
  ]
  kept = rows[-1]['kept']
  return [*text, f'in float32: {", ".join(kept)}'] if kept else text
