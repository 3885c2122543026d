"""How far exported networks are from the networks, on real images in batches of any size.

    python benchmarks/export_parity.py
    python benchmarks/export_parity.py --models=resnet18,vit_tiny

Networks of the table with random weights predict the first images of the test split of
CIFAR-10: in JAX in one batch size, and as ONNX (onnxruntime) and StableHLO (`jax.export`, in
another process that imports neither jaxvision nor flax) in batches of 1, 33, 17, 2 and 8.
The columns are the largest differences of a probability and, relative to the largest logit,
of a logit. A mean largest probability near 1 would say that the probabilities are saturated
and compare nothing.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from exported import random_program
from table import Result, parser, table

import jaxvision
from jaxvision import models
from jaxvision.config import base_config
from jaxvision.deployment import stablehlo
from jaxvision.deployment.onnx_file import OnnxFile
from jaxvision.models.cpu import portable_operators

# One of each family, and what differs from it in more than depth and width.
_FAMILIES = (
  'small_filters_cnn', 'sim_cnn', 'basic_cnn', 'original_cnn', 'custom_cnn', 'resnet18',
  'resnet50', 'resnet20', 'preact_resnet18', 'preact_resnet50', 'wide_resnet16_8',
  'mobilenet_v2', 'conv_mixer_256_8', 'convnext_atto', 'vit_tiny', 'cct_2_3x2',
  'cct_7_3x1', 'efficientnet_b0', 'efficientnet_lite0', 'airbench94', 'airbench96',
)  # fmt: skip
_BATCHES = (1, 33, 17, 2, 8)

# Run by a process of its own: FOLDER, images.npy, outputs.npz, batch sizes.
_FRESH = """
import json, sys
from pathlib import Path
import jax, numpy as np, safetensors.numpy
folder, images, outputs, sizes = Path(sys.argv[1]), np.load(sys.argv[2]), *sys.argv[3:]
program = jax.export.deserialize(bytearray((folder / 'program.jax_export').read_bytes()))
weights = safetensors.numpy.load((folder / 'weights.safetensors').read_bytes())
call, parts, first = jax.jit(program.call), [], 0
for size in json.loads(sizes):
  parts.append([np.asarray(a) for a in call(weights, images[first : first + size])])
  first += size
assert not {'jaxvision', 'flax'} & set(sys.modules)
np.savez(outputs, *(np.concatenate(p) for p in zip(*parts)))
"""


def sizes_of(count: int) -> Iterator[int]:
  """Yields sizes of batches, one after the other, that make up `count`."""
  left, number = count, 0
  while left:
    size = min(left, _BATCHES[number % len(_BATCHES)])
    yield size
    left, number = left - size, number + 1


def in_fresh_process(made: Any, program: Any, images: np.ndarray) -> list[np.ndarray]:
  """Returns what a program of jax.export computes without the code of its network."""
  with tempfile.TemporaryDirectory() as name:
    folder, inputs, outputs = (Path(name) / n for n in ('m', 'i.npy', 'o.npz'))
    folder.mkdir()
    stablehlo.save(made, program, folder)
    np.save(inputs, images)
    sizes = json.dumps(list(sizes_of(len(images))))
    subprocess.run(
      [sys.executable, '-c', _FRESH, folder, inputs, outputs, sizes],
      check=True,
      cwd=name,
    )
    return list(np.load(outputs).values())


def gaps(found: list[np.ndarray], expected: list[np.ndarray]) -> tuple[float, float]:
  """Returns the largest differences: of a probability, and of a logit, relative."""
  of_probabilities, of_logits = (
    float(np.abs(a - b).max()) for a, b in zip(found, expected)
  )
  return of_probabilities, of_logits / float(np.abs(expected[1]).max())


def main() -> int:
  """Compares; 1 where a probability differs by more than 1e-4."""
  arguments = parser(__doc__)
  arguments.add_argument('--models', default=','.join(_FAMILIES))
  arguments.add_argument('--images', type=int, default=1000)
  options = arguments.parse_args()
  result = Result('export_parity', options.json, images=options.images)
  config = base_config()
  config.data.name = 'cifar10'
  data = jaxvision.data.load(config.data)
  images = np.asarray(data.splits['test'].images[: options.images])
  cells, worst = [], 0.0
  for name in options.models.split(','):
    assert name in models.MODELS, name
    program = random_program(name, 10, scaled=True)
    reference = jax.jit(program.function)
    with portable_operators():
      parts = [
        [np.asarray(a) for a in reference(program.variables, part)]
        for part in np.array_split(images, max(1, len(images) // 100))
      ]
    expected = [np.concatenate(p) for p in zip(*parts)]
    file, first, parts = OnnxFile(program), 0, []
    for size in sizes_of(len(images)):
      parts.append(file.call(images[first : first + size]))
      first += size
    onnx = gaps([np.concatenate(p) for p in zip(*parts)], expected)
    made = stablehlo.to_stablehlo(program)
    hlo = gaps(in_fresh_process(made, program, images), expected)
    worst = max(worst, onnx[0], hlo[0])
    row = {
      'model': name,
      'ONNX, probability': onnx[0],
      'logit': onnx[1],
      'StableHLO, probability': hlo[0],
      'logit ': hlo[1],
      'mean largest probability': float(expected[0].max(-1).mean()),
    }
    result.add(row)
    cells.append(tuple(row.values()))
    print(*cells[-1], flush=True)
  print(table(tuple(row), cells))
  return 1 if worst > 1e-4 else 0


if __name__ == '__main__':
  sys.exit(main())
