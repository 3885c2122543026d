"""Operators in C++ for a CPU, where the extra `onednn` and a C++ compiler are.

XLA:CPU multiplies bfloat16 as float32 where a convolution is not one matrix product, and
with few channels it is slow in float32 too; its batch norm goes over memory ten times, its
gradient of a maximum four.

  onednn.cc    convolutions with their gradients and batch norm by oneDNN, which is what
               PyTorch takes: it has kernels for each processor, with AVX512-BF16 and AMX.
  winograd.cc  3x3 convolutions of many channels in bfloat16, with 2.25 times fewer products
               than oneDNN's, where the processor has AVX512-BF16.
  gradients.cc those of the maximum of 2x2 pixels and of biases.

The environment variable JAXVISION_ONEDNN=0 switches all of them off.
"""

from jaxvision.models.cpu.native.build import (
  has_amx,
  has_bfloat16,
  is_wanted,
  library,
  must_build,
  problem,
)
from jaxvision.models.cpu.native.convolution import Geometry, convolve, suits, transpose
from jaxvision.models.cpu.native.gradients import (
  max_pool_gradient,
  suits_gradient,
  sum_rows,
)
from jaxvision.models.cpu.native.normalization import normalize, suits_norm

__all__ = [
  'Geometry',
  'convolve',
  'has_amx',
  'has_bfloat16',
  'is_wanted',
  'library',
  'max_pool_gradient',
  'must_build',
  'normalize',
  'problem',
  'suits',
  'suits_gradient',
  'suits_norm',
  'sum_rows',
  'transpose',
]
