"""How operators are put to XLA, by backend and shape; the numbers are the same."""

from jaxvision.models.cpu.convolution import conv_general_dilated, plain_convolutions

__all__ = ['conv_general_dilated', 'plain_convolutions']
