"""What a device can do at most, to compare a program with: known, or measured.

The known figures are those of the makers' data sheets, dense (without sparsity), of
one device: NVIDIA's "A100 Tensor Core GPU", "H100 Tensor Core GPU", "H200 Tensor Core
GPU", "L4", "L40S" and "A10" data sheets, and the "Ada GPU Architecture" and "Ampere
GA102 GPU Architecture" white papers for the RTX cards. The float32 column is the
tensor cores' TF32, since that is how XLA multiplies float32 on these cards unless
`jax_default_matmul_precision` says otherwise.
"""

import time

import jax
import jax.numpy as jnp

_TERA = 1e12

# Part of `device_kind` -> dense FLOP/s in (bfloat16, float32 as TF32). The first that
# matches counts, so a longer name stands before a shorter one.
_KNOWN: dict[str, tuple[float, float]] = {
  'H200': (989.4, 494.7),
  'H100 PCIe': (756.5, 378.0),
  'H100 NVL': (835.5, 417.5),
  'H100': (989.4, 494.7),
  'A100': (312.0, 156.0),
  'L40S': (362.05, 183.0),
  'L4': (121.0, 60.0),
  'A10': (125.0, 62.5),
  'RTX 4090': (165.2, 82.6),
  'RTX 3090': (71.0, 35.6),
}

_MEASURED_SIZE = {'cpu': 2048, 'gpu': 8192}  # of the square matrices
_REPEATS = 5


def known_peak(device_kind: str, dtype: str) -> float | None:
  """Returns the data sheet's FLOP/s of one device, or None where it is not listed.

  >>> known_peak('NVIDIA H100 80GB HBM3', 'bfloat16') / 1e12
  989.4
  >>> known_peak('cpu', 'float32')
  """
  words = device_kind.replace('-', ' ').split()
  for name, (bfloat16, float32) in _KNOWN.items():
    wanted = name.split()
    # Whole words, so that an L4 is not found in an L40.
    if any(words[i : i + len(wanted)] == wanted for i in range(len(words))):
      return _TERA * (bfloat16 if dtype == 'bfloat16' else float32)
  return None


def measured_peak(dtype: str) -> float:
  """Returns the FLOP/s of the best of some large square matrix products in `dtype`."""
  size = _MEASURED_SIZE['cpu' if jax.default_backend() == 'cpu' else 'gpu']
  x = jnp.ones((size, size), dtype)
  product = jax.jit(jnp.matmul)
  jax.block_until_ready(product(x, x))
  best = float('inf')
  for _ in range(_REPEATS):
    begun = time.perf_counter()
    jax.block_until_ready(product(x, x))
    best = min(best, time.perf_counter() - begun)
  return 2 * size**3 / best


def peak(dtype: str, devices: int) -> tuple[float, str]:
  """Returns the FLOP/s of `devices` devices, and where the figure is from.

  On a CPU all the cores work on one product, however many devices JAX makes of them,
  and the product is of float32 matrices in any case.
  """
  if jax.default_backend() == 'cpu':
    size = _MEASURED_SIZE['cpu']
    return measured_peak('float32'), f'measured: float32 product of {size}x{size}'
  kind = jax.devices()[0].device_kind
  known = known_peak(kind, dtype)
  if known is not None:
    how = 'bfloat16' if dtype == 'bfloat16' else 'float32 as TF32'
    return known * devices, f"maker's data sheet, {how}, dense"
  size = _MEASURED_SIZE['gpu']
  return measured_peak(dtype) * devices, f'measured: {dtype} product of {size}x{size}'
