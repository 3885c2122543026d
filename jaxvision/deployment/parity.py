"""How far what an exported file computes is from what the run computes."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxvision.deployment.program import Program
from jaxvision.training import runtime

# Above this difference of a probability, or of a value relative to the largest, and above
# one grey level of an image, the file would be another network than the run.
TOLERANCE = 1e-4


def differences(
  program: Program,
  call: Callable[..., Sequence[np.ndarray]],
  inputs: Sequence[np.ndarray],
) -> dict[str, float]:
  """Compares what a file and the run compute of the same inputs.

  Args:
    program: of the run.
    call: the exported file: inputs -> outputs, in the order of the program.
    inputs: of any batch.

  Returns:
    Of each output the largest absolute difference.

  Raises:
    RuntimeError: the outputs differ by more than rounding, which is a fault of the export.
  """
  jitted = jax.jit(program.function, compiler_options=runtime.compiler_options())
  expected = [np.asarray(found) for found in jitted(program.variables, *inputs)]
  found: dict[str, float] = {}
  for (name, _, dtype), ours, theirs in zip(program.outputs, expected, call(*inputs)):
    gap = np.abs(ours.astype(np.float64) - np.asarray(theirs, np.float64))
    found[name] = float(gap.max(initial=0.0))
    scale = max(1.0, float(np.abs(ours).max(initial=0.0)))
    allowed = 1 if np.dtype(dtype) == np.uint8 else TOLERANCE * scale
    if not found[name] <= allowed or ours.shape != np.shape(theirs):
      raise RuntimeError(
        f'the exported file computes other {name} than the run: the largest difference '
        f'is {found[name]:.3g}'
      )
  return found


def random_inputs(program: Program, count: int, seed: int = 0) -> list[np.ndarray]:
  """Returns inputs drawn at random, where there are no real ones.

  Images are of uniform noise, and the noise of a generator is standard normal.
  """
  rng = np.random.default_rng(seed)
  classes = max(1, len(program.signature.class_names))

  def draw(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    if np.dtype(dtype) == np.float32:
      return rng.standard_normal((count, *shape), np.float32)
    high = 256 if np.dtype(dtype) == np.uint8 else classes
    return rng.integers(0, high, (count, *shape)).astype(dtype)

  return [draw(shape, dtype) for _, shape, dtype in program.inputs]
