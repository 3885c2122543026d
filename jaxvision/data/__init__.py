"""Data sets: `load` one by name; `decode_image` and `fit_image` for pictures at hand."""

from jaxvision.data.dataset import (
  ArraySource,
  Dataset,
  Source,
  SubsetSource,
  stratified_split,
)
from jaxvision.data.decode import UnreadableImage, decode_image, fit_image
from jaxvision.data.loading import load
from jaxvision.data.sources.tfds import prepare

__all__ = [
  'ArraySource',
  'Dataset',
  'Source',
  'SubsetSource',
  'UnreadableImage',
  'decode_image',
  'fit_image',
  'load',
  'prepare',
  'stratified_split',
]
