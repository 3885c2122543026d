"""Whether XLA:CPU computes right numbers, checked before anything is trained with them.

XLA:CPU hands sums to YNNPACK, fused with the operations that their terms come from. From
jaxlib 0.10.2 to 0.12.0.1, the newest when this was written, some of these fused sums are
wrong, without any error:

                                          0.10.1  0.10.2  0.11.0 to 0.12.0.1
    sum of squares of a vmapped product   right   wrong   right               jax#39103
    sum over a product with a constant    right   wrong   wrong
    mean or maximum of NaN                NaN     0       0

The second reads memory that nothing has written. The third is as bad for training: a
network that has diverged looks as if it had not, because its loss stays finite.
"""

import jax
import jax.numpy as jnp
import numpy as np

# Wrong for every number of rows tried between 32,768 and 43,691, and for no other.
_ROWS = 36_000
_TOLERANCE = 1e-4  # of the largest value; right results differ by about 1e-7


def check_cpu_reductions(compiler_options: dict[str, str] | None) -> tuple[str, ...]:
  """Compiles and runs the sums that some versions of XLA:CPU compute wrongly.

  Takes about a tenth of a second.

  Args:
    compiler_options: XLA's, as `jax.stages.Lowered.compile` takes them.

  Returns:
    Names of what was computed wrongly; empty if everything was right.

  Raises:
    jax.errors.JaxRuntimeError: XLA does not know one of the options.
  """
  random = np.random.default_rng(0)
  rows, matrix, features = (
    random.standard_normal(shape).astype(np.float32)
    for shape in [(_ROWS, 3), (3, 3), (512, 64)]
  )
  scale = np.float32(1.7)
  nans = np.full([4, 8, 8, 16], np.nan, np.float32)
  inputs = rows, matrix, features, scale, nans
  results = _run(_sums, inputs, compiler_options)

  rows, matrix, features = (x.astype(np.float64) for x in (rows, matrix, features))
  expected = {
    'sum of squares of a product': np.sum((rows @ matrix.T) ** 2, axis=1),
    'sum over a product with a constant': np.sum(
      features * features.sum(axis=1, keepdims=True) * float(scale), axis=1
    ),
    'mean of NaN': np.full([4, 16], np.nan),
  }
  return tuple(
    name
    for result, (name, value) in zip(results, expected.items())
    if not _equal(result, value)
  )


def _equal(result: np.ndarray, expected: np.ndarray) -> bool:
  if np.isnan(expected).all():
    return bool(np.isnan(result).all())
  return bool(np.abs(result - expected).max() < _TOLERANCE * np.abs(expected).max())


def _sums(rows, matrix, features, scale, nans):
  size = features.shape[1]
  constant = jnp.broadcast_to(scale, (size, size))
  return (
    jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2))(rows),
    jnp.sum((features @ constant) * features, axis=1),
    jnp.mean(jax.nn.relu(nans), axis=(1, 2)),
  )


def _run(function, inputs, compiler_options) -> list[np.ndarray]:
  with jax.debug_nans(False):  # one of the results is NaN on purpose
    compiled = jax.jit(function).lower(*inputs).compile(compiler_options)
    return [np.asarray(result) for result in compiled(*inputs)]
