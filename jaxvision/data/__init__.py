"""Data sets: `load` one by name, or make one with `from_arrays`.

`decode_image` and `fit_image` bring single pictures to the shape that a model takes.
"""

from jaxvision.data.dataset import ArraySource, Dataset, Source, SubsetSource
from jaxvision.data.decode import UnreadableImage, decode_image, fit_image
from jaxvision.data.loading import load
from jaxvision.data.sources.arrays import from_arrays
from jaxvision.data.sources.tfds import prepare
from jaxvision.data.splitting import stratified_split

__all__ = [
  'ArraySource',
  'Dataset',
  'Source',
  'SubsetSource',
  'UnreadableImage',
  'decode_image',
  'fit_image',
  'from_arrays',
  'load',
  'prepare',
  'stratified_split',
]
