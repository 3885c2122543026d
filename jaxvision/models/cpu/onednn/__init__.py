"""Operators of oneDNN on a CPU, where the extra `onednn` is installed.

XLA:CPU multiplies bfloat16 as float32 where a convolution is not one matrix product, and
with few channels it is slow in float32 too; its batch norm goes over memory ten times.
oneDNN is what PyTorch takes: it has kernels for each processor, with AVX512-BF16 and AMX.
Where it multiplies bfloat16 by AVX512-BF16, 3x3 convolutions of many channels are done with
2.25 times fewer products instead, by Winograd's algorithm in `winograd.cc`.

The environment variable JAXVISION_ONEDNN=0 switches it off.
"""

from jaxvision.models.cpu.onednn.build import (
  has_amx,
  has_bfloat16,
  is_wanted,
  library,
  must_build,
  problem,
)
from jaxvision.models.cpu.onednn.convolution import Geometry, convolve, suits, transpose
from jaxvision.models.cpu.onednn.normalization import normalize, suits_norm

__all__ = [
  'Geometry',
  'convolve',
  'has_amx',
  'has_bfloat16',
  'is_wanted',
  'library',
  'must_build',
  'normalize',
  'problem',
  'suits',
  'suits_norm',
  'transpose',
]
