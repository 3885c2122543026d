"""The handwritten digits that come with scikit-learn: real, and never downloaded.

1,797 images of 8x8 pixels by 43 people: the test part of "Optical Recognition of
Handwritten Digits", E. Alpaydin and C. Kaynak, UCI, 1998.
"""

import gzip
import importlib.util
from pathlib import Path

import numpy as np

from jaxvision.data.dataset import ArraySource
from jaxvision.data.decode import fit_image
from jaxvision.data.sources.source import Decoding, OpenedDataset


def open_digits(decoding: Decoding) -> OpenedDataset:
  """Returns all 1,797 digits in one pool, from which a test split is carved later.

  The stored levels 0 to 16 are scaled to [0, 255].

  Args:
    decoding: how images are resized; as stored, they are 8x8 pixels and grey.
  """
  levels, labels = _levels_and_labels()
  images = np.round(levels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
  size = decoding.image_size or 8
  shape = (size, size, decoding.channels or 1)
  images = np.stack([fit_image(image, shape, *decoding.resizing) for image in images])
  return OpenedDataset(
    name='digits',
    class_names=tuple('0123456789'),
    image_shape=shape,
    pools={'train': ArraySource(images, labels.astype(np.int32))},
    origin='scikit-learn load_digits',
  )


def _levels_and_labels() -> tuple[np.ndarray, np.ndarray]:
  """Returns levels, float64 [n, 64], and labels, int64 [n].

  The file is read as scikit-learn reads it, without importing scikit-learn, which takes
  most of a second.
  """
  package = importlib.util.find_spec('sklearn')
  if package and package.origin:
    file = Path(package.origin).parent / 'datasets' / 'data' / 'digits.csv.gz'
    if file.exists():
      with gzip.open(file, 'rt', encoding='utf-8') as opened:
        table = np.loadtxt(opened, delimiter=',')
      return table[:, :-1], table[:, -1].astype(np.int64)
  from sklearn.datasets import load_digits  # where a version keeps them elsewhere

  return load_digits(return_X_y=True)
