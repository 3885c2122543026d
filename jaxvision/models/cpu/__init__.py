"""Convolutions for XLA:CPU: one entry for each kind, which chooses the algorithm by shape."""

from jaxvision.models.cpu.convolution import (
  conv_general_dilated,
  conv_transpose,
  is_portable,
  on_cpu,
  plain_convolutions,
  portable_operators,
)

__all__ = [
  'conv_general_dilated',
  'conv_transpose',
  'is_portable',
  'on_cpu',
  'plain_convolutions',
  'portable_operators',
]
